"""One stage played: nothing if its run key is finished, else its work, committed whole, and the receipt last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import holds, interrupts, lineage, plan, receipts, versioning
from .contract import Json
from .errors import TidemillError
from .plan import Project, Resolved, Stage
from .receipts import Receipt


@dataclass(frozen=True)
class Work:
    """What a stage is given: its pipeline, its run key and what made it, an empty folder to fill, and the receipts
    of the stages before. `again`: this key was finished once, but its outputs are gone."""

    resolved: Resolved
    key: str
    inputs: dict[str, Json]
    folder: Path
    before: dict[Stage, Receipt]
    again: bool

    @property
    def data_md5(self) -> str:
        version = versioning.data_version(self.resolved.workspace, self.resolved.block.dataset)
        return str(version.md5)


def play(project: Project, name: str, stage: Stage, work: Callable[[Work], dict[str, Json]]) -> Receipt:
    """Run `work` unless its key is finished; commit what it wrote, then leave the receipt.

    Raises KeyboardInterrupt, and begins nothing, if this process was told to stop meanwhile.
    """
    resolved = plan.resolve(project, name)
    before = _before(resolved, stage)
    inputs = plan.inputs(resolved, stage, before)
    receipt, why = plan.unchanged(resolved, stage, inputs)
    if receipt:
        project.say(f"{name} {stage}: unchanged ({why})")
        return receipt
    interrupts.heed()
    project.say(f"{name} {stage}: started ({why})")
    started, key = time.monotonic(), receipts.key(inputs)
    old = receipts.read(resolved.workspace, name, stage)
    if old:  # its place is taken now; it may be older than the store of finished work
        lineage.record(resolved.workspace, lineage.of(old))
    with holds.committing(resolved.workspace, name):
        receipts.withdraw(resolved.workspace, name, stage)
    with contextlib.ExitStack() as commit:  # outlives the folder, so that its renaming is within
        with receipts.replacing_folder(resolved.workspace.results(name, stage)) as temporary:
            again = old is not None and old.key == key
            with _still_ours(resolved):
                facts = work(Work(resolved, key, inputs, temporary, before, again))
            outputs = receipts.hashes(temporary)
            commit.enter_context(holds.committing(resolved.workspace, name))
        seconds = round(time.monotonic() - started, 3)
        if project.flow_run:
            facts |= {"flow_run": project.flow_run}
        made = Receipt(name, stage, key, inputs, outputs, facts, seconds)
        lineage.record(resolved.workspace, lineage.of(made))  # before the receipt: what is done is always on record
        left = receipts.leave(resolved.workspace, made)
    project.say(f"{name} {stage}: done in {seconds:.1f} s")
    return left


@contextlib.contextmanager
def _still_ours(resolved: Resolved) -> Iterator[None]:
    """Whoever took the work over also took its temporary files: say that, and not what came of it."""
    try:
        yield
    except Exception:
        holds.require(resolved.workspace, resolved.name)
        raise


def _before(resolved: Resolved, stage: Stage) -> dict[Stage, Receipt]:
    """Receipts of the stages before, each for the inputs of now."""
    found: dict[Stage, Receipt] = {}
    for earlier in plan.STAGES[: plan.STAGES.index(stage)]:
        receipt, why = plan.unchanged(resolved, earlier, plan.inputs(resolved, earlier, found))
        if receipt is None:
            raise TidemillError(
                f"{stage} needs {earlier}, which is not done",
                where=f"pipeline {resolved.name}",
                why=why,
                fix=f"tidemill run {resolved.name}",
            )
        found[earlier] = receipt
    return found
