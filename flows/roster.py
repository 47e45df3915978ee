"""Which servers of a workspace run, where, and who keeps them: .tidemill/servers.json.

Several processes share them. Whoever changes anything holds servers.lock; every `tidemill run` that uses the
Prefect server holds servers.clients, shared, as long as it does. The kernel lets go of both when a process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .processes import Process

PREFECT = "prefect"
# The keeper of a server that the last `tidemill run` to leave stops. Any other keeper is one `tidemill up`.
RUN = "run"


@dataclass(frozen=True)
class Entry:
    """One server. `url` is what clients are given, `health` answers 200 when it is ready."""

    url: str
    health: str
    process: Process
    keeper: str


@dataclass(frozen=True)
class Roster:
    state: Path

    def log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else starts, stops or records a server meanwhile."""
        with _opened(self.state / "servers.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Be a client of the Prefect server; the last one out stops it, unless `tidemill up` keeps it."""
        with _opened(self.state / "servers.clients") as clients:
            fcntl.flock(clients, fcntl.LOCK_SH)
            try:
                yield
            finally:
                if _alone(clients):
                    with self.held():
                        self._stop(RUN)

    def entries(self) -> dict[str, Entry]:
        """What is recorded, alive or not."""
        try:
            raw = json.loads((self.state / "servers.json").read_text(encoding="utf-8"))
            return {
                name: Entry(said["url"], said["health"], Process(said["pid"], said["born"]), said["keeper"])
                for name, said in raw.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # none, or not ours to understand: a fresh record takes its place

    def put(self, name: str, entry: Entry) -> None:
        self._write({**self.entries(), name: entry})

    def drop(self, name: str) -> None:
        self._write({other: entry for other, entry in self.entries().items() if other != name})

    def leave(self, keeper: str) -> None:
        """Stop what `keeper` keeps. A Prefect server that runs still use passes to them."""
        with self.held():
            entry = self.entries().get(PREFECT)
            if entry and entry.keeper == keeper and entry.process.alive() and self._used():
                self.put(PREFECT, Entry(entry.url, entry.health, entry.process, RUN))
            self._stop(keeper)

    def clear(self) -> None:
        """Stop all that is recorded but a Prefect server that runs use. Call it as the only `tidemill up`."""
        with self.held():
            for name, entry in self.entries().items():
                if not (name == PREFECT and entry.process.alive() and self._used()):
                    entry.process.stop()
                    self.drop(name)

    def _stop(self, keeper: str) -> None:
        for name, entry in reversed(self.entries().items()):  # whoever started last uses those before it
            if entry.keeper == keeper:
                entry.process.stop()
                self.drop(name)

    def _used(self) -> bool:
        with _opened(self.state / "servers.clients") as clients:
            return not _alone(clients)

    def _write(self, entries: dict[str, Entry]) -> None:
        file = self.state / "servers.json"
        said = {
            name: {
                "url": entry.url,
                "health": entry.health,
                "pid": entry.process.pid,
                "born": entry.process.born,
                "keeper": entry.keeper,
            }
            for name, entry in entries.items()
        }
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        aside.replace(file)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield opened
    finally:
        os.close(opened)


def _alone(clients: int) -> bool:
    """Whether no client is left. What this process held is given up either way, so of two that leave at once,
    one is alone."""
    try:
        fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
