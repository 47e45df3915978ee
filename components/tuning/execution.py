"""A sweep's segments played by Ray Tune, to which each is a trial of its own.

Which segment comes next is the scheduler's word, handed out by a Searcher; a Callback tells what was learnt as it
comes; a scheduler of Tune's, which decides nothing, keeps as many processes as there is a share of CPUs for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from .. import families, signals
from ..errors import ParamsError
from ..params import Resources
from . import rays, segments, sessions
from .course import Course
from .ledger import Segment
from .segments import Lesson, Told
from .sessions import Share

_RETRIES = 2  # of a segment whose process died
_COUNT_CPUS_EVERY_S = 30.0
_registering = threading.Lock()


def run(course: Course) -> None:
    """Learn all that is left, on the session that is held or one for this sweep alone."""
    request = course.request
    packages = {families.import_path(request.family).partition(".")[0].partition(":")[0], *request.data.spec.packages}
    with contextlib.ExitStack() as stack:
        share = stack.enter_context(sessions.share(request.resources.cpus, packages))
        folder = stack.enter_context(rays.folder())
        stack.enter_context(signals.put_back(signal.SIGTERM, signal.SIGUSR1))
        workers = _Workers(course, share, request.resources)
        _keep_secrets()
        workers.slots()  # raises before anything starts, if there can be none
        handed = _Segments(course, workers)
        told = ray.put(lesson(course, share, packages))
        resources = {"cpu": request.resources.cpus, "gpu": request.resources.gpus}
        try:
            tune.run(
                trainable(told),
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


def lesson(course: Course, share: Share, packages: Set[str]) -> Lesson:
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
        folders=() if share.joined else tuple(sorted({str(rays.import_folder(name).parent) for name in packages})),
        environment=_for_storage() if share.joined else {},
    )


def _keep_secrets() -> None:
    """Tune asks Ray to set the keys of AWS in its processes, and Ray logs what it is asked: they go by the lesson.
    There is only this set of names to take them from, for good, as sweeps overlap; a test reads a cluster's logs."""
    names = class_cache.ENV_VARS_TO_PROPAGATE
    names.difference_update({name for name in names if name.startswith("AWS_")})


def _for_storage() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_"))}


def trainable(lesson: Any) -> str:
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
                self._course.over(self._keys.pop(trial.trial_id), last_words(trial))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the ledger is read back from the checkpoints."""


class _News(Callback):  # type: ignore[misc]
    """Passes news on between Tune's steps, where what the watcher raises ends the sweep as it is."""

    def __init__(self, course: Course, handed: _Segments) -> None:
        self._course, self._handed = course, handed

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        self._handed.give_up(trials)
        self._course.pass_on()


def last_words(trial: Any) -> str:
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
