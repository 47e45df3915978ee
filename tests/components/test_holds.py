"""One process works on a pipeline at a time; whoever was paused past its lease commits nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from components import holds
from components.errors import Busy
from components.workspace import Workspace


def _hold(root: str) -> None:
    with holds.working(Workspace(Path(root)), "digits"):
        (Path(root) / "held").touch()
        time.sleep(60)


def test_one_works_the_other_is_told_who(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(tmp_path),))
    child.start()
    try:
        while not (tmp_path / "held").exists():
            time.sleep(0.02)
        with pytest.raises(Busy, match=f"process {child.pid}"), holds.working(workspace, "digits"):
            pass
        with holds.working(workspace, "other"):
            pass
    finally:
        child.kill()
        child.join()
    with holds.working(workspace, "digits"):  # the dead hold nothing
        pass


def test_what_was_left_unfinished_is_known(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert holds.unfinished(workspace) == {}
    child = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(tmp_path),))
    child.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.02)
    assert holds.unfinished(workspace) == {}, "somebody works on it"
    child.kill()
    child.join()
    with pytest.raises(KeyboardInterrupt), holds.working(workspace, "stopped"):
        raise KeyboardInterrupt
    with holds.working(workspace, "done"):
        pass
    for _ in range(2):
        with holds.holding(workspace, "digits"), holds.holding(workspace, "done"):
            pass
    left = holds.unfinished(workspace)
    assert list(left) == ["digits", "stopped"] and f"process {child.pid}" in left["digits"]
    with holds.working(workspace, "digits"):
        pass
    assert list(holds.unfinished(workspace)) == ["stopped"]


# ── paused past its lease ───────────────────────────────────────────────────────────────────────────────


def _commit(root: str) -> None:
    """Hold, wait to be told, commit, and say how that went."""
    place = Path(root)
    with holds.working(Workspace(place), "digits"):
        (place / "held").touch()
        _await(place / "go")
        try:
            with holds.committing(Workspace(place), "digits"):
                (place / "in").touch()
                _await(place / "end")
            said = "committed"
        except Busy as error:
            said = str(error)
    (place / "saying").write_text(said)
    (place / "saying").replace(place / "said")  # there at once, with all its words


def _await(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseProcess]:
    """A process that holds a pipeline, and waits."""
    monkeypatch.setenv("TIDEMILL_LEASE_S", "0.6")
    child = multiprocessing.get_context("spawn").Process(target=_commit, args=(str(tmp_path),))
    child.start()
    _await(tmp_path / "held")
    yield child
    if child.is_alive():
        os.kill(child.pid or 0, signal.SIGCONT)
    (tmp_path / "go").touch()
    (tmp_path / "end").touch()
    child.join(20)
    assert child.exitcode == 0


def _paused(child: BaseProcess) -> None:
    os.kill(child.pid or 0, signal.SIGSTOP)
    time.sleep(1.0)  # longer than its lease


def test_whoever_lives_keeps_its_work_however_long_it_takes(tmp_path: Path, owner: BaseProcess) -> None:
    time.sleep(1.0)
    with pytest.raises(Busy, match=f"process {owner.pid}"), holds.working(Workspace(tmp_path), "digits"):
        pass


def test_whoever_was_paused_past_its_lease_is_superseded_and_cannot_commit(tmp_path: Path, owner: BaseProcess) -> None:
    _paused(owner)
    with holds.working(Workspace(tmp_path), "digits"):
        os.kill(owner.pid or 0, signal.SIGCONT)
        (tmp_path / "go").touch()
        _await(tmp_path / "said")
        said = (tmp_path / "said").read_text()
        assert "was taken over while this process was paused" in said and f"process {os.getpid()}" in said
        with holds.committing(Workspace(tmp_path), "digits"):
            pass
        with pytest.raises(Busy), holds.working(Workspace(tmp_path), "digits"):
            pass
    assert not (tmp_path / "in").exists()
    assert holds.unfinished(Workspace(tmp_path)) == {}, "the old owner leaves the new one's word alone"


def test_whoever_was_paused_in_the_midst_of_a_commit_is_left_to_end_it(tmp_path: Path, owner: BaseProcess) -> None:
    (tmp_path / "go").touch()
    _await(tmp_path / "in")
    _paused(owner)
    with pytest.raises(Busy), holds.working(Workspace(tmp_path), "digits"):
        pass
    os.kill(owner.pid or 0, signal.SIGCONT)
    (tmp_path / "end").touch()
    _await(tmp_path / "said")
    owner.join(20)
    assert (tmp_path / "said").read_text() == "committed"
    with holds.working(Workspace(tmp_path), "digits"):
        pass
