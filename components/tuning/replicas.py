"""Replicas: the configuration that won a search, learnt again with other seeds, to say how much of it is luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..sweep import Status
from . import configurations
from .ledger import Ledger, Segment
from .schedulers import Scheduler


@dataclass
class Replicas:
    """A search; and once it has nothing left to learn, its winner again with each of `seeds`, side by side, for as many
    epochs as the winner has. Who won follows from the ledger alone, so a sweep that died finds the same replicas.

    They measure and never compete. The best of several seeds by val would be the luckiest of them, and no better a
    configuration: that is selection on noise, and what was selected so no longer measures the configuration.
    """

    ledger: Ledger
    search: Scheduler
    seeds: Sequence[int]
    over: bool = False  # the search is
    keys: list[str] = field(default_factory=list)
    until: int = 0

    def next(self) -> Segment | None:
        if not self.over:
            segment = self.search.next()
            if segment is not None or self.ledger.running:
                return segment
            self.over = True
            self._add()
        for key in self.keys:
            if self.ledger.rests(key) and self.ledger.reached(key) < self.until:
                entry = self.ledger.trials[key]
                return Segment(key, entry.hyper, self.until, seed=entry.seed)
        return None

    def width(self) -> int:
        return max(sum(not self._done(key) for key in self.keys), 1) if self.over else self.search.width()

    def ended(self) -> dict[str, Status]:
        """Replicas of who had won before an earlier start died, and does not win now, count as stopped."""
        out = self.search.ended()
        for key, entry in self.ledger.trials.items():
            if entry.seed is None:
                continue
            if entry.error:
                out[key] = "failed"
            elif self.over and key not in self.keys:
                out[key] = "stopped"
            elif self.over and self._done(key):
                out[key] = "finished"
        return out

    def _done(self, key: str) -> bool:
        there = key not in self.ledger.running and self.ledger.reached(key) >= self.until
        return there or bool(self.ledger.trials[key].error)

    def _add(self) -> None:
        entrants = self.ledger.searched()
        most = max(map(self.ledger.reached, entrants), default=0)
        for winner in self.ledger.ranked(entrants, most)[:1]:
            self.until, hyper = self.ledger.reached(winner), entrants[winner].hyper
            for seed in self.seeds:
                if (key := configurations.key(hyper, seed)) not in self.ledger.trials:
                    self.ledger.add(hyper, seed)
                self.keys.append(key)
