"""How each server is run on this machine: command, address, health, environment, port; and when it is ready."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import Busy, ParamsError, TidemillError, Unreachable
from components.workspace import FORCED, Workspace

from .processes import LOOPBACK, Process, answers, free_port, last_lines
from .roster import PREFECT, Entry, Roster

START_PATIENCE_S, SICK_AFTER_S = 180.0, 5.0
SETTLE = "settle"  # told the scheduler: put in order what earlier ones left, and end

# Nothing is sent to anybody, nobody is advertised, and a killed run is noticed in a minute or two.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # A server that is away is waited for: 2 + 4 + … + 128 s.
    "PREFECT_CLIENT_MAX_RETRIES": "7",
    # A terminal shows our own progress and errors; Prefect's records, tracebacks included, are on its page.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}


@dataclass(frozen=True)
class Server:
    """How to run one. A server without `health` listens nowhere: it is ready once it lives."""

    name: str
    command: Sequence[str]
    folder: Path
    url: str = ""
    health: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    def start(self, roster: Roster, keeper: str) -> Process:
        """Start and record it; the record comes before the first answer, so that a killed starter loses nothing."""
        process = Process.start(self.command, roster.log(self.name), {**os.environ, **self.env, **FORCED}, self.folder)
        roster.put(self.name, Entry(self.url, self.health, process, keeper))
        return process


def prefect(workspace: Workspace, port: int) -> Server:
    api = f"http://{LOOPBACK}:{port}/api"
    home = workspace.state / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port))
    # The page asks the API where it was told to, which is port 4200 unless it is told otherwise.
    env = {**prefect_settings(workspace), "PREFECT_SERVER_UI_API_URL": api, "PREFECT_API_URL": api}
    return Server(PREFECT, command, workspace.root, api, f"{api}/health", env)


def mlflow(workspace: Workspace, port: int) -> Server:
    """The pages of the embedded store. Runs write to the store themselves, so one worker is plenty."""
    workspace.artifacts.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOOPBACK}:{port}"
    options = {
        "--host": LOOPBACK,
        "--port": str(port),
        "--workers": "1",
        "--artifacts-destination": workspace.artifacts.as_uri(),
        "--allowed-hosts": f"{LOOPBACK}:{port},localhost:{port}",
    }
    command = (sys.executable, "-m", "mlflow", "server", *(word for pair in options.items() for word in pair))
    # In the environment, since everybody on the machine reads command lines and the address may hold a password.
    env = {
        "MLFLOW_BACKEND_STORE_URI": workspace.tracking_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Server("mlflow", command, workspace.root, url, f"{url}/health", env)


def scheduler(workspace: Workspace, prefect_api: str) -> Server:
    env = {**prefect_settings(workspace), "PREFECT_API_URL": prefect_api}
    return Server("scheduler", (sys.executable, "-m", "flows.schedule"), workspace.root, env=env)


def settle(workspace: Workspace, prefect_api: str, log: Path) -> None:
    """What the scheduler does first, for an `up` that has none. In a process of its own, since Prefect takes seconds
    to import and keeps its settings. Raises TidemillError."""
    one = scheduler(workspace, prefect_api)
    with log.open("ab") as out:
        done = subprocess.run(
            (*one.command, SETTLE),
            cwd=one.folder,
            env={**os.environ, **one.env, **FORCED},
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode:
        raise TidemillError(
            "who is told of failures could not be arranged, or schedules that are no more not withdrawn",
            where=str(log),
            why=last_lines(log),
        )


def await_ready(process: Process, health: str, stopping: threading.Event | None = None) -> str:
    """Wait until `health` answers; returns why it never did, "" if it did or if `stopping` was set.

    A young process gets its time to start; one of age that does not answer at once is sick.
    """
    stopping = stopping or threading.Event()
    deadline = max(process.born + START_PATIENCE_S, time.time() + SICK_AFTER_S)
    why = "" if health else "alive"
    while health and not stopping.is_set() and (why := answers(health, 2.0)):
        if not process.alive():
            return "it stopped while starting"
        if time.time() > deadline:
            return f"no answer in {START_PATIENCE_S:.0f} s: {why}"
        stopping.wait(0.2)
    return "" if health or process.alive() else "it stopped while starting"


def not_started(name: str, log: Path, why: str) -> Unreachable:
    said = last_lines(log)
    return Unreachable(
        f"the {name} server did not start",
        where=str(log),
        why=why + (f"; its last words:\n{said}" if said else ""),
        fix="mend what the log names and try again",
    )


def prefect_settings(workspace: Workspace) -> dict[str, str]:
    """For everybody who uses the workspace's own Prefect server, and for that server."""
    return {**quiet(), "PREFECT_HOME": str(workspace.state / "prefect")}


def quiet() -> dict[str, str]:
    """Settings that the environment does not state itself."""
    return {name: value for name, value in QUIET.items() if name not in os.environ}


def choose_port(variable: str, friendly: int) -> int:
    """The port that `variable` sets, which must be free; else the friendly one if it is free, else any."""
    said = os.environ.get(variable)
    if not said:
        return free_port(friendly)
    if not said.isdigit() or not 0 < int(said) < 65536:
        raise ParamsError(
            f"got {said!r}, expected a port number", where=variable, fix=f"unset {variable} or set 1…65535"
        )
    if free_port(int(said)) != int(said):
        raise Busy(f"port {said} is taken", where=variable, fix=f"stop what listens there, or set another {variable}")
    return int(said)
