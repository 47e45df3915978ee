"""`tidemill clean` and `tidemill doctor` as a person calls them, and the checks of servers and ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from components import health, params
from components.plan import Project
from components.workspace import Workspace
from flows import checkups, cli, upkeep
from flows.processes import Process
from flows.roster import RUN, Entry, Roster

ADDRESSES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "TIDEMILL_STORAGE")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty project in the current folder, with ports that are free."""
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    for name in ("TIDEMILL_PREFECT_PORT", "TIDEMILL_MLFLOW_PORT"):
        monkeypatch.setenv(name, str(free_port()))
    (tmp_path / "params.yaml").write_text("datasets: {}\npipelines: {}\n")
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return Project(workspace, params.load(workspace), lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, words)


def told(*words: str) -> tuple[int, Any]:
    done = call(*words, "--json")
    return done.exit_code, json.loads(done.stdout)


# ── clean ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def leftover(workspace: Workspace) -> Path:
    """Two megabytes of a dead process."""
    child = subprocess.Popen(["true"])
    child.wait()
    folder = workspace.root / "results" / "digits" / f".train.{child.pid}.tmp"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 2_000_000)
    for path in (folder / "weights", folder):
        os.utime(path, (time.time() - 86400, time.time() - 86400))
    return folder


def test_clean_shows_first_and_removes_with_yes(leftover: Path) -> None:
    code, shown = told("clean")
    (thing,) = shown["things"]
    assert (code, shown["removed"], shown["bytes"]) == (0, False, 2_000_000)
    assert (thing["kind"], thing["bytes"]) == ("leftover", 2_000_000) and thing["what"].startswith(
        "results/digits/.train"
    )
    table = call("clean").stdout
    assert "1 in all" in table and "2.0 MB" in table
    assert leftover.is_dir()
    code, gone = told("clean", "--yes")
    assert (code, gone["removed"], gone["bytes"]) == (0, True, 2_000_000) and not leftover.exists()
    assert told("clean", "--yes") == (0, {"removed": True, "bytes": 0, "things": []})
    assert call("clean").exit_code == 0


# ── doctor ──────────────────────────────────────────────────────────────────────────────────────────────


def test_doctor_finds_repairs_and_says_so_by_its_exit_code(workspace: Workspace) -> None:
    code, rows = told("doctor")
    assert (code, {row["status"] for row in rows}) == (0, {"ok"})
    assert {row["check"] for row in rows} == {*health.CHECKS, "flow runs", "servers", "ports"}
    file = workspace.state / "receipts" / "digits" / "train.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"pipe')
    code, rows = told("doctor")
    (wrong,) = (row for row in rows if row["status"] == "problem")
    assert code == 9 and wrong["check"] == "receipts" and "train.json" in wrong["finding"] and wrong["way_out"]
    assert file.exists() and "problem" in call("doctor").stdout
    code, rows = told("doctor", "--fix")
    assert code == 0 and [row["check"] for row in rows if row["status"] == "repaired"] == ["receipts"]
    assert told("doctor")[0] == 0 and not file.exists()


def test_the_exit_code_is_in_the_help() -> None:
    assert f"{upkeep.ILL} doctor has found something wrong" in " ".join(call("--help").stdout.split())


# ── servers ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def roster(workspace: Workspace) -> Iterator[Roster]:
    made = Roster(workspace.state)
    yield made
    for entry in made.entries().values():
        entry.process.stop(1)


def sleeper(roster: Roster, folder: Path) -> Process:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])"
    return Process.start([sys.executable, "-S", "-c", code], roster.log("s"), dict(os.environ), folder)


def servers(project: Project, fix: bool = False) -> list[health.Diagnosis]:
    return health.examine(project, {"servers": checkups.servers}, fix)


def test_an_entry_of_a_dead_server_goes_with_what_it_started(project: Project, roster: Roster, tmp_path: Path) -> None:
    process = sleeper(roster, tmp_path)
    with roster.held():
        roster.put("prefect", Entry("http://127.0.0.1:1/api", "", process, RUN))
    assert [one.status for one in servers(project)] == ["ok"]
    deadline = time.monotonic() + 20
    while len(process._group()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.child
    process.child.kill()
    process.child.wait()
    (one,) = servers(project)
    assert one.status == "problem" and str(process.pid) in one.finding
    assert process._group(), "what the dead server started still runs"
    assert [one.status for one in servers(project, fix=True)] == ["repaired"]
    assert [one.status for one in servers(project)] == ["ok"] and roster.entries() == {}
    assert all(member.status() == psutil.STATUS_ZOMBIE for member in process._group())


def test_a_dead_server_that_its_keeper_starts_again_is_well(project: Project, roster: Roster) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    me = Process.me()
    for keeper, status in (
        (f"up {me.pid} {me.born}", "ok"),
        (f"up {child.pid} {me.born}", "problem"),
        ("up", "problem"),
    ):
        with roster.held():
            roster.put("mlflow", Entry("", "", Process(child.pid, me.born), keeper))
        assert [one.status for one in servers(project)] == [status], keeper


# ── ports ───────────────────────────────────────────────────────────────────────────────────────────────


def ports(project: Project) -> dict[str, str]:
    """Finding → status."""
    return {one.finding: one.status for one in health.examine(project, {"ports": checkups.ports})}


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


def test_a_port_that_somebody_else_has(project: Project, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ports(project).values()) == {"ok"}
    monkeypatch.setenv("TIDEMILL_MLFLOW_PORT", str(taken))
    (wrong,) = (finding for finding, status in ports(project).items() if status == "problem")
    assert f"port {taken}, wanted for mlflow, is taken by process {os.getpid()}" in wrong
    assert call("doctor").exit_code == 9
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert set(ports(project).values()) == {"ok"}, "a server elsewhere needs no port here"


def test_the_usual_ports_are_asked_for_where_none_is_set(
    project: Project, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEMILL_PREFECT_PORT")
    assert any("port 4200" in finding for finding in ports(project))
    monkeypatch.setitem(checkups._PORTS, "prefect", ("TIDEMILL_PREFECT_PORT", taken))
    (wrong,) = (one for one in health.examine(project, {"ports": checkups.ports}) if one.status == "problem")
    assert str(taken) in wrong.finding and "takes another port" in wrong.meaning


def test_our_own_server_may_have_its_port(
    project: Project, roster: Roster, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_PREFECT_PORT", str(taken))
    with roster.held():
        process = sleeper(roster, project.workspace.root)
        roster.put("prefect", Entry(f"http://127.0.0.1:{taken}/api", "", process, RUN))
    assert ports(project)[f"port {taken} is held by our own prefect server"] == "ok"
    process.stop()
    assert "problem" in ports(project).values(), "the server is dead, and somebody else has its port"


def test_a_port_that_is_none(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_PREFECT_PORT", "http")
    assert ports(project)["TIDEMILL_PREFECT_PORT is 'http', which is no port"] == "problem"
