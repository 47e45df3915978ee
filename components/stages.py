"""validate, train, register, score: what both conductors play. Each is a short table of contents.

A stage takes a project and a pipeline's name and leaves files under results/PIPELINE/STAGE and a receipt. If its
run key is finished already it does nothing and says why. Heavy libraries are imported by the stage that needs them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import datasets, families, plan, receipts, versioning
from .contract import SPLIT, Hyper, Json, Metrics, Objective
from .errors import TidemillError
from .plan import Project, Resolved, Stage
from .receipts import Receipt
from .sweep import Request, Trial, Watcher

if TYPE_CHECKING:
    from .tracking import SweepRun


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
        return versioning.data_version(self.resolved.workspace, self.resolved.block.dataset).md5


def settle(project: Project, name: str) -> None:
    """Write what each stage is made from, settings and code, as files that DVC can depend on."""
    resolved = plan.resolve(project, name)
    for stage in plan.STAGES:
        file = project.workspace.results(name, "plan") / f"{stage}.json"
        receipts.write_json(file, plan.settled(resolved, stage))


def validate(project: Project, name: str) -> Receipt:
    """Hold the dataset to its expectations. Raises ValidationFailed, which stops the pipeline."""
    return _play(project, name, "validate", _validate)


def train(project: Project, name: str) -> Receipt:
    """Search the family's configurations; keep the best net, its metrics and plots."""
    return _play(project, name, "train", _train)


def register(project: Project, name: str) -> Receipt:
    """Make the trained net a version, and champion if it passes the gate."""
    return _play(project, name, "register", _register)


def score(project: Project, name: str) -> Receipt:
    """Write the champion's predictions for the pipeline's scoring input."""
    return _play(project, name, "score", _score)


PLAY: dict[Stage, Callable[[Project, str], Receipt]] = {
    "validate": validate,
    "train": train,
    "register": register,
    "score": score,
}


def fetch(project: Project, names: Sequence[str]) -> None:
    """Build the datasets of these pipelines where they are absent or their source has changed."""
    wanted = sorted({project.params.pipeline(name).dataset for name in names})
    versioning.fetch(project.workspace, project.params, wanted, project.say)


@contextlib.contextmanager
def computing(project: Project) -> Iterator[None]:
    """Hold Ray for several stages, so that each need not start it."""
    from . import tuning

    with tuning.session(project.workspace.ray_address):
        yield


# ── one stage at a time ─────────────────────────────────────────────────────────────────────────────────


def _play(project: Project, name: str, stage: Stage, work: Callable[[Work], dict[str, Json]]) -> Receipt:
    """Run `work` unless its key is finished; commit what it wrote, then leave the receipt."""
    resolved = plan.resolve(project, name)
    before = _before(resolved, stage)
    inputs = plan.inputs(resolved, stage, before)
    receipt, why = plan.unchanged(resolved, stage, inputs)
    if receipt:
        project.say(f"{name} {stage}: unchanged ({why})")
        return receipt
    project.say(f"{name} {stage}: started ({why})")
    started, key = time.monotonic(), receipts.key(inputs)
    old = receipts.read(resolved.workspace, name, stage)
    folder = resolved.workspace.results(name, stage)
    receipts.withdraw(resolved.workspace, name, stage)
    with receipts.replacing_folder(folder) as temporary:
        again = old is not None and old.key == key
        facts = work(Work(resolved, key, inputs, temporary, before, again))
        outputs = receipts.hashes(temporary)
    seconds = round(time.monotonic() - started, 3)
    project.say(f"{name} {stage}: done in {seconds:.1f} s")
    return receipts.leave(resolved.workspace, Receipt(name, stage, key, inputs, outputs, facts, seconds))


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


# ── what each stage does ────────────────────────────────────────────────────────────────────────────────


def _validate(work: Work) -> dict[str, Json]:
    from . import validation

    resolved = work.resolved
    data = datasets.load(resolved.workspace, resolved.block.dataset, resolved.expectations, resolved.spec.task)
    docs = resolved.workspace.docs(resolved.block.dataset)
    validated = validation.validate(data, resolved.expectations, docs)
    validation.raise_for_failures(validated)
    receipts.write_json(work.folder / "validation.json", validated.to_json())
    # What training depends on: that this data passed, not how many checks there were.
    receipts.write_json(work.folder / "passed.json", {"data": work.inputs["data"], "passed": True})
    return {"checks": validated.checks, "docs": str(validated.docs_page)}


def _train(work: Work) -> dict[str, Json]:
    from . import checkpoints, model, plots, tracking, tuning

    resolved, project = work.resolved, work.resolved.project
    request = _request(work)
    objective = resolved.family.objective(resolved.spec)
    with tracking.sweep_run(_identity(work)) as run:
        with tuning.session(project.workspace.ray_address):
            trials = tuning.sweep(request, Watchers(run, project.watch(resolved.name)), fresh=work.again)
        best = trials[0]
        state, _ = checkpoints.read(best.checkpoint)
        family = families.import_path(resolved.block.family)
        weights = model.save(work.folder / "model", family, resolved.spec, best.hyper, state)
        made = model.load(work.folder / "model")
        metrics = made.evaluate(dict(request.data.splits), "test")
        baseline = resolved.family.baseline(request.data, "test")
        facts = _outcome(objective, trials, metrics, baseline) | {"weights_sha256": weights}
        receipts.write_json(work.folder / "metrics.json", _metrics(objective, best, metrics, baseline))
        receipts.write_json(work.folder / "trials.json", [dataclasses.asdict(t) | {"checkpoint": ""} for t in trials])
        plots.draw(work.folder / "plots", made, request.data, trials, objective)
        run.finish(best, metrics, baseline, _artifacts(work))
        return facts | {"run_id": run.run_id}


def _register(work: Work) -> dict[str, Json]:
    from . import registry

    trained = work.before["train"]
    resolved = work.resolved
    data = datasets.load(resolved.workspace, resolved.block.dataset, resolved.expectations, resolved.spec.task)
    registered = registry.register(
        resolved.workspace,
        registry.Candidate(
            pipeline=resolved.name,
            folder=resolved.workspace.results(resolved.name, "train") / "model",
            run_key=trained.key,
            run_id=trained.facts["run_id"],
            data_md5=work.data_md5,
            git_commit=versioning.commit(resolved.workspace),
            baseline=resolved.family.baseline(data, "test"),
        ),
        data,
        resolved.family.objective(resolved.spec),
        resolved.block.gate,
    )
    facts = dataclasses.asdict(registered.decision) | {"version": registered.version}
    same = ("weights_sha256", "objective", "value", "baseline")  # what another machine's registry would say as well
    receipts.write_json(work.folder / "model.json", {"name": resolved.name} | {k: trained.facts[k] for k in same})
    return facts | {"champion": registry.champion_identity(resolved.workspace, resolved.name)}


def _score(work: Work) -> dict[str, Json]:
    from . import scoring

    resolved = work.resolved
    champion = work.inputs["champion"]
    output = work.folder / "scores.parquet"
    if champion is None:
        resolved.project.say(f"{resolved.name} score: nothing to score with, no version has passed the gate")
        receipts.write_json(work.folder / "skipped.json", {"why": "no champion"})
        return {"rows": 0}
    from . import registry

    made = registry.load(resolved.workspace, resolved.name, champion["version"])
    job = scoring.Job(str(champion["version"]), work.key, batch_rows=resolved.block.scoring.batch_rows)
    scored = scoring.score(made, _scoring_source(work), output, job)
    return {"rows": scored.rows}


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


class Watchers:
    """Several watchers of one sweep as one."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def planned(self, trials: Sequence[tuple[str, Hyper]], epochs: int, objective: Objective) -> None:
        for watcher in self._watchers:
            watcher.planned(trials, epochs, objective)

    def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
        for watcher in self._watchers:
            watcher.learnt(key, first_epoch, metrics)

    def ended(self, trial: Trial) -> None:
        for watcher in self._watchers:
            watcher.ended(trial)
