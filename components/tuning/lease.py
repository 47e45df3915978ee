"""Who works on a sweep's storage: a lease that its driver renews and that its trials' processes look at.

<storage>/lease.json   whose the sweep is, until when, and whether its trials are to stop

Machines that share a storage share no locks, so a driver that has not renewed for as long as the lease is taken for
dead, and another may take over. The old one, should it wake, finds its lease lost and commits nothing. Clocks are
trusted to differ by less than the lease; that of a process of this machine which is dead counts for nothing.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import psutil

from .. import checkpoints
from ..contract import Json
from ..errors import Busy
from ..ticking import every
from ..workspace import command, lease_s

FILE = "lease.json"
Word = Literal["go on", "stop", "lost"]


@dataclass
class Lease:
    """A sweep's storage held by this process. Used inside `held`."""

    storage: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    stopping: bool = False
    lost: bool = False  # as far as it is known
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raise Busy if somebody else has taken the sweep over."""
        found = _read(self.storage)
        if found and found["token"] != self.token:
            raise Busy(
                "this sweep was taken over while this process was paused",
                where=self.storage,
                why=f"{found['who']} works on it now",
                fix="leave it to that process: nothing was lost, and nothing is written twice",
            )

    def stop(self) -> None:
        """Ask the trials' processes to write a checkpoint and end."""
        self.stopping = True
        self._write()

    def _take(self) -> None:
        found = _read(self.storage)
        if found and not _void(found):
            raise Busy(
                "this sweep is being worked on",
                where=self.storage,
                why=f"{found['who']} works on it",
                fix="wait for it, or stop it, then run again",
            )
        self._write()
        self.check()  # of two that write at once, the one whose word does not stay gives way

    def _write(self) -> None:
        with self._writing:
            said = {
                "token": self.token,
                "who": f"process {os.getpid()} on {socket.gethostname()} ({command()})",
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "born": psutil.Process().create_time(),
                "until": time.time() + lease_s(),
                "stop": self.stopping,
            }
            checkpoints.write_json(posixpath.join(self.storage, FILE), said)

    def _renew(self) -> None:
        """A storage that is silent may come back; until then the lease runs out, as it must."""
        with contextlib.suppress(Exception):
            self.lost = self.lost or word(self.storage, self.token) == "lost"
            if not self.lost:
                self._write()


@contextlib.contextmanager
def held(storage: str) -> Iterator[Lease]:
    """Hold a sweep's storage. Raises Busy, naming who it is, if somebody else does."""
    lease = Lease(storage)
    lease._take()
    try:
        with every(lease_s() / 6, lease._renew, "sweep lease"):
            yield lease
    finally:
        with contextlib.suppress(Exception):  # where the storage is silent, the lease runs out by itself
            if word(storage, lease.token) != "lost":
                checkpoints.remove(posixpath.join(storage, FILE))


def word(storage: str, token: str) -> Word:
    """What a trial's process is to do that works for the holder of this token."""
    found = _read(storage)
    if found is None or found["token"] != token:
        return "lost"
    return "stop" if found["stop"] else "go on"


def _read(storage: str) -> dict[str, Json] | None:
    found: dict[str, Json] | None = checkpoints.read_json(posixpath.join(storage, FILE))
    return found


def _void(found: dict[str, Json]) -> bool:
    """Whether nobody holds this lease any more."""
    if found["until"] < time.time():
        return True
    if found["host"] != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(found["pid"]).create_time() - found["born"]) > 2.0)
    except psutil.NoSuchProcess:
        return True
