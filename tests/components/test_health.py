"""Each fault is really made, found, repaired with fix, and then found no more."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import datasets, health, holds, params, receipts, registry, versioning
from components.contract import Data
from components.health import CHECKS, Diagnosis, disk
from components.plan import Project
from components.receipts import Receipt
from components.registry import championship, history, versions
from components.tracking.store import open_store
from components.versioning import condition
from components.workspace import Workspace

from . import shelf
from .test_championship import probe, put
from .test_retention import dead_pid

PARAMS = """\
datasets: {tides: {table: tides.csv, target: flood}}
pipelines: {tides: {dataset: tides, family: mlp}}
"""


def open_project(workspace: Workspace, text: str = PARAMS) -> Project:
    workspace.params.write_text(text)
    return Project(workspace, params.load(workspace), lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]


@pytest.fixture
def project(workspace: Workspace) -> Project:
    """A pipeline on a table; the table itself is there once `fetched`."""
    return open_project(workspace)


def fetched(project: Project) -> None:
    rows = shelf.table(200, 0).to_pylist()
    with (project.workspace.root / "tides.csv").open("w", newline="") as opened:
        out = csv.DictWriter(opened, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    versioning.fetch(project.workspace, project.params, None, lambda _: None, record=True)


def look(project: Project, check: str, fix: bool = False) -> list[Diagnosis]:
    return health.examine(project, {check: CHECKS[check]}, fix)


def problem(project: Project, check: str) -> Diagnosis:
    """The one thing that is wrong; looking twice changes nothing."""
    (one,) = look(project, check)
    assert one.status == "problem" and one.meaning and one.way_out
    assert look(project, check) == [one]
    return one


def well(project: Project, check: str) -> None:
    assert {one.status for one in look(project, check)} == {"ok"}


def repaired(project: Project, check: str) -> None:
    found = look(project, check, fix=True)
    assert [one.status for one in found if one.status != "ok"] == ["repaired"], found
    well(project, check)


# ── locks ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def dvc_tmp(workspace: Workspace) -> Path:
    made = workspace.root / ".dvc" / "tmp"
    made.mkdir(parents=True)
    return made


def test_a_read_write_lock_of_a_dead_process(project: Project, dvc_tmp: Path) -> None:
    (dvc_tmp / "rwlock").write_text('{"write": {}}')
    well(project, "locks")
    dead = {"pid": dead_pid(), "cmd": "dvc repro"}
    (dvc_tmp / "rwlock").write_text(json.dumps({"write": {"/data": dead}, "read": {"/other": [dead]}}))
    assert "dead processes: /data, /other" in problem(project, "locks").finding
    repaired(project, "locks")
    (dvc_tmp / "rwlock").write_text('{"write": {"/da')
    assert "half-written" in problem(project, "locks").finding
    repaired(project, "locks")


def test_a_hard_link_lock_whose_process_was_killed(project: Project, dvc_tmp: Path) -> None:
    code = (
        "import os, signal, sys; from dvc.lock import HardlinkLock; HardlinkLock(sys.argv[1], sys.argv[2]).lock(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(dvc_tmp / "lock"), str(dvc_tmp)], check=False)
    assert (dvc_tmp / "lock").is_file()
    assert "held by a dead process" in problem(project, "locks").finding
    repaired(project, "locks")


def test_a_claim_that_names_its_process(project: Project, dvc_tmp: Path) -> None:
    host = socket.gethostname()
    for holder in (f"{host}|{os.getpid()}|1", f"elsewhere|{dead_pid()}|1"):
        (dvc_tmp / "lock").write_text(f"{dvc_tmp}/lock|{holder}")
        well(project, "locks")
    (dvc_tmp / "lock").write_text(f"{dvc_tmp}/lock|{host}|{dead_pid()}|1")
    problem(project, "locks")
    repaired(project, "locks")


def test_files_that_lock_nothing_are_well(project: Project, dvc_tmp: Path) -> None:
    (dvc_tmp / "lock").write_text(f" {dead_pid()}\n")  # as every DVC command leaves it
    with holds.working(project.workspace, "tides"):
        pass
    (one,) = look(project, "locks")
    assert one.status == "ok" and "1 files under .tidemill/locks" in one.finding


# ── what MLflow holds ───────────────────────────────────────────────────────────────────────────────────


def test_a_run_of_a_dead_process(project: Project) -> None:
    store = open_store(project.workspace)
    tag, made = "tidemill.process", {}
    for name, process in (("dead", dead_pid()), ("alive", os.getpid())):
        tags = {tag: f"{socket.gethostname()}:{process}"}
        made[name] = store.client.create_run(store.experiment("tides"), tags=tags).info.run_id
    assert made["dead"] in problem(project, "runs").finding
    repaired(project, "runs")
    status = {name: store.client.get_run(run_id).info.status for name, run_id in made.items()}
    assert status == {"dead": "KILLED", "alive": "RUNNING"}


@pytest.fixture
def two(project: Project, models: dict[str, Path], data: Data) -> Project:
    """A poor champion, then a good one; the dataset is there."""
    fetched(project)
    for name, key in (("poor", "a"), ("good", "b")):
        assert put(project.workspace, models[name], data, key).decision.promoted
    receipts.leave(
        project.workspace, Receipt("tides", "register", receipts.key({}), {}, {}, {"champion": {"version": 2}})
    )
    well(project, "champions")
    return project


def champion(project: Project) -> int:
    return registry.champion(project.workspace, "tides").version


def given_back(project: Project, version: int) -> None:
    """The repair makes this version champion, in the ledger and for the next score stage."""
    repaired(project, "champions")
    assert champion(project) == version
    now = championship.reigns(project.workspace, "tides")[0]
    assert (now.version, now.by) == (version, "doctor") and now.why
    receipt = receipts.read(project.workspace, "tides", "register")
    assert receipt and receipt.facts["champion"]["version"] == version


def test_a_champion_that_was_deleted(two: Project) -> None:
    open_store(two.workspace).client.delete_model_version("tides", "2")
    assert "lost its champion" in problem(two, "champions").finding
    given_back(two, 1)


def test_an_alias_that_names_no_version(two: Project) -> None:
    import sqlite3

    with sqlite3.connect(two.workspace.state / "mlflow.db") as database:
        database.execute("update registered_model_aliases set version = 9")
    assert "lost its champion" in problem(two, "champions").finding
    repaired(two, "champions")
    assert champion(two) == 2


@pytest.mark.parametrize("fault", ["absent", "truncated", "altered", "no description"])
def test_a_champion_whose_files_are_gone_or_damaged(two: Project, fault: str) -> None:
    folder = versions.find(two.workspace, "tides/2").model_folder
    weights = folder / "weights.safetensors"
    content = weights.read_bytes()
    if fault == "absent":
        weights.unlink()
    elif fault == "no description":
        (folder / "model.json").unlink()
    else:
        weights.write_bytes(content[:-10] if fault == "truncated" else content[:-1] + b"?")
    assert "tides" in problem(two, "champions").finding
    assert champion(two) == 2
    given_back(two, 1)


def test_a_champion_that_was_rolled_back_from_does_not_come_back(two: Project, data: Data) -> None:
    championship.rollback(two.workspace, "tides", probe(data), "complaints")
    (versions.find(two.workspace, "tides/1").model_folder / "weights.safetensors").unlink()
    (one,) = look(two, "champions", fix=True)
    assert one.status == "problem" and "no champion of pipeline 'tides' is whole" in one.meaning
    assert champion(two) == 1 and len(history.ledger(open_store(two.workspace), "tides")) == 3


def test_a_champion_is_not_touched_while_its_pipeline_is_worked_on(two: Project) -> None:
    (versions.find(two.workspace, "tides/2").model_folder / "weights.safetensors").unlink()
    with holds.working(two.workspace, "tides"):
        (one,) = look(two, "champions", fix=True)
    assert one.status == "problem" and "is being worked on" in one.meaning and champion(two) == 2


def test_nothing_tracked_yet_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fresh = open_project(Workspace(tmp_path))
    for check in ("runs", "champions"):
        well(fresh, check)
    assert not (tmp_path / ".tidemill").exists()


def test_a_store_that_does_not_answer_is_a_finding(project: Project) -> None:
    (project.workspace.state / "mlflow.db").write_bytes(b"not a database" * 100)
    assert "MLflow does not answer" in problem(project, "runs").finding


def test_a_check_that_fails_is_a_finding_and_silences_none(project: Project) -> None:
    def fails(_: Project) -> list[health.Finding]:
        raise ZeroDivisionError("by nought")

    first, second = health.examine(project, {"one": fails, "disk": CHECKS["disk"]}, fix=True)[:2]
    assert first.status == "problem" and "by nought" in first.finding and second.check == "disk"


# ── receipts and the cache ──────────────────────────────────────────────────────────────────────────────


def test_damaged_receipts(project: Project) -> None:
    workspace = project.workspace
    for stage in ("validate", "train"):
        receipts.leave(workspace, Receipt("tides", stage, receipts.key({"a": 0.1}), {"a": 0.1}, {}))
    well(project, "receipts")
    file = workspace.state / "receipts" / "tides" / "train.json"
    whole = file.read_text()
    swapped = whole.replace('"stage": "train"', '"stage": "score"')
    for text in (whole[:-20], "[]", '{"a": 1}', whole.replace("0.1", "0.2"), swapped, "\x00" * 50):
        file.write_text(text)
        assert "receipts/tides/train.json" in problem(project, "receipts").finding, text
        with holds.working(workspace, "tides"):
            assert look(project, "receipts", fix=True)[0].status == "problem" and file.exists()
        repaired(project, "receipts")
        assert not file.exists() and file.with_name("validate.json").exists()


@pytest.fixture
def with_dvc(project: Project) -> Project:
    from dvc.repo import Repo

    Repo.init(str(project.workspace.root), no_scm=True).close()
    fetched(project)
    well(project, "cache")
    return project


def cached(project: Project) -> Path:
    (file,) = (path for path in (project.workspace.root / ".dvc" / "cache" / "files").rglob("*") if path.is_file())
    return file


def test_a_cache_object_that_is_absent_or_damaged(with_dvc: Project) -> None:
    stored = cached(with_dvc)
    content = stored.read_bytes()
    stored.unlink()
    assert "data/tides.parquet: no " in problem(with_dvc, "cache").finding
    repaired(with_dvc, "cache")
    stored.chmod(0o644)
    stored.write_bytes(content[:100])
    assert "is damaged" in problem(with_dvc, "cache").finding
    repaired(with_dvc, "cache")
    assert stored.read_bytes() == content


def test_a_version_of_a_table_that_is_nowhere_any_more(with_dvc: Project) -> None:
    """Building the table again may record other bytes, so that is left to its owner."""
    cached(with_dvc).unlink()
    file = with_dvc.workspace.data("tides")
    file.write_bytes(b"other bytes")
    assert "dvc pull" in problem(with_dvc, "cache").way_out
    (one,) = look(with_dvc, "cache", fix=True)
    assert one.status == "problem" and file.read_bytes() == b"other bytes"
    (lost,) = condition.absent(with_dvc.workspace, with_dvc.params) or []
    with pytest.raises(versioning.DataError):
        condition.put_back(with_dvc.workspace, lost)


@pytest.fixture
def built_in(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A built-in dataset that can be built again."""
    from dvc.repo import Repo

    monkeypatch.setitem(datasets.BUILT_IN, "tiny", "tiny_tides")
    monkeypatch.syspath_prepend(str(workspace.root))
    (workspace.root / "tiny_tides.py").write_text(
        "import pyarrow as pa\nSOURCE = 'tiny 1'\n"
        "def build(read):\n    return pa.table({'x': [1.0, 2.0, 3.0], 'split': ['train', 'val', 'test']})\n"
        "def expectations(): ...\n"
    )
    Repo.init(str(workspace.root), no_scm=True).close()
    made = open_project(workspace, "datasets: {tiny: {}}\npipelines: {}\n")
    versioning.fetch(workspace, made.params, None, lambda _: None, record=True)
    yield made
    sys.modules.pop("tiny_tides", None)


def test_a_dataset_that_can_be_built_is_built_again(built_in: Project) -> None:
    well(built_in, "cache")
    cached(built_in).unlink()
    built_in.workspace.data("tiny").unlink()
    assert problem(built_in, "cache").way_out == "tidemill data fetch tiny"
    repaired(built_in, "cache")
    assert built_in.workspace.data("tiny").is_file() and cached(built_in).is_file()


def test_a_project_that_dvc_cannot_open(project: Project) -> None:
    """DVC wants git, unless it is told otherwise."""
    fetched(project)
    (project.workspace.root / ".dvc").mkdir()
    assert "git init" in problem(project, "cache").way_out


def test_no_dvc_is_no_fault(project: Project) -> None:
    well(project, "cache")


# ── the machine ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_disk_that_is_nearly_full(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "NEARLY_BYTES", 0.0)
    well(project, "disk")
    monkeypatch.setattr(disk, "NEARLY_BYTES", 1e18)
    one = problem(project, "disk")
    assert "nearly full" in one.finding and " GB free" in one.meaning and "tidemill clean" in one.way_out
    monkeypatch.setattr(disk, "FULL_BYTES", 1e18)
    assert problem(project, "disk").finding.endswith(" is full")


def test_room_is_made_by_what_need_not_stay(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    left = project.workspace.state / f".receipt.json.{dead_pid()}.tmp"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(bytes(1_000_000))
    os.utime(left, (0, 0))
    usage = shutil.disk_usage
    free = [0.0, 3e9]  # before and after it is gone

    def measured(folder: Path) -> Any:
        return usage(folder)._replace(free=free[not left.exists()])

    monkeypatch.setattr(disk.shutil, "disk_usage", measured)
    assert problem(project, "disk").finding.endswith(" is full")
    assert left.exists(), "a look removes nothing"
    repaired(project, "disk")
    assert not left.exists()
    free[:] = [0.0, 0.0]
    (one,) = look(project, "disk", fix=True)
    assert one.status == "problem" and "retention" in one.way_out


def test_packages_that_are_not_those_of_the_lock(project: Project) -> None:
    from importlib.metadata import version

    lock = project.workspace.root / "requirements.lock"
    well(project, "packages")
    lock.write_text(f"# pinned\nnumpy=={version('numpy')}\ntorch=={version('torch').partition('+')[0]}\n")
    well(project, "packages")
    lock.write_text("numpy==0.0.1\nno-such-package==1.0\n")
    one = problem(project, "packages")
    assert f"numpy is {version('numpy')}, not 0.0.1" in one.finding and "no-such-package is absent" in one.finding
    assert one.way_out == "make setup"


def test_packages_are_installed_where_the_environment_is_the_projects_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project.workspace.root
    (root / "requirements.lock").write_text("no-such-package==1.0\n")
    pip = root / ".venv" / "bin" / "python"
    pip.parent.mkdir(parents=True)
    made = root / ".venv" / "lib" / "no_such_package-1.0.dist-info"
    pip.write_text("#!/bin/sh\necho cannot reach the index >&2\nexit 1\n")
    pip.chmod(0o755)
    monkeypatch.syspath_prepend(made.parent)
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    monkeypatch.setattr(sys, "executable", str(pip))
    (one,) = look(project, "packages", fix=True)
    assert one.status == "problem" and "cannot reach the index" in one.meaning
    metadata = "Metadata-Version: 2.1\\nName: no-such-package\\nVersion: 1.0\\n"
    pip.write_text(f"#!/bin/sh\nmkdir -p {made}\nprintf '{metadata}' > {made}/METADATA\n")
    repaired(project, "packages")
