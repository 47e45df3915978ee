"""What counts as reached, and what is written of it; the figures themselves are the command's to measure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks import families
from benchmarks.families import Outcome
from benchmarks.rows import Row, rows
from benchmarks.rows.starters import plain
from components import params
from components.workspace import Workspace
from tests.components.cases import images
from tests.conftest import REPOSITORY

RIVALS = {"good": [0.94, 0.96], "poor": [0.5, 0.5]}
ROW = Row("digits", "accuracy", "max", lambda _data, _seed: {}, mark=0.9, above=("good",))


@pytest.mark.parametrize(
    ("reached", "missed"),
    [
        ([0.96, 0.98], []),
        ([0.9, 1.0], ["good 0.9500"]),
        ([0.8, 0.9], ["good 0.9500", "mark 0.9"]),
        ([float("nan"), 1.0], ["good 0.9500", "mark 0.9"]),
    ],
)
def test_the_mean_must_reach_the_mark_and_beat_the_rivals(reached: list[float], missed: list[str]) -> None:
    assert Outcome(ROW, "cnn", reached, RIVALS).misses == missed


def test_less_is_better_where_the_row_says_so() -> None:
    row = Row("movies", "rmse", "min", lambda _data, _seed: {}, mark=0.95, above=("good",))
    assert Outcome(row, "recommender", [0.9], RIVALS).misses == []
    assert Outcome(row, "recommender", [0.96], RIVALS).misses == ["good 0.9500", "mark 0.95"]


def test_results_are_written_twice_and_misses_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "HERE", tmp_path)
    alone = Row("poles", "return", "max", lambda _data, _seed: {}, mark=0.9)
    families.write([Outcome(alone, "dqn", [0.99], {}).to_json(), Outcome(ROW, "cnn", [0.5, 0.7], RIVALS).to_json()])
    first, second = json.loads((tmp_path / "results.json").read_text())
    assert (first["ours"], first["rivals"], first["mark"], first["met"]) == ([0.5, 0.7], RIVALS, 0.9, False)
    assert second["met"] is True
    page = (tmp_path / "results.md").read_text()
    assert "| 0.6000 ± 0.1414 | good 0.9500 ± 0.0141<br>poor 0.5000 ± 0.0000 | 0.9, good | **no** |" in page


def test_each_row_is_of_a_pipeline_that_there_is() -> None:
    known = params.load(Workspace(REPOSITORY)).pipelines
    assert {row.pipeline for row in rows()} <= set(known)


def test_rivals_see_every_pixel_as_a_column_and_the_same_rows() -> None:
    data = images("classification")
    inputs, truth = plain(data, "test")
    assert inputs.shape == (72, 144) and inputs.max() <= 1
    assert np.array(data.spec.classes)[truth].tolist() == data.splits["test"]["target"].to_pylist()
    rival = LogisticRegression(max_iter=500).fit(*plain(data, "train"))
    assert rival.score(inputs, truth) > 0.5
