"""One segment of one trial, in whatever process it is learnt: from a checkpoint, up to an epoch, to a checkpoint.

A process learns many segments one after another, of any trials, so everything that one may leave behind is set
anew at the start of the next. Knows nothing of Ray: whoever calls it passes the way to report.
"""

from __future__ import annotations

import os
import posixpath
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch

from .. import checkpoints, families
from ..checkpoints import Record
from ..contract import Data, Epoch, Family, Json, Metrics, Objective, State
from ..errors import NoRoom, TidemillError
from . import lease
from .ledger import Segment

_TELL_EVERY_S = 1.0  # each telling costs a round trip to the driver, in which nothing is learnt


@dataclass(frozen=True)
class Lesson:
    """What all segments of a sweep share. `token` is that of the driver's lease; `folders` are put on the import path,
    for packages of the user's own. `environment` is what the storage wants to be opened with, secrets among it: Ray
    keeps it in memory with the data, where its own settings for processes would be logged."""

    family: str
    data: Data
    objective: Objective
    seed: int
    threads: int
    storage: str
    checkpoint_every_s: float
    token: str
    folders: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Told:
    """What a segment reports: metrics of epochs first_epoch, first_epoch + 1, …; the best of the weights that the
    trial carries; where its last checkpoint lies; why it failed, if it did; and what ends the whole sweep: the parts of
    a NoRoom."""

    key: str
    first_epoch: int
    metrics: Sequence[Metrics]
    best: float
    best_epoch: int
    checkpoint: str = ""
    error: str = ""
    full: Mapping[str, str] = field(default_factory=dict)


class _Failed(Exception):
    """The configuration's own fault: told, not retried."""


def learn(lesson: Lesson, segment: Segment, known: int, tell: Callable[[Told], None]) -> None:
    """Learn a segment of a trial of which the driver knows `known` epochs.

    What the family raises is told as the trial's failure. A storage that is full is told: trying again would not help.
    What else storage raises is raised: it may pass.
    """
    trial = _Trial(lesson, segment, known, tell)
    try:
        trial.learn()
    except _Failed as failure:
        trial.tell(error=str(failure))
    except NoRoom as full:
        trial.tell(full={"what": full.what, "where": full.where, "why": full.why, "fix": full.fix})


class _Trial:
    """A trial while one of its segments is learnt."""

    def __init__(self, lesson: Lesson, segment: Segment, known: int, tell: Callable[[Told], None]) -> None:
        self._lesson, self._segment, self._tell = lesson, segment, tell
        self._seed = lesson.seed if segment.seed is None else segment.seed
        self._told = known
        self._told_at = self._kept_at = self._asked_at = time.monotonic()
        self._folder = posixpath.join(lesson.storage, segment.key)
        self._curve: list[Metrics] = []
        self._ancestry: list[dict[str, Json]] = []  # whose weights these were before, and until which epoch
        self._best, self._best_epoch, self._checkpoint = float("nan"), 0, ""
        self._began, self._seconds = time.monotonic(), 0.0

    def learn(self) -> None:
        _reset(self._lesson, self._seed)
        family = self._imported()
        state = self._resume()
        if len(self._curve) < self._segment.until:
            for epoch in self._epochs(family, state):
                self._take(epoch)
                if epoch.number == self._segment.until or self._stops(epoch):
                    break
        self.tell()

    def tell(self, error: str = "", full: Mapping[str, str] | None = None) -> None:
        first, metrics = self._told + 1, self._curve[self._told :]
        told = Told(
            self._segment.key, first, metrics, self._best, self._best_epoch, self._checkpoint, error, dict(full or {})
        )
        self._told, self._told_at = len(self._curve), time.monotonic()
        self._tell(told)

    def _resume(self) -> State | None:
        """The state to go on from, if any; the curve, best and checkpoint become those of that state."""
        segment = self._segment
        found = checkpoints.latest(self._folder, segment.until)
        if segment.parent and (found is None or found.epoch <= segment.start):
            parent = posixpath.join(self._lesson.storage, segment.parent)
            state, record = checkpoints.read(checkpoints.place_of(parent, segment.start))
            curve: Sequence[Metrics] = segment.curve
            left = {"trial": segment.parent, "hyper": record["hyper"], "until": segment.start}
            self._ancestry = [*record["ancestry"], left]
        elif found is None:
            self._told = 0
            return None
        else:
            state, record, self._checkpoint = found.state, found.record, found.place
            curve, self._seconds = record["curve"], record.get("seconds", 0.0)
            self._ancestry = record["ancestry"]
        # What a dead driver was never told is told now; what is learnt again is told again, and dropped there.
        self._curve, self._told = list(curve), min(self._told, len(curve))
        self._best, self._best_epoch = record["best"], record["best_epoch"]
        return state

    def _imported(self) -> Family[Any]:
        try:
            return families.family(self._lesson.family)
        except Exception as error:
            raise _Failed(_explained(error)) from error

    def _epochs(self, family: Family[Any], state: State | None) -> Iterator[Epoch]:
        """The family's epochs; whatever it raises is this trial's failure."""
        lesson = self._lesson
        try:
            fit = family.fit(lesson.data, self._segment.hyper, self._seed, state)
            expected = len(self._curve) + 1
            for epoch in fit:
                _check(epoch, expected, lesson.objective)
                expected += 1
                yield epoch
        except Exception as error:
            raise _Failed(_explained(error)) from error
        raise _Failed("the family stopped learning of itself: fit must yield epochs for ever")

    def _take(self, epoch: Epoch) -> None:
        metrics = {name: float(value) for name, value in epoch.metrics.items()}
        self._curve.append(metrics)
        value = metrics[f"val/{self._lesson.objective.metric}"]
        if self._lesson.objective.better(value, self._best):
            self._best, self._best_epoch = value, epoch.number
        last, now = epoch.number == self._segment.until, time.monotonic()
        if last or now - self._kept_at >= self._lesson.checkpoint_every_s:
            self._keep(epoch)
            self._kept_at = time.monotonic()
        if not last and now - self._told_at >= _TELL_EVERY_S:
            self.tell()

    def _stops(self, epoch: Epoch) -> bool:
        """Whether the driver wants no more for now, or another driver has taken over."""
        if time.monotonic() - self._asked_at < _TELL_EVERY_S:
            return False
        self._asked_at = time.monotonic()
        word = lease.word(self._lesson.storage, self._lesson.token)
        if word == "stop":
            self._keep(epoch)
        return word != "go on"

    def _keep(self, epoch: Epoch) -> None:
        record: Record = {
            "best": self._best,
            "best_epoch": self._best_epoch,
            "curve": self._curve,
            "epoch": epoch.number,
            "hyper": dict(self._segment.hyper),
            "parent": self._segment.parent,
            "ancestry": self._ancestry,
            # Beside the weights, for people alone: nothing that is learnt or compared depends on the clock.
            "seconds": round(self._seconds + time.monotonic() - self._began, 3),
        }
        try:
            state = epoch.state()
        except Exception as error:
            raise _Failed(_explained(error)) from error
        self._checkpoint = checkpoints.write(self._folder, epoch.number, state, record)
        checkpoints.prune(self._folder, keep={self._segment.start})


def _reset(lesson: Lesson, seed: int) -> None:
    """Give this process the state that a new one has, and the trial's share of the machine."""
    for folder in reversed(lesson.folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    os.environ.update(lesson.environment)
    fsspec.config.set_conf_env(fsspec.config.conf)  # it was read when fsspec was imported
    torch.set_num_threads(lesson.threads)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(seed % 2**63)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _check(epoch: Epoch, expected: int, objective: Objective) -> None:
    if epoch.number != expected:
        raise ValueError(f"fit yielded epoch {epoch.number} where {expected} was due: it must go on from its state")
    if f"val/{objective.metric}" not in epoch.metrics:
        raise ValueError(f"epoch {epoch.number} has no val/{objective.metric}, which trials are ranked by")


def _explained(error: Exception) -> str:
    """The error in a line or two: kind, message, and where in the family's code it was raised."""
    if isinstance(error, TidemillError):
        return str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) != Path(__file__)]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    message = str(error).strip().split("\n", 1)[0][:300]
    return f"{type(error).__name__}: {message}{where}"
