"""The flows link stages and hold no logic: without Prefect's decorators they still run."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

from components import interrupts, results, scores, stages
from components.errors import BadInput, Busy, RegistryError, Unreachable, ValidationFailed
from components.holds import working
from components.workspace import Workspace

from ..conftest import REPOSITORY

PARAMS = """\
datasets: {digits: {}}
pipelines:
  one: {dataset: digits, family: mlp}
  two: {dataset: digits, family: mlp}
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """flows.pipeline with decorators that do nothing."""

    def decorator(*_: Any, **__: Any) -> Any:
        return lambda function: function

    fakes = {
        "prefect": {"flow": decorator, "task": decorator},
        "prefect.artifacts": {"create_markdown_artifact": print, "create_table_artifact": print},
        "prefect.cache_policies": {"NO_CACHE": None},
        "prefect.runtime": {"flow_run": types.SimpleNamespace(id=None)},
    }
    for name, members in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("flows._bare", REPOSITORY / "flows" / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    vars(made).update(create_markdown_artifact=lambda *_, **__: None, create_table_artifact=lambda **__: None)
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.setattr(results, "results", lambda _project, names: [results.Result(n) for n in names])
    return made


def play(monkeypatch: pytest.MonkeyPatch, fail: dict[tuple[str, str], Exception]) -> list[tuple[str, str]]:
    played: list[tuple[str, str]] = []

    def stage(name: str) -> Any:
        def run(_project: Any, pipeline: Any) -> None:
            for one in [pipeline] if isinstance(pipeline, str) else pipeline:
                played.append((one, name))
                if (one, name) in fail:
                    raise fail[one, name]

        return run

    for name in ("fetch", "settle", "validate", "train", "register", "score"):
        monkeypatch.setattr(stages, name, stage(name))
    return played


def test_the_stages_are_told_which_flow_run_plays_them(
    bare: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, {})
    told: list[str] = []
    monkeypatch.setattr(stages, "train", lambda project, _name: told.append(project.flow_run))
    bare.pipeline("one", str(tmp_path))
    vars(bare)["flow_run"] = types.SimpleNamespace(id="f10e")
    bare.pipeline("one", str(tmp_path))
    assert told == ["", "f10e"]


def test_stages_run_in_order(bare: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, {})
    bare.pipeline("one", str(tmp_path))
    assert [name for _, name in played] == ["fetch", "settle", "validate", "train", "register", "score"]


def test_one_that_fails_stops_itself_alone(
    bare: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = play(monkeypatch, {("one", "validate"): ValidationFailed("bad column")})
    with pytest.raises(ValidationFailed, match="bad column"):
        bare.pipelines(["one", "two"], str(tmp_path))
    assert ("one", "train") not in played
    assert ("two", "score") in played


def test_pipelines_run_side_by_side(bare: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, {})
    both = threading.Barrier(2, timeout=10)  # passes only if two stand at it at once
    monkeypatch.setattr(stages, "train", lambda _project, _name: both.wait())
    bare.pipelines(["one", "two"], str(tmp_path))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, BaseException])  # Ctrl-C, and what Prefect makes of SIGTERM
def test_told_to_stop_no_stage_and_no_pipeline_begins_any_more(
    bare: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    played, validating, stopped = play(monkeypatch, {}), threading.Event(), threading.Event()

    def validate(_project: Any, _name: str) -> None:
        validating.set()
        assert stopped.wait(10)
        while not interrupts.told(interrupts.began()):
            time.sleep(0.01)

    def wait(_started: Any) -> None:
        assert validating.wait(10)
        stopped.set()
        raise stop

    monkeypatch.setattr(stages, "validate", validate)
    monkeypatch.setattr(stages, "train", lambda *_: interrupts.heed())
    vars(bare).update(wait=wait, AT_ONCE=1)
    with pytest.raises(stop):
        bare.pipelines(["one", "two"], str(tmp_path))
    assert played == [("one", "fetch"), ("one", "settle")]


def test_runs_of_one_pipeline_do_not_overlap(
    bare: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = play(monkeypatch, {})
    with working(Workspace(tmp_path), "one"), pytest.raises(Busy):
        bare.pipeline("one", str(tmp_path))
    assert played == []


# ── past partitions ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def days(tmp_path: Path, bare: types.ModuleType) -> list[str]:
    """Pipeline one has four partitions."""
    (tmp_path / "params.yaml").write_text(PARAMS.replace("mlp}", "mlp, scoring: {input: in/%Y-%m-%d.csv}}", 1))
    found = [f"2026-01-0{day}" for day in (1, 2, 4, 5)]
    (tmp_path / "in").mkdir()
    for name in found:
        (tmp_path / "in" / f"{name}.csv").write_text("a\n1\n")
    return found


def backfill(bare: types.ModuleType, root: Path, at_once: int = 2) -> Any:
    return bare.backfill("one", "2026-01-01", "2026-01-05", at_once, str(root))


def test_one_partition_that_fails_does_not_stop_the_others(
    bare: types.ModuleType, days: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    played: list[str] = []

    def score(_project: Any, name: str, partition: Any) -> Any:
        played.append(partition.name)
        if partition.name in days[1:3]:
            raise BadInput(f"bad {partition.name}")
        return {"partition": partition.name}

    monkeypatch.setattr(scores, "score_partition", score)
    monkeypatch.setattr(scores, "backfilling", lambda *_: contextlib.nullcontext())
    with pytest.raises(BadInput, match="bad 2026-01-02"):
        backfill(bare, tmp_path)
    assert sorted(played) == days
    assert "one 2026-01-04: failed: bad 2026-01-04" in capsys.readouterr().err


def test_several_partitions_are_scored_at_once_and_told_in_order(
    bare: types.ModuleType, days: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=10)
    monkeypatch.setattr(scores, "score_partition", lambda _project, _name, one: (both.wait(), one.name)[1])
    monkeypatch.setattr(scores, "backfilling", lambda *_: contextlib.nullcontext())
    assert backfill(bare, tmp_path) == days


def test_a_second_backfill_of_a_pipeline_is_told(
    bare: types.ModuleType, days: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "score_partition", lambda *_: pytest.fail("scored"))
    with (
        working(Workspace(tmp_path), "one.backfill"),
        pytest.raises(Busy, match="another backfill of one is at work") as caught,
    ):
        backfill(bare, tmp_path)
    assert "process" in caught.value.why


def test_a_pipeline_without_a_champion_is_not_backfilled(
    bare: types.ModuleType, days: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "score_partition", lambda *_: pytest.fail("scored"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".tidemill").mkdir()
    with pytest.raises(RegistryError, match="'one' has no champion"):
        backfill(bare, tmp_path)


class State:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "tries", "again"),
    [
        (ValidationFailed("no"), 1, False),
        (Unreachable("gone"), 1, True),
        (Unreachable("gone"), 7, True),
        (OSError("died"), 2, True),
        (OSError("died"), 3, False),
    ],
)
def test_only_what_may_pass_is_tried_again(bare: types.ModuleType, error: Exception, tries: int, again: bool) -> None:
    assert bare.worth_another_try(None, types.SimpleNamespace(run_count=tries), State(error)) is again


def test_only_flows_import_prefect() -> None:
    for file in sorted((REPOSITORY / "components").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.split(".")[0] == "prefect" for name in names), file
