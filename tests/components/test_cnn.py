"""cnn: images of any size in, classes out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.contract import Column, Spec
from components.errors import BadInput, DataError
from components.families.cnn import Cnn
from components.images import augmented

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


# ── augmentation ────────────────────────────────────────────────────────────────────────────────────────

X_BCHW = torch.rand(6, 2, 10, 14, generator=torch.Generator().manual_seed(0))


def test_no_augmentation_leaves_images_as_they_are() -> None:
    assert augmented(X_BCHW, 0.0, flip=False) is X_BCHW
    assert torch.allclose(augmented(X_BCHW, 1e-7, flip=False), X_BCHW, atol=1e-4)


def test_flips_mirror_some_images_and_leave_the_others() -> None:
    torch.manual_seed(0)
    seen = augmented(X_BCHW, 0.0, flip=True)
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(seen, X_BCHW, strict=True)]
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, X_BCHW, strict=True)]
    assert any(mirrored) and any(kept) and all(m or k for m, k in zip(mirrored, kept, strict=True))


def test_each_image_is_augmented_in_its_own_way_and_the_seed_says_which() -> None:
    same = X_BCHW[:1].expand(5, -1, -1, -1)
    torch.manual_seed(1)
    first = augmented(same, 1.0, flip=False)
    torch.manual_seed(1)
    assert torch.equal(augmented(same, 1.0, flip=False), first)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 5


def test_a_turn_does_not_stretch_an_image_that_is_not_square() -> None:
    """A bar that lies and one that stands keep their lengths to within what growing and shearing allow."""
    lying, standing = torch.zeros(300, 1, 40, 80), torch.zeros(300, 1, 40, 80)
    lying[:, :, 19:21, 30:50], standing[:, :, 10:30, 39:41] = 1.0, 1.0
    for image in (lying, standing):
        torch.manual_seed(0)
        seen = augmented(image, 1.0, flip=False)[:, 0]
        assert abs(seen.sum((1, 2)).mean() / 40 - 1) < 0.1
        y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
        mass = seen.sum((1, 2))
        middle = [(seen * axis).sum((1, 2)) / mass for axis in (y, x)]
        spread = sum(
            (seen * (axis - m[:, None, None]) ** 2).sum((1, 2)) / mass for axis, m in zip((y, x), middle, strict=True)
        )
        length = (12 * spread).sqrt()  # of a thin bar with this spread
        assert length.min() > 20 / 1.35 and length.max() < 20 * 1.35
