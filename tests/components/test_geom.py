"""geom: images in, how far the features of each of their views are from normal ones out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from components.contract import Data
from components.errors import DataError, ParamsError
from components.families.geom import Geom, Net, Settings

from .cases import Case, images, one_thread  # noqa: F401

BARS = images("anomaly")
SMALL = {"normal": "flat", "width": 4, "features": 8, "batch_rows": 16, "passes": 2, "copies": 2}
HEART = {**SMALL, "augment": 0.0, "weight_decay": 0.0, "width": 8}
CASES = [Case("images", BARS, SMALL, HEART, reached=0.95, epochs=6)]


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Geom().fit(BARS, SMALL, 0), 6)
    return Geom().load(BARS.spec, SMALL, epoch.state().served())


def test_views_are_the_turned_image_and_its_mirror_s_and_all_differ() -> None:
    made = Net(BARS.spec, Settings(width=4))
    x_BCHW = torch.arange(12 * 12.0).reshape(1, 1, 12, 12)
    views_KHW = made.transformed(x_BCHW)[:, 0, 0]
    assert len(views_KHW) == made.views == 8
    assert views_KHW[0].equal(x_BCHW[0, 0]) and views_KHW[4].equal(x_BCHW[0, 0].flip(1))
    assert len({view.numpy().tobytes() for view in views_KHW}) == 8


def test_an_image_that_is_no_square_keeps_its_shape_in_every_view() -> None:
    (column,) = BARS.spec.columns
    spec = dataclasses.replace(BARS.spec, columns=(dataclasses.replace(column, shape=(1, 6, 9)),))
    made = Net(spec, Settings(width=4))
    assert made.transformed(torch.rand(2, 1, 6, 9)).shape == (4, 2, 1, 6, 9)
    assert made.eval().distance(torch.rand(2, 1, 6, 9)).shape == (2,)


def test_it_learns_which_transformation_it_sees() -> None:
    """A lying bar looks the same upside down and in a mirror, but not upright: that is one bit of the three."""
    *_, epoch = itertools.islice(Geom().fit(BARS, {**SMALL, "passes": 8}, 0), 5)
    assert math.log(4) - 0.1 < epoch.metrics["train/loss"] < math.log(8) - 0.4


def test_what_it_never_saw_scores_above_what_is_normal(net: Any) -> None:
    told = Geom().measure(BARS.spec, Geom().judge(net, BARS, "test"), "test")
    assert told["test/auroc"] > 0.95 and told["test/false_alarm_rate"] < 0.3 < told["test/detection_rate"]


def test_labels_other_than_normal_never_enter_the_weights() -> None:
    """Training rows of other classes may be anything, or absent: the epochs are the same."""

    def taught(data: Data) -> Any:
        *_, epoch = itertools.islice(Geom().fit(data, SMALL, 3), 2)
        return {name: tensor.numpy().tobytes() for name, tensor in epoch.state().tensors.items()}

    train = BARS.splits["train"]
    only = train.filter(pc.equal(train["target"], "flat"))
    assert taught(Data(BARS.spec, {**BARS.splits, "train": only})) == taught(BARS)


def test_without_labelled_anomalies_in_val_corrupted_copies_choose() -> None:
    val = BARS.splits["val"]
    bare = Data(BARS.spec, {**BARS.splits, "val": val.filter(pc.equal(val["target"], "flat"))})
    *_, epoch = itertools.islice(Geom().fit(bare, SMALL, 0), 4)
    assert 0.6 < epoch.metrics["val/auroc"] <= 1
    assert epoch.metrics["val/false_alarm_rate"] <= 0.05
    with pytest.raises(DataError, match="0 anomalies"):
        learnt = Geom().load(bare.spec, SMALL, epoch.state().served())
        Geom().measure(bare.spec, Geom().judge(learnt, bare, "val"), "val")


def test_the_threshold_lets_the_share_of_normal_val_rows_through_that_was_asked() -> None:
    hyper = {**SMALL, "false_alarms": 0.25}
    *_, epoch = itertools.islice(Geom().fit(BARS, hyper, 0), 2)
    learnt = Geom().load(BARS.spec, hyper, epoch.state().served())
    val = BARS.splits["val"]
    flagged_N = np.array(Geom().score(learnt, val.to_batches()[0])["anomaly"].to_pylist())
    normal_N = np.array(val["target"].to_pylist()) == "flat"
    assert flagged_N[normal_N].mean() == pytest.approx(0.25, abs=1 / normal_N.sum())


@pytest.mark.parametrize("normal", ["", "round"])
def test_a_normal_class_must_be_named(normal: str) -> None:
    with pytest.raises(ParamsError, match="one of flat, steep, upright"):
        next(Geom().fit(BARS, {"normal": normal}, 0))


def test_a_table_is_refused() -> None:
    from .cases import table

    data = table("classification")
    with pytest.raises(DataError, match="one column of images"):
        next(Geom().fit(Data(data.spec, data.splits), {"normal": "high"}, 0))


def test_the_baseline_is_the_distance_from_the_mean_normal_image() -> None:
    value = Geom().baseline(BARS, "test", {"normal": "steep"})["test/auroc"]
    assert value > 0.99, "slanting bars are all alike, so the mean image is enough for them"


def test_images_without_rows_have_no_scores(net: Any) -> None:
    empty = pa.record_batch({"image": BARS.splits["test"]["image"].combine_chunks().slice(0, 0)})
    assert len(Geom().score(net, empty)) == 0
