"""Rivals on windows of a series: they score each row by its own step."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.rows import anomaly
from components.contract import SPLIT, Column, Data, Spec
from components.datasets import windows

STEPS, WINDOW = 700, 20


@pytest.fixture
def data() -> Data:
    """A sine in which the step 600 leaps."""
    values = np.sin(np.arange(STEPS) / 3).astype(np.float32)
    values[600] = 4.0
    stretches = {"train": range(200), "val": range(200, 300), "test": range(300, STEPS)}
    table = windows.cut(values, np.arange(STEPS) == 600, WINDOW, stretches)
    column = Column("window", "tensor", "float32", (1, WINDOW))
    spec = Spec("leap", "anomaly", (column,), "kind", windows.CLASSES, "step")
    split = np.array(table[SPLIT].to_pylist())
    parts = {name: table.filter(pa.array(split == name)).drop([SPLIT]) for name in stretches}
    return Data(spec, parts)


def test_the_rows_are_windows_of_the_steps_that_rivals_see(data: Data) -> None:
    steps = anomaly._steps(data.splits["test"])
    assert len(steps) == STEPS - 300
    np.testing.assert_allclose(np.delete(steps, 300), np.delete(np.sin(np.arange(300, STEPS) / 3), 300), atol=1e-6)


def test_each_rival_s_scores_are_those_of_the_rows(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """stumpy is no dependency of the tests: here a plain matrix profile stands for it."""

    def stump(
        series: np.ndarray, window: int, other: np.ndarray | None = None, ignore_trivial: bool = True
    ) -> np.ndarray:
        mine, theirs = (
            np.lib.stride_tricks.sliding_window_view(one, window)
            for one in (series, series if other is None else other)
        )
        mine, theirs = (each - each.mean(1, keepdims=True) for each in (mine, theirs))
        away = np.sqrt(((mine[:, None] - theirs[None]) ** 2).sum(2))
        if ignore_trivial:
            away[np.abs(np.arange(len(mine))[:, None] - np.arange(len(theirs))) < window // 4] = np.inf
        return away.min(1)[:, None]

    monkeypatch.setitem(sys.modules, "stumpy", SimpleNamespace(stump=stump))
    found = anomaly.profiles(data, 0)
    assert set(found) == {*anomaly.PROFILES, "moving z-score"}
    assert found["moving z-score"]["auroc"] == 1.0, "the very step leaps"
    for name in anomaly.PROFILES:
        assert found[name]["hit"] == 1.0 and found[name]["auroc"] > 0.9
