"""The flows: validate → train → register → score, and several pipelines or past partitions at once.

Links, nothing else.

Without their decorators these functions still run: what they call are the stages.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from components import holds, interrupts, partitions, results, scores, stages
from components.contract import Json
from components.errors import TidemillError, Unreachable
from components.partitions import Partition
from components.plan import Project
from components.receipts import Receipt
from components.workspace import Workspace

from . import orphans
from .project import open_project

# Pipelines that run side by side; their trials share Ray's CPUs whatever this number is.
AT_ONCE = 4


# A server that is away is waited for as long as this; of other faults only the first two tries are repeated.
_PAUSES_S = [2, 4, 8, 16, 30, 60, 120]


def worth_another_try(_task: Any, run: Any, state: Any) -> bool:
    """Bad data stays bad; a server that does not answer may come back, and a dead process can be started again."""
    try:
        state.result()
    except TidemillError as error:
        return isinstance(error, Unreachable)
    except Exception:
        return bool(run.run_count <= 2)
    return False


_stage: dict[str, Any] = {
    "retries": len(_PAUSES_S),
    "retry_delay_seconds": _PAUSES_S,
    "retry_condition_fn": worth_another_try,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(name="fetch", task_run_name="fetch {name}", **_stage)
def fetch(project: Project, name: str) -> None:
    stages.fetch(project, [name])


@task(name="validate", task_run_name="validate {name}", **_stage)
def validate(project: Project, name: str) -> Receipt:
    return stages.validate(project, name)


@task(name="train", task_run_name="train {name}", **_stage)
def train(project: Project, name: str) -> Receipt:
    return stages.train(project, name)


@task(name="register", task_run_name="register {name}", **_stage)
def register(project: Project, name: str) -> Receipt:
    return stages.register(project, name)


@task(name="score", task_run_name="score {name}", **_stage)
def score(project: Project, name: str) -> Receipt:
    return stages.score(project, name)


@flow(name="pipeline", flow_run_name="{name}", persist_result=False)
def pipeline(name: str, root: str = ".") -> None:
    """One pipeline, from its data to its scores."""
    project = replace(open_project(Path(root)), flow_run=flow_run.id or "")
    with orphans.noted(project.workspace, project.flow_run), holds.working(project.workspace, name):
        fetch(project, name)
        stages.settle(project, name)
        validate(project, name)
        train(project, name)
        register(project, name)
        score(project, name)
    show(project, [name])


@flow(name="pipelines", persist_result=False)
def pipelines(names: list[str], root: str = ".") -> None:
    """Several pipelines at once. One that fails does not stop the others; the first error is raised at the end."""
    with (
        interrupts.heeding(),
        orphans.noted(Workspace(Path(root)), flow_run.id or ""),
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        try:
            # A copy of the context tells each subflow whose child it is.
            started = [pool.submit(copy_context().run, pipeline, name, root) for name in names]
            wait(started)
        except BaseException as stop:  # reaches the main thread alone; what runs in the others must hear of it
            # For SIGTERM Prefect raises a signal of its own.
            interrupts.interrupt("SIGINT" if isinstance(stop, KeyboardInterrupt) else "SIGTERM")
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for future in started:
        future.result()


@task(name="score partition", task_run_name="score {name} {partition.name}", **_stage)
def score_partition(project: Project, name: str, partition: Partition) -> Json:
    return scores.score_partition(project, name, partition)


@flow(name="backfill", flow_run_name="backfill {name} {first} … {last}", persist_result=False)
def backfill(name: str, first: str, last: str, at_once: int = AT_ONCE, root: str = ".") -> list[Json]:
    """Score a pipeline's past partitions, several at once. One that fails does not stop the others; the first error
    is raised at the end. What is scored already, by this champion, is left as it is."""
    project = replace(open_project(Path(root)), flow_run=flow_run.id or "")
    layout = partitions.require(project.workspace.root, name, project.params.pipeline(name).scoring.input)
    there, _ = partitions.present(layout.span(first, last), layout)
    with (
        orphans.noted(project.workspace, project.flow_run),
        scores.backfilling(project, name),
        ThreadPoolExecutor(at_once) as pool,
    ):
        started = [pool.submit(copy_context().run, score_partition, project, name, one) for one in there]
        try:
            wait(started)
        except BaseException:  # what is being written is finished, the rest is left for the same command
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for one, future in zip(there, started, strict=True):
        if error := future.exception():
            project.say(f"{name} {one.name}: failed: {str(error).splitlines()[0]}")
    return [future.result() for future in started]


def show(project: Project, names: list[str]) -> None:
    """Leave the outcome where Prefect's page shows it."""
    rows = results.results(project, names)
    create_table_artifact(table=[row.to_row() for row in rows], key="results", description="Last run of each pipeline")
    for row in rows:
        create_markdown_artifact(results.report(project, row), key=row.pipeline.lower().replace("_", "-"))
