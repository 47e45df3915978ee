"""What may go by `retention` in params.yaml, and removing it: `tidemill clean`.

Four kinds: checkpoints of finished sweeps, runs, files of versions, leftovers of dead processes. What a champion,
present or former, or a sweep that is not finished needs is never among them. Each removal can be killed and done
again: what says that a thing is there goes last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from . import holds, leftovers, receipts, storage
from .errors import hidden
from .plan import Project
from .registry import attic
from .storage import Left
from .tracking import census
from .tracking.store import Store, answering

DAY_S = 86400.0
Kind = Literal["checkpoints", "run", "version files", "leftover"]


@dataclass(frozen=True)
class Expendable:
    """One thing that may go. `bytes` is what it occupies, `why` says by which rule."""

    kind: Kind
    what: str
    why: str
    bytes: int
    remove: Callable[[], object]


def expendable(project: Project) -> list[Expendable]:
    """Everything that may go now. Raises Unreachable if MLflow or the storage does not answer."""
    workspace, params = project.workspace, project.params
    found = storage.sweeps(workspace.storage(params.storage))
    things = [*_checkpoints(project, found)]
    store = census.store_of(workspace)
    if store is not None:
        with answering(store.uri):
            things += _tracked(project, store, found)
    for left in leftovers.leftovers(workspace):
        shown = left.path.relative_to(workspace.root).as_posix()
        things.append(Expendable("leftover", shown, left.why, left.bytes(), left.remove))
    return things


def clean(project: Project, say: Callable[[str], None]) -> list[Expendable]:
    """Remove everything that may go, and return it. Raises Busy if a pipeline is being worked on."""
    with _nobody_works(project):
        things = expendable(project)  # as it is now that nothing changes any more
        for thing in things:
            thing.remove()
            say(f"removed {thing.kind} {thing.what}")
    return things


@contextlib.contextmanager
def _nobody_works(project: Project) -> Iterator[None]:
    """Hold every pipeline of params.yaml, and every other that was ever worked on here."""
    known = {file.stem for file in (project.workspace.state / "locks").glob("*.lock")}
    with contextlib.ExitStack() as stack:
        for name in sorted(known | set(project.params.pipelines)):
            stack.enter_context(holds.holding(project.workspace, name))
        yield


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────


def _checkpoints(project: Project, found: list[Left]) -> Iterator[Expendable]:
    days = project.params.retention.checkpoints_days
    needed = _awaited(project, found)
    for left in found:
        if days is None or left.finished_at is None or left in needed or not _ours(project, left):
            continue
        age_days = (time.time() - left.finished_at) / DAY_S
        if age_days >= days:
            why = f"finished {age_days:.1f} days ago, checkpoints_days is {days:g}"
            yield Expendable("checkpoints", hidden(left.place), why, left.bytes(), left.remove)


def _awaited(project: Project, found: list[Left]) -> set[Left]:
    """Finished sweeps whose train stage may still want them: the last of a pipeline whose train stage has left no
    receipt. It was killed between the two and goes on from there."""
    awaited: dict[str, Left] = {}
    for left in sorted(found, key=lambda left: left.finished_at or 0):
        if left.finished_at is not None and receipts.read(project.workspace, left.pipeline, "train") is None:
            awaited[left.pipeline] = left
    return set(awaited.values())


def _ours(project: Project, left: Left) -> bool:
    """In a storage that others may share, only sweeps of pipelines of params.yaml."""
    return left.place.startswith(f"{project.workspace.root}/") or left.pipeline in project.params.pipelines


# ── what MLflow holds ───────────────────────────────────────────────────────────────────────────────────


def _tracked(project: Project, store: Store, found: list[Left]) -> Iterator[Expendable]:
    """Files of versions, then runs: a run that only a version wants whose files go now goes too."""
    own = census.embedded(project.workspace)  # a team's server holds what others have made
    names = attic.names(store) if own else list(project.params.pipelines)
    under_way = {left for left in found if left.finished_at is None} | _awaited(project, found)
    needed = {left.key for left in under_way} | _last_runs(project, names)
    keep = project.params.retention.keep_versions
    for name in names:
        go, stay = attic.sort_out(store, name, keep)
        needed |= {files.run_id for files in stay}
        for files in go:
            why = f"never champion, not among the newest {keep}"
            remove = partial(_while_answering, store, partial(attic.remove, project.workspace, store, files))
            yield Expendable("version files", f"{name}/{files.version}", why, files.bytes, remove)
    yield from _runs(project, store, None if own else names, needed)


def _runs(project: Project, store: Store, names: list[str] | None, needed: set[str]) -> Iterator[Expendable]:
    days = project.params.retention.runs_days
    if days is None:
        return
    for name, experiment in census.experiments(store, names).items():
        for run in census.old(store, name, experiment, time.time() - days * DAY_S, needed):
            age_days = (time.time() - run.ended_at) / DAY_S
            why = f"ended {age_days:.1f} days ago, runs_days is {days:g}; {len(run.trials)} trials"
            remove = partial(_while_answering, store, partial(census.remove, store, run))
            yield Expendable("run", f"{name}: {run.name} ({run.run_id})", why, run.bytes, remove)


def _while_answering(store: Store, remove: Callable[[], object]) -> None:
    with answering(store.uri):
        remove()


def _last_runs(project: Project, names: list[str]) -> set[str]:
    """The runs that the pipelines' last train stages left: registering again ties a version to them."""
    found = (receipts.read(project.workspace, name, "train") for name in {*names, *project.params.pipelines})
    return {str(receipt.facts["run_id"]) for receipt in found if receipt and "run_id" in receipt.facts}
