"""The Prefect server, the MLflow pages and the scheduler of one workspace: borrowed, kept, found.

`tidemill run` borrows a Prefect server (prefect_server), `tidemill up` keeps all three (up). Addresses in the
environment (PREFECT_API_URL, MLFLOW_TRACKING_URI) win: what runs elsewhere is used and never started here.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.errors import Unreachable
from components.ticking import every
from components.workspace import Workspace, exported

from . import notices, programs
from .processes import answers
from .roster import PREFECT, RUN, Entry, Roster
from .supervision import Supervision, only_one, stop_signals

if TYPE_CHECKING:
    from components.params import Params

Say = Callable[[str], None]

ANSWER_PATIENCE_S = 5.0


def addresses(workspace: Workspace) -> dict[str, str]:
    """Where people open the pages of `prefect` and `mlflow` now: those set in the environment, else those that run."""
    entries = Roster(workspace.state).entries()
    found = {name: entry.url for name, entry in entries.items() if entry.url and entry.process.alive()}
    if api := os.environ.get("PREFECT_API_URL"):
        found[PREFECT] = api
    if tracking := _tracking_server():
        found["mlflow"] = tracking
    return {name: url.rstrip("/").removesuffix("/api") for name, url in found.items()}


def require_addresses() -> None:
    """Raise Unreachable, within seconds, if an address in the environment does not answer."""
    if api := os.environ.get("PREFECT_API_URL"):
        _require_prefect(api)
    if tracking := _tracking_server():
        _require_mlflow(tracking)


@contextlib.contextmanager
def prefect_server(workspace: Workspace, say: Say) -> Iterator[str]:
    """A Prefect server for this process as long as the block lasts; yields its API address.

    It is the one of PREFECT_API_URL, else the one that `tidemill up` or another run of this workspace started,
    else a new one, which the last run to leave stops. Raises Unreachable within seconds if PREFECT_API_URL does
    not answer, and when a new server does not start.
    """
    if api := os.environ.get("PREFECT_API_URL"):
        _require_prefect(api)
        with _settings(programs.quiet()):
            yield api
        return
    roster = Roster(workspace.state)
    with roster.using():
        api = _join_or_start(workspace, roster, say)
        settings = {**programs.prefect_settings(workspace), "PREFECT_API_URL": api}
        reviving = every(1.0, lambda: _revive(workspace, roster, say), "prefect watch")
        with reviving, _settings(settings):
            try:
                yield api
            finally:
                _send_logs()


def up(workspace: Workspace, params: Params, say: Say, servers: Sequence[programs.Server] | None = None) -> None:
    """Keep Prefect, MLflow's pages and the scheduler running until SIGINT or SIGTERM; nothing is left behind.

    `servers` takes their place. Raises Busy if another `up` is at work here, Unreachable if a server does not
    start or one of the environment's does not answer, TidemillError if one keeps dying.
    """
    roster = Roster(workspace.state)
    with only_one(roster), stop_signals() as stopping:
        roster.clear()
        with Supervision(roster, say, stopping) as supervision:
            if servers is not None:
                supervision.start(servers)
            else:
                _start_all(workspace, params, supervision)
            if not stopping.is_set():
                _tell(workspace, params, say)
            supervision.watch()


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


def _start_all(workspace: Workspace, params: Params, supervision: Supervision) -> None:
    """The pages first, then the scheduler, which needs Prefect. Only what has no address elsewhere starts here."""
    from components.tracking import store

    require_addresses()
    notices.require()
    pages = []
    api = os.environ.get("PREFECT_API_URL", "")
    if not api:
        used = supervision.roster.entries().get(PREFECT)  # by a run: it goes on with us, where it is
        number = urlsplit(used.url).port if used else None
        pages.append(programs.prefect(workspace, number or programs.choose_port("TIDEMILL_PREFECT_PORT", 4200)))
    if not _tracking_server():
        pages.append(programs.mlflow(workspace, programs.choose_port("TIDEMILL_MLFLOW_PORT", 5000)))
    supervision.say(f"starting {' and '.join(page.name for page in pages) or 'the scheduler'} (up to a minute)")
    with store.alone(workspace.state):  # MLflow's server makes the database; a run that starts now waits for it
        supervision.start(pages)
    if supervision.stopping.is_set():
        return
    api = api or Roster(workspace.state).entries()[PREFECT].url
    if _scheduled(params):
        supervision.start([programs.scheduler(workspace, api)])
    else:
        programs.settle(workspace, api, supervision.roster.log("scheduler"))


def _tell(workspace: Workspace, params: Params, say: Say) -> None:
    for name, url in addresses(workspace).items():
        say(f"{name:10} {url}")
    for name, line in _scheduled(params).items():
        say(f"{'schedule':10} {name}: {line} (UTC)")
    for name in notices.told():
        say(f"{'failures':10} are told by {name}")
    if not _scheduled(params):
        say("no pipeline in params.yaml has a schedule; start again after adding one")
    say(f"{'logs':10} {workspace.state / 'logs'}\nCtrl-C stops all")


def _scheduled(params: Params) -> dict[str, str]:
    return {name: block.schedule for name, block in params.pipelines.items() if block.schedule}


def _tracking_server() -> str:
    """MLFLOW_TRACKING_URI if it names a server; a database is opened by a server of ours."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    return tracking if tracking.startswith("http") else ""


def _require_prefect(api: str) -> None:
    if why := answers(f"{api.rstrip('/')}/health", ANSWER_PATIENCE_S):
        raise Unreachable(
            "the Prefect server of PREFECT_API_URL does not answer",
            where=api,
            why=why,
            fix="start it, correct the address (it ends in /api), or unset PREFECT_API_URL to use a local server",
        )


def _require_mlflow(tracking: str) -> None:
    if why := answers(f"{tracking.rstrip('/')}/health", ANSWER_PATIENCE_S):
        raise Unreachable(
            "the MLflow server of MLFLOW_TRACKING_URI does not answer",
            where=tracking,
            why=why,
            fix="start it, correct the address, or unset MLFLOW_TRACKING_URI to use the embedded store",
        )


def _join_or_start(workspace: Workspace, roster: Roster, say: Say) -> str:
    while True:
        with roster.held():
            entry = roster.entries().get(PREFECT)
            started = entry is None or not entry.process.alive()
            if entry is None or started:
                if entry is not None:
                    entry.process.stop()  # its head is dead; what it left behind goes too
                say("starting a Prefect server (10 to 30 s)")
                server = programs.prefect(workspace, programs.choose_port("TIDEMILL_PREFECT_PORT", 0))
                entry = Entry(server.url, server.health, server.start(roster, RUN), RUN)
        why = programs.await_ready(entry.process, entry.health)
        if not why:
            return entry.url
        with roster.held():
            if roster.entries().get(PREFECT) == entry:
                entry.process.stop()
                roster.drop(PREFECT)
        if started:
            raise programs.not_started(PREFECT, roster.log(PREFECT), why)


def _revive(workspace: Workspace, roster: Roster, say: Say) -> None:
    """Start the runs' own server again, where it was, if it died; one that `tidemill up` keeps is its to start."""
    if not _died(roster):
        return
    with roster.held():
        entry = _died(roster)
        if entry is None:  # another run was faster
            return
        say("the Prefect server died; starting it again")
        entry.process.stop()  # what it left behind
        server = programs.prefect(workspace, urlsplit(entry.url).port or 0)
        server.start(roster, RUN)


def _died(roster: Roster) -> Entry | None:
    """The runs' own server, if it is dead."""
    entry = roster.entries().get(PREFECT)
    return entry if entry is not None and entry.keeper == RUN and not entry.process.alive() else None


@contextlib.contextmanager
def _settings(values: Mapping[str, str]) -> Iterator[None]:
    """Set the environment, and Prefect's own settings if it is imported already: it reads the environment only then."""
    try:
        with exported(values):
            _refresh_prefect()
            yield
    finally:
        _refresh_prefect()


def _send_logs() -> None:
    """Prefect sends its records in the background. After a run that failed some are left, and once the server has
    stopped the process would try to send them for more than a minute before it ends."""
    if "prefect.logging.handlers" in sys.modules:
        from prefect.logging.handlers import APILogHandler

        APILogHandler().flush()


def _refresh_prefect() -> None:
    if "prefect.context" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
