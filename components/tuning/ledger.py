"""What a sweep knows: its trials, how far each has come, and the segments being learnt now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..contract import Hyper, Metrics, Objective
from ..sweep import Status, Trial
from . import configurations


@dataclass(frozen=True)
class Segment:
    """Learn trial `key` up to epoch `until`. With a `parent`, go on from the parent's checkpoint of epoch `start`;
    `curve` is the trial's own up to there. `seed`: None is the sweep's."""

    key: str
    hyper: Hyper
    until: int
    start: int = 0
    parent: str = ""
    curve: tuple[Metrics, ...] = ()
    seed: int | None = None


@dataclass
class Entry:
    """What is known of one trial. `best` and `best_epoch` are those of the weights that it carries, which under
    population based training may come from another trial; `bests[i]` is the best of its own first i + 1 epochs. `seed`
    is a replica's (see replicas.py), and None for a trial of the search."""

    hyper: Hyper
    curve: list[Metrics] = field(default_factory=list)
    bests: list[float] = field(default_factory=list)
    best: float = float("nan")
    best_epoch: int = 0
    checkpoint: str = ""
    error: str = ""
    seconds: float = 0.0  # that its checkpoint took to reach, where an earlier start reached it
    seed: int | None = None


@dataclass
class Ledger:
    """All trials of a sweep by key, in the order drawn."""

    objective: Objective
    trials: dict[str, Entry] = field(default_factory=dict)
    running: dict[str, Segment] = field(default_factory=dict)

    def add(self, hyper: Hyper, seed: int | None = None) -> str:
        key = configurations.key(hyper, seed)
        self.trials[key] = Entry(hyper, seed=seed)
        return key

    def searched(self) -> dict[str, Entry]:
        """The search's own trials: those that schedulers compare and samplers know."""
        return {key: entry for key, entry in self.trials.items() if entry.seed is None}

    def hypers(self) -> list[Hyper]:
        """The configurations that were drawn."""
        return [entry.hyper for entry in self.searched().values()]

    def replicas(self) -> list[tuple[Hyper, int]]:
        """What is learnt again, and with which seeds."""
        return [(entry.hyper, entry.seed) for entry in self.trials.values() if entry.seed is not None]

    def learn(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> int:
        """Add what epochs first_epoch, first_epoch + 1, … taught; returns how many of them were new. A trial's
        process that died and went on from its checkpoint tells the epochs between once more."""
        entry = self.trials[key]
        known = len(entry.curve) + 1 - first_epoch
        if known < 0:
            raise RuntimeError(f"trial {key}: epoch {len(entry.curve) + 1} was never told, but {first_epoch} was")
        new = metrics[known:]
        for row in new:
            value, best = row[f"val/{self.objective.metric}"], entry.bests[-1] if entry.bests else float("nan")
            entry.curve.append(row)
            entry.bests.append(value if self.objective.better(value, best) else best)
        return len(new)

    def reached(self, key: str) -> int:
        """Epochs learnt."""
        return len(self.trials[key].curve)

    def rests(self, key: str) -> bool:
        """Neither failed nor being learnt now."""
        return key not in self.running and not self.trials[key].error

    def value(self, key: str, epoch: int) -> float:
        """The objective after one epoch."""
        return self.trials[key].curve[epoch - 1][f"val/{self.objective.metric}"]

    def best(self, key: str, epochs: int) -> float:
        """The best objective within the first epochs; NaN if there is none."""
        bests = self.trials[key].bests[:epochs]
        return bests[-1] if bests else float("nan")

    def usable(self, key: str, epochs: int) -> bool:
        return not self.trials[key].error and math.isfinite(self.best(key, epochs))

    def ranked(self, keys: Iterable[str], epochs: int) -> list[str]:
        """Usable trials by their best objective within the first epochs, best first, ties by key."""
        usable = [key for key in keys if self.usable(key, epochs)]
        return sorted(usable, key=lambda key: (self.objective.key(self.best(key, epochs)), key))

    def trial(self, key: str, status: Status) -> Trial:
        entry = self.trials[key]
        return Trial(
            key,
            entry.hyper,
            status,
            curve=list(entry.curve),
            best=entry.best,
            best_epoch=entry.best_epoch,
            checkpoint=entry.checkpoint,
            error=entry.error,
            seed=entry.seed,
        )
