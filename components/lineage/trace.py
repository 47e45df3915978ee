"""`tidemill trace`: from whatever a person holds in hand to where it comes from and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from .. import versioning
from ..contract import Json
from ..digests import digest
from ..errors import ParamsError
from ..scoring.delivery import footer_key
from ..tracking import past
from ..workspace import Workspace
from . import Record, branches, delivered, known
from .branches import Node
from .known import Known, Version

Tree = Callable[[], Node]
SHORTEST = 6  # hexadecimal digits that may stand for a whole hash
KINDS = (
    "a score file, a version (digits, digits@champion, digits/3), an MLflow run id, a run key, a Prefect flow run id, "
    "a dataset's name, file or MD5 (of a hash or key the first six digits will do)"
)


def trace(workspace: Workspace, thing: str, row: str | None = None) -> Node:
    """The tree of a thing. `row` is the id of a row in a score file.

    Raises ParamsError if nothing of that name is known, RegistryError if there is no such version, Unreachable if
    MLflow does not answer.
    """
    found = known.gather(workspace)
    path = Path(thing).expanduser()
    if path.is_file() or (path / delivered.FOLDER).is_file():
        return _file(found, path.resolve(), row)
    if row is not None:
        raise ParamsError(
            f"--row {row} of {thing!r}, which is no score file", fix="tidemill trace SCORES.parquet --row ID"
        )
    by_name = _named(found, thing)
    return by_name or _hashed(found, thing.lower()) or _trial(found, thing.lower()) or _unknown(thing)


def _unknown(thing: str) -> Node:
    raise ParamsError(
        f"nothing is known of {thing!r}",
        why="there is no such file, and no finished work, here or in MLflow, goes by that name; a flow run that found "
        "everything unchanged made nothing",
        fix=f"name one of these: {KINDS}",
    )


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────


def _file(found: Known, path: Path, row: str | None) -> Node:
    if path.is_file() and footer_key(path) is None:
        if row is not None:
            raise ParamsError("no score file", where=str(path), why="its footer names no key", fix="leave --row out")
        return _dataset_file(found, path)
    scored = delivered.scores(found, path)
    return scored if row is None else Node("row", row, {"columns": delivered.row(path, row)}, (scored,))


def _dataset_file(found: Known, path: Path) -> Node:
    md5 = digest(path, "md5", found.workspace.state / "hashes")
    if md5 not in _md5s(found):
        raise ParamsError(
            "neither scores nor the bytes of a dataset that anything was made from",
            where=str(path),
            why=f"its MD5 is {md5}",
            fix=f"name one of these: {KINDS}",
        )
    return branches.affected(found, md5)


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────


def _named(found: Known, thing: str) -> Node | None:
    """A version or a dataset by its name. A pipeline's champion goes before a dataset of the same name."""
    pipeline = thing.partition("/")[0].partition("@")[0]
    datasets = {training.dataset for training in found.trainings} | set(versioning.known(found.workspace))
    champion = any(version.champion for version in found.versions if version.pipeline == thing)
    if found.registered(pipeline) and (champion or thing not in datasets):
        node = branches.version(found, found.version(thing), up=True, down=True)
        if thing in datasets:
            other = {"see_also": f"the dataset of this name: tidemill trace data/{thing}.parquet"}
            return replace(node, facts=node.facts | other)
        return node
    return _dataset(found, thing) if thing in datasets else None


def _dataset(found: Known, name: str) -> Node:
    """Every version of a dataset's bytes, those under data/ now first."""
    now = [md5 for dataset, md5 in branches.named_bytes(found.workspace) if dataset == name]
    used = [training.data_md5 for training in reversed(found.trainings) if training.dataset == name]
    each = [branches.affected(found, md5) for md5 in dict.fromkeys([*now, *used])]
    return Node("dataset", name, {"versions": len(each)}, (), tuple(each))


# ── hashes, keys and ids ────────────────────────────────────────────────────────────────────────────────


def _hashed(found: Known, text: str) -> Node | None:
    """What a hash, a key or an id stands for, whole or by its first digits. Raises ParamsError if it is several."""
    if len(text) < SHORTEST or set(text) - set("0123456789abcdef-"):
        return None
    everything = {name: what for name, what in _identities(found) if name}
    fits = {name: what for name, what in everything.items() if name.startswith(text)}
    if text in everything:
        fits = {text: everything[text]}
    if len(fits) > 1:
        told = "; ".join(f"{kind} {full}" for full, (kind, _) in fits.items())
        raise ParamsError(f"{text!r} may be several things", why=told, fix="give more digits")
    return next((tree() for _, tree in fits.values()), None)


def _identities(found: Known) -> Iterator[tuple[str, tuple[str, Tree]]]:
    for md5 in _md5s(found):
        yield md5, ("data", partial(branches.affected, found, md5))
    for flow_run in {t.flow_run for t in found.trainings} | set(found.flow_runs):
        yield flow_run, ("flow run", partial(_flow_run, found, flow_run))
    for work in found.records:
        yield work.key, (work.stage, partial(_key, found, work.key))
    for training in found.trainings:
        yield training.key, ("training", partial(_key, found, training.key))
        yield training.run_id, ("MLflow run", partial(branches.training, found, training, up=True, down=True))


def _md5s(found: Known) -> set[str]:
    named = {md5 for _, md5 in branches.named_bytes(found.workspace)}
    given = (work.inputs.get(name) for work in found.records for name in ("data", "input"))
    read = {md5 for md5 in given if isinstance(md5, str)}  # files by their hashes are no dataset
    trained = {training.data_md5 for training in found.trainings}
    return {md5 for md5 in named | read | trained if md5}


def _key(found: Known, key: str) -> Node:
    """The work of a run key. Pipelines that differ by their name alone share one."""
    trees = [branches.training(found, t, up=True, down=True) for t in found.trainings if t.key == key]
    for work in found.records:
        if work.key == key and work.stage != "train" and (tree := _work(found, work)) not in trees:
            trees.append(tree)  # once: a promotion leaves the receipt of the registration again
    return trees[0] if len(trees) == 1 else Node("run key", key, {"pieces_of_work": len(trees)}, (), tuple(trees))


def _work(found: Known, work: Record) -> Node:
    """One stage but train, or one scoring, with both its sides."""
    if work.stage == "register":
        return branches.version(found, _registered(found, work), up=True, down=True)
    if work.stage == "validate":
        return _validation(found, work, down=True)
    return branches.scores(found, work, up=True)


def _registered(found: Known, work: Record) -> Version:
    numbered = (work.pipeline, int(work.facts["version"]), work.inputs["train"])
    return next(v for v in found.versions if (v.pipeline, v.number, v.key) == numbered)


def _validation(found: Known, work: Record, down: bool = False) -> Node:
    md5 = str(work.inputs["data"])
    data = branches.data_bytes(found.workspace, branches.dataset_of(found, md5), md5)
    facts = {"key": work.key, "checks": work.facts.get("checks"), "flow_run": work.facts.get("flow_run")}
    let_start = [t for t in found.trainings if (t.pipeline, t.data_md5) == (work.pipeline, md5)]
    gave = tuple(branches.training(found, t, down=True) for t in let_start) if down else ()
    return Node("validation", work.pipeline, {k: v for k, v in facts.items() if v is not None}, (data,), gave)


def _flow_run(found: Known, flow_run: str) -> Node:
    """What a flow run made, stage by stage, each told once; trainings that another machine recorded come last."""
    gave = [_made(found, work) for work in found.flow_runs.get(flow_run, [])]
    told = {(work.pipeline, work.key) for work in found.flow_runs.get(flow_run, [])}
    others = [t for t in found.trainings if t.flow_run == flow_run and (t.pipeline, t.key) not in told]
    gave += [branches.training(found, t, up=True, down=True) for t in others]
    return Node("flow run", flow_run, {"pieces_of_work": len(gave)}, (), tuple(gave))


def _made(found: Known, work: Record) -> Node:
    if work.stage == "validate":
        return _validation(found, work)
    if work.stage == "register":
        return branches.version(found, _registered(found, work))
    trained = found.training(work.pipeline, work.key) if work.stage == "train" else None
    return branches.training(found, trained, up=True) if trained else branches.scores(found, work)


def _trial(found: Known, run_id: str) -> Node | None:
    """A run that is none of a whole sweep: one trial of one."""
    run = past.run(found.workspace, run_id) if len(run_id) == 32 else None
    if run is None:
        return None
    parent = next((t for t in found.trainings if t.run_id == run.parent), None)
    best = parent is not None and parent.tags.get("best_trial") == run.trial
    facts: dict[str, Json] = {"run_id": run.run_id, "status": run.status, "best_of_its_sweep": best}
    facts |= {"seed": run.tags["seed"]} if "seed" in run.tags else {}  # that of a replica of the best
    facts |= {"hyper": run.params, "metrics": run.metrics}
    above = (branches.training(found, parent, up=True),) if parent else ()
    below = (
        tuple(branches.version(found, made, down=True) for made in found.versions_of(parent)) if best and parent else ()
    )
    return Node("trial", run.trial or run.run_id, facts, above, below)
