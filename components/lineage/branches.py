"""What the tree of a trace is made of: a node for each thing, with what it was made from and what it gave."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from .. import versioning
from ..contract import Json
from ..digests import digest
from ..workspace import Workspace
from . import Record
from .known import Known, Training, Version, model_version, run_key


@dataclass(frozen=True)
class Node:
    """One thing. `facts` are plain values; `made_from` leads up, `gave` leads down."""

    kind: str
    name: str
    facts: dict[str, Json] = field(default_factory=dict)
    made_from: tuple[Node, ...] = ()
    gave: tuple[Node, ...] = ()

    def to_json(self) -> dict[str, Json]:
        own: dict[str, Json] = {"kind": self.kind, "name": self.name} | plain(self.facts)
        nested = {"made_from": self.made_from, "gave": self.gave}
        return own | {side: [node.to_json() for node in nodes] for side, nodes in nested.items() if nodes}


def plain(value: Json) -> Json:
    """The same as strict JSON has it: a figure that could not be measured is null."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ── up ──────────────────────────────────────────────────────────────────────────────────────────────────


def origins(known: Known, training: Training) -> tuple[Node, ...]:
    """What a training was made from: data, settings, code, the validation that let it start, environment."""
    told, tags = training.told, training.tags
    hyper = told.facts.get("hyper") or json.loads(tags.get("best_hyper", "{}"))
    chosen = {name: told.inputs.get(name) for name in ("settings", "seed", "search", "resources")}
    family = told.inputs.get("family") or tags.get("family", "")
    settings = {"family": family, "task": told.inputs.get("spec", {}).get("task"), "hyper": hyper} | chosen
    code: dict[str, Json] = {
        "git_commit": told.facts.get("git_commit") or tags.get("git_commit", ""),
        "code_hash": told.inputs.get("code"),
    }
    around = dict(told.facts.get("environment", {}))
    around["packages"] = around.get("packages", {}) | told.inputs.get("versions", {})
    return (
        data_bytes(known.workspace, training.dataset, training.data_md5),
        Node("settings", training.pipeline, _said(settings)),
        Node("code", code["git_commit"][:12] or "no commit", _said(code)),
        validation(known, training),
        Node("environment", around.get("platform", "not recorded"), _said(around)),
    )


def data_bytes(workspace: Workspace, dataset: str, md5: str) -> Node:
    """The bytes of a dataset, and whether they can still be had."""
    facts: dict[str, Json] = {"md5": md5}
    if dataset:
        now, named = versioning.standing(workspace, dataset)
        facts |= {"named_by_data_dvc": named == md5, "still_under_data": now == md5}
        facts |= {"data_dvc_names": named} if named not in (None, md5) else {}
        facts |= {"data_has": now} if now not in (None, md5) else {}
    if not facts.get("still_under_data"):
        commit = versioning.named_at(workspace, md5)
        facts |= {"data_dvc_named_it_at": commit} if commit else {}
    return Node("data", dataset or "a dataset of unknown name", facts)


def validation(known: Known, training: Training) -> Node:
    """What the expectations said before the training started."""
    found = dict(training.told.facts.get("validation") or _validated(known, training))
    if not found:
        return Node("validation", training.dataset, {"recorded": False})
    file = known.workspace.results(training.pipeline, "validate") / "validation.json"
    found["still_in_results"] = state(known.workspace, str(file), str(found["sha256"])) == "there"
    return Node("validation", f"{found['checks']} checks passed", found)


def _validated(known: Known, training: Training) -> dict[str, Json]:
    for work in known.records:
        if (work.pipeline, work.stage, work.inputs.get("data")) == (training.pipeline, "validate", training.data_md5):
            sha256 = work.outputs.get("validation.json", "")
            told = {"key": work.key, "checks": work.facts.get("checks", "all"), "sha256": sha256}
            return told | {"known_from": "a validation of the same data"}
    return {}


# ── things, with their two sides ───────────────────────────────────────────────────────────────────────


def training(known: Known, one: Training, *, up: bool = False, down: bool = False) -> Node:
    names = ("metric", "value", "baseline", "trials", "weights_sha256")
    told = one.told.facts if up or one.work else {}  # a list of trainings must not fetch a file for each
    facts: dict[str, Json] = {"pipeline": one.pipeline, "run_key": one.key, "mlflow_run": one.run_id}
    facts |= {"status": one.run.status if one.run else None, "flow_run": one.flow_run}
    facts |= {name: told.get(name) for name in names}
    facts["known_from"] = (
        " and ".join(source for source, is_there in (("records", one.work), ("MLflow", one.run)) if is_there)
        or "the registry alone"
    )
    gave = tuple(version(known, made, down=True) for made in known.versions_of(one)) if down else ()
    return Node("training", one.key[:12], _said(facts), origins(known, one) if up else (), gave)


def version(known: Known, one: Version, *, up: bool = False, down: bool = False) -> Node:
    facts: dict[str, Json] = {"champion": one.champion, "in_registry": one.listed is not None, "run_key": one.key}
    if one.listed:
        decision = one.listed.decision()
        facts |= {name: decision[name] for name in ("promoted", "reason", "metric", "value", "baseline")}
        if decision["interval"]:
            facts |= {f"gate_{name}": decision[name] for name in ("champion_version", "difference", "interval")}
    facts |= {"weights_sha256": one.tags.get("weights_sha256"), "model_code": one.tags.get("code")}
    found = known.training_of(one)
    above = (training(known, found, up=True),) if up and found else ()
    below = tuple(scores(known, work) for work in known.scorings_of(one)) if down else ()
    return Node("version", one.name, _said(facts), above, below)


def scores(known: Known, work: Record, *, up: bool = False) -> Node:
    """What one scoring left: each file, and whether it is still there."""
    files = {path: state(known.workspace, path, sha256) for path, sha256 in score_files(work).items()}
    paths = list(files)
    name = paths[0] if len(paths) == 1 else f"{PurePosixPath(paths[0]).parent} ({len(paths)} files)" if paths else "–"
    facts = {"rows": work.facts.get("rows"), "pipeline": work.pipeline, "model_version": model_version(work)}
    facts |= {"key": work.key, "source": work.inputs.get("source"), "flow_run": work.facts.get("flow_run")}
    return Node("scores", name, _said(facts | {"files": files}), above_scores(known, work) if up else ())


def score_files(work: Record) -> dict[str, str]:
    """Path from the project's folder → SHA-256 of the files that a scoring left."""
    if work.stage != "score":
        return work.outputs
    place = PurePosixPath("results") / work.pipeline / "score"
    scores = {name: digest for name, digest in work.outputs.items() if name.endswith(".parquet")}
    return {str(place / name): digest for name, digest in scores.items() if not _is_quarantine(PurePosixPath(name))}


def _is_quarantine(name: PurePosixPath) -> bool:
    return name.name.endswith(".quarantine.parquet") or "_quarantine" in name.parts


def above_scores(known: Known, work: Record) -> tuple[Node, ...]:
    """The model, and the rows that it was given."""
    wanted = (work.pipeline, model_version(work), run_key(work))
    model = [v for v in known.versions if (v.pipeline, str(v.number), v.key) == wanted]
    read = work.inputs.get("files", work.inputs.get("input"))  # a dataset's MD5, or files by their SHA-256
    if isinstance(read, str):
        rows = data_bytes(known.workspace, dataset_of(known, read), read)
    else:
        rows = Node("input", str(work.inputs.get("source", "")), {"sha256": read})
    return (*(version(known, found, up=True) for found in model[:1]), rows)


def dataset_of(known: Known, md5: str) -> str:
    """The name that bytes go by; "" where nobody has named them."""
    trained = (training.dataset for training in known.trainings if training.data_md5 == md5)
    validated = (str(w.facts.get("dataset", "")) for w in known.records if w.inputs.get("data") == md5)
    standing = (name for name, found in named_bytes(known.workspace) if found == md5)
    return next((name for name in (*trained, *validated, *standing) if name), "")


def named_bytes(workspace: Workspace) -> Iterable[tuple[str, str]]:
    """(dataset, MD5) of what lies under data/ now and what data.dvc names."""
    for name in versioning.known(workspace):
        for md5 in dict.fromkeys(versioning.standing(workspace, name)):
            if md5:
                yield name, md5


def affected(known: Known, md5: str) -> Node:
    """Some bytes with everything that was made from them, the plain list of it first."""
    top = data_bytes(known.workspace, dataset_of(known, md5), md5)
    made = [one for one in known.trainings if one.data_md5 == md5]
    versions = [version for one in made for version in known.versions_of(one)]
    of_models = [work for version in versions for work in known.scorings_of(version)]
    read = [work for work in known.scorings() if work.inputs.get("input") == md5 and work not in of_models]
    files = [path for work in (*of_models, *read) for path in score_files(work)]
    facts = {
        "affected_versions": [version.name for version in versions],
        "affected_champions": [version.name for version in versions if version.champion],
        "affected_score_files": list(dict.fromkeys(files)),
    }
    gave = (*(training(known, one, down=True) for one in made), *(scores(known, work) for work in read))
    return Node(top.kind, top.name, top.facts | facts, (), gave)


def state(workspace: Workspace, path: str, sha256: str) -> str:
    """Whether a file is still what was written."""
    file = workspace.root / path
    if not file.is_file():
        return "gone"
    return "there" if digest(file, "sha256", workspace.state / "hashes") == sha256 else "replaced or altered"


def _said(facts: dict[str, Json]) -> dict[str, Json]:
    """Without what is not known."""
    return {name: value for name, value in facts.items() if value not in (None, "", {}, [])}
