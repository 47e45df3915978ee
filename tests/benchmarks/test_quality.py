"""The verdict on a champion beside its rivals; the figures themselves are the command's to measure."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks.quality import Comparison, _measured, plain
from tests.components.cases import images

RIVALS = {"good": {"test/accuracy": 0.95}, "poor": {"test/accuracy": 0.5}}


@pytest.mark.parametrize(
    ("reached", "missed"),
    [(0.97, []), (0.95, []), (0.94, ["good (0.9500)"]), (0.4, ["good (0.9500)", "poor (0.5000)", "the mark (0.9000)"])],
)
def test_a_champion_must_reach_its_mark_and_every_rival(reached: float, missed: list[str]) -> None:
    assert Comparison("test/accuracy", RIVALS, 0.9).missed({"test/accuracy": reached}) == missed


def test_a_champion_whose_figure_is_no_number_misses() -> None:
    assert Comparison("test/accuracy", RIVALS).missed({"test/accuracy": float("nan")})


def test_rivals_see_every_pixel_as_a_column_and_the_same_rows() -> None:
    data = images("classification")
    inputs, truth = plain(data, "test")
    assert inputs.shape == (72, 144) and inputs.max() <= 1
    assert np.array(data.spec.classes)[truth].tolist() == data.splits["test"]["target"].to_pylist()
    rival = LogisticRegression(max_iter=500).fit(*plain(data, "train"))
    assert _measured(rival, data)["test/accuracy"] == rival.score(inputs, truth)
