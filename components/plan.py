"""What each stage of a pipeline is made from, so what would run and why.

A stage's inputs are plain values; their hash is its run key. `unchanged` compares them with the last receipt,
so `tidemill plan`, both conductors and DVC agree on what is done.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from . import datasets, families, partitions, receipts, versioning
from .closure import code_hash, outside
from .contract import Family, Json, Kind, Spec, Task
from .datasets.episodes import ACTION
from .errors import ParamsError, hidden
from .expectations import Expectations
from .params import Params, Pipeline
from .receipts import Receipt
from .sweep import Watcher
from .workspace import Workspace

Stage = Literal["validate", "train", "register", "score"]
_ACTIONS = {"number": "one of a few (Discrete)", "tensor": "numbers within bounds (Box)"}
STAGES: tuple[Stage, ...] = ("validate", "train", "register", "score")


@dataclass(frozen=True)
class Project:
    """A workspace with its parameters, and whoever wants to hear of progress. `flow_run`: the id of the Prefect flow
    run that plays the stages, if one does."""

    workspace: Workspace
    params: Params
    say: Callable[[str], None]
    watch: Callable[[str], Watcher]
    flow_run: str = ""


@dataclass(frozen=True)
class Resolved:
    """One pipeline with its names looked up."""

    project: Project
    name: str
    block: Pipeline
    family: Family[Any]
    expectations: Expectations
    spec: Spec

    @property
    def workspace(self) -> Workspace:
        return self.project.workspace

    @cached_property
    def scoring_source(self) -> Path | None:
        """The file or folder that the score stage reads, None for the dataset's test rows. Looked for once, so that
        the partition whose hash is in the run key is the one that is scored, even if a newer one arrives."""
        given = self.block.scoring.input
        return None if given is None else partitions.latest(self.workspace.root, self.name, given)


@dataclass(frozen=True)
class Step:
    """`tidemill plan`: what a stage would do, and why."""

    pipeline: str
    stage: Stage
    action: Literal["run", "unchanged"]
    why: str


def resolve(project: Project, name: str) -> Resolved:
    """Look a pipeline's names up. Raises ParamsError if its family cannot serve its data, DataError if that is an
    environment which cannot be recorded."""
    block = project.params.pipeline(name)
    family = families.family(block.family)
    expectations = datasets.expectations(project.workspace, block.dataset, project.params.datasets[block.dataset])
    spec = expectations.spec(block.dataset, _task(name, block, family, expectations))
    _check_kinds(name, block, family, spec)
    _check_actions(name, block, family, expectations)
    return Resolved(project, name, block, family, expectations, spec)


def _task(name: str, block: Pipeline, family: Family[Any], expectations: Expectations) -> Task:
    possible = expectations.tasks()
    wanted = (block.task,) if block.task else family.tasks
    task = next((t for t in wanted if t in possible), None)
    if task is None:
        kinds = {rule.kind for rule in expectations.columns.values() if rule.role == "input"}
        fitting = " or ".join(_fitting(kinds, possible)) or "another family"
        raise ParamsError(
            f"family {block.family!r} does {' or '.join(wanted)}, "
            f"dataset {block.dataset!r} offers {' or '.join(possible) or 'no target'}",
            where=f"params.yaml pipelines.{name}",
            fix=f"choose {fitting}, or give the dataset another target (what a table's is, "
            f"expectations/{block.dataset}.yaml says)",
        )
    return task


def _check_kinds(name: str, block: Pipeline, family: Family[Any], spec: Spec) -> None:
    """A family from elsewhere that does not say what it takes is asked for nothing."""
    kinds = getattr(family, "kinds", None)
    wrong = [f"{c.name} ({c.kind})" for c in spec.columns if kinds is not None and c.kind not in kinds]
    if not wrong:
        return
    fitting = _fitting({c.kind for c in spec.columns}, (spec.task,))
    raise ParamsError(
        f"family {block.family!r} learns from columns of kind {', '.join(kinds or ())}; "
        f"dataset {block.dataset!r} has {', '.join(wrong[:10])}",
        where=f"params.yaml pipelines.{name}",
        fix=f"choose {' or '.join(fitting)}, or ignore the columns"
        if fitting
        else "ignore the columns, or choose others",
    )


def _check_actions(name: str, block: Pipeline, family: Family[Any], expectations: Expectations) -> None:
    """Likewise."""
    rule, kinds = expectations.columns.get(ACTION), getattr(family, "actions", None)
    if expectations.environment is None or rule is None or kinds is None or rule.kind in kinds:
        return
    acting = [known for known in families.FAMILIES if rule.kind in getattr(families.family(known), "actions", ())]
    raise ParamsError(
        f"family {block.family!r} learns actions that are {' or '.join(_ACTIONS[kind] for kind in kinds)}; those of "
        f"environment {expectations.environment!r} are {_ACTIONS.get(rule.kind, rule.kind)}",
        where=f"params.yaml pipelines.{name}",
        fix=f"choose {' or '.join(acting)}" if acting else "choose another dataset",
    )


def _fitting(kinds: Set[Kind], tasks: Collection[Task]) -> list[str]:
    """The families that take such columns and do one of these tasks."""
    known = {name: families.family(name) for name in families.FAMILIES}
    return [name for name, family in known.items() if kinds <= {*family.kinds} and {*tasks} & {*family.tasks}]


# ── inputs ──────────────────────────────────────────────────────────────────────────────────────────────


def settled(resolved: Resolved, stage: Stage) -> dict[str, Json]:
    """The inputs of a stage that are known before anything runs, without the data: settings and code."""
    block, family = resolved.block, families.import_path(resolved.block.family)
    model_code = ["components.model", family.partition(":")[0]]
    if stage == "validate":
        return {
            "expectations": resolved.expectations.model_dump(mode="json"),
            "code": code_hash(["components.validation"]),
        }
    if stage == "train":
        return {
            "family": family,
            "spec": resolved.spec.to_json(),
            "settings": block.settings,
            "search": block.search.model_dump(mode="json"),
            "resources": block.resources.model_dump(mode="json"),
            "seed": resolved.project.params.seed,
            "code": code_hash([*model_code, "components.profile", "components.tuning"]),
            "versions": {name: importlib.metadata.version(name) for name in _computing(family)},
        }
    if stage == "register":
        uri = hidden(resolved.workspace.tracking_uri)  # it is recorded, and a new password makes no new registry
        registry = uri if "://" in uri and not uri.startswith("sqlite") else "embedded"
        return {"gate": block.gate.model_dump(mode="json"), "registry": registry}
    return {"scoring": block.scoring.model_dump(mode="json"), "code": code_hash(["components.scoring"])}


def _computing(family: str) -> list[str]:
    """The packages whose version may change what is learnt."""
    return ["numpy", "safetensors", "torch", *sorted(outside([family.partition(":")[0]]) & {"tokenizers"})]


def inputs(resolved: Resolved, stage: Stage, before: Mapping[Stage, Receipt]) -> dict[str, Json]:
    """Everything that makes the stage's run key. `before` holds the receipts of the stages before it."""
    parts = settled(resolved, stage)
    if stage in ("validate", "train"):
        parts["data"] = versioning.data_version(resolved.workspace, resolved.block.dataset).md5
    elif stage == "register":
        parts["train"] = before["train"].key
        parts["weights"] = before["train"].facts["weights_sha256"]
    else:
        parts["champion"] = before["register"].facts["champion"]
        parts["input"] = scoring_input(resolved)
    return parts


def scoring_input(resolved: Resolved) -> Json:
    """The identity of what the score stage reads: the dataset's own version, or the hashes of the given files,
    of the latest partition where there are several."""
    given, place, root = resolved.block.scoring.input, resolved.scoring_source, resolved.workspace.root
    if given is None or place is None:
        return versioning.data_version(resolved.workspace, resolved.block.dataset).md5
    hashes = receipts.hashes(place)
    if partitions.layout(root, given) is None:
        return hashes
    # With the partition's own path: two of the same bytes are two.
    inside = place if place.is_dir() else place.parent
    return {Path(os.path.relpath(inside / name, root)).as_posix(): digest for name, digest in hashes.items()}


# ── done or not ─────────────────────────────────────────────────────────────────────────────────────────


def unchanged(resolved: Resolved, stage: Stage, parts: Mapping[str, Json]) -> tuple[Receipt | None, str]:
    """(receipt, why) if the stage is done for these inputs; (None, why) if it must run."""
    old = receipts.read(resolved.workspace, resolved.name, stage)
    if old is None:
        return None, "never finished"
    if old.key != receipts.key(parts):
        return None, f"changed: {', '.join(_changes(old.inputs, parts))}"
    if not receipts.intact(resolved.workspace, old):
        return None, "its outputs are missing or altered"
    return old, f"finished {old.finished_at}, run key {old.key[:12]}"


def _changes(old: Mapping[str, Json], new: Mapping[str, Json], path: str = "") -> list[str]:
    """Paths at which two sets of inputs differ; values are shown where they are short."""
    found: list[str] = []
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if receipts.canonical(a) == receipts.canonical(b):  # a tuple comes back from a receipt as a list
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += _changes(a, b, f"{path}{name}.")
        else:
            short = all(isinstance(v, int | float | str | bool | None) and len(str(v)) <= 16 for v in (a, b))
            found.append(f"{path}{name} {a} → {b}" if short else f"{path}{name}")
    return found


def plan(resolved: Resolved) -> list[Step]:
    """What `run` would do now, stage by stage."""
    steps: list[Step] = []
    before: dict[Stage, Receipt] = {}
    for stage in STAGES:
        waits = next((s.stage for s in steps if s.action == "run" and s.stage != "validate"), None)
        if waits:
            steps.append(Step(resolved.name, stage, "run", f"after {waits}"))
            continue
        receipt, why = unchanged(resolved, stage, inputs(resolved, stage, before))
        steps.append(Step(resolved.name, stage, "unchanged" if receipt else "run", why))
        if receipt:
            before[stage] = receipt
    return steps
