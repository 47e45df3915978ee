"""What heeds an interrupt: all that runs for the flow that was told to stop, begun or not, and nothing after it."""

from __future__ import annotations

import threading
from contextvars import copy_context
from pathlib import Path

import pytest

from components import interrupts, work

from .test_plan import Bench


def test_what_begins_within_heeds_what_came_since_and_nothing_else_does() -> None:
    interrupts.interrupt("SIGINT")
    interrupts.heed()
    with interrupts.heeding():
        interrupts.heed()
        interrupts.interrupt("SIGTERM")
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            interrupts.heed()
        assert interrupts.told(interrupts.began()) == ["SIGTERM"]
    interrupts.heed()
    assert interrupts.told(interrupts.began()) == []


def test_a_thread_with_a_copy_of_the_context_heeds_as_well() -> None:
    heard: list[list[str]] = []
    with interrupts.heeding():
        interrupts.interrupt("SIGTERM")
        for run in (copy_context().run, lambda function: function()):
            thread = threading.Thread(target=run, args=(lambda: heard.append(interrupts.told(interrupts.began())),))
            thread.start()
            thread.join()
    assert heard == [["SIGTERM"], []]


def test_a_stage_that_was_told_to_stop_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two stages, or while one of them works that hears of nothing, such as validate."""
    project = Bench(tmp_path, monkeypatch).resolved().project
    with interrupts.heeding():
        interrupts.interrupt("SIGTERM")
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            work.play(project, "one", "validate", lambda _: pytest.fail("it began"))
    assert not (tmp_path / "results" / "one" / "validate").exists()
