"""Work that the clock asked for and nobody did: the machine was off, the scheduler hung, the server was down.

Prefect's database is the only record. It holds when the scheduler last started (it writes its schedules anew then) and
a run for each due time at which it lived since; so a last due time without one was missed. One run makes up for all
that were: they would have done the same work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx  # what Prefect's client raises
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed

from components import holds
from components.errors import Busy
from components.plan import Project

TAG = "catch-up"
LOOK_AGAIN_S = 10.0
_OPEN = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_PLAYED = (*_OPEN, StateType.COMPLETED, StateType.FAILED, StateType.CRASHED)
_BEGUN = (*_PLAYED, StateType.CANCELLED)  # by a person, or because the last run was at work


@dataclass(frozen=True)
class Debt:
    """One run that is owed. `key` keeps it one, however often it is asked for."""

    key: str
    why: str


def missed(cron: str, since: datetime, now: datetime) -> datetime | None:
    """The last due time after `since` and not after `now`, all in UTC."""
    from cronsim import CronSim

    due: datetime | None = next(CronSim(cron, now.replace(microsecond=0) + timedelta(seconds=1), reverse=True), None)
    return due if due is not None and due > since else None


def debt(name: str, cron: str, since: datetime | None, now: datetime, last: FlowRun | None) -> Debt | None:
    """What a pipeline is owed. `since` is when its schedule, this very one, was last begun, None if it never was;
    `last` the run that is due last of all that have begun or ended."""
    due = missed(cron, since, now) if since else None
    if due and not (last and last.expected_start_time and last.expected_start_time >= due):
        return Debt(f"{name} due {due.isoformat()}", f"its run of {due:%Y-%m-%d %H:%M} UTC was missed")
    if last and last.state_type in {*_OPEN, StateType.CRASHED}:
        return Debt(f"{name} after {last.id}", "its last run was killed")
    return None


def superseded(waiting: Sequence[FlowRun], begun: datetime | None) -> list[FlowRun]:
    """Of one pipeline's runs that wait past their time, those that need not be: a run began after they were due, at
    `begun`, or a later one waits as well."""
    waiting = sorted(waiting, key=_due)
    return [run for run in waiting if run is not waiting[-1] or (begun is not None and begun >= _due(run))]


# ── with a server ───────────────────────────────────────────────────────────────────────────────────────


def settle(project: Project, now: datetime | None = None) -> None:
    """Before the scheduler starts: one run for each pipeline that is owed one, none of those that wait since before.

    Runs of dead processes are told so, since they hold the one place that a pipeline has. A pipeline that somebody
    works on gets no run: its work is being done.
    """
    now = now or datetime.now(UTC)
    with get_client(sync_client=True) as client:
        for deployment in deployments(client):
            block = project.params.pipelines.get(deployment.name)
            if block is None or block.schedule is None:
                continue
            waiting = _waiting(client, deployment, now)
            try:
                with holds.holding(project.workspace, deployment.name):
                    last = next(iter(_runs(client, deployment, _BEGUN, most=1)), None)
                    owed = debt(deployment.name, block.schedule, _since(deployment, block.schedule), now, last)
                    _bury(client, deployment)
            except Busy as busy:
                owed = None
                project.say(f"{deployment.name}: somebody works on it, so nothing is made up for ({busy.why})")
            if owed:
                _make_up(client, project, deployment, owed)
            _drop(client, waiting)


def look(names: set[str]) -> None:
    """While the scheduler serves, every LOOK_AGAIN_S: what has piled up, for it hung or the server was down, does not
    run many times."""
    try:
        with get_client(sync_client=True) as client:
            for deployment in deployments(client):
                if deployment.name in names:
                    tidy(client, deployment, datetime.now(UTC))
    except (httpx.HTTPError, RuntimeError) as error:  # the server is away: look again later
        print(f"late runs could not be looked for: {error}", flush=True)


def tidy(client: SyncPrefectClient, deployment: DeploymentResponse, now: datetime) -> None:
    """Cancel the runs of a pipeline that wait past their time for nothing."""
    waiting = _waiting(client, deployment, now)
    if waiting:
        played = _runs(client, deployment, _PLAYED, FlowRunSort.START_TIME_DESC, most=1)
        _drop(client, superseded(waiting, played[0].start_time if played else None))


def deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """Those of the pipelines, of this project or of another that uses the server."""
    ours = filters.FlowFilter(name=filters.FlowFilterName(any_=["pipeline"]))
    return client.read_deployments(flow_filter=ours)


def _since(deployment: DeploymentResponse, cron: str) -> datetime | None:
    found = [s.created for s in deployment.schedules if getattr(s.schedule, "cron", None) == cron and s.created]
    return max(found, default=None)


def _runs(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    states: Sequence[StateType],
    sort: FlowRunSort = FlowRunSort.EXPECTED_START_TIME_DESC,
    most: int | None = None,
    **more: Any,
) -> list[FlowRun]:
    wanted = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment.id]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=list(states))),
        **more,
    )
    return client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=most)


def _waiting(client: SyncPrefectClient, deployment: DeploymentResponse, now: datetime) -> list[FlowRun]:
    """Runs of the schedule that were due before `now` and have not begun."""
    before = filters.FlowRunFilterExpectedStartTime(before_=now)
    found = _runs(client, deployment, [StateType.SCHEDULED], expected_start_time=before)
    return [run for run in found if run.auto_scheduled]


def _bury(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    """Call it while the pipeline is held: so nobody plays these runs any more."""
    killed: State[None] = Crashed(message="Its process is gone: it was killed, or the machine was off.")
    for run in _runs(client, deployment, _OPEN):
        client.set_flow_run_state(run.id, killed)


def _make_up(client: SyncPrefectClient, project: Project, deployment: DeploymentResponse, owed: Debt) -> None:
    client.create_flow_run_from_deployment(
        deployment.id,
        parameters={"name": deployment.name, "root": str(project.workspace.root)},
        tags=[*deployment.tags, TAG],
        idempotency_key=owed.key,
    )
    project.say(f"{deployment.name}: {owed.why}; one run makes up for it")


def _drop(client: SyncPrefectClient, runs: Sequence[FlowRun]) -> None:
    for run in runs:
        client.set_flow_run_state(run.id, Cancelled(message="Late, and another run does its work."))


def _due(run: FlowRun) -> datetime:
    return run.expected_start_time or datetime.min.replace(tzinfo=UTC)
