"""Which runs MLflow holds that nobody needs any more, what they occupy, and removing them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..workspace import Workspace
from . import runs
from .runs import PARENT, PROCESS, TAG
from .store import Store, answering, open_store, pages

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class Old:
    """A train stage's run with its trials' runs, or the run of a scoring. `ended_at` is in seconds since 1970, `bytes`
    counts their files."""

    pipeline: str
    run_id: str
    name: str
    ended_at: float
    trials: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Orphan:
    """A run that says it is running, by a process of this machine that is dead."""

    run_id: str
    name: str
    process: str


def store_of(workspace: Workspace) -> Store | None:
    """The store, opened; None if it is the embedded one and nothing has been tracked yet."""
    if embedded(workspace) and not (workspace.state / "mlflow.db").is_file():
        return None
    return open_store(workspace)


def embedded(workspace: Workspace) -> bool:
    """Whether the store is the project's own: then all that it holds is the project's."""
    return workspace.tracking_uri == f"sqlite:///{workspace.state / 'mlflow.db'}"


def orphans(workspace: Workspace, pipelines: Sequence[str]) -> list[Orphan]:
    """Those of these pipelines on a team's server; in the embedded store also those of pipelines that are no more."""
    store = store_of(workspace)
    if store is None:
        return []
    with answering(store.uri):
        names = None if embedded(workspace) else pipelines
        found = runs.orphans(store, list(experiments(store, names).values()))
    return [Orphan(run.info.run_id, run.info.run_name, _named(run.data.tags[PROCESS])) for run in found]


def _named(process: str) -> str:
    host, pid = process.split(":")[:2]
    return f"{pid} on {host}"


def bury(workspace: Workspace, run_id: str) -> None:
    """Mark a run as killed, as its own process would have."""
    store = open_store(workspace)
    with answering(store.uri):
        store.client.set_terminated(run_id, "KILLED")


def experiments(store: Store, names: Sequence[str] | None) -> dict[str, str]:
    """Name → id of the experiments of these names that are there; None: of all."""
    if names is None:
        return {found.name: found.experiment_id for found in pages(store.client.search_experiments)}
    found = ((name, store.client.get_experiment_by_name(name)) for name in names)
    return {name: known.experiment_id for name, known in found if known and known.lifecycle_stage == "active"}


def old(store: Store, pipeline: str, experiment_id: str, before: float, needed: Collection[str]) -> list[Old]:
    """Runs of train stages and scorings that ended before a time (seconds since 1970), less those whose run id or run
    key (its first 16 digits) is `needed`. A run of which anything is still running is not among them."""
    return [
        made
        for kind in ("sweep", "score")
        for run in runs.find(store, experiment_id, {f"{TAG}kind": kind})
        if run.info.run_id not in needed and run.data.tags.get(f"{TAG}run_key", "")[:16] not in needed
        if run.info.end_time and run.info.end_time / 1000 < before
        if (made := _old(store, pipeline, run))
    ]


def _old(store: Store, pipeline: str, run: Run) -> Old | None:
    trials = list(runs.find(store, run.info.experiment_id, {PARENT: run.info.run_id}))
    if any(one.info.status == "RUNNING" for one in (run, *trials)):
        return None
    size = sum(stored_bytes(store, one.info.artifact_uri) for one in (run, *trials))
    ids = tuple(trial.info.run_id for trial in trials)
    return Old(pipeline, run.info.run_id, run.info.run_name, run.info.end_time / 1000, ids, size)


def remove(store: Store, run: Old) -> None:
    """Remove the files of a run and its trials, and put the runs in MLflow's bin, which `mlflow gc` empties. The
    parent goes last: after a death in between it is found again."""
    for run_id in (*run.trials, run.run_id):
        info = store.client.get_run(run_id).info
        if info.status == "RUNNING":  # taken up again meanwhile
            return
        remove_stored(store, info.artifact_uri)
        if info.lifecycle_stage == "active":
            store.client.delete_run(run_id)


# ── files, wherever they are ────────────────────────────────────────────────────────────────────────────


def stored_bytes(store: Store, location: str) -> int:
    """The bytes of all files at a location of the store's artifacts; 0 if there are none."""
    return _bytes_below(_files_at(store, location), None)


def remove_stored(store: Store, location: str) -> None:
    _files_at(store, location).delete_artifacts()


def _bytes_below(files: Any, path: str | None) -> int:
    found = files.list_artifacts(path)
    return sum(_bytes_below(files, one.path) if one.is_dir else one.file_size or 0 for one in found)


def _files_at(store: Store, location: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=store.uri)
