"""What a sweep is, whoever runs it: the request, its trials, and whoever watches."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from .contract import Data, Hyper, Json, Metrics, Objective
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
    """A configuration's training. `key`, its identity everywhere, is the hash of `hyper`, with `seed` where it has one.

    `curve[i]` holds the metrics of epoch i + 1. `best_epoch` is the epoch (from 1) with the best val/objective
    and `best` that value: the served weights are this epoch's, but for a Lesson's `whole`. `checkpoint` is where its
    last state lies. `seed` is that of a replica, which learns the best trial's configuration once more; a trial of the
    search has none but the request's.
    """

    key: str
    hyper: Hyper
    status: Status
    curve: list[Metrics] = field(default_factory=list)
    best: float = float("nan")
    best_epoch: int = 0
    checkpoint: str = ""
    error: str = ""
    seed: int | None = None

    def to_json(self) -> dict[str, Json]:
        """Only a replica's has a seed."""
        told = dataclasses.asdict(self)
        return {name: value for name, value in told.items() if name != "seed" or value is not None}


class Planned(NamedTuple):
    """A trial that is to be learnt."""

    key: str
    hyper: Hyper
    seed: int | None = None


def searched(trials: Sequence[Trial]) -> list[Trial]:
    """Those of the search, without the replicas."""
    return [trial for trial in trials if trial.seed is None]


def same_again(best: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """The best trial and those that learnt its configuration to the end with other seeds, by seed."""
    mine = [t for t in trials if t.seed is not None and t.hyper == best.hyper and t.status == "finished"]
    return [best, *sorted(mine, key=lambda trial: trial.seed or 0)]


def measure_seeds(best: Trial, trials: Sequence[Trial]) -> Metrics:
    """How many seeds learnt the best configuration, and mean and standard deviation (of a sample) of the best
    val/objective of each. Nothing unless two came to a finite value. The search's own seed is one of them, and it is
    the one by whose value the configuration was chosen: the mean leans to its side a little."""
    values = [trial.best for trial in same_again(best, trials) if math.isfinite(trial.best)]
    if len(values) < 2:
        return {}
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return {"seeds/count": float(len(values)), "seeds/mean": mean, "seeds/std": deviation}


class Watcher(Protocol):
    """Told by the driver, from one thread, what a sweep does. Kept trials of an earlier start are told again:
    a watcher that records must drop what it has already."""

    def planned(self, trials: Sequence[Planned], epochs: int, objective: Objective) -> None:
        """Every trial known; again when a search draws more, or learns its best once more."""

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

    def planned(self, trials: Sequence[Planned], epochs: int, objective: Objective) -> None:
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
