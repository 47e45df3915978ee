"""Servers as child processes. Most tests put a stand-in of a few lines in the servers' place, since the real ones take
half a minute to start; the last test starts the real ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from components.errors import Busy, ParamsError, TidemillError, Unreachable
from components.tracking.store import open_store
from components.workspace import Workspace
from flows import processes, programs, servers, supervision
from flows.processes import Process, answers, free_port
from flows.roster import RUN, Entry, Roster

ROOT = Path(__file__).parents[2]

# Answers 200 everywhere, through a child as MLflow's server does, and dies with it.
STAND_IN = """
import http.server, subprocess, sys, os
if len(sys.argv) == 2:
    sys.exit(subprocess.call([sys.executable, '-S', '-c', open(f'/proc/{os.getpid()}/cmdline').read().split('\\0')[3],
                              sys.argv[1], 'inner']))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Answer).serve_forever()
"""


def stand_in(folder: Path, name: str = "prefect", port: int = 0) -> programs.Server:
    port = port or free_port()
    url = f"http://127.0.0.1:{port}/api"
    return programs.Server(name, (sys.executable, "-S", "-c", STAND_IN, str(port)), folder, url, f"{url}/health")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "TIDEMILL_PREFECT_PORT", "TIDEMILL_MLFLOW_PORT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text("datasets: {}\npipelines: {}\n")
    workspace = Workspace(tmp_path)
    yield workspace
    for entry in Roster(workspace.state).entries().values():  # a test that failed
        entry.process.stop(1)


@pytest.fixture
def faked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "prefect", lambda w, port: stand_in(w.root, port=port))


class Actor:
    """A process of its own that does `body` to a workspace, with stand-ins for the servers."""

    def __init__(self, workspace: Workspace, body: str) -> None:
        prelude = f"""
            import sys
            sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
            from test_servers import *
            workspace = Workspace(Path({str(workspace.root)!r}))
            programs.prefect = lambda w, port: stand_in(w.root, port=port)
            say = lambda line: print(line, flush=True)
            """
        program = textwrap.dedent(prelude) + textwrap.dedent(body)
        self.child = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=workspace.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def hear(self, words: str) -> str:
        """Read until a line holds `words`."""
        assert self.child.stdout is not None
        heard = []
        for line in self.child.stdout:
            heard.append(line)
            if words in line:
                return line.strip()
        raise AssertionError(f"never said {words!r} but: {''.join(heard)}")

    def finish(self) -> int:
        assert self.child.stdin is not None
        self.child.stdin.close()
        code = self.child.wait(30)
        assert self.child.stdout is not None
        self.child.stdout.close()
        return code

    def kill(self) -> None:
        self.child.kill()
        self.finish()


BORROW = """
    with servers.prefect_server(workspace, say) as api:
        print("using", api, flush=True)
        sys.stdin.read()
    """
KEEP = """
    servers.up(workspace, None, say, [stand_in(workspace.root, name) for name in ("prefect", "mlflow")])
    """


@pytest.fixture
def actor(workspace: Workspace) -> Iterator[Callable[[str], Actor]]:
    begun: list[Actor] = []

    def begin(body: str) -> Actor:
        begun.append(Actor(workspace, body))
        return begun[-1]

    yield begin
    for each in begun:
        if each.child.poll() is None:
            each.kill()


def recorded(workspace: Workspace, name: str = "prefect") -> Process:
    return Roster(workspace.state).entries()[name].process


def family(process: Process) -> list[psutil.Process]:
    head = psutil.Process(process.pid)
    return [head, *head.children(recursive=True)]


def wait_dead(*processes: psutil.Process, patience_s: float = 15) -> None:
    deadline = time.monotonic() + patience_s
    while alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.05)


# ── borrowing ───────────────────────────────────────────────────────────────────────────────────────────


def test_runs_share_one_server_and_the_last_one_out_stops_it(
    workspace: Workspace, actor: Callable[[str], Actor]
) -> None:
    first, second = actor(BORROW), actor(BORROW)
    assert first.hear("using") == second.hear("using")
    process = recorded(workspace)
    members = family(process)
    assert len(members) == 2
    assert first.finish() == 0
    assert process.alive()
    assert second.finish() == 0
    wait_dead(*members, patience_s=0)
    assert Roster(workspace.state).entries() == {}


def test_a_server_whose_starter_was_killed_serves_the_next_run_and_stops_with_it(
    workspace: Workspace, actor: Callable[[str], Actor], faked: None
) -> None:
    starter = actor(BORROW)
    api = starter.hear("using").split()[1]
    starter.kill()
    process = recorded(workspace)
    assert process.alive()
    with servers.prefect_server(workspace, print) as found:
        assert found == api
        assert recorded(workspace) == process
    assert not process.alive()


def test_a_starter_killed_before_the_first_answer_leaves_a_server_that_is_found(
    workspace: Workspace, actor: Callable[[str], Actor], faked: None
) -> None:
    slow = BORROW.replace(
        "with", "programs.await_ready = lambda *_: print('waiting', flush=True) or sys.stdin.read()\n    with", 1
    )
    starter = actor(slow)
    starter.hear("waiting")
    starter.kill()
    process = recorded(workspace)
    with servers.prefect_server(workspace, print):
        assert recorded(workspace) == process


def test_what_a_dead_server_left_behind_is_stopped_and_a_new_one_started(workspace: Workspace, faked: None) -> None:
    roster = Roster(workspace.state)
    old = stand_in(workspace.root).start(roster, RUN)
    assert programs.await_ready(old, roster.entries()["prefect"].health) == ""
    head, orphan = family(old)
    head.kill()
    old.child.wait()  # type: ignore[union-attr]
    assert orphan.is_running()
    with servers.prefect_server(workspace, print):
        assert recorded(workspace) != old
        wait_dead(orphan, patience_s=0)


def test_a_record_whose_number_went_to_another_process_harms_nobody(workspace: Workspace, faked: None) -> None:
    mine = Process.me()
    stranger = Process(mine.pid, mine.born - 1000)
    workspace.state.mkdir()
    Roster(workspace.state).put("prefect", Entry("http://127.0.0.1:9/api", "http://127.0.0.1:9", stranger, RUN))
    with servers.prefect_server(workspace, print) as api:
        assert api != "http://127.0.0.1:9/api"
        assert mine.alive()


def test_a_sick_server_is_replaced(workspace: Workspace, faked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "START_PATIENCE_S", 0.0)
    monkeypatch.setattr(programs, "SICK_AFTER_S", 2.0)
    deaf = programs.Server(
        "prefect", (sys.executable, "-c", "import time; time.sleep(99)"), workspace.root, health="http://127.0.0.1:9"
    ).start(Roster(workspace.state), RUN)
    with servers.prefect_server(workspace, print):
        assert not deaf.alive()


def test_a_server_that_dies_while_starting_is_told_with_its_last_words(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = programs.Server(
        "prefect",
        (sys.executable, "-c", "raise SystemExit('no such table')"),
        workspace.root,
        health="http://127.0.0.1:9",
    )
    monkeypatch.setattr(programs, "prefect", lambda *_: broken)
    with (
        pytest.raises(Unreachable, match="prefect server did not start") as caught,
        servers.prefect_server(workspace, print),
    ):
        pass
    assert "no such table" in caught.value.why
    assert caught.value.where.endswith("logs/prefect.log")
    assert Roster(workspace.state).entries() == {}


@pytest.mark.parametrize("kind", ["nobody", "not Prefect"])
def test_an_address_that_does_not_answer_is_told_within_seconds(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "not Prefect":
            silent.listen()  # takes the request and never answers
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        begun = time.monotonic()
        with (
            pytest.raises(Unreachable, match="PREFECT_API_URL does not answer") as caught,
            servers.prefect_server(workspace, print),
        ):
            pass
    assert time.monotonic() - begun < 8
    assert caught.value.why and "unset PREFECT_API_URL" in caught.value.fix
    assert not workspace.state.exists()


def test_an_address_that_answers_is_used_and_left_alone(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    other = stand_in(workspace.root)
    process = Process.start(other.command, workspace.root / "log", os.environ, workspace.root)
    try:
        assert programs.await_ready(process, other.health) == ""
        monkeypatch.setenv("PREFECT_API_URL", other.url)
        with servers.prefect_server(workspace, print) as api:
            assert api == other.url
            assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert process.alive()
    finally:
        process.stop()


def test_prefect_reads_the_settings_whether_it_is_imported_before_or_within(actor: Callable[[str], Actor]) -> None:
    ask = """
    import os, threading
    def look():
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_ANALYTICS_ENABLED as analytics
        seen = []
        thread = threading.Thread(target=lambda: seen.append(PREFECT_API_URL.value()))
        thread.start(); thread.join()
        assert seen == [PREFECT_API_URL.value()], seen
        print("saw", seen[0], PREFECT_HOME.value(), analytics.value(), flush=True)
    for _ in range(2):
        with servers.prefect_server(workspace, say) as api:
            print("api", api, flush=True)
            look()
    assert "PREFECT_API_URL" not in os.environ and "PREFECT_HOME" not in os.environ
    look()
    """
    asker = actor(ask)
    for _ in range(2):
        api = asker.hear("api http").split()[1]
        _, seen, home, analytics = asker.hear("saw").split()
        assert (seen, analytics) == (api, "False")
        assert home.endswith(".tidemill/prefect")
    assert "saw None" in asker.hear("saw")
    assert asker.finish() == 0


def test_prefects_records_are_sent_before_the_server_stops_however_the_run_ends(
    workspace: Workspace, faked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bool] = []
    flush = SimpleNamespace(flush=lambda: sent.append(recorded(workspace).alive()))
    monkeypatch.setitem(sys.modules, "prefect.logging.handlers", SimpleNamespace(APILogHandler=lambda: flush))  # type: ignore[misc]
    with pytest.raises(KeyError), servers.prefect_server(workspace, print):
        raise KeyError("the run failed")
    assert sent == [True]


# ── keeping ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stops_cleanly_and_leaves_nothing_behind(
    workspace: Workspace, actor: Callable[[str], Actor], number: signal.Signals
) -> None:
    keeper = actor(KEEP.replace("None", "SimpleNamespace(pipelines={'p': SimpleNamespace(schedule='0 6 * * *')})"))
    keeper.hear("Ctrl-C stops all")
    members = [*family(recorded(workspace)), *family(recorded(workspace, "mlflow"))]
    guards = [p for p in psutil.Process(keeper.child.pid).children() if "flows.guard" in p.cmdline()]
    assert (len(members), len(guards)) == (4, 1)
    keeper.child.send_signal(number)
    assert keeper.finish() == 0
    wait_dead(*members, *guards, patience_s=0)
    assert Roster(workspace.state).entries() == {}


def test_servers_die_with_an_up_that_is_killed(workspace: Workspace, actor: Callable[[str], Actor]) -> None:
    keeper = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))
    keeper.hear("Ctrl-C stops all")
    members = [*family(recorded(workspace)), *family(recorded(workspace, "mlflow"))]
    keeper.kill()
    wait_dead(*members)


def test_the_next_up_stops_what_a_killed_up_and_its_guard_left(
    workspace: Workspace, actor: Callable[[str], Actor]
) -> None:
    keeper = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))
    keeper.hear("Ctrl-C stops all")
    members = [*family(recorded(workspace)), *family(recorded(workspace, "mlflow"))]
    for guard in psutil.Process(keeper.child.pid).children():
        if "flows.guard" in guard.cmdline():
            guard.kill()
    keeper.kill()
    assert all(member.is_running() for member in members)
    following = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))
    following.hear("Ctrl-C stops all")
    wait_dead(*members, patience_s=0)
    following.child.send_signal(signal.SIGTERM)
    assert following.finish() == 0


def test_a_second_up_says_that_one_is_at_work(workspace: Workspace, actor: Callable[[str], Actor]) -> None:
    keeper = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))
    keeper.hear("Ctrl-C stops all")
    with pytest.raises(Busy, match=f"process {keeper.child.pid}: tidemill up is at work here already"):
        servers.up(workspace, SimpleNamespace(pipelines={}), print, [])  # type: ignore[arg-type]
    keeper.child.send_signal(signal.SIGTERM)
    assert keeper.finish() == 0


def test_a_run_uses_the_server_of_up_and_leaves_it_running(
    workspace: Workspace, actor: Callable[[str], Actor], faked: None
) -> None:
    keeper = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))
    keeper.hear("Ctrl-C stops all")
    process, entries = recorded(workspace), Roster(workspace.state).entries()
    with servers.prefect_server(workspace, print) as api:
        assert api == entries["prefect"].url
        assert servers.addresses(workspace) == {
            "prefect": api.removesuffix("/api"),
            "mlflow": entries["mlflow"].url.removesuffix("/api"),
        }
    assert process.alive()
    keeper.child.send_signal(signal.SIGTERM)
    assert keeper.finish() == 0


def test_a_server_that_runs_still_use_passes_from_up_to_them(
    workspace: Workspace, actor: Callable[[str], Actor], faked: None
) -> None:
    keeper = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))
    keeper.hear("Ctrl-C stops all")
    process, mlflow = recorded(workspace), recorded(workspace, "mlflow")
    with servers.prefect_server(workspace, print):
        keeper.child.send_signal(signal.SIGTERM)
        keeper.hear("prefect stays until the last run that uses it ends")
        assert keeper.finish() == 0
        assert (process.alive(), mlflow.alive()) == (True, False)
        following = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))  # takes it over again
        following.hear("Ctrl-C stops all")
        assert recorded(workspace) == process
    assert process.alive()
    following.child.send_signal(signal.SIGTERM)
    assert following.finish() == 0
    assert not process.alive()


def test_a_server_that_dies_is_reported_and_started_again(workspace: Workspace, actor: Callable[[str], Actor]) -> None:
    keeper = actor(KEEP.replace("None", "SimpleNamespace(pipelines={})"))
    keeper.hear("Ctrl-C stops all")
    old = recorded(workspace, "mlflow")
    members = family(old)
    os.kill(old.pid, signal.SIGKILL)
    assert "mlflow died (signal 9); again in 1 s" in keeper.hear("died")
    keeper.hear("mlflow was started again")
    wait_dead(*members, patience_s=0)  # its child too, which held the port
    entry = Roster(workspace.state).entries()["mlflow"]
    assert programs.await_ready(entry.process, entry.health) == ""
    keeper.child.send_signal(signal.SIGTERM)
    assert keeper.finish() == 0


def test_a_server_that_keeps_dying_is_given_up_and_all_is_stopped(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(supervision, "DEATHS", 2)
    mortal = programs.Server(
        "mortal", (sys.executable, "-S", "-c", "import sys; print('bad line 7'); sys.exit(3)"), workspace.root
    )
    monkeypatch.setattr(programs, "await_ready", lambda *_: "")
    monkeypatch.setattr(supervision, "await_ready", lambda *_: "")
    said: list[str] = []
    with pytest.raises(TidemillError, match="mortal died 3 times in a row") as caught:
        servers.up(workspace, SimpleNamespace(pipelines={}), said.append, [mortal])  # type: ignore[arg-type]
    assert "bad line 7" in caught.value.why
    assert sum("mortal died (exit code 3)" in line for line in said) == 2
    assert Roster(workspace.state).entries() == {}


def test_up_that_cannot_start_stops_what_it_started(workspace: Workspace) -> None:
    broken = programs.Server("mlflow", (sys.executable, "-S", "-c", "1/0"), workspace.root, health="http://127.0.0.1:9")
    good = stand_in(workspace.root)
    with pytest.raises(Unreachable, match="mlflow server did not start") as caught:
        servers.up(workspace, SimpleNamespace(pipelines={}), print, [good, broken])  # type: ignore[arg-type]
    assert "ZeroDivisionError" in caught.value.why
    assert answers(good.health, 1)
    assert Roster(workspace.state).entries() == {}


def test_addresses_that_cannot_be_arranged_end_up_and_are_not_shown(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TIDEMILL_NOTIFY_WEBHOOK", "ftp://s3cret")
    log = workspace.state / "logs" / "scheduler.log"
    log.parent.mkdir(parents=True)
    with pytest.raises(TidemillError, match="could not be arranged") as caught:
        programs.settle(workspace, "http://127.0.0.1:9/api", log)
    assert "TIDEMILL_NOTIFY_WEBHOOK: expected an address such as" in caught.value.why
    assert "s3cret" not in log.read_text()
    with pytest.raises(ParamsError, match="TIDEMILL_NOTIFY_WEBHOOK"):
        servers.up(workspace, SimpleNamespace(pipelines={}), print)  # type: ignore[arg-type]


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 5)
    log = tmp_path / "server.log"
    for said in ("one", "two", "three"):
        process = Process.start([sys.executable, "-S", "-c", f"print({said!r})"], log, os.environ, tmp_path)
        assert process.child is not None
        process.child.wait()
    assert log.read_text() == "three\n"
    assert (tmp_path / "server.old.log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("said", ["http", "70000", "0"])
def test_a_port_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("TIDEMILL_PREFECT_PORT", said)
    with pytest.raises(ParamsError, match=f"TIDEMILL_PREFECT_PORT: got '{said}'"):
        programs.choose_port("TIDEMILL_PREFECT_PORT", 4200)


def test_a_port_that_is_taken_is_told_and_a_friendly_one_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.delenv("TIDEMILL_MLFLOW_PORT", raising=False)
        assert programs.choose_port("TIDEMILL_MLFLOW_PORT", taken) != taken
        monkeypatch.setenv("TIDEMILL_MLFLOW_PORT", str(taken))
        with pytest.raises(Busy, match=f"port {taken} is taken"):
            programs.choose_port("TIDEMILL_MLFLOW_PORT", 5000)


def test_addresses_of_the_environment_win(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert servers.addresses(workspace) == {}
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert servers.addresses(workspace) == {
        "prefect": "http://prefect.example:4200",
        "mlflow": "https://mlflow.example",
    }


def test_up_starts_nothing_that_runs_elsewhere_and_says_so_when_it_does_not_answer(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(programs, "prefect", lambda *_: pytest.fail("started Prefect before asking MLflow"))
    other = stand_in(workspace.root)
    process = Process.start(other.command, workspace.root / "log", os.environ, workspace.root)
    try:
        assert programs.await_ready(process, other.health) == ""
        monkeypatch.setenv("PREFECT_API_URL", other.url)
        with pytest.raises(Unreachable, match="MLFLOW_TRACKING_URI does not answer"):
            servers.up(workspace, SimpleNamespace(pipelines={}), print)  # type: ignore[arg-type]
    finally:
        process.stop()


PLANTED = "planted-secret-77ab"


# ── the real servers ────────────────────────────────────────────────────────────────────────────────────


def test_up_with_the_real_servers(workspace: Workspace) -> None:
    store = open_store(workspace)
    tags = {"tidemill.process": f"{socket.gethostname()}:{os.getpid()}:1000000000"}
    left = store.client.create_run(store.experiment("tides"), tags=tags).info.run_id  # whose process died long ago
    body = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from types import SimpleNamespace
        from components.workspace import Workspace
        from flows import servers
        servers.up(Workspace(Path.cwd()), SimpleNamespace(pipelines={{}}), lambda line: print(line, flush=True))
        """
    command = [sys.executable, "-c", textwrap.dedent(body)]
    unwise = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true", "AWS_SECRET_ACCESS_KEY": PLANTED}
    keeper = subprocess.Popen(
        command, cwd=workspace.root, env=unwise, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert keeper.stdout is not None
    try:
        heard = ""
        while "Ctrl-C stops all" not in heard:
            line = keeper.stdout.readline()
            assert line, heard
            heard += line
        assert store.client.get_run(left).info.status == "KILLED"
        found = servers.addresses(workspace)
        members = [*family(recorded(workspace)), *family(recorded(workspace, "mlflow"))]
        assert all(url in heard for url in found.values())
        settings = json.load(urllib.request.urlopen(f"{found['prefect']}/ui-settings"))
        assert settings["api_url"] == f"{found['prefect']}/api"
        assert "<title>MLflow</title>" in urllib.request.urlopen(found["mlflow"]).read().decode()
        search = f"{found['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1"
        assert "experiments" in json.load(urllib.request.urlopen(search))
        assert answers_to(urllib.request.Request(search, headers={"Host": "evil.example"})) == 403
        listening = {c.laddr.ip for p in members for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        assert {p.environ()["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] for p in members} == {"false"}
        assert not [p for p in members if PLANTED in " ".join(p.cmdline())]
    finally:
        keeper.send_signal(signal.SIGTERM)
        code = keeper.wait(60)
        keeper.stdout.close()
    assert code == 0
    wait_dead(*members, patience_s=0)
    assert PLANTED not in heard
    assert not [p for p in workspace.root.rglob("*") if p.is_file() and PLANTED.encode() in p.read_bytes()]


def answers_to(request: urllib.request.Request) -> int:
    try:
        return int(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)
