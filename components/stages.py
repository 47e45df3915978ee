"""validate, train, register, score: what both conductors play. Each is a short table of contents.

A stage takes a project and a pipeline's name and leaves files under results/PIPELINE/STAGE and a receipt. If its
run key is finished already it does nothing and says why. Heavy libraries are imported by the stage that needs them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import datasets, families, holds, lineage, plan, receipts, scores, versioning
from .contract import Data, Json, Metrics, Objective
from .plan import Project, Resolved, Stage
from .receipts import Receipt
from .sweep import Request, Trial, Watchers, measure_seeds, searched
from .work import Work, play

if TYPE_CHECKING:
    from .tracking import Origin


def settle(project: Project, name: str) -> None:
    """Write what each stage is made from, settings and code, as files that DVC can depend on."""
    resolved = plan.resolve(project, name)
    for stage in plan.STAGES:
        file = project.workspace.results(name, "plan") / f"{stage}.json"
        receipts.write_json(file, plan.settled(resolved, stage))


def validate(project: Project, name: str) -> Receipt:
    """Hold the dataset to its expectations. Raises ValidationFailed, which stops the pipeline."""
    return play(project, name, "validate", _validate)


def train(project: Project, name: str) -> Receipt:
    """Search the family's configurations; keep the best net, its metrics and plots."""
    return play(project, name, "train", _train)


def register(project: Project, name: str) -> Receipt:
    """Make the trained net a version, and champion if it passes the gate."""
    return play(project, name, "register", _register)


def score(project: Project, name: str) -> Receipt:
    """Write the champion's predictions for the pipeline's scoring input."""
    return play(project, name, "score", scores.score)


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


def bury(project: Project) -> None:
    """Mark MLflow's runs of dead processes of this machine as killed: nobody else will."""
    from .tracking import census

    for orphan in census.orphans(project.workspace, list(project.params.pipelines)):
        census.bury(project.workspace, orphan.run_id)


def require_computing(project: Project) -> None:
    """Raise Unreachable, within seconds, if RAY_ADDRESS is set and no cluster answers there."""
    from . import tuning

    tuning.require(project.workspace.ray_address)


@contextlib.contextmanager
def computing(project: Project) -> Iterator[None]:
    """Hold Ray for several stages, so that each need not start it."""
    from . import tuning

    with tuning.session(project.workspace.ray_address):
        yield


# ── what each stage does ────────────────────────────────────────────────────────────────────────────────


def _validate(work: Work) -> dict[str, Json]:
    from . import validation

    resolved = work.resolved
    data = _data(resolved)
    docs = resolved.workspace.docs(resolved.block.dataset)
    validated = validation.validate(data, resolved.expectations, docs)
    validation.raise_for_failures(validated)
    receipts.write_json(work.folder / "validation.json", validated.to_json())
    # What training depends on: that this data passed, not how many checks there were.
    receipts.write_json(work.folder / "passed.json", {"data": work.inputs["data"], "passed": True})
    return {"dataset": validated.dataset, "checks": validated.checks, "docs": str(validated.docs_page)}


def _train(work: Work) -> dict[str, Json]:
    from . import checkpoints, model, plots, profile, tracking, tuning
    from .registry import gate

    resolved, project = work.resolved, work.resolved.project
    request = _request(work)
    objective = resolved.family.objective(resolved.spec)
    baseline = resolved.family.baseline(request.data, "test", request.settings)
    terms = gate.Terms.of(resolved.block.gate, objective, baseline)
    terms.require_floors(request.data.splits["test"])  # a gate that can't judge is known before the sweep
    with tracking.sweep_run(project.workspace, _origin(work, request)) as run:
        with tuning.session(project.workspace.ray_address):
            trials = tuning.sweep(request, Watchers(run, project.watch(resolved.name)), fresh=work.again)
        best = trials[0]
        state, reached = checkpoints.read(best.checkpoint)
        family = families.import_path(resolved.block.family)
        weights = model.save(work.folder / "model", family, resolved.spec, best.hyper, state)
        made = model.load(work.folder / "model")
        model.keep_profile(work.folder / "model", profile.measure(made, request.data.splits["train"]))
        metrics = made.evaluate(dict(request.data.splits), "test")
        figures = metrics | _beside(objective, trials, baseline)
        facts = _outcome(objective, trials, metrics, baseline) | {"weights_sha256": weights}
        facts |= {"hyper": dict(best.hyper), "metrics": figures} | _circumstances(work)
        facts["winner"] = {"trial": best.key, "epochs": len(best.curve), "ancestry": reached["ancestry"]}
        receipts.write_json(work.folder / "metrics.json", figures)
        receipts.write_json(work.folder / "trials.json", [t.to_json() | {"checkpoint": ""} for t in trials])
        _draw(work, plots.draw(work.folder / "plots", made, request.data, trials, objective, resolved.name))
        with _receipt_so_far(work, facts) as receipt:
            validated = resolved.workspace.results(resolved.name, "validate") / "validation.json"
            run.finish(
                best, metrics, baseline, [receipt, validated, work.folder / "metrics.json", work.folder / "plots"]
            )
        return facts | {"run_id": run.run_id}


def _register(work: Work) -> dict[str, Json]:
    from . import registry

    trained, resolved = work.before["train"], work.resolved
    data = _data(resolved)
    candidate = registry.Candidate(
        pipeline=resolved.name,
        folder=resolved.workspace.results(resolved.name, "train") / "model",
        run_key=trained.key,
        run_id=trained.facts["run_id"],
        data_md5=work.data_md5,
        git_commit=versioning.commit(resolved.workspace),
        baseline=resolved.family.baseline(data, "test", resolved.block.settings),
    )
    objective, gate = resolved.family.objective(resolved.spec), resolved.block.gate
    with holds.committing(resolved.workspace, resolved.name):
        registered = registry.register(resolved.workspace, candidate, data, objective, gate)
    facts = dataclasses.asdict(registered.decision) | {"version": str(registered.version)}
    same = ("weights_sha256", "metric", "value", "baseline")  # what another machine's registry would say as well
    receipts.write_json(work.folder / "model.json", {"name": resolved.name} | {k: trained.facts[k] for k in same})
    return facts | {"champion": registry.champion_identity(resolved.workspace, resolved.name)}


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


def _data(resolved: Resolved) -> Data:
    return datasets.load(resolved.workspace, resolved.block.dataset, resolved.expectations, resolved.spec.task)


def _request(work: Work) -> Request:
    resolved = work.resolved
    block, params = resolved.block, resolved.project.params
    return Request(
        family=block.family,
        data=_data(resolved),
        settings=block.settings,
        search=block.search,
        resources=block.resources,
        seed=params.seed,
        storage=f"{resolved.workspace.storage(params.storage)}/{resolved.name}-{work.key[:16]}",
        checkpoint_every_s=block.checkpoint_every_s,
    )


def _origin(work: Work, request: Request) -> Origin:
    from .tracking import Origin

    resolved = work.resolved
    return Origin(
        pipeline=resolved.name,
        run_key=work.key,
        family=resolved.block.family,
        spec=resolved.spec,
        data_md5=work.data_md5,
        git_commit=versioning.commit(resolved.workspace),
        rows={split: table.num_rows for split, table in request.data.splits.items()},
        flow_run=resolved.project.flow_run,
    )


def _circumstances(work: Work) -> dict[str, Json]:
    """What the training stood on beside its inputs: none of it is part of the run key, all of it is worth knowing."""
    validated = work.before["validate"]
    return {
        "git_commit": versioning.commit(work.resolved.workspace),
        "validation": {
            "key": validated.key,
            "checks": validated.facts["checks"],
            "sha256": validated.outputs["validation.json"],
        },
        "environment": lineage.environment(),
    }


def _outcome(objective: Objective, trials: Sequence[Trial], metrics: Metrics, baseline: Metrics) -> dict[str, Json]:
    name = f"test/{objective.metric}"
    return {"metric": name, "value": metrics[name], "baseline": baseline[name], "trials": len(searched(trials))}


def _beside(objective: Objective, trials: Sequence[Trial], baseline: Metrics) -> Metrics:
    """What stands beside the test metrics: the winner on the validation rows, there with other seeds too if it was
    learnt by several, and the trivial rival on the test rows."""
    best = trials[0]
    own = measure_seeds(best, trials) | {f"val/{objective.metric}": best.best, "best_epoch": float(best.best_epoch)}
    return own | {f"baseline/{name.partition('/')[2]}": value for name, value in baseline.items()}


def _draw(work: Work, files: Sequence[Path]) -> None:
    """Put the tables behind the plots beside them: `dvc plots show` draws every table that it finds, by scripts from
    elsewhere, and shows pictures as they are."""
    tables = work.folder / "tables"
    tables.mkdir()
    for file in files:
        if file.suffix == ".csv":
            file.rename(tables / file.name)


@contextlib.contextmanager
def _receipt_so_far(work: Work, facts: dict[str, Json]) -> Iterator[Path]:
    """The train stage's receipt as a file for MLflow; the real one is written when everything is committed."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "receipt.json"
        made = Receipt(work.resolved.name, "train", work.key, work.inputs, receipts.hashes(work.folder), facts)
        receipts.write_json(file, dataclasses.asdict(made))
        yield file
