"""Who learns next: schedulers that hand out segments, (trial, epochs to reach), from what the ledger says.

A trial is learnt segment by segment, each going on from the trial's own checkpoint, so a scheduler decides
between segments and nothing is ever paused. What it hands out follows from the ledger alone, and the ledger is
read back from the checkpoints: a sweep that died is planned again as if it had not.

halving  synchronous successive halving: whole rungs are compared, so the result is the same every time (default)
asha     asynchronous successive halving (Li et al. 2020): promotes as soon as a rung has enough to compare
optuna   as asha, over configurations that a tree-structured Parzen estimator suggests from the results so far
pbt      population based training (Jaderberg et al. 2017), by whole generations: the worst quarter go on from
         the weights of the best, with mutable settings moved
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from ..contract import Hyper
from ..params import Search
from ..sweep import Status
from .configurations import Outcome, Sampler
from .ledger import Ledger, Segment


class Scheduler(Protocol):
    """Hands out segments."""

    def next(self) -> Segment | None:
        """A segment to learn now; None if there is none until one that is running ends, or none at all."""

    def width(self) -> int:
        """How many segments may yet be learnt at one time: no more workers than this are of use."""

    def ended(self) -> dict[str, Status]:
        """Trials that will learn no more."""


def scheduler(search: Search, sampler: Sampler, ledger: Ledger) -> Scheduler:
    """What a word in params.yaml asks for; adds the configurations that it needs to the ledger."""
    if not ledger.searched():
        ledger.add(sampler.first())
    while search.scheduler != "optuna" and len(ledger.searched()) < search.trials:
        hyper = sampler.draw(ledger.hypers())
        if hyper is None:
            break  # the space is used up
        ledger.add(hyper)
    if search.scheduler == "halving":
        return Halving(ledger, rungs(search), search.reduction)
    if search.scheduler == "pbt":
        return Generations(ledger, sampler, search.first_rung, search.epochs)
    trials = search.trials if search.scheduler == "optuna" else len(ledger.searched())
    return Asha(ledger, rungs(search), search.reduction, sampler, trials)


def rungs(search: Search) -> list[int]:
    """Epochs at which trials are compared: first_rung × reduction^k, and at last `epochs`."""
    found, rung = [], search.first_rung
    while rung < search.epochs:
        found.append(rung)
        rung *= search.reduction
    return [*found, search.epochs]


@dataclass
class Halving:
    """Everyone up to the first rung; the best 1/reduction of them up to the next; and so on."""

    ledger: Ledger
    rungs: Sequence[int]
    reduction: int

    def next(self) -> Segment | None:
        entrants, rung = self._now()
        for key in entrants:
            if self.ledger.rests(key) and self.ledger.reached(key) < rung:
                return Segment(key, self.ledger.trials[key].hyper, rung)
        return None

    def width(self) -> int:
        entrants, rung = self._now()
        undone = sum(not self._done(key, rung) for key in entrants)
        return max(undone, len(entrants) // self.reduction, 1)

    def ended(self) -> dict[str, Status]:
        entrants, rung = self._now()
        out: dict[str, Status] = {}
        for key, entry in self.ledger.searched().items():
            if entry.error:
                out[key] = "failed"
            elif key not in entrants:
                out[key] = "stopped"
            elif rung == self.rungs[-1] and self._done(key, rung):
                out[key] = "finished"
        return out

    def _done(self, key: str, rung: int) -> bool:
        there = key not in self.ledger.running and self.ledger.reached(key) >= rung
        return there or bool(self.ledger.trials[key].error)

    def _now(self) -> tuple[list[str], int]:
        """Who is on the lowest rung that is not complete (or the last), and its epochs."""
        entrants = list(self.ledger.searched())
        for rung in self.rungs[:-1]:
            if len(entrants) == 1:
                break  # nobody to be compared with
            if not all(self._done(key, rung) for key in entrants):
                return entrants, rung
            entrants = self.ledger.ranked(entrants, rung)[: max(1, len(entrants) // self.reduction)]
        return entrants, self.rungs[-1]


@dataclass
class Asha:
    """Promotes whoever is in the best 1/reduction of those that have reached its rung, from the top down; else
    begins a new configuration. When there is neither and nobody has had all epochs, the best of the highest
    rung goes on: with few trials a share of them can be less than one."""

    ledger: Ledger
    rungs: Sequence[int]
    reduction: int
    sampler: Sampler
    trials: int
    over: bool = False

    def next(self) -> Segment | None:
        segment = self._cut_off() or self._promotion() or self._beginning()
        if segment is None and not self.ledger.running:
            segment = self._last_resort()
            self.over = segment is None
        return segment

    def width(self) -> int:
        ended, begun = self.ended(), self.ledger.searched()
        return max(sum(key not in ended for key in begun) + self.trials - len(begun), 1)

    def ended(self) -> dict[str, Status]:
        out: dict[str, Status] = {}
        for key, entry in self.ledger.searched().items():
            if entry.error:
                out[key] = "failed"
            elif key not in self.ledger.running and self.ledger.reached(key) >= self.rungs[-1]:
                out[key] = "finished"
            elif self.over:
                out[key] = "stopped"
        return out

    def _cut_off(self) -> Segment | None:
        """A trial that a dead sweep left in the middle of a segment."""
        for key in self.ledger.searched():
            reached = self.ledger.reached(key)
            rung = next((r for r in self.rungs if reached <= r), reached)
            if self.ledger.rests(key) and reached not in (0, rung):
                return self._segment(key, rung)
        return None

    def _promotion(self) -> Segment | None:
        for below, above in reversed(list(pairwise(self.rungs))):
            members = self._members(below)
            for key in self.ledger.ranked(members, below)[: len(members) // self.reduction]:
                if self.ledger.rests(key) and self.ledger.reached(key) == below:
                    return self._segment(key, above)
        return None

    def _beginning(self) -> Segment | None:
        for key in self.ledger.searched():
            if self.ledger.rests(key) and self.ledger.reached(key) == 0:
                return self._segment(key, self.rungs[0])
        if len(self.ledger.searched()) >= self.trials:
            return None
        outcomes = [
            Outcome(entry.hyper, len(entry.curve), entry.bests[-1], len(entry.curve) >= self.rungs[-1])
            for entry in self.ledger.searched().values()
            if entry.curve and not entry.error
        ]
        hyper = self.sampler.draw_better(self.ledger.hypers(), outcomes, self.ledger.objective)
        if hyper is None:
            self.trials = len(self.ledger.searched())  # the space is used up
            return None
        return self._segment(self.ledger.add(hyper), self.rungs[0])

    def _last_resort(self) -> Segment | None:
        if any(self.ledger.usable(key, self.rungs[-1]) for key in self._members(self.rungs[-1])):
            return None
        for below, above in reversed(list(pairwise(self.rungs))):
            for key in self.ledger.ranked(self._members(below), below)[:1]:
                return self._segment(key, above)
        return None

    def _members(self, rung: int) -> list[str]:
        """Who has learnt a rung's epochs, and is not still about it."""
        running = self.ledger.running
        return [
            key
            for key, entry in self.ledger.searched().items()
            if len(entry.curve) >= rung and not (key in running and running[key].until == rung)
        ]

    def _segment(self, key: str, until: int) -> Segment:
        return Segment(key, self.ledger.trials[key].hyper, until)


@dataclass
class Generations:
    """The whole population learns `length` epochs, then the worst quarter copy the best, and so on.

    Which one copies which, and what its settings become, is drawn from (seed, generation): it is worked out
    again, not stored. A trial keeps its key; its hyper is that of its present generation.
    """

    ledger: Ledger
    sampler: Sampler
    length: int
    epochs: int
    start: int = 0
    parents: dict[str, str] = field(default_factory=dict)

    def next(self) -> Segment | None:
        self._advance()
        until = min(self.start + self.length, self.epochs)
        for key, entry in self.ledger.searched().items():
            if self.ledger.rests(key) and self.ledger.reached(key) < until:
                parent = self.parents.get(key, "")
                curve = tuple(entry.curve[: self.start]) if parent else ()
                return Segment(key, entry.hyper, until, self.start, parent, curve)
        return None

    def width(self) -> int:
        return max(sum(not entry.error for entry in self.ledger.searched().values()), 1)

    def ended(self) -> dict[str, Status]:
        out: dict[str, Status] = {}
        for key, entry in self.ledger.searched().items():
            if entry.error:
                out[key] = "failed"
            elif key not in self.ledger.running and self.ledger.reached(key) >= self.epochs:
                out[key] = "finished"
        return out

    def _advance(self) -> None:
        """Turn to the next generation once everybody has finished this one."""
        while (end := self.start + self.length) < self.epochs:
            living = [key for key, entry in self.ledger.searched().items() if not entry.error]
            if not living or any(key in self.ledger.running or self.ledger.reached(key) < end for key in living):
                return
            self._breed(living, end)
            self.start = end

    def _breed(self, living: Sequence[str], end: int) -> None:
        ranked = sorted(living, key=lambda key: (self.ledger.objective.key(self.ledger.value(key, end)), key))
        quarter = max(1, len(ranked) // 4) if len(ranked) > 1 else 0
        best, worst = ranked[:quarter], ranked[len(ranked) - quarter :]
        generator = np.random.default_rng([self.sampler.seed % 2**63, end])
        hypers: dict[str, Hyper] = {key: self.ledger.trials[key].hyper for key in best}
        self.parents = {key: best[int(generator.integers(quarter))] for key in worst}
        for key, parent in self.parents.items():
            self.ledger.trials[key].hyper = self.sampler.mutated(hypers[parent], generator)
