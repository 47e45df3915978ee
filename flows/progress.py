"""What a person sees while work goes on: a live view on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from components.contract import Metrics, Objective
from components.errors import hidden
from components.sweep import Planned, Trial

_LINE_EVERY_S = 5.0


@dataclass
class SweepView:
    """A sweep as a watcher sees it: how far, how good, how long still."""

    pipeline: str
    screen: Screen
    epochs: int = 0
    objective: Objective | None = None
    learnt_epochs: dict[str, int] = field(default_factory=dict)
    first_learnt: tuple[float, int] | None = None  # when, and how many epochs were known then
    ended_trials: dict[str, str] = field(default_factory=dict)
    replicas: set[str] = field(default_factory=set)  # of the best, with other seeds: none of them can become the best
    best: float = float("nan")
    last_line: float = 0.0

    def planned(self, trials: Sequence[Planned], epochs: int, objective: Objective) -> None:
        self.epochs, self.objective = epochs, objective
        self.replicas |= {trial.key for trial in trials if trial.seed is not None}
        for trial in trials:
            self.learnt_epochs.setdefault(trial.key, 0)
        self.screen.refresh(self)

    def kept(self, trials: int, of: int, seconds: float) -> None:
        self.screen.say(f"{self.pipeline} train: {trials} of {of} trials kept, {seconds:.0f} s saved")

    def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
        self.learnt_epochs[key] = max(self.learnt_epochs.get(key, 0), first_epoch + len(metrics) - 1)
        assert self.objective is not None
        for found in metrics:
            value = found.get(f"val/{self.objective.metric}", float("nan"))
            if key not in self.replicas and self.objective.better(value, self.best):
                self.best = value
        # Starting Ray, and what an earlier start has learnt, say nothing of the pace.
        self.first_learnt = self.first_learnt or (time.monotonic(), sum(self.learnt_epochs.values()))
        self.screen.refresh(self)

    def ended(self, trial: Trial) -> None:
        self.ended_trials[trial.key] = trial.status
        self.screen.refresh(self)

    @property
    def done(self) -> bool:
        return bool(self.learnt_epochs) and len(self.ended_trials) == len(self.learnt_epochs)

    def trials(self) -> str:
        failed = sum(status == "failed" for status in self.ended_trials.values())
        again = len(self.ended_trials.keys() & self.replicas)
        said = f"{len(self.ended_trials) - again} of {len(self.learnt_epochs) - len(self.replicas)} trials"
        said += f", {again} of {len(self.replicas)} other seeds" if self.replicas else ""
        return said + (f", {failed} failed" if failed else "")

    def best_so_far(self) -> str:
        if self.objective is None or self.best != self.best:
            return "–"
        return f"val/{self.objective.metric} {self.best:.4f}"

    def time_left(self) -> str:
        """At most: trials that will be stopped early count as if they went to the end."""
        if self.done:
            return ""
        since, known = self.first_learnt or (0.0, 0)
        learnt = sum(self.learnt_epochs.values()) - known
        if not self.first_learnt or not learnt:
            return "…"
        left = sum(self.epochs - n for key, n in self.learnt_epochs.items() if key not in self.ended_trials)
        return f"≤ {left * (time.monotonic() - since) / learnt:.0f} s left"


class Screen:
    """One a process. Safe to call from several threads."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self._live: Live | None = None
        self._views: dict[str, SweepView] = {}
        self._lock = threading.RLock()

    def say(self, line: str) -> None:
        with self._lock:
            self.console.print(hidden(line), markup=False)

    def watch(self, pipeline: str) -> SweepView:
        with self._lock:
            view = self._views[pipeline] = SweepView(pipeline, self)
            return view

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Keep a table at the foot of a terminal; elsewhere do nothing."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self._table(), console=self.console, refresh_per_second=4, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def refresh(self, view: SweepView) -> None:
        with self._lock:
            if self._live is not None:
                self._live.update(self._table())
            elif not self.console.is_terminal:
                now = time.monotonic()
                if view.done or now - view.last_line >= _LINE_EVERY_S:
                    view.last_line = now
                    parts = (view.trials(), f"best {view.best_so_far()}", view.time_left())
                    self.say(f"{view.pipeline} train: {', '.join(p for p in parts if p)}")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("pipeline", "trials", "epochs", "best so far", "time left"):
            table.add_column(title)
        for view in self._views.values():
            epochs = str(sum(view.learnt_epochs.values()))
            table.add_row(view.pipeline, view.trials(), epochs, view.best_so_far(), view.time_left() or "done")
        return table


screen = Screen()
