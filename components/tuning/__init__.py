"""Sweeps on Ray Tune: trials learnt segment by segment, by processes that are used again.

Tune sees each segment as a trial of its own. Which segment comes next is the scheduler's word, handed out by a
Searcher; identity, checkpoints and restarts are ours, so a sweep whose driver or processes were killed goes on
from where it was and ends with the same weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from .. import families
from ..contract import Objective
from ..errors import ParamsError, TrainingFailed
from ..params import Resources
from ..sweep import Request, Trial, Watcher
from . import configurations, segments, sessions
from .archive import Archive
from .configurations import Sampler
from .course import Course, interrupt, listening
from .lease import Lease
from .ledger import Ledger, Segment
from .schedulers import scheduler
from .segments import Lesson, Told
from .sessions import Share, require, session

__all__ = ["interrupt", "require", "session", "sweep"]

_RETRIES = 2  # of a segment whose process died
_COUNT_CPUS_EVERY_S = 30.0
_registering = threading.Lock()


def sweep(request: Request, watcher: Watcher, *, fresh: bool = False) -> list[Trial]:
    """Run a sweep and return its trials: best first, ties by key, failed ones and those without a value last.

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
        if kept is not None:
            _tell_kept(kept, request, ledger.objective, watcher)
            return kept
        return _learnt(archive, ledger, lease, watcher)


def _learnt(archive: Archive, ledger: Ledger, lease: Lease, watcher: Watcher) -> list[Trial]:
    """The trials of a sweep that goes on from what its archive holds to its end."""
    request = archive.request
    family = families.family(request.family)
    archive.restore(ledger)
    if reached := [entry.seconds for entry in ledger.trials.values() if entry.curve]:
        watcher.kept(len(reached), len(ledger.trials), sum(reached))
    domains = request.search.domains(family.search_space(request.data.spec), request.settings)
    sampler = Sampler(domains, request.settings, configurations.defaults(family.Settings), request.seed)
    course = Course(archive, lease, ledger, scheduler(request.search, sampler, ledger), watcher)
    course.begin()
    if course.left():
        with listening():
            _run(course)
    if course.stopping:
        raise KeyboardInterrupt(course.stopping)
    trials = course.trials()
    if not math.isfinite(trials[0].best) or trials[0].status == "failed":
        raise _nothing_usable(trials, request, ledger.objective)
    lease.check()
    archive.finish(trials)
    return trials


def _tell_kept(trials: Sequence[Trial], request: Request, objective: Objective, watcher: Watcher) -> None:
    watcher.planned([(trial.key, trial.hyper) for trial in trials], request.search.epochs, objective)
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


# ── Ray Tune ────────────────────────────────────────────────────────────────────────────────────────────


def _run(course: Course) -> None:
    """Learn all that is left, on the session that is held or one for this sweep alone."""
    request = course.request
    package = families.import_path(request.family).partition(".")[0].partition(":")[0]
    with contextlib.ExitStack() as stack:
        share = stack.enter_context(sessions.share(request.resources.cpus, package))
        folder = stack.enter_context(sessions.folder())
        stack.enter_context(sessions.signals_kept())
        workers = _Workers(course, share, request.resources)
        _keep_secrets()
        workers.slots()  # raises before anything starts, if there can be none
        handed = _Segments(course, workers)
        lesson = ray.put(_lesson(course, share, package))
        resources = {"cpu": request.resources.cpus, "gpu": request.resources.gpus}
        try:
            tune.run(
                _trainable(lesson),
                name=f"sweep-{uuid.uuid4().hex[:12]}",
                search_alg=handed,
                scheduler=workers,
                callbacks=[_News(course, handed)],
                num_samples=sys.maxsize,
                resources_per_trial=resources,
                reuse_actors=True,
                max_failures=_RETRIES,
                raise_on_failed_trial=False,
                verbose=0,
                storage_path=folder,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            )
        except BaseException:
            workers.kill()
            raise


def _lesson(course: Course, share: Share, package: str) -> Lesson:
    request = course.request
    return Lesson(
        family=request.family,
        data=request.data,
        objective=course.ledger.objective,
        seed=request.seed,
        threads=request.resources.cpus,
        storage=request.storage,
        checkpoint_every_s=request.checkpoint_every_s,
        token=course.lease.token,
        folders=() if share.joined else (str(sessions.import_folder(package).parent),),
        environment=_for_storage() if share.joined else {},
    )


def _keep_secrets() -> None:
    """Tune asks Ray to set the keys of AWS in its processes, and Ray logs what it is asked: they go by the lesson.
    There is only this set of names to take them from, for good, as sweeps overlap; a test reads a cluster's logs."""
    names = class_cache.ENV_VARS_TO_PROPAGATE
    names.difference_update({name for name in names if name.startswith("AWS_")})


def _for_storage() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_"))}


def _trainable(lesson: Any) -> str:
    """The name under which Tune knows how a segment of this sweep is learnt."""

    def learn(config: dict[str, Any]) -> None:
        def tell(told: Told) -> None:
            tune.report({"told": [dataclasses.asdict(told)]})  # in a list: Tune flattens dictionaries

        segments.learn(_fetched(lesson), Segment(**config["segment"][0]), config["known"], tell)

    # Tune keeps trainables by their name for the whole process: two sweeps at once must not share one. It keeps them in
    # a dictionary that it walks through at each registration, so two must not register at once either.
    learn.__name__ = name = f"learn-{uuid.uuid4().hex}"
    with _registering:
        tune.register_trainable(name, learn)
    return name


@functools.lru_cache(maxsize=1)
def _fetched(lesson: Any) -> Lesson:
    """The same object for all segments that a process learns of one sweep."""
    fetched: Lesson = ray.get(lesson)
    return fetched


class _Segments(Searcher):  # type: ignore[misc]
    """Hands out segments as Tune's trials."""

    def __init__(self, course: Course, workers: _Workers) -> None:
        super().__init__()
        self._course, self._workers = course, workers
        self._keys: dict[str, str] = {}  # of Tune's trials

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        running = len(self._course.ledger.running)
        segment = self._course.next() if running < self._workers.slots() else None
        if segment is None:
            return None if running else Searcher.FINISHED
        self._keys[trial_id] = segment.key
        return {"segment": [dataclasses.asdict(segment)], "known": self._course.ledger.reached(segment.key)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:  # noqa: ARG002
        for told in result.get("told", ()):
            self._course.hear(Told(**told))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        if not error:
            self._course.over(self._keys.pop(trial_id))

    def give_up(self, trials: Sequence[Any]) -> None:
        """Note which of Tune's trials have failed for good. Tune does not tell a Searcher of all of them."""
        for trial in trials:
            if trial.status == "ERROR" and trial.trial_id in self._keys:
                self._course.over(self._keys.pop(trial.trial_id), _last_words(trial))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the ledger is read back from the checkpoints."""


class _News(Callback):  # type: ignore[misc]
    """Passes news on between Tune's steps, where what the watcher raises ends the sweep as it is."""

    def __init__(self, course: Course, handed: _Segments) -> None:
        self._course, self._handed = course, handed

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        self._handed.give_up(trials)
        self._course.pass_on()


def _last_words(trial: Any) -> str:
    """Why one of Tune's trials failed, in a line."""
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("ActorDiedError" in line or "actor died" in line.lower() for line in lines):
        return f"its process died {_RETRIES + 1} times: killed, or out of memory"
    return lines[-1][:300] if lines else "Ray gave up on it and did not say why"


class _Workers(FIFOScheduler):  # type: ignore[misc]
    """Keeps the processes that are of use, through the end of a rung too; lets others have the rest.

    Tune keeps one idle process at most, and so would start new ones, torch and all, at every rung. Its cache of
    processes is reached by private names: the version is pinned, and a test counts the processes.
    """

    def __init__(self, course: Course, share: Share, resources: Resources) -> None:
        super().__init__()
        self._course, self._share, self._resources = course, share, resources
        self._controller: Any = None
        self._kept = 0
        self._total_cpus, self._counted_at = 0, -math.inf

    def slots(self) -> int:
        """How many segments may be learnt at once now."""
        if time.monotonic() - self._counted_at > _COUNT_CPUS_EVERY_S:
            self._count()
        self._share.width = self._course.width()
        return sessions.slots(self._share, self._total_cpus)

    def kill(self) -> None:
        """End all processes of this sweep now."""
        if self._controller is not None:
            self._controller._actor_manager.cleanup()

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        self._controller = tune_controller
        self._keep(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002
        self._keep(tune_controller, ending=1)

    def _keep(self, controller: Any, ending: int = 0) -> None:
        """Say how many idle processes to keep: those that running segments leave free."""
        slots = self.slots()
        controller.update_max_pending_trials(slots)
        wanted = max(0, slots - len(self._course.ledger.running) + ending)
        cache = controller._actor_cache
        cache._may_keep_one = False
        for trial in controller.get_trials()[:1]:  # all want the same resources
            cache.increase_max(trial.placement_group_factory, wanted - self._kept)
            self._kept = wanted

    def _count(self) -> None:
        found, wanted = ray.cluster_resources(), self._resources
        cpus, gpus = found.get("CPU", 0), found.get("GPU", 0)
        if wanted.cpus > cpus or wanted.gpus > gpus:
            raise ParamsError(
                f"a trial wants {wanted.cpus} CPUs and {wanted.gpus:g} GPUs, and Ray has {cpus:g} and {gpus:g}",
                where="params.yaml: resources",
                fix="ask for less, or join a larger cluster by RAY_ADDRESS",
            )
        by_gpu = gpus / wanted.gpus if wanted.gpus else math.inf
        self._total_cpus = int(min(cpus, by_gpu * wanted.cpus))
        self._counted_at = time.monotonic()
