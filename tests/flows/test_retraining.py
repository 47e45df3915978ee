"""A training that drift starts, it starts once."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components import scores, stages
from components.plan import Project
from components.workspace import Workspace
from flows import cli, retraining

DRIFTED = ("3", "run-key", "input")


class Conductor:
    def __init__(self, root: Path) -> None:
        self.said: list[str] = []
        self.runs: list[tuple[list[str], bool]] = []
        self.due = {"train", "register", "score"}
        self.project = Project(Workspace(root), None, self.said.append, None)  # type: ignore[arg-type]

    def start(self, drifted: tuple[str, str, str] = DRIFTED) -> bool:
        return retraining.start_once(
            self.project,
            "tides",
            drifted,
            lambda _project, _names: self.due,
            lambda _project, names, training: self.runs.append((names, training)),
        )


@pytest.fixture
def conductor(tmp_path: Path) -> Conductor:
    return Conductor(tmp_path)


def test_the_same_input_and_champion_start_it_once(conductor: Conductor) -> None:
    assert conductor.start()
    assert not conductor.start()
    assert conductor.runs == [(["tides"], True)]
    assert "not started again" in conductor.said[-1]
    (kept,) = (conductor.project.workspace.state / "drift" / "tides").glob("*.json")
    assert json.loads(kept.read_text()) == {"model_version": "3", "run_key": "run-key", "input": "input"}


def test_another_champion_or_another_input_starts_it_again(conductor: Conductor) -> None:
    assert all(conductor.start(drifted) for drifted in (DRIFTED, ("4", "other", "input"), ("3", "run-key", "next")))
    assert len(conductor.runs) == 3


def test_without_newer_rows_nothing_starts_until_they_come(conductor: Conductor) -> None:
    conductor.due = {"score"}
    assert not conductor.start()
    assert any("newer rows are needed" in line for line in conductor.said)
    assert conductor.runs == []
    conductor.due = {"validate", "train"}
    assert conductor.start()


def test_a_training_that_fails_is_not_tried_for_ever(conductor: Conductor) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        retraining.start_once(conductor.project, "tides", DRIFTED, lambda *_: conductor.due, fail)
    assert not conductor.start(), "`tidemill resume` goes on with it"


@pytest.mark.parametrize(
    ("then", "drifting", "runs"),
    [("train", ["height"], 1), ("train", [], 0), ("train", None, 0), ("warn", ["height"], 0)],
)
def test_the_command_starts_it_where_params_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, drifting: list[str] | None, runs: int
) -> None:
    (tmp_path / "params.yaml").write_text(
        "datasets: {digits: {}}\n"
        f"pipelines: {{one: {{dataset: digits, family: cnn, scoring: {{drift: {{then: {then}}}}}}}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    scored = {"drifting": drifting, "model_version": "1", "run_key": "r", "input": "i"}
    monkeypatch.setattr(scores, "score_table", lambda *_, **__: dict(scored))
    monkeypatch.setattr(stages, "fetch", lambda *_: None)
    monkeypatch.setattr(stages, "settle", lambda *_: None)
    monkeypatch.setattr(cli, "_steps", lambda *_: [types.SimpleNamespace(stage="train", action="run")])
    started: list[list[str]] = []
    monkeypatch.setattr(cli, "_run", lambda _project, names, _training: started.append(names))
    for _ in range(2):
        done = CliRunner().invoke(cli.app, ["score", "one", "in.csv", "out.parquet", "--json"])
        assert done.exit_code == 0, done.output
    assert started == [["one"]] * runs


def test_a_flow_that_scores_never_starts_a_flow() -> None:
    """It has trained on the same data just before: to start it again could only repeat it."""
    text = Path(str(retraining.__file__)).with_name("pipeline.py").read_text(encoding="utf-8")
    assert "retraining" not in text
