"""A sweep is one driver's at a time; one that was paused past its lease commits nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.errors import Busy
from components.tuning import lease


def write(storage: Path, **said: Any) -> None:
    """Somebody else's lease: of a living process of this machine, valid for a minute, but for what is said."""
    parent = psutil.Process().parent()
    assert parent is not None
    other = {"token": "other", "who": "process 7 on far", "host": socket.gethostname(), "stop": False}
    other |= {"pid": parent.pid, "born": parent.create_time(), "until": time.time() + 60}
    (storage / lease.FILE).write_text(json.dumps(other | said))


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_is_there_while_it_is_held_and_gone_after(tmp_path: Path) -> None:
    with lease.held(str(tmp_path)) as mine:
        mine.check()
        assert lease.word(str(tmp_path), mine.token) == "go on"
        mine.stop()
        assert lease.word(str(tmp_path), mine.token) == "stop"
        assert lease.word(str(tmp_path), "another") == "lost"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("said", [{}, {"host": "another", "pid": dead()}])
def test_who_lives_is_left_to_work(tmp_path: Path, said: dict[str, Any]) -> None:
    write(tmp_path, **said)
    with pytest.raises(Busy, match=r"(?s)being worked on.*process 7 on far"), lease.held(str(tmp_path)):
        pass
    assert lease.word(str(tmp_path), "other") == "go on", "its lease is untouched"


@pytest.mark.parametrize("said", [{"pid": dead()}, {"born": 1.0}, {"host": "another", "until": time.time() - 1}])
def test_the_dead_hold_nothing(tmp_path: Path, said: dict[str, Any]) -> None:
    write(tmp_path, **said)
    with lease.held(str(tmp_path)) as mine:
        assert lease.word(str(tmp_path), mine.token) == "go on"


def test_it_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_LEASE_S", "0.6")
    with lease.held(str(tmp_path)):
        first = json.loads((tmp_path / lease.FILE).read_text())["until"]
        deadline = time.monotonic() + 10
        while json.loads((tmp_path / lease.FILE).read_text())["until"] < first + 0.6:
            assert time.monotonic() < deadline, "nobody renews it"
            time.sleep(0.05)


def test_whoever_was_taken_over_hears_of_it_and_leaves_the_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_LEASE_S", "0.3")
    with lease.held(str(tmp_path)) as mine:
        write(tmp_path)
        with pytest.raises(Busy, match="taken over"):
            mine.check()
        deadline = time.monotonic() + 10
        while not mine.lost:
            assert time.monotonic() < deadline, "nobody notices"
            time.sleep(0.02)
    assert lease.word(str(tmp_path), "other") == "go on"
