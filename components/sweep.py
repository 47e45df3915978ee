"""What a sweep is, whoever runs it: the request, its trials, and whoever watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from .contract import Data, Hyper, Metrics, Objective
from .params import Resources, Search

Status = Literal["finished", "stopped", "failed"]
# Beside the trials' folders in a sweep's storage: what was planned, and the trials once all have ended.
PLANNED_FILE, FINISHED_FILE = "sweep.json", "finished.json"


@dataclass(frozen=True)
class Request:
    """One sweep: a family (name or import path) on data, searched as `search` says.

    `settings` are fixed and join every configuration. `storage` is the sweep's own folder or fsspec URL: the
    same request with the same storage goes on where a dead one stopped.
    """

    family: str
    data: Data
    settings: Hyper
    search: Search
    resources: Resources
    seed: int
    storage: str
    checkpoint_every_s: float = 5.0


@dataclass(frozen=True)
class Trial:
    """One configuration's training. `key` is the hash of `hyper`: its identity everywhere.

    `curve[i]` holds the metrics of epoch i + 1. `best_epoch` is the epoch (from 1) with the best val/objective
    and `best` that value: the served weights are this epoch's, but for a Lesson's `whole`. `checkpoint` is where its
    last state lies.
    """

    key: str
    hyper: Hyper
    status: Status
    curve: list[Metrics] = field(default_factory=list)
    best: float = float("nan")
    best_epoch: int = 0
    checkpoint: str = ""
    error: str = ""


class Watcher(Protocol):
    """Told by the driver, from one thread, what a sweep does. Kept trials of an earlier start are told again:
    a watcher that records must drop what it has already."""

    def planned(self, trials: Sequence[tuple[str, Hyper]], epochs: int, objective: Objective) -> None:
        """(key, hyper) of every configuration known; again when a search draws more."""

    def kept(self, trials: int, of: int, seconds: float) -> None:
        """So many trials of an earlier start go on from their checkpoints, which took so long to reach."""

    def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
        """Metrics of epochs first_epoch, first_epoch + 1, … of one trial."""

    def ended(self, trial: Trial) -> None:
        """The trial will learn no more: finished, stopped by the scheduler, or failed."""


class Watchers:
    """Several watchers of one sweep as one."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def planned(self, trials: Sequence[tuple[str, Hyper]], epochs: int, objective: Objective) -> None:
        for watcher in self._watchers:
            watcher.planned(trials, epochs, objective)

    def kept(self, trials: int, of: int, seconds: float) -> None:
        for watcher in self._watchers:
            watcher.kept(trials, of, seconds)

    def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
        for watcher in self._watchers:
            watcher.learnt(key, first_epoch, metrics)

    def ended(self, trial: Trial) -> None:
        for watcher in self._watchers:
            watcher.ended(trial)
