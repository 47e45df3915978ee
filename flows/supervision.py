"""Keeping servers alive: started together, started again when they die, stopped whole when the keeper goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from components import signals
from components.errors import Busy, TidemillError

from .processes import Process, last_lines
from .programs import Server, await_ready, not_started
from .roster import Entry, Roster

# A server that lives this long is well again; one that dies more often than DEATHS in a row is given up.
WELL_AFTER_S, DEATHS, LONGEST_PAUSE_S = 60.0, 5, 30.0


@dataclass
class Kept:
    """One server and how it fares. `again_at` is when a dead one is started again, on the monotonic clock."""

    server: Server
    process: Process
    since: float = field(default_factory=time.monotonic)
    deaths: int = 0
    again_at: float | None = None


class Supervision:
    """The servers that one `tidemill up` keeps. As a context manager it stops them at the end, however it ends:
    a guard process outlives a kill -9 of this one just long enough to do it."""

    def __init__(self, roster: Roster, say: Callable[[str], None], stopping: threading.Event) -> None:
        self.roster, self.say, self.stopping = roster, say, stopping
        self.kept: list[Kept] = []
        me = Process.me()
        self.keeper = f"up {me.pid} {me.born}"

    def __enter__(self) -> Supervision:
        command = (sys.executable, "-m", "flows.guard", str(self.roster.state), self.keeper)
        log = self.roster.log("guard")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self.guard = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.kept:
            self.say("stopping the servers")
        self.roster.leave(self.keeper)
        assert self.guard.stdin is not None
        self.guard.stdin.close()
        self.guard.wait()
        for kept in self.kept:
            if kept.process.alive():
                self.say(f"{kept.server.name} stays until the last run that uses it ends")

    def start(self, servers: Sequence[Server]) -> None:
        """Start all and wait until all are ready, or until told to stop. Raises Unreachable if one is not."""
        begun = [self._begin(server) for server in servers]
        for kept in begun:
            why = await_ready(kept.process, kept.server.health, self.stopping)
            if why:
                raise not_started(kept.server.name, self.roster.log(kept.server.name), why)

    def watch(self) -> None:
        """Until told to stop, start again what dies. Raises TidemillError when a server keeps dying."""
        while not self.stopping.wait(0.5):
            for kept in self.kept:
                if kept.again_at is None and not kept.process.alive():
                    self._mourn(kept)
                elif kept.again_at is not None and time.monotonic() >= kept.again_at:
                    self._revive(kept)

    def _begin(self, server: Server) -> Kept:
        """Start a server, or take over the one of its name that runs still use."""
        with self.roster.held():
            entry = self.roster.entries().get(server.name)
            if entry is not None:
                process, server = entry.process, replace(server, url=entry.url, health=entry.health)
                self.roster.put(server.name, Entry(entry.url, entry.health, process, self.keeper))
            else:
                process = server.start(self.roster, self.keeper)
        self.kept.append(Kept(server, process))
        return self.kept[-1]

    def _mourn(self, kept: Kept) -> None:
        name, log = kept.server.name, self.roster.log(kept.server.name)
        lived = time.monotonic() - kept.since
        kept.deaths = 1 if lived > WELL_AFTER_S else kept.deaths + 1
        kept.process.stop()  # what it left behind
        if kept.deaths > DEATHS:
            raise TidemillError(
                f"{name} died {kept.deaths} times in a row",
                where=str(log),
                why=last_lines(log),
                fix="mend what the log names, then tidemill up",
            )
        pause_s = min(2.0 ** (kept.deaths - 1), LONGEST_PAUSE_S)
        kept.again_at = time.monotonic() + pause_s
        self.say(f"{name} died{kept.process.how()}; again in {pause_s:.0f} s (log: {log})")

    def _revive(self, kept: Kept) -> None:
        with self.roster.held():
            kept.process = kept.server.start(self.roster, self.keeper)
        kept.since, kept.again_at = time.monotonic(), None
        self.say(f"{kept.server.name} was started again")


@contextlib.contextmanager
def only_one(roster: Roster) -> Iterator[None]:
    """Raise Busy if another `tidemill up` keeps this workspace's servers."""
    roster.state.mkdir(parents=True, exist_ok=True)
    file = roster.state / "up.lock"
    with file.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise Busy(
                "tidemill up is at work here already",
                where=f"process {pid}",
                why=f"it keeps the servers of {roster.state.parent}",
                fix=f"use it as it is, or stop it: Ctrl-C where it runs, or kill {pid}",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal (but for nohup) set, instead of what they do otherwise."""
    told = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with signals.put_back(*numbers):
        for number in numbers:
            signal.signal(number, lambda *_: told.set())
        yield told
