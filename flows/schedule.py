"""Deployments from the schedules in params.yaml. `python -m flows.schedule` serves them until it is told to stop."""

from __future__ import annotations

import sys
from typing import Any

from components.plan import Project

from .progress import screen


def deployments(project: Project) -> list[Any]:
    """One deployment for each pipeline with a schedule; a run that comes due while the last one works is dropped,
    since its work would be the same."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

    from .pipeline import pipeline

    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    return [
        pipeline.to_deployment(
            name,
            cron=block.schedule,
            parameters={"name": name, "root": str(project.workspace.root)},
            tags=[*block.tags, block.family, block.dataset],
            concurrency_limit=one,
        )
        for name, block in project.params.pipelines.items()
        if block.schedule
    ]


def main() -> int:
    from prefect import serve

    from .pipeline import open_project

    made = deployments(open_project("."))
    if not made:
        screen.say("no pipeline in params.yaml has a schedule")
        return 0
    serve(*made, limit=2, pause_on_shutdown=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
