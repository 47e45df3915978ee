"""Scoring and encoding with the champion, as the score stage and as a person asks for it, and what is said of it: rows
set aside, and drift, to people and to MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from . import datasets, holds, lineage, plan, receipts
from .contract import Json
from .errors import Busy, Drifted, Unreachable
from .partitions import Partition
from .plan import Project, Resolved
from .work import Work

if TYPE_CHECKING:
    from .registry.bundle import Shipped
    from .scoring import Job, Say, Scored, Scorer

DRIFT = "drift.json"


def score(work: Work) -> dict[str, Json]:
    """The work of the score stage. Its facts say how many rows went where, and what drifts."""
    resolved, output = work.resolved, work.folder / "scores.parquet"
    if work.inputs["champion"] is None:
        resolved.project.say(f"{resolved.name} score: skipped, no version has passed the gate yet")
        receipts.write_json(work.folder / "skipped.json", {"why": "no version has passed the gate yet"})
        return {"rows": 0}
    source = resolved.scoring_source
    if source is not None:
        return _staged(work, source, work.folder / "scores" if source.is_dir() else output)
    with tempfile.TemporaryDirectory(dir=resolved.workspace.state) as place:
        source = Path(place) / "test.parquet"
        data = datasets.load(resolved.workspace, resolved.block.dataset, resolved.expectations, resolved.spec.task)
        pq.write_table(data.splits["test"], source)
        return _staged(work, source, output)


def _staged(work: Work, source: Path, output: Path) -> dict[str, Json]:
    resolved = work.resolved
    made, job = _champion(resolved)
    blocked = resolved.workspace.state / "drift" / f"{resolved.name}.json"  # the stage's own folder goes with its work
    scored = _scored(resolved, made, dataclasses.replace(job, blocked=blocked), source, output, lambda _: None)
    blocked.unlink(missing_ok=True)
    facts = {"rows": scored.rows, "rows_in": scored.rows_in, "quarantined": scored.quarantined}
    if scored.drift:
        scored.drift_file.rename(work.folder / DRIFT)
        if scored.drift["drifting"] and resolved.block.scoring.drift.then == "train":
            why = "the data as it is was trained on; newer rows are needed"
            resolved.project.say(f"{resolved.name} score: no training starts, {why}")
        facts |= {"drifting": scored.drift["drifting"], "psi_max": scored.drift["psi_max"]}
    return facts | {"model_version": job.model_version, "run_key": job.run_key}


def score_table(
    project: Project,
    name: str,
    source: Path,
    output: Path,
    *,
    ignore_extra: bool = False,
    row_id: str | None = None,
    progress: bool = True,
) -> Json:
    """Score a table that a person names with the champion; says what stands in `output` now. `progress`: say how far
    it has come, too."""
    from .scoring.delivery import Delivery

    resolved = plan.resolve(project, name)
    made, job = _champion(resolved)
    blocked = Delivery(output.resolve(), source.is_dir()).beside("blocked.json")
    job = dataclasses.replace(job, ignore_extra=ignore_extra, id=row_id, blocked=blocked)
    return _delivered(resolved, made, job, source, output, project.say if progress else lambda _: None)


def encode_table(
    project: Project,
    name: str,
    source: Path,
    output: Path,
    *,
    ignore_extra: bool = False,
    row_id: str | None = None,
) -> Json:
    """Write what the champion's net makes of each row of a table: its code. As `score_table`, but nothing is compared
    with the training rows, since codes are not acted on."""
    from .scoring.coding import Coder

    resolved = plan.resolve(project, name)
    made, job = _champion(resolved)
    job = dataclasses.replace(job, ignore_extra=ignore_extra, id=row_id, drift=None, codes=True)
    return _delivered(resolved, Coder(made), job, source, output, project.say)


def score_partition(project: Project, name: str, partition: Partition) -> Json:
    """Score one partition into a folder of its own under results/; nothing is written twice."""
    folder = project.workspace.results(name, "partitions") / partition.name
    output = folder / ("scores" if partition.path.is_dir() else "scores.parquet")
    told = score_table(project, name, partition.path, output, progress=False)
    done = "unchanged" if told["unchanged"] else f"scored by version {told['model_version']}"
    project.say(f"{name} {partition.name}: {told['rows']:,} rows, {done}")
    columns = {"rows": told["rows"], "quarantined": told["quarantined"], "version": told["model_version"]}
    columns |= {"unchanged": told["unchanged"], "output": lineage.place(project.workspace, output)}
    return {"partition": partition.name} | columns


@contextlib.contextmanager
def backfilling(project: Project, name: str) -> Iterator[None]:
    """Be the only backfill of a pipeline. Raises Busy if another is at work, RegistryError if there is no champion."""
    from . import registry

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(holds.holding(project.workspace, f"{name}.backfill"))
        except Busy as busy:
            fix = "wait for it, or stop it; the same command goes on with what it left"
            raise Busy(f"another backfill of {name} is at work", why=busy.why, fix=fix) from None
        registry.champion(project.workspace, name)
        yield


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


def _delivered(
    resolved: Resolved, made: Scorer, job: Job, source: Path, output: Path, tell: Callable[[str], None]
) -> Json:
    """Score or encode a table, put it on record, and say what stands in `output` now."""
    name, what, result = resolved.name, *(("encode", "codes") if job.codes else ("score", "scores"))
    scored = _scored(resolved, made, job, source, output, lambda rows: tell(f"{name} {what}: {rows:,} rows"))
    lineage.record_scoring(resolved.workspace, name, source, scored.output, scored.receipt)
    if scored.unchanged:
        tell(f"{name} {what}: unchanged, {output} holds these {result} already (key {scored.key[:12]})")
    return {
        "pipeline": name,
        "output": str(output),
        "rows_in": scored.rows_in,
        "rows": scored.rows,
        "quarantined": scored.quarantined,
        "drifting": scored.drift["drifting"] if scored.drift else None,
        "model_version": job.model_version,
        "run_key": job.run_key,
        "input": scored.input,
        "unchanged": scored.unchanged,
        "seconds": round(scored.seconds, 3),
    }


def _champion(resolved: Resolved) -> tuple[Shipped, Job]:
    """The champion, and a scoring job in its name. The run key in every row is that of the champion's training."""
    from . import registry, scoring

    version = registry.champion(resolved.workspace, resolved.name)
    made = registry.load(resolved.workspace, resolved.name, version.version)
    block = resolved.block.scoring
    terms = scoring.drift.Terms(block.drift.limit, block.drift.alpha, block.drift.then == "block")
    job = scoring.Job(
        str(version.version),
        version.tags[f"{registry.TAG}run_key"],
        batch_rows=block.batch_rows,
        known=(*resolved.expectations.columns, *resolved.project.params.datasets[resolved.block.dataset].ignore),
        quarantine=block.quarantine,
        drift=None if block.drift.then == "ignore" else terms,
    )
    return made, job


def _scored(resolved: Resolved, made: Scorer, job: Job, source: Path, output: Path, tell: Say) -> Scored:
    """Score, and say what there is to say. What is blocked is tracked all the same."""
    from . import scoring

    name, say = resolved.name, resolved.project.say
    if job.drift and made.profile is None:
        say(f"{name} score: drift is not looked for, version {job.model_version} has no profile of its training rows")
    try:
        scored = scoring.score(made, source, output, job, tell)
    except Drifted:
        _track(resolved, job, job.blocked)
        raise
    if scored.quarantined:
        what = "encode" if job.codes else "score"
        say(f"{name} {what}: {scored.rows_in:,} rows = {scored.rows:,} {what}d + {scored.quarantined:,} set aside")
        say(f"  {scored.quarantine} has them, each with its reason")
    if scored.drift:
        if scored.drift["drifting"]:
            say(f"{name} score: drift in {scoring.drift.said(scored.drift)}")
        _track(resolved, job, scored.drift_file)
    return scored


def _track(resolved: Resolved, job: Job, file: Path | None) -> None:
    """Log a comparison to MLflow. Scores do not wait for a server: where it is silent, that is said."""
    from .tracking import scorings

    assert file is not None  # whoever may be blocked has said where that is told
    try:
        scorings.record(resolved.workspace, resolved.name, job.run_key, file)
    except Unreachable as error:
        resolved.project.say(f"{resolved.name} score: drift is not logged, {error.what} ({error.where}); {file} has it")
