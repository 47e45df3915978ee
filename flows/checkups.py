"""The doctor's checks of what runs on this machine: servers that are recorded, ports that they want."""

from __future__ import annotations

import os
from functools import partial
from urllib.parse import urlsplit

import psutil

from components.health import Finding
from components.plan import Project

from . import orphans
from .processes import LOOPBACK, Process, free_port
from .roster import PREFECT, RUN, Entry, Roster
from .servers import prefect_server

_PORTS = {PREFECT: ("TIDEMILL_PREFECT_PORT", 4200), "mlflow": ("TIDEMILL_MLFLOW_PORT", 5000)}
_ELSEWHERE = {PREFECT: "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}


def servers(project: Project) -> list[Finding]:
    """Entries of servers.json whose server is dead and that nobody starts again."""
    roster = Roster(project.workspace.state)
    entries = roster.entries()
    dead = [
        Finding.wrong(
            f"{name} is recorded as process {entry.process.pid}, which is dead",
            "what it has started may still run",
            repair=partial(_forget, roster, name, entry),
        )
        for name, entry in entries.items()
        if not entry.process.alive() and not _kept(entry)
    ]
    return dead or [Finding.well(f"{len(entries)} servers recorded, all of them alive" if entries else "none recorded")]


def _kept(entry: Entry) -> bool:
    """Whether a `tidemill up` lives that starts it again by itself."""
    if entry.keeper == RUN:
        return False
    _, pid, born = (*entry.keeper.split(), "", "")[:3]
    try:
        return Process(int(pid), float(born)).alive()
    except ValueError:
        return False


def _forget(roster: Roster, name: str, entry: Entry) -> None:
    with roster.held():
        if roster.entries().get(name) == entry and not entry.process.alive():
            entry.process.stop()  # what its group has left
            roster.drop(name)


def flow_runs(project: Project) -> list[Finding]:
    """Flow runs that Prefect shows as running, of processes that are dead."""
    return [
        Finding.wrong(
            f"flow run {run} was left by process {pid}, which is dead",
            "Prefect's pages show work that nobody does; the next run closes it",
            repair=partial(_close, project),
        )
        for run, pid in orphans.left(project.workspace).items()
    ] or [Finding.well("no flow run of a dead process")]


def _close(project: Project) -> None:
    with prefect_server(project.workspace, project.say):
        orphans.close(project.workspace)


def ports(project: Project) -> list[Finding]:
    """Whether `tidemill up` gets the ports that it wants."""
    return [_port(project, name) for name in _PORTS]


def _port(project: Project, name: str) -> Finding:
    variable, friendly = _PORTS[name]
    said, elsewhere = os.environ.get(variable), os.environ.get(_ELSEWHERE[name], "")
    if elsewhere.startswith("http"):
        return Finding.well(f"{name} runs elsewhere, by {_ELSEWHERE[name]}")
    if said and not (said.isdigit() and 0 < int(said) < 65536):
        return Finding.wrong(f"{variable} is {said!r}, which is no port", "`tidemill up` stops", f"unset {variable}")
    port = int(said) if said else friendly
    entry = Roster(project.workspace.state).entries().get(name)
    if entry and entry.process.alive() and urlsplit(entry.url).port == port:
        return Finding.well(f"port {port} is held by our own {name} server")
    if free_port(port) == port:
        return Finding.well(f"port {port} is free for {name}")
    return Finding.wrong(
        f"port {port}, wanted for {name}, is taken by {_holder(port)}",
        "`tidemill up` stops" if said else "`tidemill up` takes another port and says which",
        f"stop what listens there, or set another {variable}",
    )


def _holder(port: int) -> str:
    """Who listens there, as far as this user may know."""
    try:
        for one in psutil.net_connections("tcp"):
            if (
                one.status == psutil.CONN_LISTEN
                and one.laddr.port == port
                and one.laddr.ip in (LOOPBACK, "0.0.0.0", "::")
            ):
                return f"process {one.pid} ({psutil.Process(one.pid).name()})" if one.pid else "another user's process"
    except psutil.Error:
        pass
    return "somebody else"
