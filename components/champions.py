"""A person's word on who is champion: promote a version, or roll back to the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pyarrow as pa

from . import datasets, holds, plan, receipts
from .contract import Json
from .plan import Project, Resolved
from .registry import Version, champion_identity, championship


def promote(project: Project, name: str, reason: str) -> Json:
    """Make `PIPELINE/NUMBER` champion after it has scored a few test rows. Raises RegistryError if it cannot."""
    return _change(
        project, name.partition("/")[0], lambda probe: championship.promote(project.workspace, name, probe, reason)
    )


def rollback(project: Project, pipeline: str, reason: str) -> Json:
    """Make the champion before the present one champion again, after it has scored a few test rows."""
    return _change(project, pipeline, lambda probe: championship.rollback(project.workspace, pipeline, probe, reason))


def restore(project: Project, pipeline: str, reason: str) -> Json:
    """Make the last champion in the ledger that is whole champion again, after it has scored a few test rows."""
    return _change(project, pipeline, lambda probe: championship.restore(project.workspace, pipeline, probe, reason))


def _change(project: Project, pipeline: str, take_over: Callable[[pa.RecordBatch], Version]) -> Json:
    resolved, workspace = plan.resolve(project, pipeline), project.workspace
    with holds.holding(workspace, pipeline):
        before = champion_identity(workspace, pipeline)
        version = take_over(_probe(resolved))
        # What scores next must know whose scores they are.
        registered = receipts.read(workspace, pipeline, "register")
        if registered:
            facts = registered.facts | {"champion": champion_identity(workspace, pipeline)}
            receipts.leave(workspace, dataclasses.replace(registered, facts=facts))
    return {
        "pipeline": pipeline,
        "champion": version.version,
        "before": before["version"] if before else None,
        "probed_rows": championship.PROBE_ROWS,
    }


def _probe(resolved: Resolved) -> pa.RecordBatch:
    """The first test rows as the scorer would hand them to a model."""
    data = datasets.load(resolved.workspace, resolved.block.dataset, resolved.expectations, resolved.spec.task)
    rows = data.splits["test"].select([column.name for column in data.spec.columns])
    return rows.slice(0, championship.PROBE_ROWS).combine_chunks().to_batches()[0]
