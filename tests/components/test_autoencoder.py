"""autoencoder: images in, how far from normal out."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.decomposition import PCA

from components.contract import Data
from components.errors import BadInput, DataError, ParamsError
from components.families.autoencoder import Autoencoder

from .cases import Case, evaluate, images, one_thread, waves  # noqa: F401

BARS = images("anomaly")
SMALL = {"normal": "flat", "width": 4, "code": 8, "noise": 0.1, "batch_rows": 16}
HEART = {**SMALL, "noise": 0.0, "augment": 0.0, "weight_decay": 0.0, "width": 8}
WAVES = {**SMALL, "normal": "slow"}
CODES = {
    "code": 4,
    "noise": 0.1,
    "augment": 0.2,
    "straighten": True,
    "lr": 5e-3,
    "batch_rows": 16,
    "passes": 4,
    "width": 8,
}
HEART_CODES = {"width": 16, "code": 16, "augment": 0.0, "weight_decay": 0.0, "batch_rows": 16, "lr": 0.01, "horizon": 0}
CASES = [
    Case("images", BARS, SMALL, HEART, reached=0.95, epochs=20),
    Case("series", waves("anomaly"), WAVES, {**HEART, "normal": "slow"}, reached=0.95, epochs=20),
    Case("codes", images("representation"), CODES, HEART_CODES, reached=0.01, epochs=5),
    Case(
        "dense",
        waves("representation"),
        {**CODES, "net": "dense", "augment": 0.5},
        {**HEART_CODES, "net": "dense"},
        reached=0.05,
        epochs=10,
    ),
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


def test_splits_must_hold_what_they_are_needed_for(net: Any) -> None:
    def only(split: str, *classes: str) -> Data:
        rows = BARS.splits[split]
        return Data(BARS.spec, {**BARS.splits, split: rows.filter(pc.is_in(rows["target"], pa.array(classes)))})

    with pytest.raises(DataError, match="0 training rows of class 'flat'"):
        next(Autoencoder().fit(only("train", "steep"), SMALL, 0))
    assert next(Autoencoder().fit(only("val", "flat"), SMALL, 0)).metrics["val/auroc"] > 0.4, (
        "by anomalies made of them"
    )
    with pytest.raises(DataError, match=r"split 'test' holds \d+ normal rows and 0 anomalies"):
        evaluate(Autoencoder(), net, only("test", "flat"), "test")
    with pytest.raises(DataError, match="split 'val' holds 0 normal rows"):
        next(Autoencoder().fit(only("val", "steep", "upright"), SMALL, 0))


def test_the_threshold_lets_the_share_of_normal_val_rows_through_that_was_asked() -> None:
    hyper = {**SMALL, "false_alarms": 0.25}
    *_, epoch = itertools.islice(Autoencoder().fit(BARS, hyper, 0), 2)
    learnt = Autoencoder().load(BARS.spec, hyper, epoch.state().served())
    val = BARS.splits["val"]
    flagged = (
        Autoencoder().score(learnt, val.combine_chunks().to_batches()[0])["anomaly"].to_numpy(zero_copy_only=False)
    )
    normal = np.array(val["target"].to_pylist()) == "flat"
    assert flagged[normal].mean() == pytest.approx(0.25, abs=1 / normal.sum())


def test_the_rate_of_false_alarms_is_measured_on_the_rows_that_are_judged(net: Any) -> None:
    test, found = BARS.splits["test"], evaluate(Autoencoder(), net, BARS, "test")
    flagged = Autoencoder().score(net, test.to_batches()[0])["anomaly"].to_numpy(zero_copy_only=False)
    normal = np.array(test["target"].to_pylist()) == "flat"
    assert found["test/false_alarm_rate"] == pytest.approx(flagged[normal].mean())
    assert found["test/detection_rate"] == pytest.approx(flagged[~normal].mean())


# ── codes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_targets_never_enter_codes() -> None:
    """Without a target, with another one: the same epochs and figures."""
    bars, hyper = images("representation"), CODES
    spec = dataclasses.replace(bars.spec, target=None, classes=())
    bare = Data(spec, {split: rows.drop(["target"]) for split, rows in bars.splits.items()})

    def taught(data: Data) -> Any:
        (epoch,) = itertools.islice(Autoencoder().fit(data, hyper, 3), 1)
        return epoch.metrics, {name: tensor.numpy().tobytes() for name, tensor in epoch.state().tensors.items()}

    assert taught(bare) == taught(bars)
    assert Autoencoder().baseline(bare, "test", hyper) == Autoencoder().baseline(bars, "test", hyper)


def test_the_baseline_is_as_many_principal_components_as_a_code_has_elements() -> None:
    bars = images("representation")
    x_NE = [
        bars.splits[s]["image"].combine_chunks().to_numpy_ndarray().reshape(-1, 144) / 255.0 for s in ("train", "test")
    ]
    rival = PCA(4).fit(x_NE[0])
    wanted = ((rival.inverse_transform(rival.transform(x_NE[1])) - x_NE[1]) ** 2).mean()
    found = Autoencoder().baseline(bars, "test", CODES)
    assert found["test/reconstruction_error"] == pytest.approx(wanted, rel=1e-3)


def test_each_row_is_told_how_much_of_it_the_code_keeps() -> None:
    bars = images("representation")
    *_, epoch = itertools.islice(Autoencoder().fit(bars, CODES, 0), 3)
    learnt = Autoencoder().load(bars.spec, CODES, epoch.state().served())
    test = bars.splits["test"]
    error_N = Autoencoder().score(learnt, test.to_batches()[0])["reconstruction_error"].to_numpy()
    assert error_N.mean() == pytest.approx(evaluate(Autoencoder(), learnt, bars, "test")["test/reconstruction_error"])
    noise = np.random.default_rng(0).integers(0, 255, (50, 1, 12, 12)).astype(np.uint8)
    strange = pa.record_batch({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(noise)})
    assert Autoencoder().score(learnt, strange)["reconstruction_error"].to_numpy().min() > np.median(error_N)


def test_the_net_must_be_one_of_those_there_are() -> None:
    with pytest.raises(ParamsError, match="one of convolutional, dense"):
        next(Autoencoder().fit(BARS, {**SMALL, "net": "recurrent"}, 0))
