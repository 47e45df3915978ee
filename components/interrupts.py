"""Who has told this process to stop, and what has to heed it: sweeps and stages run in threads that hear no signal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_told: list[str] = []
_began: ContextVar[int | None] = ContextVar("_began", default=None)


def interrupt(by: str = "SIGINT") -> None:
    """End what runs in other threads: what is in flight is checkpointed, then each raises KeyboardInterrupt, and no
    stage begins any more. For whoever catches Ctrl-C in the main thread while sweeps run in others."""
    _told.append(by)


@contextlib.contextmanager
def heeding() -> Iterator[None]:
    """What begins in here, in threads with a copy of this context as well, heeds all interrupts from now on, also those
    that came before it began itself."""
    token = _began.set(len(_told))
    try:
        yield
    finally:
        _began.reset(token)


def began() -> int:
    """The number of the first interrupt that concerns who asks: those before are of something that is over."""
    since = _began.get()
    return len(_told) if since is None else since


def told(since: int) -> list[str]:
    """By what this process was told to stop, from that number on."""
    return _told[since:]


def heed() -> None:
    """Raise KeyboardInterrupt if there was an interrupt that concerns who asks."""
    for by in told(began()):
        raise KeyboardInterrupt(by)
