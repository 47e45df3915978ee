"""What MLflow holds: runs that dead processes left, and champions that are none."""

from __future__ import annotations

from functools import partial

from .. import champions as words
from ..plan import Project
from ..registry import championship
from ..tracking import census
from .finding import FIX, Finding


def orphans(project: Project) -> list[Finding]:
    found = census.orphans(project.workspace, list(project.params.pipelines))
    return [
        Finding.wrong(
            f"run {one.name} ({one.run_id}) is RUNNING by process {one.process}, which is dead",
            "MLflow's pages show work that nobody does",
            repair=partial(census.bury, project.workspace, one.run_id),
        )
        for one in found
    ] or [Finding.well("no run of a dead process")]


def champions(project: Project) -> list[Finding]:
    """Whether each champion is there and whole: loaded as scoring would load it."""
    if census.store_of(project.workspace) is None:
        return [Finding.well("no model has been registered yet")]
    found = [_champion(project, name) for name in project.params.pipelines]
    return [one for one in found if not one.ok] or [
        Finding.well(f"{len(found)} pipelines, no champion is damaged or lost")
    ]


def _champion(project: Project, pipeline: str) -> Finding:
    fault = championship.ailing(project.workspace, pipeline)
    if fault is None:
        return Finding.well(pipeline)
    return Finding.wrong(
        f"{pipeline}: {fault.what}",
        f"nothing can be scored{f' ({fault.why})' if fault.why else ''}",
        f"{FIX} makes the last champion that is whole champion again; or {fault.fix}" if fault.fix != FIX else FIX,
        partial(words.restore, project, pipeline, fault.what),
    )
