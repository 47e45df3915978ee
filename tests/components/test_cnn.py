"""cnn: images of any size in, classes out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.contract import Column, Spec
from components.errors import BadInput, DataError
from components.families.cnn import Cnn

from .cases import Case, images, one_thread, parted, table  # noqa: F401

HEART = {"dropout": 0.0, "weight_decay": 0.0, "average": 0.0, "augment": 0.0, "width": 8, "lr": 5e-3}
SMALL = {"width": 8, "average": 0.9, "lr": 5e-3}
CASES = [Case("images", images("classification"), SMALL, HEART, reached=0.05)]
BARS = CASES[0].data


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Cnn().fit(BARS, SMALL, 0), 6)
    return Cnn().load(BARS.spec, SMALL, epoch.state().served())


def bar(row: int) -> pa.RecordBatch:
    pixels = np.full((1, 1, 12, 12), 30, np.uint8)
    pixels[0, 0, row, 1:11] = 250
    return pa.record_batch({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)})


def test_what_is_seen_does_not_depend_on_where_it_is(net: Any) -> None:
    assert [Cnn().score(net, bar(row))["class"][0].as_py() for row in range(2, 10)] == ["flat"] * 8


@pytest.mark.parametrize(
    ("shape", "dtype"), [((9, 9), "uint8"), ((3, 16, 20), "uint8"), ((1, 1, 3), "float32"), ((2, 40, 8), "float64")]
)
def test_images_of_any_size_and_type_are_learnt(shape: tuple[int, ...], dtype: str) -> None:
    draw = np.random.default_rng(0)
    dark_N = draw.random(60) < 0.5
    pixels = (draw.random((60, *shape)) * 100 + 100 * dark_N.reshape(-1, *[1] * len(shape))).astype(dtype)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    spec = Spec("shades", "classification", (Column("image", "tensor", dtype, shape),), "dark", ("false", "true"))
    data = parted(spec, pa.table({"image": column, "dark": pa.array(dark_N)}))
    # One epoch is enough to see that shapes fit; a shade is learnt in a few.
    *_, epoch = itertools.islice(Cnn().fit(data, {"width": 4, "average": 0.0, "batch_rows": 8}, 0), 8)
    assert epoch.metrics["val/accuracy"] >= 0.9


def test_tables_are_for_another_family() -> None:
    with pytest.raises(DataError, match="takes one column of images"):
        next(Cnn().fit(table("classification"), {}, 0))


def test_images_of_another_shape_are_named(net: Any) -> None:
    other = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 1, 10, 10), np.uint8))
    with pytest.raises(BadInput, match="expected tensors of shape 1×12×12"):
        Cnn().score(net, pa.record_batch({"image": other}))


def test_a_row_without_an_image_is_named(net: Any) -> None:
    with pytest.raises(BadInput, match="1 rows without a tensor"):
        Cnn().score(net, pa.record_batch({"image": pa.array([[0] * 144, None], pa.list_(pa.uint8(), 144))}))
