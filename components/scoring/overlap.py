"""Reading, scoring and writing at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item], most: int = 2) -> Generator[Item]:
    """The same items, made by a thread that is at most `most` items ahead. Close it, or it waits for ever."""
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(most)
    stopped = threading.Event()

    def make() -> None:
        try:
            for item in items:
                made.put((item, None))
                if stopped.is_set():
                    return
            made.put((None, None))
        except BaseException as error:  # raised again where the items are used
            made.put((None, error))
        finally:
            items.close()

    thread = threading.Thread(target=make, name="scoring", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room
            while not made.empty():
                made.get_nowait()
            thread.join(0.01)
