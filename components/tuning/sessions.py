"""One Ray for all sweeps of this process: the cluster at an address, or one of its own that ends with the last.

Sweeps may run at once in several threads. They share the session by a count, and its CPUs by need, so that none
waits for another to end as long as there is a CPU for each.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

from ..errors import ParamsError
from . import rays


@dataclass(eq=False)
class Share:
    """What one sweep wants of the session's CPUs now: `width` trials at once of `cpus` each. `joined`: the session
    is a cluster's, whose machines may not have this one's files."""

    cpus: int
    joined: bool
    width: int = 1


@dataclass
class _Session:
    address: str | None
    shipped: frozenset[str]
    users: int = 0
    shares: list[Share] = field(default_factory=list)
    leave: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


_changed = threading.Condition(threading.RLock())
_now: _Session | None = None


@contextlib.contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Hold Ray: join the cluster at `address` (host:port), or start one here if there is none held already.

    The last to leave ends it. Raises Unreachable, within seconds, if nobody answers at the address.
    """
    with _holding(address) as held:
        if held.address != (asked := rays.named(address)):
            raise ParamsError(
                f"this process holds Ray at {held.address or 'home'}, and was asked for {asked or 'home'}",
                fix="use one RAY_ADDRESS for all pipelines of a run",
            )
        yield


@contextlib.contextmanager
def _holding(address: str | None) -> Iterator[_Session]:
    global _now  # noqa: PLW0603 - a process can hold one Ray
    with _changed:
        held = _now = _now or _entered(address)
        held.users += 1
    try:
        yield held
    finally:
        with _changed:
            held.users -= 1
            if not held.users:
                _now = None
                held.leave.close()


@contextlib.contextmanager
def share(cpus: int, packages: Set[str]) -> Iterator[Share]:
    """Take part in the session that is held, or in one at RAY_ADDRESS, with packages that workers must import."""
    with _holding(os.environ.get("RAY_ADDRESS")) as held:
        with _changed:
            if held.address and not packages <= held.shipped:
                _changed.wait_for(lambda: not held.shares)
                _ship(held, packages)
            mine = Share(cpus, held.address is not None)
            held.shares.append(mine)
        try:
            yield mine
        finally:
            with _changed:
                held.shares.remove(mine)
                _changed.notify_all()


def slots(mine: Share, total_cpus: int) -> int:
    """How many trials this sweep may run at once now; at least one, for which it waits if it must."""
    with _changed:
        shares = list(_now.shares) if _now else [mine]
    given = fair([s.cpus * s.width for s in shares], total_cpus)
    return max(1, given[shares.index(mine)] // mine.cpus)


def fair(wanted: Sequence[int], total: int) -> list[int]:
    """Divide `total` by turns among those who still want some."""
    given = [0] * len(wanted)
    while total > 0 and any(g < w for g, w in zip(given, wanted, strict=True)):
        for i, most in enumerate(wanted):
            if given[i] < most and total > 0:
                given[i] += 1
                total -= 1
    return given


def _entered(address: str | None) -> _Session:
    shipped = frozenset({"components"})
    return _Session(rays.named(address), shipped, leave=rays.entered(rays.named(address), shipped))


def _ship(held: _Session, packages: Set[str]) -> None:
    """Join the cluster again with more packages: what workers can import is fixed when a driver joins."""
    held.leave.close()
    held.shipped |= packages
    held.leave = rays.entered(held.address, held.shipped)
