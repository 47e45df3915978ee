"""Processes that outlive the one that started them: known by pid and birth, asked for health, stopped whole."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

LOOPBACK = "127.0.0.1"
# Births are counted from the boot time, which moves a little when the clock is set.
BIRTH_SLACK_S = 2.0
LOG_BYTES = 10_000_000


@dataclass(frozen=True)
class Process:
    """A process at the head of a group of its own. A pid comes round again; pid and birth together do not."""

    pid: int
    born: float
    # Kept where this process is the parent, so that the dead child is reaped.
    child: subprocess.Popen[bytes] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def start(cls, command: Sequence[str], log: Path, env: Mapping[str, str], folder: Path) -> Process:
        """Start `command` in `folder`, its output appended to `log`; a log that has grown long is put aside first.

        Its own session: a Ctrl-C on the starter's terminal is not meant for it.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))
        with log.open("ab") as out:
            child = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        return cls(child.pid, _birth(child.pid) or time.time(), child)

    @classmethod
    def me(cls) -> Process:
        return cls(os.getpid(), psutil.Process().create_time())

    def how(self) -> str:
        """How it ended, as far as its parent can tell."""
        code = self.child.poll() if self.child else None
        if code is None:
            return ""
        return f" (signal {-code})" if code < 0 else f" (exit code {code})"

    def alive(self) -> bool:
        if self.child is not None:
            return self.child.poll() is None
        birth = _birth(self.pid)
        return birth is not None and abs(birth - self.born) <= BIRTH_SLACK_S and not _zombie(self.pid)

    def stop(self, patience_s: float = 20.0) -> None:
        """TERM to the group; KILL, after `patience_s`, to whatever is left of it and of all that it started."""
        group = self._group()
        tree = group | _started_by(group)
        for member in group:
            _send(member, signal.SIGTERM)
        if not _wait_gone(tree, patience_s):
            group = self._group()
            tree |= group | _started_by(group)
            for member in tree:
                _send(member, signal.SIGKILL)
            _wait_gone(tree, 5.0)
        if self.child is not None:
            self.child.wait()

    def _group(self) -> set[psutil.Process]:
        """The members of its group. The group lives on, under the same number, when its head has died."""
        birth = _birth(self.pid)
        if birth is not None and abs(birth - self.born) > BIRTH_SLACK_S:
            return set()  # a newcomer has the number
        found = set()
        for member in psutil.process_iter():
            try:
                if os.getpgid(member.pid) == self.pid and member.create_time() >= self.born - BIRTH_SLACK_S:
                    found.add(member)
            except (ProcessLookupError, psutil.Error):
                continue
        return found


def answers(url: str, timeout_s: float = 5.0) -> str:
    """Why `url` does not answer with 200; "" if it does."""
    direct = urlsplit(url).hostname in (LOOPBACK, "localhost", "::1")
    proxies = urllib.request.ProxyHandler({} if direct else None)
    try:
        with urllib.request.build_opener(proxies).open(url, timeout=timeout_s) as answer:
            return "" if answer.status == 200 else f"HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def free_port(preferred: int = 0) -> int:
    """`preferred` if nobody listens there, else any free port of the loopback address."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, blank lines left out."""
    if not log.is_file():
        return ""
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return "\n".join([line for line in lines if line.strip()][-count:])


def _birth(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _started_by(group: Iterable[psutil.Process]) -> set[psutil.Process]:
    """All that the group started, in groups of their own too, as the children of Ray and Prefect are."""
    found = set()
    for member in group:
        try:
            found.update(member.children(recursive=True))
        except psutil.Error:
            continue
    return found


def _send(member: psutil.Process, number: int) -> None:
    try:
        member.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _gone(member: psutil.Process) -> bool:
    """A zombie is gone: it may wait long for a parent that reaps it."""
    try:
        return member.status() == psutil.STATUS_ZOMBIE or not member.is_running()
    except psutil.Error:
        return True


def _wait_gone(members: Iterable[psutil.Process], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    waited = list(members)
    while waited := [member for member in waited if not _gone(member)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
