"""autoencoder: images in, how far from normal out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.contract import Data
from components.errors import ParamsError
from components.families.autoencoder import Autoencoder

from .cases import Case, images, one_thread  # noqa: F401

BARS = images("anomaly")
SMALL = {"normal": "flat", "width": 4, "code": 8, "noise": 0.1, "batch_rows": 16}
HEART = {**SMALL, "noise": 0.0, "augment": 0.0, "weight_decay": 0.0, "width": 8}
CASES = [Case("images", BARS, SMALL, HEART, reached=0.95, epochs=20)]


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
    only = train.filter(pa.compute.equal(train["target"], "flat"))
    assert taught(Data(BARS.spec, {**BARS.splits, "train": only})) == taught(BARS)


@pytest.mark.parametrize("normal", ["", "round"])
def test_a_normal_class_must_be_named(normal: str) -> None:
    with pytest.raises(ParamsError, match="one of flat, steep, upright"):
        next(Autoencoder().fit(BARS, {"normal": normal}, 0))


def test_the_baseline_is_the_distance_from_the_mean_normal_image() -> None:
    value = Autoencoder().baseline(BARS, "test", {"normal": "steep"})["test/auroc"]
    assert value > 0.99, "slanting bars are all alike, so the mean image is enough for them"
