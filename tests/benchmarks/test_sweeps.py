"""Whose memory a sweep's is, and what makes a line a miss."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import sweeps
from components.workspace import Workspace

BYTES = 60_000_000
ORPHAN = f"import time; kept = bytearray(b'x') * {BYTES}; print(flush=True); time.sleep(60)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {ORPHAN!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
time.sleep(2)
"""


def test_a_process_whose_parent_has_gone_still_counts(tmp_path: Path) -> None:
    tree = sweeps.Tree(tmp_path)
    try:
        _, most, code = sweeps.measured([sys.executable, "-c", PARENT], tree)
        assert code == 0 and BYTES < most < 10 * BYTES
        assert tree.memory() > BYTES  # the child's alone: the parent has ended
    finally:
        for process in tree.seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_a_server_that_was_up_before_counts_if_it_names_the_folder(tmp_path: Path) -> None:
    started = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)], stdout=subprocess.DEVNULL)
    server = psutil.Process(started.pid)
    try:
        tree = sweeps.Tree(tmp_path)
        tree.memory()
        assert server in tree.seen
        other = sweeps.Tree(tmp_path / "other")
        other.memory()
        assert server not in other.seen
    finally:
        started.kill()
        started.wait()


@pytest.mark.parametrize(
    ("seconds", "memory", "code", "said"),
    [
        (700.0, 3_900_000_000, 0, "met"),
        (721.0, 4_100_000_000, 0, "missed: mark 720 s, mark 4 GB"),
        (9.0, 1, 5, "missed: exit code 5"),
    ],
)
def test_each_mark_is_held(
    seconds: float,
    memory: int,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receipts: Any = iter([None, "trained"])
    monkeypatch.setattr(sweeps.Workspace, "find", lambda: Workspace(tmp_path))
    monkeypatch.setattr(sweeps, "measured", lambda *_: (seconds, memory, code))
    monkeypatch.setattr(sweeps.receipts, "read", lambda *_: next(receipts))
    monkeypatch.setattr(sys, "argv", ["sweeps", "digits"])
    assert sweeps.main() == (said != "met")
    assert capsys.readouterr().out.strip().endswith(said)


def test_a_run_with_nothing_to_do_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweeps.Workspace, "find", lambda: Workspace(tmp_path))
    monkeypatch.setattr(sweeps, "measured", lambda *_: (3.0, 10, 0))
    monkeypatch.setattr(sys, "argv", ["sweeps", "digits"])
    assert sweeps.main() == 1
    assert "nothing was trained" in capsys.readouterr().out
