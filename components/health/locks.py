"""Locks that nobody holds any more and that still keep others out."""

from __future__ import annotations

from functools import partial

from .. import versioning
from ..plan import Project
from ..versioning import condition
from .finding import Finding


def stale(project: Project) -> list[Finding]:
    """DVC's locks. Tidemill's own are the kernel's: they go with their process, and the files stay."""
    workspace, found = project.workspace, []
    if said := versioning.stale_lock(workspace):
        found.append(
            Finding.wrong(
                f".dvc/tmp/rwlock is {said}",
                "DVC may refuse to run, or wait for a process that will not end",
                repair=partial(versioning.clear_stale_lock, workspace),
            )
        )
    if lock := condition.abandoned_lock(workspace):
        found.append(
            Finding.wrong(
                ".dvc/tmp/lock is held by a dead process",
                "DVC waits for it, then gives up",
                repair=partial(lock.unlink, missing_ok=True),
            )
        )
    if found:
        return found
    own = len(list((workspace.state / "locks").glob("*.lock")))
    return [Finding.well(f"no stale lock ({own} files under .tidemill/locks, where a file alone locks nothing)")]
