"""Runs that were tracked, by whatever machine, as plain values."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract import Json, Metrics
from ..workspace import Workspace
from . import KIND, TRIAL, runs
from .runs import PARENT, TAG
from .store import answering, open_store, pages

if TYPE_CHECKING:
    from mlflow.entities import Run

RECEIPT = "receipt.json"  # the train stage's, among the files of its run


@dataclass(frozen=True)
class Past:
    """One run. `tags` are those that Tidemill gave it, without their prefix. `parent` and `trial` are "" where it is
    the run of a whole sweep."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: Metrics
    parent: str = ""

    @property
    def trial(self) -> str:
        return self.tags.get(TRIAL.removeprefix(TAG), "")


def sweeps(workspace: Workspace) -> list[Past]:
    """The run of every sweep, the oldest first. Raises Unreachable if MLflow does not answer."""
    store = open_store(workspace)
    with answering(store.uri):
        experiments = [found.experiment_id for found in pages(store.client.search_experiments)]
        how = {"filter_string": f"tags.`{KIND}` = 'sweep'", "order_by": ["start_time ASC"]}
        runs = pages(store.client.search_runs, experiment_ids=experiments, **how) if experiments else ()
        return [_past(found) for found in runs]


def run(workspace: Workspace, run_id: str) -> Past | None:
    """The run of that id; None where there is none."""
    from mlflow.exceptions import MlflowException

    store = open_store(workspace)
    with answering(store.uri):
        try:
            return _past(store.client.get_run(run_id))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def receipt(workspace: Workspace, run_id: str) -> dict[str, Json]:
    """The receipt of a run's train stage, as it lies among the run's files; empty where it cannot be read."""
    store = open_store(workspace)
    with tempfile.TemporaryDirectory() as place:
        try:
            file = store.client.download_artifacts(run_id, RECEIPT, place)
            told: dict[str, Json] = json.loads(Path(file).read_text(encoding="utf-8"))
        except Exception:  # a storage that is elsewhere, without our credentials, emptied: the tags must do
            return {}
    return told if isinstance(told, dict) else {}


def curve(workspace: Workspace, run_id: str, trial: str) -> list[Metrics]:
    """What each epoch of one trial of a sweep's run taught, in order; empty where MLflow does not know it."""
    store = open_store(workspace)
    with answering(store.uri):
        sweep = run(workspace, run_id)
        if sweep is None:
            return []
        experiment = store.client.get_run(run_id).info.experiment_id
        found = next(runs.find(store, experiment, {PARENT: run_id, TRIAL: trial}), None)
        epochs: dict[int, Metrics] = {}
        if found is None:
            return []
        for name in found.data.metrics:
            if not name.startswith("best/"):
                for point in store.client.get_metric_history(found.info.run_id, name):
                    epochs.setdefault(point.step, {})[name] = _exact(point.value)
    return [epochs[step] for step in sorted(epochs)]


def _exact(value: float) -> float:
    """MLflow keeps the largest number there is for an infinite one."""
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _past(found: Run) -> Past:
    tags = {name.removeprefix(TAG): value for name, value in found.data.tags.items() if name.startswith(TAG)}
    parent = found.data.tags.get(PARENT, "")
    return Past(found.info.run_id, found.info.status, tags, dict(found.data.params), dict(found.data.metrics), parent)
