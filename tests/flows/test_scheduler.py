"""Runs that were missed are made up for once, and people are told of those that fail. One real Prefect server serves
the file."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from components.errors import ParamsError
from components.holds import working
from components.plan import Project
from components.tracking.store import open_store
from components.workspace import Workspace
from flows import servers
from flows.project import open_project

PARAMS = """\
datasets: {digits: {}}
pipelines:
  hourly: {dataset: digits, family: cnn, schedule: "0 * * * *"}
  never: {dataset: digits, family: cnn}
"""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# ── which run is owed ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cron", "since", "now", "due"),
    [
        ("0 6 * * *", "2026-01-01 05:00", "2026-01-05 12:00", "2026-01-05 06:00"),  # of five the last
        ("0 6 * * *", "2026-01-01 07:00", "2026-01-02 05:59", None),
        ("0 6 * * *", "2026-01-01 07:00", "2026-01-02 06:00", "2026-01-02 06:00"),  # due this very moment
        ("0 6 * * *", "2026-01-02 06:00", "2026-01-02 06:00:30", None),
        # Clocks go forward in Europe at 01:00 UTC on that day and in the US a fortnight before: schedules do not.
        ("30 2 * * *", "2026-03-28 03:00", "2026-03-29 03:00", "2026-03-29 02:30"),
        ("30 1 * * *", "2026-10-25 00:00", "2026-10-25 01:29", None),
        ("*/5 * * * *", "2026-01-01 00:00", "2026-01-01 12:03:59.5", "2026-01-01 12:00"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2027-01-01 00:00", None),
    ],
)
def test_the_last_due_time_is_the_one_that_counts(cron: str, since: str, now: str, due: str | None) -> None:
    from flows import arrears

    assert arrears.missed(cron, at(since), at(now)) == (at(due) if due else None)


def run(state: str, due: str, **more: Any) -> Any:
    from prefect.client.schemas.objects import FlowRun, StateType

    return FlowRun(flow_id=uuid4(), state_type=StateType[state], expected_start_time=at(due), **more)


@pytest.mark.parametrize(
    ("since", "last", "key"),
    [
        ("2026-01-01 05:00", None, "p due 2026-01-05T06:00:00+00:00"),
        (None, None, None),  # new, or changed meanwhile
        ("2026-01-05 07:00", None, None),
        ("2026-01-01 05:00", run("COMPLETED", "2026-01-04 06:00"), "p due 2026-01-05T06:00:00+00:00"),
        ("2026-01-01 05:00", run("COMPLETED", "2026-01-05 06:00"), None),
        ("2026-01-01 05:00", run("FAILED", "2026-01-05 06:00"), None),  # it ran; the fault was told
        ("2026-01-01 05:00", run("CANCELLED", "2026-01-05 06:00"), None),  # by a person, or the last one was at work
        ("2026-01-01 05:00", run("COMPLETED", "2026-01-05 09:00"), None),  # by hand since
        ("2026-01-01 05:00", run("RUNNING", "2026-01-05 06:00"), "p after"),
        ("2026-01-05 07:00", run("PENDING", "2026-01-05 06:00"), "p after"),
        (None, run("CRASHED", "2026-01-05 06:00"), "p after"),
        ("2026-01-01 05:00", run("RUNNING", "2026-01-04 06:00"), "p due 2026-01-05T06:00:00+00:00"),  # one, not two
    ],
)
def test_what_a_pipeline_is_owed(since: str | None, last: Any, key: str | None) -> None:
    from flows import arrears

    owed = arrears.debt("p", "0 6 * * *", at(since) if since else None, at("2026-01-05 12:00"), last)
    told = owed.key.removesuffix(f" {last.id}") if owed and last else owed and owed.key
    assert told == key


def test_of_runs_that_pile_up_the_newest_stays_unless_its_work_is_done() -> None:
    from flows import arrears

    late = [run("SCHEDULED", f"2026-01-05 {hour:02d}:00") for hour in (9, 6, 8, 7)]
    assert arrears.superseded(late, None) == [late[1], late[3], late[2]]
    assert arrears.superseded(late, at("2026-01-05 08:30")) == [late[1], late[3], late[2]]
    assert arrears.superseded(late, at("2026-01-05 09:00")) == [late[1], late[3], late[2], late[0]]
    assert arrears.superseded([], None) == []


# ── with a real server ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    root = tmp_path_factory.mktemp("arrears")
    (root / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "PREFECT_HOME", "TIDEMILL_PREFECT_PORT"):
            patch.delenv(name, raising=False)
        workspace = Workspace(root)
        with servers.prefect_server(workspace, print):
            yield workspace


@pytest.fixture
def project(workspace: Workspace) -> Project:
    """Its pipelines as the scheduler deploys them; no run of the last test is left."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for each in client.read_flow_runs(limit=200):
            client.delete_flow_run(each.id)
    project = open_project(workspace.root)
    deploy(project)
    return project


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_in_mlflow(workspace: Workspace, pid: int) -> str:
    """The id of a run that a process of this number has begun."""
    store = open_store(workspace)
    tags = {"tidemill.process": f"{socket.gethostname()}:{pid}"}
    return str(store.client.create_run(store.experiment("hourly"), tags=tags).info.run_id)


def test_what_a_dead_process_left_as_running_is_closed_with_its_tasks(project: Project, dead: int) -> None:
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Running

    from flows import orphans
    from flows.checkups import flow_runs

    @task
    def work() -> None: ...

    @flow
    def left() -> None: ...

    with get_client(sync_client=True) as client:
        ids = [client.create_flow_run(left, state=Running()).id for _ in range(3)]
        done = client.create_flow_run(left, state=Completed()).id
        task_run = client.create_task_run(work, ids[0], dynamic_key="0", state=Running()).id
        folder = project.workspace.state / "flow-runs"
        folder.mkdir(exist_ok=True)
        for name in (ids[0], done, uuid4()):  # the last is another server's
            (folder / f"{name}.json").write_text(json.dumps({"pid": dead, "born": 1.0}))
        with orphans.noted(project.workspace, str(ids[1])), orphans.noted(project.workspace, ""):
            assert [one.ok for one in flow_runs(project)] == [False] * 3
            assert orphans.close(project.workspace) == 1
            assert [path.stem for path in folder.iterdir()] == [str(ids[1])], "who lives is left alone"
        states = [client.read_flow_run(one).state for one in (*ids, done)]
        assert [state and state.name for state in states] == ["Crashed", "Running", "Running", "Completed"]
        assert states[0] and states[0].message == f"process {dead} died"
        ended = client.read_task_run(task_run).state
        assert ended and ended.is_crashed()
    assert not list(folder.iterdir())
    assert [one.ok for one in flow_runs(project)] == [True]


def test_a_run_that_has_nothing_to_do_closes_what_a_dead_one_left(project: Project, dead: int) -> None:
    from flows import orphans

    file = project.workspace.state / "flow-runs" / f"{uuid4()}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"pid": dead, "born": 1.0}))
    left = left_in_mlflow(project.workspace, dead)
    orphans.bury_alone(project)
    assert not file.exists()
    assert open_store(project.workspace).client.get_run(left).info.status == "KILLED"


def deploy(project: Project) -> Any:
    """The id of the one deployment."""
    from flows import schedule

    (made,) = schedule.deployments(project)
    return made.apply()


def runs() -> list[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(limit=200)


def made_up() -> list[Any]:
    return [each for each in runs() if "catch-up" in each.tags]


def begun(deployment: Any, *states: Any) -> Any:
    """A run that went through these states."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        made = client.create_flow_run_from_deployment(deployment)
        for state in states:
            client.set_flow_run_state(made.id, state)
    return made.id


def pile_up(project: Project, count: int) -> list[Any]:
    """Runs of the schedule that were due an hour ago and before, as a server keeps them, the newest last."""
    from prefect.client.orchestration import get_client
    from prefect.states import Scheduled

    deployment, now = deploy(project), datetime.now(UTC)
    with get_client(sync_client=True) as client:
        dues = [now - timedelta(hours=hour) for hour in range(count, 0, -1)]
        made = [client.create_flow_run_from_deployment(deployment, state=Scheduled(scheduled_time=d)).id for d in dues]
    with closing(sqlite3.connect(project.workspace.state / "prefect" / "prefect.db", timeout=30)) as database, database:
        marks = ", ".join("?" * count)
        names = [str(one) for one in made]
        done = database.execute(f"UPDATE flow_run SET auto_scheduled = 1 WHERE id IN ({marks})", names)
        assert done.rowcount == count
    return made


def test_hours_without_a_scheduler_make_one_run(project: Project) -> None:
    from flows import arrears

    now = datetime.now(UTC)
    arrears.settle(project, now)
    assert made_up() == []  # the schedule is new
    later = now + timedelta(hours=5)
    arrears.settle(project, later)
    (made,) = made_up()
    assert made.idempotency_key == f"hourly due {later.replace(minute=0, second=0, microsecond=0).isoformat()}"
    assert made.parameters == {"name": "hourly", "root": str(project.workspace.root)}
    assert made.state.is_scheduled()
    arrears.settle(project, later)  # killed before it could write its schedules anew
    deploy(project)
    arrears.settle(project)  # started again right after
    assert [each.id for each in made_up()] == [made.id]


def test_a_schedule_that_was_changed_owes_nothing(project: Project) -> None:
    from flows import arrears

    changed = PARAMS.replace("0 * * * *", "30 * * * *")
    (project.workspace.root / "params.yaml").write_text(changed)
    try:
        arrears.settle(open_project(project.workspace.root), datetime.now(UTC) + timedelta(hours=5))
    finally:
        (project.workspace.root / "params.yaml").write_text(PARAMS)
    assert made_up() == []


def test_a_run_that_was_killed_is_gone_on_with_once(project: Project) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Pending, Running

    from flows import arrears

    killed = begun(deploy(project), Pending(), Running())
    with working(project.workspace, "hourly"):  # it lives
        arrears.settle(project)
    assert made_up() == []
    for _ in range(2):
        arrears.settle(project)
    (made,) = made_up()
    assert made.idempotency_key == f"hourly after {killed}"
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(killed).state.name == "Crashed"
        # The dead run's place is free: with it taken, the server would cancel this one.
        assert client.set_flow_run_state(made.id, Pending()).state.is_pending()


def test_runs_that_piled_up_before_the_start_do_not_run(project: Project) -> None:
    from flows import arrears

    late = pile_up(project, 3)
    arrears.settle(project)
    assert {each.state.name for each in runs() if each.id in late} == {"Cancelled"}


def test_of_runs_that_piled_up_while_the_server_was_down_one_runs(project: Project) -> None:
    from flows import arrears

    *older, newest = pile_up(project, 3)
    arrears.look({"hourly"})
    assert {each.state.name for each in runs() if each.id in older} == {"Cancelled"}
    assert [each.state.is_scheduled() for each in runs() if each.id == newest] == [True]


def test_a_server_that_is_away_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows import arrears

    def away(_: Any) -> Any:
        raise RuntimeError("Failed to reach API")

    monkeypatch.setattr(arrears, "deployments", away)
    arrears.look({"hourly"})
    assert "late runs could not be looked for: Failed to reach API" in capsys.readouterr().out


def test_schedules_that_are_no_more_are_withdrawn_and_those_of_other_projects_are_not(project: Project) -> None:
    from prefect.client.orchestration import get_client

    from flows import arrears, schedule

    gone, other = (
        dataclasses.replace(project, params=project.params.model_copy(update={"pipelines": {name: block}}))
        for name, block in (("gone", project.params.pipelines["hourly"]), ("other", project.params.pipelines["hourly"]))
    )
    deploy(gone)
    deploy(dataclasses.replace(other, workspace=Workspace(project.workspace.root / "elsewhere")))
    schedule.withdraw(project, {"hourly"})
    with get_client(sync_client=True) as client:
        there = {one.name: one.id for one in arrears.deployments(client)}
        assert set(there) == {"hourly", "other"}
        client.delete_deployment(there["other"])


# ── who is told of failures ─────────────────────────────────────────────────────────────────────────────

TOKEN = "s3cret-t0ken"


class Mailbox(socketserver.ThreadingTCPServer):
    """As much of an SMTP server as it takes to be given a mail."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        super().__init__(("127.0.0.1", 0), Conversation)


class Conversation(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                self.server.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
            self.wfile.write(b"250 well\r\n")


class Hook(http.server.BaseHTTPRequestHandler):
    said: ClassVar[list[tuple[str, Any]]] = []

    def do_POST(self) -> None:
        self.said.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not on the terminal."""


@contextlib.contextmanager
def serving(server: Any) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def standing() -> tuple[list[str], list[str]]:
    """Names of the automations and of the blocks' documents that are ours."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        automations = sorted(each.name for each in client.read_automations() if each.name.startswith("tidemill"))
        documents = client.request("POST", "/block_documents/filter", json={}).json()
    assert TOKEN not in json.dumps(documents)
    return automations, sorted(each["name"] for each in documents if each["name"].startswith("tidemill"))


def test_a_run_that_fails_is_told_once_by_webhook_and_mail(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Crashed, Failed, Pending, Running

    from flows import notices

    box = Mailbox()
    hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    with serving(box) as mail_port, serving(hook) as hook_port:
        monkeypatch.setenv(notices.WEBHOOK, "http://127.0.0.1:9/an-old-address")
        notices.arrange()
        monkeypatch.setenv(notices.WEBHOOK, f"http://127.0.0.1:{hook_port}/{TOKEN}")
        mail = f"mailto://127.0.0.1:{mail_port}?from=tide@example.org&to=anna@example.org&name={TOKEN}"
        monkeypatch.setenv(notices.EMAIL, mail)
        for _ in range(2):  # told twice it is one
            notices.arrange()
        assert standing() == (["tidemill-email", "tidemill-webhook"],) * 2
        time.sleep(2)  # the server reads its automations when it hears of them
        deployment = deploy(project)
        begun(deployment, Pending(), Running(), Completed())
        why = "Flow run encountered an exception: DataError: data/digits.parquet: is damaged\n  why: too short"
        begun(deployment, Pending(), Running(), Failed(message=why))
        begun(deployment, Pending(), Running(), Crashed(message="Its process is gone."))
        until = time.monotonic() + 60
        while (len(Hook.said), len(box.mails)) != (2, 2):
            assert time.monotonic() < until, (Hook.said, box.mails)
            time.sleep(0.1)
        time.sleep(1)
    assert (len(Hook.said), len(box.mails)) == (2, 2)
    failed, crashed = sorted(Hook.said, key=lambda said: "crashed" in said[1]["subject"])
    way_on = f"Once that is mended, in {project.workspace.root}: tidemill resume"
    assert failed[0] == f"/{TOKEN}"
    assert failed[1]["subject"] == "Tidemill: hourly failed"
    told = ["hourly: pipeline failed", "DataError: data/digits.parquet: is damaged", way_on]
    assert failed[1]["body"].splitlines() == told
    assert failed[1]["text"].splitlines() == ["Tidemill: hourly failed", *told]
    assert crashed[1]["body"].splitlines()[:2] == ["hourly: pipeline crashed", "Its process is gone."]
    text = "".join(sorted(box.mails))
    assert "Subject: Tidemill: hourly failed" in text
    for name in (notices.WEBHOOK, notices.EMAIL):
        monkeypatch.delenv(name)
    notices.arrange()
    assert standing() == ([], [])
    assert TOKEN not in (project.workspace.state / "logs" / "prefect.log").read_text()
    with get_client(sync_client=True) as client:
        events = client.request("POST", "/events/filter", json={}).text
    assert TOKEN not in events


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("TIDEMILL_NOTIFY_WEBHOOK", "hooks.example.org/x"),
        ("TIDEMILL_NOTIFY_WEBHOOK", "ftp://hooks.example.org"),
        ("TIDEMILL_NOTIFY_EMAIL", "anna@example.org"),
        ("TIDEMILL_NOTIFY_EMAIL", "mailto://mail.example.org"),
        ("TIDEMILL_NOTIFY_EMAIL", "https://mail.example.org?to=anna@example.org"),
    ],
)
def test_an_address_that_is_none_is_told_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    from flows import notices

    monkeypatch.setenv(name, address)
    with pytest.raises(ParamsError, match=name) as caught:
        notices.require()
    assert address not in str(caught.value)
