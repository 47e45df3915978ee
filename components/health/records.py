"""What says which work is done and which bytes a dataset is: receipts, and DVC's cache."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .. import holds, receipts, versioning
from ..errors import TidemillError
from ..plan import Project
from ..versioning import condition
from ..versioning.condition import Absent
from ..workspace import Workspace
from .finding import FIX, Finding


def receipts_read(project: Project) -> list[Finding]:
    """Whether every receipt can be read and is that of what it says it was made from."""
    files = sorted((project.workspace.state / "receipts").glob("*/*.json"))
    found = [
        Finding.wrong(
            f"{file.relative_to(project.workspace.root)}: {fault}",
            "nobody can tell whether the stage is done, so its pipeline stops",
            f"{FIX} removes it, and the stage runs again",
            partial(_discard, project.workspace, file),
        )
        for file in files
        if (fault := _fault(project.workspace, file))
    ]
    return found or [Finding.well(f"{len(files)} receipts, all can be read")]


def _fault(workspace: Workspace, file: Path) -> str:
    pipeline, stage = file.parent.name, file.stem
    try:
        receipt = receipts.read(workspace, pipeline, stage)
        if receipt is None:  # withdrawn this moment
            return ""
        if (receipt.pipeline, receipt.stage) != (pipeline, stage):
            return f"is that of {receipt.pipeline} {receipt.stage}"
        return "" if receipts.key(receipt.inputs) == receipt.key else "its run key is not that of its inputs"
    except (TidemillError, TypeError, ValueError) as error:
        return f"not a receipt: {getattr(error, 'why', '') or error}"


def _discard(workspace: Workspace, file: Path) -> None:
    with holds.holding(workspace, file.parent.name):
        file.unlink(missing_ok=True)


def cache(project: Project) -> list[Finding]:
    """Whether DVC's cache holds what data.dvc names."""
    lost = condition.absent(project.workspace, project.params)
    if lost is None:
        return [Finding.well("DVC is not set up here")]
    return [_lost(project, one) for one in lost] or [Finding.well("DVC's cache holds all that data.dvc names")]


def _lost(project: Project, one: Absent) -> Finding:
    finding, meaning = f"{one.path}: {one.why}", "`dvc checkout` cannot bring this version back, `dvc push` not save it"
    if one.here:
        repair = partial(condition.put_back, project.workspace, one)
        return Finding.wrong(finding, meaning, f"{FIX} takes it from {one.path}", repair)
    block = project.params.datasets.get(one.dataset or "")
    if block is None or block.table:  # only its owner, or a remote, can have those bytes
        return Finding.wrong(finding, f"{meaning}; {one.path} is not that version either", f"dvc pull {one.path}")
    fetch = partial(versioning.fetch, project.workspace, project.params, [one.dataset or ""], project.say, True)
    return Finding.wrong(finding, meaning, f"tidemill data fetch {one.dataset}", fetch)
