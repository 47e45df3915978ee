"""One worker at a time on a pipeline, and only that one commits.

The kernel's lock goes with its process, however that ends. A process that lives but gives no sign of it for as long as
a lease, because it was stopped or its machine slept, may be superseded: another lock file takes the place of its own,
and `committing` refuses whoever holds one that is no longer there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from .errors import Busy
from .ticking import every
from .workspace import Workspace, command, lease_s

_mine: dict[Path, IO[str]] = {}  # the lock files that this process holds


@contextlib.contextmanager
def working(workspace: Workspace, pipeline: str) -> Iterator[None]:
    """Hold a pipeline while it is worked on.

    What the lock file says stays unless the work ends well: that is how `unfinished` knows. Raises Busy, naming who
    holds it, if somebody else does.
    """
    with _held(workspace, pipeline) as (lock, _):
        yield
        lock.truncate(0)


@contextlib.contextmanager
def holding(workspace: Workspace, pipeline: str) -> Iterator[None]:
    """Hold a pipeline so that nobody works on it; what was left unfinished stays so."""
    with _held(workspace, pipeline) as (lock, before):
        try:
            yield
        finally:
            lock.truncate(0)
            lock.write(before)


@contextlib.contextmanager
def committing(workspace: Workspace, pipeline: str) -> Iterator[None]:
    """What is done within counts, and nobody takes the pipeline over meanwhile.

    Raises Busy if somebody has, since this process was given it. Whoever never held it may commit as well.
    """
    with _commits(workspace, pipeline, fcntl.LOCK_EX):
        require(workspace, pipeline)
        yield


def require(workspace: Workspace, pipeline: str) -> None:
    """Raise Busy if this process held the pipeline and was superseded."""
    file = _file(workspace, pipeline)
    lock = _mine.get(file)
    if lock is not None and not _stands(lock, file):
        raise Busy(
            f"pipeline {pipeline!r} was taken over while this process was paused",
            where=str(file),
            why=f"it is held by {file.read_text(encoding='utf-8').strip() or 'nobody any more'}",
            fix=f"leave it to that process, then see tidemill results {pipeline}: nothing is written twice",
        )


def unfinished(workspace: Workspace) -> dict[str, str]:
    """Pipelines whose work was left by a process that is gone, or ended badly; and who that was."""
    found: dict[str, str] = {}
    for file in sorted((workspace.state / "locks").glob("*.lock")):
        with file.open(encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody works on it
                continue
            if said := lock.read().strip():
                found[file.stem] = said
    return found


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


def _file(workspace: Workspace, pipeline: str) -> Path:
    return workspace.state / "locks" / f"{pipeline}.lock"


@contextlib.contextmanager
def _held(workspace: Workspace, pipeline: str) -> Iterator[tuple[IO[str], str]]:
    """The lock file, which says who holds it now, and what it said before."""
    file = _file(workspace, pipeline)
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_taken(file) or _superseding(workspace, pipeline))
        lock.seek(0)
        before = lock.read()
        lock.truncate(0)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} ({command()}) since {started}")
        lock.flush()
        stack.enter_context(every(lease_s() / 6, lambda: os.utime(lock.fileno()), "sign of life"))
        _mine[file] = lock
        stack.callback(_mine.pop, file)
        yield lock, before


def _taken(file: Path) -> IO[str] | None:
    """The lock file, locked; None if somebody else has locked it."""
    while True:
        lock = file.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        if _stands(lock, file):
            return lock
        lock.close()  # replaced in between


def _superseding(workspace: Workspace, pipeline: str) -> IO[str]:
    """A lock file in the place of one whose holder gives no sign of life. Raises Busy if it does, or if it was paused
    in the midst of a commit, which is its own to end."""
    file = _file(workspace, pipeline)
    with _commits(workspace, pipeline, fcntl.LOCK_EX | fcntl.LOCK_NB):
        lock = _taken(file)
        if lock is not None:  # it has ended
            return lock
        if time.time() - file.stat().st_mtime <= lease_s():
            raise _busy(pipeline, file)
        aside = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        lock = aside.open("a+", encoding="utf-8")
        lock.write(file.read_text(encoding="utf-8"))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        aside.replace(file)
        return lock


@contextlib.contextmanager
def _commits(workspace: Workspace, pipeline: str, how: int) -> Iterator[None]:
    file = _file(workspace, pipeline).with_suffix(".commit")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, how)
        except BlockingIOError:
            raise _busy(pipeline, _file(workspace, pipeline)) from None
        yield


def _stands(lock: IO[str], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _busy(pipeline: str, file: Path) -> Busy:
    return Busy(
        f"pipeline {pipeline!r} is being worked on",
        why=file.read_text(encoding="utf-8").strip(),
        fix="wait for it, or stop it, then run again",
    )
