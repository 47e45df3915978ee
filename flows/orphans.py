"""Runs whose process died: Prefect and MLflow go on showing them as running, until the next start closes them.

Every flow run of this project has a file under .tidemill/flow-runs/ for as long as its process works on it; MLflow's
runs name their process by a tag.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components import receipts, stages
from components.errors import Unreachable
from components.plan import Project
from components.workspace import Workspace

from .processes import Process

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextlib.contextmanager
def noted(workspace: Workspace, flow_run: str) -> Iterator[None]:
    """Note that this process works on a flow run, as long as it does; "" is none."""
    if not flow_run:
        yield
        return
    me = Process.me()
    file = _folder(workspace) / f"{flow_run}.json"
    receipts.write_json(file, {"pid": me.pid, "born": me.born})
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def left(workspace: Workspace) -> dict[str, int]:
    """Flow run → pid of the process that died over it."""
    found = {}
    for file in sorted(_folder(workspace).glob("*.json")):
        said = json.loads(file.read_text(encoding="utf-8"))
        if not Process(said["pid"], said["born"]).alive():
            found[file.stem] = said["pid"]
    return found


def close(workspace: Workspace) -> int:
    """Mark what dead processes left as crashed, at the Prefect server of now; returns how many flow runs that were."""
    dead = left(workspace)
    if not dead:
        return 0
    from prefect.client.orchestration import get_client

    closed = 0
    with get_client(sync_client=True) as client:
        for flow_run, pid in dead.items():
            closed += _close(client, flow_run, f"process {pid} died")
            (_folder(workspace) / f"{flow_run}.json").unlink(missing_ok=True)
    return closed


def bury(project: Project) -> None:
    """Close what dead processes left, in MLflow and at the Prefect server of now."""
    stages.bury(project)
    close(project.workspace)


def bury_meanwhile(project: Project) -> None:
    """The same beside other work: where a server is silent that is said, and is no fault of the command."""
    try:
        bury(project)
    except Unreachable as error:
        project.say(f"runs of dead processes are still open: {error.what} ({error.where})")


def bury_alone(project: Project) -> None:
    """The same where there is nothing else to do: a Prefect server is started for this, if anything is left."""
    from . import servers

    if not left(project.workspace):
        return
    try:
        with servers.prefect_server(project.workspace, project.say):
            bury_meanwhile(project)
    except Unreachable as error:
        project.say(f"runs of dead processes are still open: {error.what} ({error.where})")


def _close(client: SyncPrefectClient, flow_run: str, why: str) -> bool:
    """Whether there was anything to close. A server that does not know the run is another one than that of then."""
    from uuid import UUID

    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterState
    from prefect.client.schemas.filters import TaskRunFilterStateType as OfType
    from prefect.client.schemas.objects import StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    try:
        run = client.read_flow_run(UUID(flow_run))
    except ObjectNotFound:
        return False
    unfinished = TaskRunFilter(state=TaskRunFilterState(type=OfType(any_=[StateType.RUNNING, StateType.PENDING])))
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    for task in client.read_task_runs(flow_run_filter=of_run, task_run_filter=unfinished):
        client.set_task_run_state(task.id, Crashed(message=why), force=True)
    if run.state is not None and run.state.is_final():
        return False
    client.set_flow_run_state(run.id, Crashed(message=why), force=True)
    return True


def _folder(workspace: Workspace) -> Path:
    return workspace.state / "flow-runs"
