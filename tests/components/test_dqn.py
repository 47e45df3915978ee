"""dqn: observations in, actions out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.contract import SPLITS, Data
from components.datasets import cartpole
from components.errors import ParamsError
from components.families.dqn import Dqn

from .cases import Case, one_thread  # noqa: F401

SMALL = {"width": 32, "steps": 400, "warm_up": 200, "explore_steps": 800, "update_every": 2, "target_every": 50}


def _poles() -> Data:
    rows = cartpole.build(lambda _: b"")
    spec = cartpole.expectations().spec("poles", "control")
    return Data(spec, {split: rows.filter(pa.compute.equal(rows["split"], split)) for split in SPLITS})


POLES = _poles()
# An environment has no batch to learn by heart: what is asked instead is that it soon does better than at random.
CASES = [Case("poles", POLES, SMALL, SMALL, reached=40.0, epochs=6, heart_epochs=12, batch=POLES)]


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Dqn().fit(POLES, SMALL, 0, None), 3)
    return Dqn().load(POLES.spec, SMALL, epoch.state().served())


def test_observations_are_scored_with_actions_and_their_values(net: Any) -> None:
    rows = POLES.splits["test"].slice(0, 50)
    out = Dqn().score(net, rows.combine_chunks().to_batches()[0])
    assert set(out["action"].to_pylist()) <= {0, 1}
    assert np.isfinite(out["value"].to_numpy()).all()


def test_the_baseline_is_the_recorded_random_policy() -> None:
    rows = POLES.splits["test"]
    returns = rows.group_by("episode").aggregate([("reward", "sum")])["reward_sum"].to_numpy()
    assert Dqn().baseline(POLES, "test", {})["test/return"] == pytest.approx(returns.mean())
    assert 10 < returns.mean() < 40


def test_an_epoch_ends_with_an_episode_and_steps_are_at_least_what_was_asked() -> None:
    for epoch in itertools.islice(Dqn().fit(POLES, SMALL, 4, None), 2):
        counted = epoch.state().scalars
        assert "replay" not in counted, "the buffer is tensors"
        assert epoch.metrics["train/return"] > 0


def test_val_and_test_are_measured_on_different_episodes(net: Any) -> None:
    val, test = Dqn().evaluate(net, POLES, "val"), Dqn().evaluate(net, POLES, "test")
    assert val["val/return"] != test["test/return"]


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ParamsError, match="unknown setting 'stpes'"):
        next(Dqn().fit(POLES, {"stpes": 1}, 0, None))
