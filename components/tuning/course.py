"""A sweep under way, as its driver sees it: segments handed out, reports heard, news passed to the watcher."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .. import interrupts
from ..contract import Metrics
from ..errors import NoRoom
from ..sweep import Planned, Trial, Watcher
from .archive import Archive, ranked
from .lease import Lease
from .ledger import Ledger, Segment
from .schedulers import Scheduler
from .segments import Told

_STOP_WITHIN_S = 20.0  # an epoch that takes longer than this is lost when a sweep is stopped


class Course:
    """One sweep. All its methods are called by one thread, the watcher's too."""

    def __init__(self, archive: Archive, lease: Lease, ledger: Ledger, scheduler: Scheduler, watcher: Watcher) -> None:
        self.request, self.lease, self.ledger = archive.request, lease, ledger
        self._archive, self._scheduler, self._watcher = archive, scheduler, watcher
        self.stopping = ""  # by what
        self._stopping_since = 0.0
        self._full: NoRoom | None = None
        self._news: list[tuple[str, int, Sequence[Metrics]]] = []
        self._ended: set[str] = set()
        self._planned = 0
        self._began = interrupts.began()

    def begin(self) -> None:
        """Tell what is planned, and what an earlier start has learnt already."""
        self._plan()
        for key, entry in self.ledger.trials.items():
            if entry.curve:
                self._watcher.learnt(key, 1, list(entry.curve))

    def left(self) -> bool:
        """Whether anybody has anything to learn."""
        return self._scheduler.next() is not None

    def width(self) -> int:
        return self._scheduler.width()

    def next(self) -> Segment | None:
        if self.stopping:
            return None
        segment = self._scheduler.next()
        self._plan()
        if segment is not None:
            self.ledger.running[segment.key] = segment
        return segment

    def hear(self, told: Told) -> None:
        entry = self.ledger.trials[told.key]
        known = len(entry.curve)
        self.ledger.learn(told.key, told.first_epoch, told.metrics)
        self._note(told.key, known)
        entry.best, entry.best_epoch, entry.error = told.best, told.best_epoch, told.error
        entry.checkpoint = told.checkpoint or entry.checkpoint
        if told.full:
            self._full = NoRoom(**told.full)

    def over(self, key: str, error: str = "") -> None:
        """The segment of this trial has ended; with an error if its process died before it could tell."""
        if error:
            known = self.ledger.reached(key)
            self._archive.recall(self.ledger, key)
            self._note(key, known)
            self.ledger.trials[key].error = error
        del self.ledger.running[key]

    def pass_on(self) -> None:
        """Tell the watcher what is new."""
        self._heed_interrupts()
        if self._full:
            raise self._full
        if self.lease.lost:
            self.lease.check()
        news, self._news = self._news, []
        for key, first_epoch, metrics in news:
            self._watcher.learnt(key, first_epoch, metrics)
        for key, status in self._scheduler.ended().items():
            if key not in self._ended:
                self._ended.add(key)
                self._watcher.ended(self.ledger.trial(key, status))

    def trials(self) -> list[Trial]:
        self.pass_on()
        status = self._scheduler.ended()
        return ranked([self.ledger.trial(key, status[key]) for key in self.ledger.trials], self.ledger.objective)

    def _heed_interrupts(self) -> None:
        """Ask the trials to stop; raise KeyboardInterrupt if they take too long, or at a second interrupt."""
        told = interrupts.told(self._began)
        if told and not self.stopping:
            self.stopping, self._stopping_since = told[0], time.monotonic()
            self.lease.stop()
        elif self.stopping and (len(told) > 1 or time.monotonic() - self._stopping_since > _STOP_WITHIN_S):
            raise KeyboardInterrupt(self.stopping)

    def _note(self, key: str, known: int) -> None:
        if new := self.ledger.trials[key].curve[known:]:
            self._news.append((key, known + 1, new))

    def _plan(self) -> None:
        """Note and tell trials that have been added since, before they are learnt."""
        if len(self.ledger.trials) == self._planned:
            return
        self._planned = len(self.ledger.trials)
        self._archive.plan(self.ledger.hypers(), self.ledger.replicas())
        told = [Planned(key, entry.hyper, entry.seed) for key, entry in self.ledger.trials.items()]
        self._watcher.planned(told, self.request.search.epochs, self.ledger.objective)
