"""Who becomes champion, and on what evidence."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.contract import Data, Metrics, Objective, Outcomes, Spec
from components.errors import DataError, ParamsError, RegistryError
from components.model import Model
from components.params import Gate
from components.registry.gate import Decision, Rival, Terms, decide, percentiles, redrawn, wanted

from .shelf import OBJECTIVE, SPEC

ROWS = 400
SPLITS = {"test": pa.table({"port": np.repeat(["brest", "cuxhaven", "dover", "emden"], [190, 190, 15, 5])})}


class Reaching:
    """A family whose nets are what comes of each row: its metric is their mean, undefined without any high one."""

    def judge(self, net: Any, data: Data, split: str) -> Outcomes:
        return {"score": net}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        if not len(outcomes["score"]):
            raise DataError("no rows")
        return {f"{split}/score": float(outcomes["score"].mean())}


def reaching(value: float, weights: str = "w", spread: float = 0.0, seed: int = 0) -> Model:
    noise = np.random.default_rng(seed).normal(0, spread, ROWS)
    return Model(Reaching(), SPEC, {}, value + noise - noise.mean(), weights)


def terms(mode: Any = "max", margin: float = 0.0, baseline: float = 0.5, **more: Any) -> Terms:
    return Terms(Objective("score", mode), {"test/score": baseline}, Gate(margin=margin, **more))


def judge(made: Model, present: Model | None, held: Terms | None = None) -> Decision:
    rival = Rival(3, present.weights_sha256, lambda: present, "do this") if present else None
    return decide(made, rival, SPLITS, held or terms())


@pytest.mark.parametrize(
    ("mode", "value", "champion", "margin", "baseline", "promoted", "reason"),
    [
        ("max", 0.9, None, 0.0, 0.5, True, "there was no champion"),
        ("max", 0.9, 0.8, 0.0, 0.5, True, "beats champion version 3 (0.8): better by 0.1"),
        ("max", 0.9, 0.9, 0.0, 0.5, False, "does not beat champion version 3"),
        ("max", 0.9, 0.8, 0.2, 0.5, False, "by more than 0.2"),
        ("max", 0.9, 0.8, 0.05, 0.5, True, "by more than 0.05"),
        ("max", 0.5, None, 0.0, 0.5, False, "does not beat the baseline 0.5"),
        ("max", 0.4, 0.3, 0.0, 0.5, False, "does not beat the baseline 0.5"),
        ("min", 0.1, 0.2, 0.0, 0.5, True, "beats champion version 3 (0.2): better by 0.1"),
        ("min", 0.1, 0.2, 0.15, 0.5, False, "does not beat champion version 3"),
        ("min", 0.6, None, 0.0, 0.5, False, "does not beat the baseline"),
        ("max", float("nan"), None, 0.0, 0.5, False, "nan does not beat the baseline"),
        ("min", 0.1, float("nan"), 0.0, 0.5, True, "beats champion version 3 (nan)"),
    ],
)
def test_the_gate(
    mode: str, value: float, champion: float | None, margin: float, baseline: float, promoted: bool, reason: str
) -> None:
    present = None if champion is None else reaching(champion, "other")
    said = judge(reaching(value), present, terms(mode, margin, baseline))
    assert said.promoted is promoted and reason in said.reason
    assert said.metric == "test/score" and said.baseline == baseline
    assert said.value == pytest.approx(value, nan_ok=True)
    assert said.champion_version == (None if champion is None else 3)


def test_a_difference_that_may_be_luck_promotes_nobody() -> None:
    present = reaching(0.80, "other", spread=0.5, seed=1)
    luck = judge(reaching(0.81, spread=0.5, seed=2), present)
    assert not luck.promoted and luck.interval is not None
    assert luck.difference == pytest.approx(0.01) and luck.interval[0] < 0 < luck.interval[1]
    assert judge(reaching(0.95, spread=0.5, seed=2), present).promoted


def test_rows_are_compared_in_pairs() -> None:
    """The same small gain on every row is sure, however much the rows differ from each other."""
    said = judge(reaching(0.81, spread=0.5, seed=1), reaching(0.80, "other", spread=0.5, seed=1))
    assert said.promoted
    assert said.interval == pytest.approx((0.01, 0.01))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw, held = np.random.default_rng(4), 0
    for _ in range(200):
        sample = draw.normal(0.3, 1, 60)
        low, high = percentiles(np.array([sample[rows].mean() for rows in redrawn(60)]), 0.9)
        held += low <= 0.3 <= high
    assert 0.84 <= held / 200 <= 0.95


def test_draws_that_define_no_figure_are_left_out() -> None:
    figures = np.array([float("nan") if rows[0] % 2 else float(len(rows)) for rows in redrawn(10)])
    assert percentiles(figures, 0.95) == (10, 10)
    assert np.isnan(percentiles(np.full(10, float("nan")), 0.95)).all()


def test_a_slice_below_its_floor_refuses_and_is_named() -> None:
    made = reaching(0.9)
    made.net[:190] = 0.6  # brest
    made.net[390:] = 0.0  # emden: too few rows to judge
    said = judge(made, None, terms(floors={"port": 0.7}))
    assert not said.promoted
    assert "port=brest 0.6 (190 rows, floor 0.7)" in said.reason and "emden" not in said.reason
    assert [(s.of, s.rows) for s in said.failed] == [("brest", 190)]
    assert judge(made, None, terms(floors={"port": 0.55})).promoted
    assert not judge(made, None, terms(floors={"port": 0.55}, slice_rows=5)).promoted


def test_a_floor_for_what_is_no_column_is_refused() -> None:
    with pytest.raises(ParamsError, match="'harbour'"):
        judge(reaching(0.9), None, terms(floors={"harbour": 0.7}))
    episodes = dataclasses.replace(reaching(0.9), net=np.full(7, 0.9))
    with pytest.raises(ParamsError, match="'port'") as caught:
        judge(episodes, None, terms(floors={"port": 0.7}))
    assert "episodes" in caught.value.why


def test_what_would_have_had_to_be_different() -> None:
    def lines(said: Decision, margin: float = 0.0) -> str:
        return "; ".join(wanted(json.loads(json.dumps(dataclasses.asdict(said))), margin))

    present = reaching(0.80, "other", spread=0.5, seed=1)
    assert lines(judge(reaching(0.95, spread=0.5, seed=2), present)) == ""
    assert "better than 0.5, was 0.4" in lines(judge(reaching(0.4), None))
    luck = judge(reaching(0.84, spread=0.5, seed=2), present)
    assert "above 0" in lines(luck) and "times as many test rows" in lines(luck)
    made = reaching(0.9)
    made.net[:190] = 0.6
    assert "port=brest: 0.7 or better, was 0.6" in lines(judge(made, None, terms(floors={"port": 0.7})))
    own = judge(reaching(0.9, "other"), reaching(0.9, "other"))
    assert lines(own) == "other weights than the champion's: other data, settings, code or seed"
    poor = judge(reaching(0.4), reaching(0.1, "other"))
    assert not poor.promoted and lines(poor) == "test/score better than 0.5, was 0.4"


def test_each_metric_has_an_interval_of_its_own() -> None:
    first, later = (
        judge(reaching(0.8, spread=0.5, seed=1), None),
        judge(reaching(0.84, spread=0.5, seed=2), reaching(0.8, "x")),
    )
    for said in (first, later):
        low, high = said.intervals["test/score"]
        assert low < said.value < high


def test_the_same_weights_are_refused_without_loading_the_champion() -> None:
    present = Rival(3, "w", lambda: pytest.fail("loaded"), "")
    said = decide(reaching(0.9), present, SPLITS, terms())
    assert not said.promoted and said.reason == "its weights are those of the champion, version 3"
    assert said.champion_value == pytest.approx(0.9)


def test_another_metric_needs_a_direction() -> None:
    with pytest.raises(ParamsError, match="without a mode") as caught:
        Terms.of(Gate(metric="accuracy"), OBJECTIVE, {})
    assert "gate.mode" in caught.value.fix
    gate = Gate(metric="accuracy", mode="max", margin=0.1, confidence=0.8, floors={"port": 0.5})
    held = Terms.of(gate, OBJECTIVE, {"test/accuracy": 0.5})
    assert held.objective == Objective("accuracy", "max")
    assert held.gate == gate
    assert Terms.of(Gate(metric="loss"), OBJECTIVE, {"test/loss": 1.0}).objective == OBJECTIVE


def test_an_unknown_metric_is_named_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match="'test/f1'") as caught:
        decide(reaching(0.9), None, SPLITS, Terms(Objective("f1", "max"), {"test/f1": 0.5}))
    assert caught.value.fix == "set gate.metric to one of score"
    with pytest.raises(ParamsError, match="'test/f1'"):
        Terms.of(Gate(metric="f1", mode="max"), OBJECTIVE, {"test/score": 0.5})


def test_a_champion_that_cannot_be_measured_is_not_replaced() -> None:
    broken = Model(None, SPEC, {}, None, "other")  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="version 3, cannot be measured") as caught:
        judge(reaching(0.9), broken)
    assert caught.value.fix == "do this"
