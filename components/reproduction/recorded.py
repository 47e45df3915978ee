"""What is on record of the training of a version: all that it takes to do it again, and what came of it then."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from .. import receipts
from ..contract import Hyper, Json, Metrics
from ..errors import TidemillError
from ..lineage import known
from ..lineage.known import Training, Version
from ..tracking import past
from ..workspace import Workspace

DIRTY = "-dirty"


@dataclass(frozen=True)
class Part:
    """Epochs up to `until` that one configuration taught the weights. Only under population based training do the
    winner's weights have more than one part: it went on from the weights of other trials."""

    trial: str
    hyper: Hyper
    until: int


@dataclass(frozen=True)
class Recorded:
    """`inputs` made the run key of the training. `metrics` hold test figures. `curve[i]` is what epoch i + 1 of the
    weights taught; empty where that is on record no more. `environment` is empty where the record is too old."""

    version: str
    run_key: str
    commit: str
    dirty: bool
    dataset: str
    data_md5: str
    inputs: dict[str, Json]
    parts: tuple[Part, ...]
    curve: tuple[Metrics, ...]
    metrics: Metrics
    weights_sha256: str
    environment: dict[str, Json]

    @property
    def epochs(self) -> int:
        return self.parts[-1].until


def find(workspace: Workspace, name: str) -> Recorded:
    """What is on record of `PIPELINE`, `PIPELINE@champion` or `PIPELINE/NUMBER`.

    Raises ParamsError or RegistryError if there is no such version, TidemillError if too little of it is on record.
    """
    found = known.gather(workspace)
    version = found.version(name)
    training = found.training_of(version)
    told = training.told if training else None
    if training is None or told is None or not told.inputs:
        raise _lost(version.name, "the receipt of its training is neither here nor among the files of its MLflow run")
    commit = str(told.facts.get("git_commit") or training.tags.get("git_commit", ""))
    if not commit:
        raise _lost(version.name, "no commit is on record: it was trained outside a git repository")
    parts, curve = _learning(workspace, version, training)
    return Recorded(
        version=version.name,
        run_key=training.key,
        commit=commit.removesuffix(DIRTY),
        dirty=commit.endswith(DIRTY),
        dataset=training.dataset,
        data_md5=training.data_md5,
        inputs=told.inputs,
        parts=parts,
        curve=curve,
        metrics={n: v for n, v in (told.facts.get("metrics") or {}).items() if n.startswith("test/")},
        weights_sha256=str(version.tags.get("weights_sha256") or told.facts["weights_sha256"]),
        environment=told.facts.get("environment") or {},
    )


def _learning(
    workspace: Workspace, version: Version, training: Training
) -> tuple[tuple[Part, ...], tuple[Metrics, ...]]:
    """How the winner learnt, and its curve. A record older than the winner's own has the curve's length for it."""
    facts = training.told.facts
    winner = facts.get("winner") or {}
    trial = winner.get("trial") or training.tags.get("best_trial", "")
    last = _curve(workspace, version, training, trial)
    if not winner and training.told.inputs["search"]["scheduler"] == "pbt":
        raise _lost(version.name, "whose weights its own went on from is not on record: it was trained before that was")
    if not (winner or last):
        raise _lost(version.name, "for how many epochs it learnt is not on record")
    ancestry = [Part(**part) for part in winner.get("ancestry", [])]
    parts = (*ancestry, Part(trial, facts["hyper"], winner.get("epochs") or len(last)))
    curve: list[Metrics] = []
    for part in parts:
        taught = last if part.trial == trial else _curve(workspace, version, training, part.trial)
        curve += taught[len(curve) : part.until]
    return parts, tuple(curve) if len(curve) == parts[-1].until else ()


def _curve(workspace: Workspace, version: Version, training: Training, trial: str) -> Sequence[Metrics]:
    """As the train stage left it, if what stands in results/ is this training; else as MLflow has it."""
    left, told = receipts.read(workspace, version.pipeline, "train"), training.told
    same = left and (left.key, left.facts["weights_sha256"]) == (told.key, told.facts["weights_sha256"])
    if left and same and receipts.intact(workspace, left):
        text = (workspace.results(version.pipeline, "train") / "trials.json").read_text(encoding="utf-8")
        return next((one["curve"] for one in json.loads(text) if one["key"] == trial), [])
    return past.curve(workspace, training.run_id, trial) if training.run_id and trial else []


def _lost(version: str, why: str) -> TidemillError:
    fix = "reproduce a version that is on record: tidemill history PIPELINE names them, tidemill trace VERSION shows it"
    return TidemillError(f"too little is on record to train {version} again", why=why, fix=fix)
