"""Sweeps without Ray: the same scheduler, ledger, checkpoints and segments, learnt one after the other in this process.

For tests of what comes of a sweep. Starting Ray and its processes takes longer than all that those learn.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from components import tuning
from components.tuning import execution, segments
from components.tuning.course import Course


def without_ray(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(execution, "run", _learn_all)
    patch.setattr(tuning, "session", lambda _: contextlib.nullcontext())


def _learn_all(course: Course) -> None:
    lesson = execution.lesson(course, SimpleNamespace(joined=True), {"components"})  # type: ignore[arg-type]
    threads = torch.get_num_threads()  # a trial has its own, in a process of its own
    try:
        while (segment := course.next()) is not None:
            segments.learn(lesson, segment, course.ledger.reached(segment.key), course.hear)
            course.over(segment.key)
            course.pass_on()
    finally:
        torch.set_num_threads(threads)
