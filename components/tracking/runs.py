"""One MLflow run that takes everything once, whoever tells it again; and the runs that dead processes left."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import psutil

from ..contract import Json, Metrics
from .store import Store, pages

if TYPE_CHECKING:
    from mlflow.entities import Run

TAG, PARENT = "tidemill.", "mlflow.parentRunId"
PROCESS = f"{TAG}process"
BATCH = 1000  # metrics in a request
BIRTH_SLACK_S = 2.0  # births are counted from the boot time, which moves a little when the clock is set
Points = Sequence[tuple[int, Metrics, int]]  # (step, metrics, milliseconds since 1970)


class Record:
    """A run, new or found again, with what it holds already."""

    def __init__(self, store: Store, run: Run) -> None:
        self._client = store.client
        self.run_id: str = run.info.run_id
        self._status: str = run.info.status
        self._mine = run.data.tags.get(PROCESS) == process()
        self._params = dict(run.data.params)
        self._latest = dict(run.data.metrics)
        history = self._client.get_metric_history
        self._have = {(key, point.step) for key in run.data.metrics for point in history(self.run_id, key)}

    def params(self, values: Mapping[str, Json]) -> None:
        """Params cannot be changed: those that are there stay."""
        from mlflow.entities import Param

        new = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items() if k not in self._params}
        if new:
            self._client.log_batch(self.run_id, params=[Param(k, v) for k, v in sorted(new.items())])
            self._params |= new

    def points(self, points: Points) -> None:
        """Write the points that are not there yet."""
        from mlflow.entities import Metric

        new: dict[tuple[str, int], Metric] = {}
        for step, metrics, at_ms in points:
            for key, value in metrics.items():  # the first telling counts: sent again, MLflow knows it by its time
                new.setdefault((key, step), Metric(key, value, at_ms, step))
        fresh = [point for identity, point in new.items() if identity not in self._have]
        if fresh:
            self.wake()
        for start in range(0, len(fresh), BATCH):
            batch = fresh[start : start + BATCH]
            self._client.log_batch(self.run_id, metrics=batch)
            self._have |= {(point.key, point.step) for point in batch}

    def figures(self, metrics: Metrics, at_ms: int) -> None:
        """Write single figures, at step 0, that are new or no longer what they were."""
        from mlflow.entities import Metric

        new = {k: v for k, v in metrics.items() if repr(self._latest.get(k)) != repr(v)}
        if new:
            self._client.log_batch(self.run_id, metrics=[Metric(k, v, at_ms, 0) for k, v in sorted(new.items())])
            self._latest |= new

    def tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in sorted(tags.items())])

    def wake(self) -> None:
        """A run that a dead process ended, or left as running, is this process's now: nobody may bury it."""
        if not self._mine:
            self.tag({PROCESS: process()})
        if self._status != "RUNNING" or not self._mine:
            self._client.update_run(self.run_id, "RUNNING")
        self._status, self._mine = "RUNNING", True

    def end(self, status: str) -> None:
        if self._status != status:
            self._client.set_terminated(self.run_id, status)
            self._status = status


def create(store: Store, experiment_id: str, name: str, tags: Mapping[str, str]) -> Record:
    return Record(store, store.client.create_run(experiment_id, tags=dict(tags), run_name=name))


def find(store: Store, experiment_id: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """Runs with these tags, the oldest first."""
    clauses = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    how = {"experiment_ids": [experiment_id], "filter_string": clauses, "order_by": ["start_time ASC"]}
    yield from pages(store.client.search_runs, **how)


def bury(store: Store, experiment_id: str) -> None:
    """Mark runs as killed whose process on this machine is dead: nobody else will."""
    for run in orphans(store, [experiment_id]):
        store.client.set_terminated(run.info.run_id, "KILLED")


def orphans(store: Store, experiment_ids: Sequence[str]) -> list[Run]:
    """Runs that are RUNNING by a process of this machine that is dead."""
    if not experiment_ids:  # MLflow takes none for all
        return []
    host = socket.gethostname()
    clause = f"attributes.status = 'RUNNING' and tags.`{PROCESS}` LIKE '{host}:%'"
    return [
        run
        for run in pages(store.client.search_runs, experiment_ids=list(experiment_ids), filter_string=clause)
        if _dead(run.data.tags[PROCESS])
    ]


def process() -> str:
    """HOST:PID:BORN of this process; BORN tells it from a later one of the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def _dead(process: str) -> bool:
    """Whether a process of this machine is dead, by its tag; those of earlier versions of Tidemill hold no BORN."""
    _, pid, *born = process.split(":")
    try:
        found = psutil.Process(int(pid))
        newcomer = bool(born) and abs(found.create_time() - float(born[0])) > BIRTH_SLACK_S
        return newcomer or bool(found.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
