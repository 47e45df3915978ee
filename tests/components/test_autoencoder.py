"""autoencoder: images in, how far from normal out."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.contract import Data
from components.errors import BadInput, DataError, ParamsError
from components.families.autoencoder import Autoencoder

from .cases import Case, images, one_thread, waves  # noqa: F401

BARS = images("anomaly")
SMALL = {"normal": "flat", "width": 4, "code": 8, "noise": 0.1, "batch_rows": 16}
HEART = {**SMALL, "noise": 0.0, "augment": 0.0, "weight_decay": 0.0, "width": 8}
WAVES = {**SMALL, "normal": "slow"}
CASES = [
    Case("images", BARS, SMALL, HEART, reached=0.95, epochs=20),
    Case("series", waves("anomaly"), WAVES, {**HEART, "normal": "slow"}, reached=0.95, epochs=20),
    Case("dense", waves("anomaly"), {**WAVES, "net": "dense"}, {**HEART, **WAVES, "net": "dense"}, 0.95, epochs=20),
]


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Autoencoder().fit(BARS, SMALL, 0), 20)
    return Autoencoder().load(BARS.spec, SMALL, epoch.state().served())


def test_what_it_never_saw_scores_above_what_is_normal(net: Any) -> None:
    test = BARS.splits["test"]
    out = Autoencoder().score(net, test.to_batches()[0])
    normal = np.array(test["target"].to_pylist()) == "flat"
    score = out["anomaly_score"].to_numpy()
    assert np.median(score[~normal]) > np.quantile(score[normal], 0.9)
    flagged = out["anomaly"].to_numpy(zero_copy_only=False)
    assert flagged[normal].mean() < 0.4 < flagged[~normal].mean()


def test_labels_other_than_normal_never_enter_the_weights() -> None:
    """Training rows of other classes may be anything, or absent: the epochs are the same."""

    def taught(data: Data) -> Any:
        *_, epoch = itertools.islice(Autoencoder().fit(data, SMALL, 3), 2)
        return {name: tensor.numpy().tobytes() for name, tensor in epoch.state().tensors.items()}

    train = BARS.splits["train"]
    only = train.filter(pc.equal(train["target"], "flat"))
    assert taught(Data(BARS.spec, {**BARS.splits, "train": only})) == taught(BARS)


@pytest.mark.parametrize("normal", ["", "round"])
def test_a_normal_class_must_be_named(normal: str) -> None:
    with pytest.raises(ParamsError, match="one of flat, steep, upright"):
        next(Autoencoder().fit(BARS, {"normal": normal}, 0))


def test_the_baseline_is_the_distance_from_the_mean_normal_image() -> None:
    value = Autoencoder().baseline(BARS, "test", {"normal": "steep"})["test/auroc"]
    assert value > 0.99, "slanting bars are all alike, so the mean image is enough for them"


def recast(dtype: str, change: Any) -> Data:
    """The bars with other pixels: `change` of them, in `dtype`."""
    splits = {}
    for split, rows in BARS.splits.items():
        pixels = change(rows["image"].combine_chunks().to_numpy_ndarray().astype(np.float64)).astype(dtype)
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
        splits[split] = rows.set_column(rows.schema.get_field_index("image"), "image", column)
    (column_spec,) = BARS.spec.columns
    return Data(dataclasses.replace(BARS.spec, columns=(dataclasses.replace(column_spec, dtype=dtype),)), splits)


def test_pixels_of_any_range_are_learnt_alike() -> None:
    """Between -40 and 85 in steps of a half, instead of 0 to 250."""
    *_, epoch = itertools.islice(Autoencoder().fit(recast("float32", lambda x: x / 2 - 40), SMALL, 0), 20)
    assert epoch.metrics["train/loss"] < 0.05
    assert epoch.metrics["val/auroc"] > 0.9


def test_pixels_that_are_not_finite_are_refused_and_not_taken_for_normal() -> None:
    data = recast("float32", lambda x: x)
    *_, epoch = itertools.islice(Autoencoder().fit(data, SMALL, 0), 1)
    learnt = Autoencoder().load(data.spec, SMALL, epoch.state().served())
    for value in (np.nan, np.inf):
        broken = pa.FixedShapeTensorArray.from_numpy_ndarray(np.full((1, 1, 12, 12), value, np.float32))
        with pytest.raises(BadInput, match="not finite"):
            Autoencoder().score(learnt, pa.record_batch({"image": broken}))
    huge = pa.FixedShapeTensorArray.from_numpy_ndarray(np.full((1, 1, 12, 12), 1e38, np.float32))
    out = Autoencoder().score(learnt, pa.record_batch({"image": huge}))
    assert out["anomaly"].to_pylist() == [True] and np.isfinite(out["anomaly_score"].to_numpy()).all()


def test_splits_must_hold_what_they_are_needed_for() -> None:
    def only(split: str, *classes: str) -> Data:
        rows = BARS.splits[split]
        return Data(BARS.spec, {**BARS.splits, split: rows.filter(pc.is_in(rows["target"], pa.array(classes)))})

    with pytest.raises(DataError, match="0 training rows of class 'flat'"):
        next(Autoencoder().fit(only("train", "steep"), SMALL, 0))
    with pytest.raises(DataError, match=r"split 'val' holds \d+ normal rows and 0 anomalies"):
        next(Autoencoder().fit(only("val", "flat"), SMALL, 0))
    with pytest.raises(DataError, match="split 'val' holds 0 normal rows"):
        next(Autoencoder().fit(only("val", "steep", "upright"), SMALL, 0))


def test_the_threshold_lets_the_share_of_normal_val_rows_through_that_was_asked() -> None:
    hyper = {**SMALL, "flagged": 0.25}
    *_, epoch = itertools.islice(Autoencoder().fit(BARS, hyper, 0), 2)
    learnt = Autoencoder().load(BARS.spec, hyper, epoch.state().served())
    val = BARS.splits["val"]
    flagged = (
        Autoencoder().score(learnt, val.combine_chunks().to_batches()[0])["anomaly"].to_numpy(zero_copy_only=False)
    )
    normal = np.array(val["target"].to_pylist()) == "flat"
    assert flagged[normal].mean() == pytest.approx(0.25, abs=1 / normal.sum())
