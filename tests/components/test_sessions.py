"""Who shares Ray how, and what an address that nobody answers at says. (Ray itself starts in test_tuning.)"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from components.errors import ParamsError, Unreachable
from components.tuning import rays, sessions


@pytest.mark.parametrize(
    ("wanted", "total", "given"),
    [
        ([4], 2, [2]),
        ([1], 8, [1]),
        ([4, 4], 2, [1, 1]),
        ([4, 1], 8, [4, 1]),
        ([9, 1, 9], 7, [3, 1, 3]),
        ([1, 1, 1], 2, [1, 1, 0]),
        ([], 2, []),
    ],
)
def test_cpus_are_shared_by_need(wanted: list[int], total: int, given: list[int]) -> None:
    assert sessions.fair(wanted, total) == given


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a server that speaks HTTP/1."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def unanswered(address: str) -> str:
    before, started = dict(os.environ), time.monotonic()
    with pytest.raises(Unreachable) as raised, sessions.session(address):
        pytest.fail("joined what is not there")
    assert time.monotonic() - started < 10
    assert dict(os.environ) == before
    message = str(raised.value)
    assert message.startswith(f"{address}: Ray does not answer\n") and "RAY_ADDRESS" in message
    return message


def test_an_address_where_nobody_listens_is_unreachable_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert "refused" in unanswered(address)


def test_what_listens_but_is_not_ray_is_unreachable_within_seconds(silent: str, web: str) -> None:
    assert "timed out" in unanswered(silent)
    assert "not Ray" in unanswered(web)


def test_a_host_that_does_not_exist_is_unreachable() -> None:
    unanswered("no-such-host.invalid:6379")


@pytest.mark.parametrize(("address", "says"), [("somewhere", "HOST:PORT"), ("ray://127.0.0.1:10001", "client port")])
def test_an_address_of_the_wrong_kind_says_which_is_right(address: str, says: str) -> None:
    with pytest.raises(ParamsError, match=says), sessions.session(address):
        pytest.fail("joined what is not there")


def test_folders_of_killed_processes_go_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, foreign = tmp_path / f"{rays.FOLDER}{gone.pid}-abc", tmp_path / "another-1-abc"
    (dead / "session").mkdir(parents=True)
    foreign.mkdir()
    with rays.folder() as mine:
        rays._clear_leftovers()
        assert not dead.exists() and foreign.exists() and Path(mine).exists()
    assert not Path(mine).exists()


def test_packages_are_found_where_they_are_imported_from() -> None:
    assert (rays.import_folder("components") / "stages.py").is_file()
    assert rays.import_folder("this").name == "this.py"
    with pytest.raises(ParamsError, match="cannot be imported"):
        rays.import_folder("no_such_package")


def test_rays_folder_goes_even_while_its_processes_still_write() -> None:
    def write(logs: Path) -> None:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            with contextlib.suppress(OSError):  # it is being removed
                logs.mkdir(exist_ok=True)
                (logs / str(time.monotonic_ns())).touch()

    with rays.folder() as mine:
        writers = [threading.Thread(target=write, args=(Path(mine) / f"logs-{n}",)) for n in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(0.1)
    assert not Path(mine).exists()
    for writer in writers:
        writer.join()


def test_a_ray_that_was_interrupted_as_it_started_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ray.shutdown() does not know it, and its processes do not listen."""
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(rays, "_ENDED_WITHIN_S", 0.1)
    below = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(60)"
    head = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}])"
    with subprocess.Popen([sys.executable, "-c", head, str(tmp_path)], stdout=subprocess.PIPE) as begun:
        assert begun.stdout
        begun.stdout.readline()
        processes = [psutil.Process(begun.pid), *psutil.Process(begun.pid).children()]
        other = subprocess.Popen(["sleep", "60"])
        rays._shut_down(str(tmp_path))
        assert len(processes) == 2 and not any(each.is_running() for each in processes)
        assert other.poll() is None, "what is not Ray's stays"
        other.kill()
        other.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_while_ray_is_put_away_puts_it_away_first(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: os.kill(os.getpid(), number))
    before = signal.signal(number, stop)
    try:
        with pytest.raises(Stopped), sessions.session():
            assert len(list(tmp_path.glob(f"{rays.FOLDER}*"))) == 1
        assert not list(tmp_path.iterdir()) and signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


def test_sigterm_as_ray_ends_is_heard_once_it_has() -> None:
    """Ray's own handler, as it goes, leaves the signal to kill the process, which Python does not notice."""
    program = """
import os, signal
import ray
from components.tuning import sessions

class Heard(Exception):
    pass

def hear(*_):
    raise Heard

def end():
    ended()
    os.kill(os.getpid(), signal.SIGTERM)

ended, ray.shutdown = ray.shutdown, end
signal.signal(signal.SIGTERM, hear)
try:
    with sessions.session():
        pass
except Heard:
    print("heard")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr
