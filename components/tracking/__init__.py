"""A sweep as people see it in MLflow: one parent run for a train stage, a child for each trial, curves by epoch.

The driver alone writes, in batches: trials report to it, and a thread of its own takes what has gathered every
few seconds. Runs and points are found again after a restart, so that nothing is there twice; and who was taken over
while it was paused writes nothing any more, as its successor has told the same.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import holds
from ..contract import Column, Json, Metrics, Objective, Spec
from ..errors import hidden
from ..sweep import Planned, Trial, measure_seeds
from ..workspace import Workspace
from . import report, runs
from .runs import PARENT, TAG, Record
from .store import Store, answering, open_store

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

FLUSH_S = 2.0
LONGEST = 5000  # characters in a tag
KIND, TRIAL, SEED = f"{TAG}kind", f"{TAG}trial", f"{TAG}seed"
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class Origin:
    """What a sweep is made from. `run_key` is the identity of its parent run. `rows`: split → number of rows.
    `flow_run`: the Prefect flow run that asked for it, if one did."""

    pipeline: str
    run_key: str
    family: str
    spec: Spec
    data_md5: str
    git_commit: str
    rows: Mapping[str, int] = field(default_factory=dict)
    stage: str = "train"
    flow_run: str = ""

    def tags(self) -> dict[str, str]:
        own = {
            "run_key": self.run_key,
            "pipeline": self.pipeline,
            "family": self.family,
            "dataset": self.spec.dataset,
            "data_md5": self.data_md5,
            "git_commit": self.git_commit,
            "stage": self.stage,
            "process": runs.process(),
        }
        if self.flow_run:
            own |= {"flow_run": self.flow_run}
        source = {
            "user": runs.user(),
            "source.name": "tidemill",
            "source.type": "LOCAL",
            "source.git.commit": self.git_commit,
        }
        return {TAG + k: v for k, v in own.items()} | {f"mlflow.{k}": v for k, v in source.items()}


@contextlib.contextmanager
def sweep_run(workspace: Workspace, origin: Origin, flush_s: float = FLUSH_S) -> Iterator[SweepRun]:
    """The parent run of a train stage, new or found again, as a watcher of its sweep.

    It ends FINISHED, FAILED on an exception, KILLED on an interrupt. Raises Unreachable if MLflow does not answer
    at the start or at the end; a silence in between is waited out. Raises Busy if somebody took the pipeline over.
    """
    store = open_store(workspace)
    with answering(store.uri):
        run = SweepRun(store, origin, flush_s, partial(holds.committing, workspace, origin.pipeline))
    try:
        yield run
    except BaseException as error:
        try:
            run.close("FAILED" if isinstance(error, Exception) else "KILLED", f"{type(error).__name__}: {error}")
        except Exception as second:  # the first error is the one to tell
            error.add_note(f"and MLflow could not be told: {second}")
        raise
    with answering(store.uri):
        run.close("FINISHED")


class SweepRun:
    """Watches a sweep (sweep.Watcher) and writes what it sees. Made by `sweep_run`. `fence`: what is written within is
    written by who holds the pipeline."""

    def __init__(
        self, store: Store, origin: Origin, flush_s: float, fence: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._store, self._origin, self._fence = store, origin, fence
        self.experiment_id = store.experiment(origin.pipeline)
        self._parent = self._adopt()
        self.run_id = self._parent.run_id
        children = runs.find(store, self.experiment_id, {PARENT: self.run_id})
        self._kept = {child.data.tags.get(TRIAL, ""): child for child in children}
        self._children: dict[str, Record] = {}
        self._trials: dict[str, Trial] = {}
        self._objective = Objective("loss", "min")
        self._waiting: list[tuple[str, Any]] = []
        self._queue, self._writing, self._over = threading.Lock(), threading.Lock(), threading.Event()
        runs.bury(store, self.experiment_id)
        store.client.log_inputs(self.run_id, datasets=[_dataset(origin)])
        self._clock = threading.Thread(target=self._flush_by_time, args=(flush_s,), name="mlflow flush", daemon=True)
        self._clock.start()

    def _adopt(self) -> Record:
        """The parent run of this run key: the one that an earlier process left, or a new one."""
        origin, tags = self._origin, self._origin.tags() | {KIND: "sweep"}
        identity = {name: tags[name] for name in (KIND, f"{TAG}run_key", f"{TAG}stage")}
        for run in runs.find(self._store, self.experiment_id, identity):
            record = Record(self._store, run)
            now = (f"{TAG}flow_run", "mlflow.user")  # whose it is from here on
            record.tag({name: tags[name] for name in now if name in tags})
            record.wake()
            return record
        return runs.create(self._store, self.experiment_id, f"{origin.pipeline} {origin.run_key[:8]}", tags)

    # ── what the driver tells ───────────────────────────────────────────────────────────────────────────

    def kept(self, trials: int, of: int, seconds: float) -> None:
        """Nothing: the runs are the same runs, and have their points."""

    def planned(self, trials: Sequence[Planned], epochs: int, objective: Objective) -> None:
        self._objective = objective
        note = {f"{TAG}objective": f"val/{objective.metric} {objective.mode}", f"{TAG}epochs": str(epochs)}
        self._put(*(("plan", trial) for trial in trials), ("note", note))

    def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
        now_ms = _now_ms()
        self._put(("learn", (key, [(first_epoch + i, m, now_ms) for i, m in enumerate(metrics)])))

    def ended(self, trial: Trial) -> None:
        self._trials[trial.key] = trial
        self._put(("end", trial))

    def finish(self, best: Trial, metrics: Metrics, baseline: Metrics, artifacts: Sequence[Path] = ()) -> None:
        """Record the outcome: test metrics, the baseline's, the best configuration, files and folders, a report."""
        with answering(self._store.uri), self._writing, self._fence():
            self._flush()
            trials = list(self._trials.values())
            outcome = {f"best/{self._objective.metric}": best.best, **metrics, **measure_seeds(best, trials)}
            outcome |= {f"baseline/{name.partition('/')[2]}": value for name, value in baseline.items()}
            self._parent.figures(outcome, _now_ms())
            self._parent.params(best.hyper)
            hyper = json.dumps(dict(best.hyper), sort_keys=True)
            told = report.Outcome(self._origin.pipeline, self._objective, best, trials, metrics, baseline)
            note = report.markdown(told)[:LONGEST]
            self._parent.tag({f"{TAG}best_trial": best.key, f"{TAG}best_hyper": hyper, "mlflow.note.content": note})
            for path in artifacts:
                self.attach(path)
            with tempfile.TemporaryDirectory() as place:
                page = Path(place) / "report.html"
                page.write_text(report.html(told, _pictures(artifacts)), encoding="utf-8")
                self.attach(page)

    def attach(self, path: Path) -> None:
        """Log a file, or a folder under its own name. May be called after the run has ended."""
        client = self._store.client
        if path.is_dir():
            client.log_artifacts(self.run_id, str(path), path.name)
        else:
            client.log_artifact(self.run_id, str(path))

    def link(self, address: str = "") -> str:
        """Where a browser shows the run, if a server's address is known."""
        return self._store.link(self.experiment_id, self.run_id, address)

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Write what has gathered. What could not be written stays; told again, it is not written twice."""
        with self._writing, self._fence():
            self._flush()

    def close(self, status: str, why: str = "") -> None:
        """End the run and whatever child has not ended. Raises what keeps MLflow from being told."""
        self._over.set()
        self._clock.join()
        with self._writing, self._fence():
            self._flush()
            for key, child in self._children.items():
                if key not in self._trials:
                    child.end("KILLED")
            if why:
                self._parent.tag({f"{TAG}error": hidden(why)[:LONGEST]})
            self._parent.end(status)

    def _put(self, *events: tuple[str, Any]) -> None:
        with self._queue:
            self._waiting += events

    def _flush_by_time(self, flush_s: float) -> None:
        while not self._over.wait(flush_s):
            # A fault here comes again at the next flush; the last, in close(), raises it.
            with contextlib.suppress(Exception):
                self.flush()

    def _flush(self) -> None:
        with self._queue:
            taken, self._waiting = self._waiting, []
        try:
            self._write(taken)
        except BaseException:
            with self._queue:
                self._waiting = taken + self._waiting
            raise

    def _write(self, events: Sequence[tuple[str, Any]]) -> None:
        points: dict[str, list[tuple[int, Metrics, int]]] = {}
        for kind, what in events:
            if kind == "plan":
                self._child(what.key, what.seed).params(what.hyper)
            elif kind == "learn":
                points.setdefault(what[0], []).extend(what[1])
            elif kind == "note":
                self._parent.tag(what)
        for key, learnt in points.items():
            self._child(key).points(learnt)
        for kind, what in events:
            if kind == "end":
                self._end(what)

    def _child(self, key: str, seed: int | None = None) -> Record:
        """The run of a trial. One that is learnt again with another seed says so."""
        if key not in self._children:
            if key in self._kept:
                self._children[key] = Record(self._store, self._kept[key])
            else:
                tags = self._origin.tags() | {KIND: "trial", PARENT: self.run_id, TRIAL: key}
                name = f"trial {key[:8]}"
                if seed is not None:
                    name, tags = f"{name} seed {seed}", tags | {SEED: str(seed)}
                self._children[key] = runs.create(self._store, self.experiment_id, name, tags)
        return self._children[key]

    def _end(self, trial: Trial) -> None:
        child, now_ms = self._child(trial.key), _now_ms()
        child.points([(number, metrics, now_ms) for number, metrics in enumerate(trial.curve, 1)])
        if trial.best_epoch:
            child.points([(trial.best_epoch, {f"best/{self._objective.metric}": trial.best}, now_ms)])
        child.tag({f"{TAG}status": trial.status} | ({f"{TAG}error": trial.error[:LONGEST]} if trial.error else {}))
        child.end(STATUS[trial.status])


def _now_ms() -> int:
    return int(time.time() * 1000)


def _pictures(artifacts: Sequence[Path]) -> list[Path]:
    folders = [path for path in artifacts if path.is_dir()]
    return sorted(picture for folder in folders for picture in folder.glob("*.png"))


# ── the dataset ─────────────────────────────────────────────────────────────────────────────────────────


def _dataset(origin: Origin) -> DatasetInput:
    """The dataset as an input: MLflow's digest is DVC's MD5."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = origin.spec.dataset
    dataset = Dataset(
        name=name,
        digest=origin.data_md5[:36],
        source_type="local",
        source=json.dumps({"uri": f"data/{name}.parquet"}),
        schema=json.dumps({"mlflow_colspec": [_column(column) for column in origin.spec.columns]}),
        profile=json.dumps({"rows": sum(origin.rows.values()), **origin.rows}),
    )
    tags = {"mlflow.data.context": "training", "dvc.file": "data.dvc", "dvc.md5": origin.data_md5}
    return DatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()])


def _column(column: Column) -> Json:
    if column.kind == "tensor":
        shape = "×".join(map(str, column.shape))
        return {"name": column.name, "type": f"{column.dtype} {shape}", "required": True}
    types = {"number": "double", "category": "string", "date": "datetime", "text": "string"}
    return {"name": column.name, "type": types[column.kind], "required": True}
