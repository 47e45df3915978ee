"""Deployments from the schedules in params.yaml. `python -m flows.schedule` serves them until it is told to stop;
`python -m flows.schedule settle` only puts in order what earlier ones have left, where there is no schedule."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import Any

from components.plan import Project
from components.ticking import every

from .programs import SETTLE
from .progress import screen


def deployments(project: Project) -> list[Any]:
    """One deployment for each pipeline with a schedule; a run that comes due while the last one works is dropped,
    since its work would be the same."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from .pipeline import pipeline

    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    return [
        pipeline.to_deployment(
            name,
            schedule=Cron(block.schedule, timezone="UTC"),
            parameters={"name": name, "root": str(project.workspace.root)},
            tags=[*block.tags, block.family, block.dataset],
            concurrency_limit=one,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for name, block in project.params.pipelines.items()
        if block.schedule
    ]


def withdraw(project: Project, kept: set[str]) -> None:
    """Delete deployments of schedules that params.yaml no longer has: nobody would play their runs. Those of other
    projects that use the server are left alone."""
    from prefect.client.orchestration import get_client

    from . import arrears

    with get_client(sync_client=True) as client:
        for deployment in arrears.deployments(client):
            if deployment.name not in kept and deployment.parameters.get("root") == str(project.workspace.root):
                client.delete_deployment(deployment.id)


def main() -> int:
    from prefect import serve

    from . import arrears, notices, orphans
    from .project import open_project

    notices.arrange()
    project = open_project()
    made = deployments(project)
    names = {deployment.name for deployment in made}
    withdraw(project, names)
    orphans.bury_meanwhile(project)
    if SETTLE in sys.argv[1:]:
        return 0
    if not made:
        screen.say("no pipeline in params.yaml has a schedule; start again after adding one")
        threading.Event().wait()
    arrears.settle(project)  # before `serve` writes the schedules anew
    with every(arrears.LOOK_AGAIN_S, partial(arrears.look, names), "arrears"):
        # Pausing on shutdown takes back the runs planned ahead, so none waits, late, for the next start.
        serve(*made, limit=len(made), pause_on_shutdown=True, print_starting_message=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
