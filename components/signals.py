"""Ctrl-C, SIGTERM and other signals: who hears of them when. Only the main thread can say, and only it is told."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def put_back(*numbers: int) -> Iterator[dict[int, Any]]:
    """The handlers of these signals, which are put back at the end whoever has set others; none in another thread."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield before
    finally:
        _set(before)


@contextlib.contextmanager
def asking(stop: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `stop` with its name; another does what it did before."""
    with put_back(*STOPS) as before:

        def ask(number: int, _frame: object) -> None:
            stop(signal.Signals(number).name)
            _set(before)

        for number, handler in before.items():
            if handler not in (signal.SIG_DFL, signal.SIG_IGN, None):  # somebody wants to hear of it
                signal.signal(number, ask)
        yield


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end: what they would cut short here would stay half done for good."""
    came: list[int] = []
    with put_back(*STOPS) as before:
        for number in before:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    for number in came[:1]:
        signal.raise_signal(number)


def _set(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
