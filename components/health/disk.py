"""How much room is left where a project writes."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from .. import retention
from ..plan import Project
from .finding import FIX, Finding

FULL_BYTES, NEARLY_BYTES = 200e6, 2e9  # a sweep, its runs and its model want some hundred megabytes


def space(project: Project) -> list[Finding]:
    """Each disk once: that of the project and that of the checkpoints, if it is one."""
    place = project.workspace.storage(project.params.storage)
    folders = [project.workspace.root, project.workspace.state]
    folders += [Path(place)] if "://" not in place else []
    disks = {folder.stat().st_dev: folder for folder in map(_there, reversed(folders))}
    return [_space(project, folder) for folder in disks.values()]


def _there(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _space(project: Project, folder: Path) -> Finding:
    usage = shutil.disk_usage(folder)
    said = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB free ({usage.free / usage.total:.0%})"
    if usage.free >= NEARLY_BYTES:
        return Finding.well(f"{folder}: {said}")
    state = "full" if usage.free < FULL_BYTES else "nearly full"
    return Finding.wrong(
        f"the disk of {folder} is {state}",  # the same before and after a repair that does not make enough room
        f"{said}: checkpoints, runs and models cannot be written, or soon cannot",
        f"{FIX} removes what `tidemill clean` shows; if that is not enough, keep less by `retention` in params.yaml",
        partial(retention.clean, project, project.say),
    )
