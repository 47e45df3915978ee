"""Sweeps on Ray Tune: trials learnt segment by segment, by processes that are used again.

Identity, checkpoints and restarts are ours, so a sweep whose driver or processes were killed goes on from where it
was and ends with the same weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from .. import families, interrupts
from ..contract import Objective
from ..errors import TrainingFailed
from ..signals import asking
from ..sweep import Planned, Request, Trial, Watcher
from . import configurations, execution
from .archive import Archive
from .configurations import Sampler
from .course import Course
from .lease import Lease
from .ledger import Ledger
from .rays import require
from .replicas import Replicas
from .schedulers import scheduler
from .sessions import session

__all__ = ["require", "session", "sweep"]


def sweep(request: Request, watcher: Watcher, *, fresh: bool = False) -> list[Trial]:
    """Run a sweep and return its trials: best first, ties by key, failed ones and those without a value last; then
    those that learnt the best one's configuration again with other seeds.

    The same request with the same storage goes on where an earlier call ended; if that one finished, its trials
    are told and returned without Ray. `fresh` empties the storage first. Uses the session that is held, or holds
    one at RAY_ADDRESS. Raises TrainingFailed if no trial has a usable result, Unreachable if Ray or the storage
    does not answer, Busy if another process works on the storage, ParamsError for resources or a search space that
    cannot be, KeyboardInterrupt once what was in flight is checkpointed, when it was told to stop.
    """
    if "://" not in request.storage:  # workers have folders of their own
        request = dataclasses.replace(request, storage=str(Path(request.storage).resolve()))
    ledger = Ledger(families.family(request.family).objective(request.data.spec))
    archive = Archive(request)
    with archive.opened(fresh) as lease:
        kept = archive.finished()
        archive.restore(ledger)
        if reached := [entry.seconds for entry in ledger.trials.values() if entry.curve]:
            watcher.kept(len(reached), len(ledger.trials), sum(reached))
        if kept is not None:
            _tell_kept(kept, request, ledger.objective, watcher)
            return kept
        interrupts.heed()
        return _learnt(archive, ledger, lease, watcher)


def _learnt(archive: Archive, ledger: Ledger, lease: Lease, watcher: Watcher) -> list[Trial]:
    """The trials of a sweep that goes on from what its archive holds to its end."""
    request = archive.request
    family = families.family(request.family)
    domains = request.search.domains(family.search_space(request.data.spec), request.settings)
    sampler = Sampler(domains, request.settings, configurations.defaults(family.Settings), request.seed)
    seeds = [request.seed + number for number in range(1, request.search.seeds)]
    planned = Replicas(ledger, scheduler(request.search, sampler, ledger), seeds)
    course = Course(archive, lease, ledger, planned, watcher)
    course.begin()
    if course.left():
        with asking(interrupts.interrupt):
            execution.run(course)
    if course.stopping:
        raise KeyboardInterrupt(course.stopping)
    trials = course.trials()
    if not math.isfinite(trials[0].best) or trials[0].status == "failed":
        raise _nothing_usable(trials, request, ledger.objective)
    lease.check()
    archive.finish(trials)
    return trials


def _tell_kept(trials: Sequence[Trial], request: Request, objective: Objective, watcher: Watcher) -> None:
    planned = [Planned(trial.key, trial.hyper, trial.seed) for trial in trials]
    watcher.planned(planned, request.search.epochs, objective)
    for trial in trials:
        if trial.curve:
            watcher.learnt(trial.key, 1, trial.curve)
        watcher.ended(trial)


def _nothing_usable(trials: Sequence[Trial], request: Request, objective: Objective) -> TrainingFailed:
    failed = [trial for trial in trials if trial.status == "failed"]
    first = min(failed, key=lambda trial: trial.key).error if failed else f"val/{objective.metric} was never finite"
    return TrainingFailed(
        f"none of {len(trials)} trials ended with a usable result, {len(failed)} of them with an error",
        where=f"family {request.family}",
        why=first,
        fix="mend the family, the data or the settings, then run the same command again",
    )
