"""What may go goes, nothing else does, and nothing by being looked at."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components import checkpoints, holds, leftovers, params, receipts, registry, retention
from components.contract import Data, State
from components.errors import Busy, RegistryError
from components.params import Gate
from components.plan import Project
from components.receipts import Receipt
from components.registry import championship, versions
from components.tracking import scorings, sweep_run
from components.tracking.runs import find
from components.tracking.store import open_store
from components.workspace import Workspace

from .shelf import OBJECTIVE, candidate
from .test_tracking import origin, tell, trial

OLD_S = 30 * 86400
PARAMS = "retention: {{checkpoints_days: {0}, runs_days: {0}, keep_versions: {1}}}\n"


@pytest.fixture
def project(workspace: Workspace) -> Callable[..., Project]:
    """The project under a policy: days for checkpoints and runs, newest versions that stay."""

    def made(days: Any = 7, keep: Any = 5) -> Project:
        workspace.params.write_text(PARAMS.format(days, keep))
        return Project(workspace, params.load(workspace), lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]

    return made


def what(things: list[retention.Expendable]) -> list[tuple[str, str]]:
    return [(thing.kind, thing.what) for thing in things]


def clean(project: Project) -> list[tuple[str, str]]:
    return what(retention.clean(project, lambda _: None))


# ── the policy ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_policy_has_defaults_and_limits(workspace: Workspace, project: Callable[..., Project]) -> None:
    workspace.params.write_text("seed: 1\n")
    kept = params.load(workspace).retention
    assert (kept.checkpoints_days, kept.runs_days, kept.keep_versions) == (7, 90, 5)
    assert project("null", "null").params.retention.keep_versions is None
    with pytest.raises(params.ParamsError, match=r"retention\.keep_versions"):
        project(7, -1)


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────


def sweep(storage: str, name: str, finished: bool = True, age_s: float = OLD_S) -> str:
    """A sweep's folder with two trials, as a sweep leaves it; returns its place."""
    place = f"{storage}/{name}"
    checkpoints.write_json(f"{place}/sweep.json", {"planned": [{"lr": 1}, {"lr": 2}], "request": {}})
    for key in ("one", "two"):
        checkpoints.write(f"{place}/{key}", 1, State({}, {}), {"curve": [], "best": 1.0, "best_epoch": 1})
    if finished:
        checkpoints.write_json(f"{place}/finished.json", [])
    for file in Path(place).rglob("*"):
        os.utime(file, (time.time() - age_s, time.time() - age_s))
    return place


def trained(workspace: Workspace, pipeline: str = "tides", **facts: Any) -> None:
    receipts.leave(workspace, Receipt(pipeline, "train", receipts.key({"a": 1}), {"a": 1}, {}, facts))


def bytes_of(place: str) -> int:
    return sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())


def test_only_old_finished_sweeps_go_and_only_when_told(workspace: Workspace, project: Callable[..., Project]) -> None:
    storage = str(workspace.state / "sweeps")
    old = sweep(storage, f"tides-{'a' * 16}")
    kept = [
        sweep(storage, f"tides-{'b' * 16}", age_s=3600),
        sweep(storage, f"tides-{'c' * 16}", finished=False),
        sweep(storage, "a-folder-of-somebody"),
    ]
    trained(workspace)
    sizes = [bytes_of(place) for place in kept]
    (found,) = retention.expendable(project())
    assert (found.kind, found.what, found.bytes) == ("checkpoints", old, bytes_of(old)) and found.bytes > 0
    assert "30.0 days ago" in found.why and Path(old).is_dir()
    assert retention.expendable(project("null")) == []
    assert clean(project()) == [("checkpoints", old)]
    assert not Path(old).exists() and [bytes_of(place) for place in kept] == sizes
    assert clean(project()) == []


def test_an_unfinished_sweep_survives_any_policy(workspace: Workspace, project: Callable[..., Project]) -> None:
    place = sweep(str(workspace.state / "sweeps"), f"tides-{'c' * 16}", finished=False)
    Path(place, "finished.json").write_text("[{")  # half-written: the sweep itself takes it for unfinished
    trained(workspace)
    before = bytes_of(place)
    assert clean(project(0, 0)) == [] and bytes_of(place) == before


def test_what_a_killed_train_stage_goes_on_from_stays(workspace: Workspace, project: Callable[..., Project]) -> None:
    """Its sweep is finished, but the stage has left no receipt."""
    storage = str(workspace.state / "sweeps")
    earlier = sweep(storage, f"tides-{'a' * 16}", age_s=2 * OLD_S)
    last = sweep(storage, f"tides-{'b' * 16}")
    assert clean(project(0)) == [("checkpoints", earlier)] and Path(last).is_dir()
    trained(workspace)
    assert clean(project(0)) == [("checkpoints", last)]


def test_a_storage_behind_a_url(
    workspace: Workspace, project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others share it: only pipelines of params.yaml."""
    storage = f"memory://{workspace.root.parent.name}/bucket"
    monkeypatch.setenv("TIDEMILL_STORAGE", storage)
    ours, theirs = sweep(storage, f"tides-{'a' * 16}"), sweep(storage, f"ebbs-{'a' * 16}")
    unfinished = sweep(storage, f"tides-{'b' * 16}", finished=False)
    trained(workspace)
    trained(workspace, "ebbs")
    made = project(0)
    made = dataclasses.replace(made, params=made.params.model_copy(update={"pipelines": {"tides": None}}))
    (found,) = retention.expendable(made)
    assert found.what == ours and found.bytes > 0
    assert clean(made) == [("checkpoints", ours)] and clean(made) == []
    assert checkpoints.read_json(f"{ours}/sweep.json") is None
    assert checkpoints.read_json(f"{theirs}/finished.json") == []
    assert checkpoints.newest_record(f"{unfinished}/one") is not None


def test_a_removal_that_is_killed_is_done_again(
    workspace: Workspace, project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = sweep(str(workspace.state / "sweeps"), f"tides-{'a' * 16}")
    trained(workspace)
    remove, calls = checkpoints.remove, []

    def dies(path: str) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        remove(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoints, "remove", dies)
        clean(project())
    assert Path(place, "finished.json").is_file() and not Path(place, "one").exists()
    assert clean(project()) == [("checkpoints", place)] and not Path(place).exists()


def test_nothing_is_removed_while_a_pipeline_is_worked_on(
    workspace: Workspace, project: Callable[..., Project]
) -> None:
    place = sweep(str(workspace.state / "sweeps"), f"tides-{'a' * 16}")
    trained(workspace)
    with holds.working(workspace, "another"), pytest.raises(Busy):
        clean(project())
    assert Path(place).is_dir()
    assert clean(project()) == [("checkpoints", place)]


# ── what MLflow holds ───────────────────────────────────────────────────────────────────────────────────


def put(workspace: Workspace, folder: Path, data: Data, run_key: str, run_id: str = "") -> registry.Registered:
    asked = candidate(workspace, folder, data, run_key)
    asked = dataclasses.replace(asked, run_id=run_id) if run_id else asked
    return registry.register(workspace, asked, data, OBJECTIVE, Gate())


@pytest.fixture
def four(workspace: Workspace, models: dict[str, Path], data: Data) -> Workspace:
    """A former champion, the champion, and two versions that the gate refused."""
    said = [put(workspace, models[name], data, key).decision for name, key in zip(("poor", "good"), "ab", strict=True)]
    said += [put(workspace, models["poor"], data, key).decision for key in "cd"]
    assert [decision.promoted for decision in said] == [True, True, False, False]
    return workspace


def test_files_of_versions_that_never_were_champion_go(
    four: Workspace, project: Callable[..., Project], models: dict[str, Path], data: Data
) -> None:
    assert retention.expendable(project(7, 2)) == [] == retention.expendable(project(7, "null"))
    assert what(retention.expendable(project(7, 1))) == [("version files", "tides/3")]
    shown = retention.expendable(project(7, 0))
    assert what(shown) == [("version files", "tides/4"), ("version files", "tides/3")]
    folder = versions.find(four, "tides/3").folder
    assert shown[1].bytes == bytes_of(str(folder)) > 1000
    assert clean(project(7, 0)) == what(shown)
    assert not folder.exists() and clean(project(7, 0)) == []
    for number in (1, 2):
        assert registry.load(four, "tides", number).score is not None
    with pytest.raises(RegistryError, match="removed by `tidemill clean`"):
        registry.load(four, "tides", 3)
    assert championship.why(four, "tides/3")["promoted"] is False, "what was decided stays"
    assert put(four, models["poor"], data, "c").version == 3
    assert registry.load(four, "tides", 3).weights_sha256, "registered again, the files are back"


def test_a_former_champion_survives_any_policy(four: Workspace, project: Callable[..., Project], data: Data) -> None:
    probe = data.splits["test"].select([c.name for c in data.spec.columns]).slice(0, 8).combine_chunks().to_batches()[0]
    championship.promote(four, "tides/3", probe, "the gate was wrong")
    championship.rollback(four, "tides", probe, "no, it was not")
    assert registry.champion(four, "tides").version == 2
    assert clean(project(0, 0)) == [("version files", "tides/4")], "1 and 3 were champions once"
    for number in (1, 2, 3):
        assert registry.load(four, "tides", number).weights_sha256


def test_a_version_that_became_champion_meanwhile_stays(four: Workspace, project: Callable[..., Project]) -> None:
    shown = retention.expendable(project(7, 0))
    open_store(four).client.set_registered_model_alias("tides", "champion", "4")
    for thing in shown:
        thing.remove()
    assert registry.champion(four, "tides").folder.is_dir()
    assert registry.load(four, "tides", 4).weights_sha256
    with pytest.raises(RegistryError):
        registry.load(four, "tides", 3)


def play(workspace: Workspace, tmp_path: Path, run_key: str) -> str:
    """A train stage's run with two trials and a file."""
    (tmp_path / "receipt.json").write_text("{}" * 500)
    with sweep_run(workspace, origin(run_key=run_key)) as run:
        tell(run, [("aaaa", 2), ("bbbb", 1)])
        run.ended(trial("aaaa", 2))
        run.finish(trial("aaaa", 2), {"test/accuracy": 0.7}, {"test/accuracy": 0.5}, [tmp_path / "receipt.json"])
    return run.run_id


def active(workspace: Workspace) -> set[str]:
    store = open_store(workspace)
    return {run.info.run_id for run in find(store, store.experiment("tides"), {"tidemill.kind": "sweep"})}


def test_runs_of_scorings_go_by_their_age(
    workspace: Workspace, project: Callable[..., Project], tmp_path: Path
) -> None:
    told = {"model": {"version": "1"}, "drifting": [], "psi_max": 0.0, "rows_in": 1, "rows": 1, "quarantined": 0}
    receipts.write_json(tmp_path / "drift.json", told | {"key": "k" * 64})
    made = scorings.record(workspace, "tides", "a" * 64, tmp_path / "drift.json")
    assert clean(project(1)) == []
    ((kind, gone),) = clean(project(0))
    assert kind == "run" and made in gone
    assert clean(project(0)) == []


def test_runs_go_that_no_kept_version_came_from(
    workspace: Workspace, project: Callable[..., Project], tmp_path: Path, models: dict[str, Path], data: Data
) -> None:
    crowned, idle, unfinished, last = (play(workspace, tmp_path, key * 64) for key in "abcd")
    put(workspace, models["good"], data, "a", crowned)
    sweep(str(workspace.state / "sweeps"), f"tides-{'c' * 16}", finished=False)
    trained(workspace, run_id=last)
    with sweep_run(workspace, origin(run_key="e" * 64)) as running:
        assert retention.expendable(project(1, 0)) == [] == retention.expendable(project("null", 0))
        (found,) = retention.expendable(project(0, 0))
        assert found.kind == "run" and idle in found.what and found.bytes > 1000 and "2 trials" in found.why
        assert active(workspace) == {crowned, idle, unfinished, last, running.run_id}
        client = open_store(workspace).client
        folder = Path(client.get_run(idle).info.artifact_uri.removeprefix("file://"))
        assert folder.is_dir()
        assert len(clean(project(0, 0))) == 1
        assert active(workspace) == {crowned, unfinished, last, running.run_id} and not folder.exists()
        assert clean(project(0, 0)) == []


def test_a_run_goes_with_the_files_of_its_version(
    four: Workspace, project: Callable[..., Project], tmp_path: Path, models: dict[str, Path], data: Data
) -> None:
    run_id = play(four, tmp_path, "f" * 64)
    assert put(four, models["poor"], data, "f", run_id).version == 5
    assert [kind for kind, _ in what(retention.expendable(project(0, 1)))] == ["version files"] * 2
    assert [kind for kind, _ in clean(project(0, 0))] == [*["version files"] * 3, "run"]
    assert run_id not in active(four)


def test_on_a_teams_server_only_pipelines_of_params_yaml(
    team_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, Path], data: Data
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server)
    there = Workspace(tmp_path / "project")
    run_id = play(there, tmp_path, "a" * 64)
    assert put(there, models["good"], data, "a").decision.promoted
    assert not put(there, models["poor"], data, "b", run_id).decision.promoted
    registry.load(there, "tides", 2)  # which leaves a copy here
    theirs = "retention: {runs_days: 0, keep_versions: 0}\n"
    ours = f"{theirs}datasets: {{tides: {{table: t.csv}}}}\npipelines: {{tides: {{dataset: tides, family: mlp}}}}\n"
    made = []
    for text in (theirs, ours):
        there.params.write_text(text)
        made.append(Project(there, params.load(there), lambda _: None, lambda _: None))  # type: ignore[arg-type,return-value]
    assert retention.expendable(made[0]) == []
    shown = retention.expendable(made[1])
    assert [thing.kind for thing in shown] == ["version files", "run"] and shown[0].what == "tides/2"
    assert shown[0].bytes > 1000 and shown[1].bytes > 1000 and run_id in shown[1].what
    assert clean(made[1]) == what(shown) and clean(made[1]) == []
    with pytest.raises(RegistryError, match="removed by `tidemill clean`"):
        registry.load(there, "tides", 2)
    assert registry.load(there, "tides", 1).weights_sha256


# ── leftovers ───────────────────────────────────────────────────────────────────────────────────────────


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(
    workspace: Workspace, project: Callable[..., Project]
) -> None:
    dead, mine, root = dead_pid(), os.getpid(), workspace.root
    go = [
        *(f".tidemill/servers.{dead}.tmp", ".tidemill/register-x1/model.bin", f"data/.digits.parquet.{dead}.7.tmp"),
        *(f"results/tides/.train.{dead}.old/f", f"results/tides/.train.{dead}.tmp/f"),
        f"results/tides/plan/.train.json.{dead}.1.tmp",
    ]
    stay = [
        *(
            f"results/tides/.train.{mine}.tmp/f",
            f"notes.{dead}.tmp",
            "results/tides/train/model/f",
            ".tidemill/tmp.txt",
        ),
        f"data/sources/.customers.{dead}/before/customers.csv",  # the only copy of somebody's table
    ]
    young = [f"results/tides/.score.{dead}.tmp/f", ".tidemill/tmpyoung/f"]
    for name in (*go, *stay, *young):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 100)
    for path in (root / name for name in (*go, *stay)):
        for each in (path, path.parent):
            os.utime(each, (time.time() - OLD_S, time.time() - OLD_S))
    found = retention.expendable(project())
    assert {thing.what for thing in found} == {name.removesuffix("/f").removesuffix("/model.bin") for name in go}
    assert {thing.bytes for thing in found} == {100} and all((root / name).exists() for name in go)
    assert len(clean(project())) == len(go) and clean(project()) == []
    assert not any((root / name).exists() for name in go)
    assert all((root / name).exists() for name in (*stay, *young))


def test_what_vanishes_meanwhile_is_no_leftover(workspace: Workspace) -> None:
    left = leftovers.Leftover(workspace.root / "gone", "")
    left.remove()
