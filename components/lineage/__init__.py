"""Where every result comes from, and what came of it: the store of finished work.

Receipts say what stands now; a later run takes their place. Here every finished piece of work keeps one file, named
by the hash of what it says: told twice it is the same file, and none is ever written again or taken away. What a file
says has no time in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import receipts
from ..contract import Json
from ..errors import TidemillError
from ..receipts import Receipt
from ..workspace import Workspace

SCORING = "scoring"  # a table that a person had scored; the other kinds of work are the stages
# Packages that a result may depend on.
PACKAGES = (
    "great-expectations",
    "gymnasium",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "ray",
    "safetensors",
    "scikit-learn",
    "torch",
)


@dataclass(frozen=True)
class Record:
    """A finished piece of work: a stage, or the scoring of a table. Fields as in a receipt.

    For a scoring `inputs` say what was scored with what, and `outputs` are the SHA-256 of each file by its path from
    the project's folder, or its whole path where it lies outside.
    """

    pipeline: str
    stage: str
    key: str
    inputs: dict[str, Json]
    outputs: dict[str, str]
    facts: dict[str, Json]

    @property
    def id(self) -> str:
        """SHA-256 of what it says. Unlike a run key it may hold NaN: a figure that could not be measured."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def folder(workspace: Workspace) -> Path:
    return workspace.state / "lineage"


def of(receipt: Receipt) -> Record:
    """What a stage's receipt says, without the clock."""
    return Record(receipt.pipeline, receipt.stage, receipt.key, receipt.inputs, receipt.outputs, receipt.facts)


def record(workspace: Workspace, work: Record) -> Path:
    """Keep a finished piece of work; nothing is written where it is kept already."""
    file = folder(workspace) / f"{work.id}.json"
    if not file.is_file():
        receipts.write_json(file, dataclasses.asdict(work))
    return file


def record_scoring(workspace: Workspace, pipeline: str, source: Path, output: Path, receipt: Path) -> Path:
    """Keep what `tidemill score` delivered, from the receipt beside it."""
    told = json.loads(receipt.read_text(encoding="utf-8"))
    files = told.pop("files")
    inside = output.is_dir()
    inputs = told | {
        "source": place(workspace, source),
        "files": {part["source"]: part["source_sha256"] for part in files.values()},
    }
    outputs = {place(workspace, output / name if inside else output): part["sha256"] for name, part in files.items()}
    facts = {name: told[name] for name in ("rows_in", "rows", "quarantined")}
    facts |= {"model_version": told["model"]["version"], "run_key": told["run_key"]}
    return record(workspace, Record(pipeline, SCORING, told["key"], inputs, outputs, facts))


def place(workspace: Workspace, path: Path) -> str:
    """A path from the project's folder, or the whole of it where it lies outside."""
    path, root = path.resolve(), workspace.root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def read(workspace: Workspace) -> list[Record]:
    """Every finished piece of work that is known here, in the order of stages, scorings last; within a stage what
    stands now comes last.

    The receipts that stand now are among them: they may be older than this store.
    """
    standing = {work.id: work for work in _standing(workspace)}
    found = {work.id: work for work in _kept(workspace)} | standing
    order = ("validate", "train", "register", "score", SCORING)
    return sorted(
        found.values(), key=lambda work: (order.index(work.stage), work.pipeline, work.id in standing, work.id)
    )


def _kept(workspace: Workspace) -> Iterator[Record]:
    for file in sorted(folder(workspace).glob("[0-9a-f]*.json")):
        try:
            work = Record(**json.loads(file.read_text(encoding="utf-8")))
            whole = work.id == file.stem
        except (ValueError, TypeError):
            whole = False
        if not whole:
            raise TidemillError(
                "a record of finished work is not what was written",
                where=str(file),
                why="its name is the hash of what it says, and no longer fits",
                fix=f"restore it, or do without: rm {file}",
            )
        yield work


def _standing(workspace: Workspace) -> Iterator[Record]:
    for file in sorted((workspace.state / "receipts").glob("*/*.json")):
        receipt = receipts.read(workspace, file.parent.name, file.stem)
        if receipt:
            yield of(receipt)


def environment() -> dict[str, Json]:
    """What this process runs on: weights are the same, bit for bit, on the same processor type and packages."""
    import torch

    from ..devices import device

    where = device()
    installed = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name() if where.type == "cuda" else where.type,
        "threads": torch.get_num_threads(),
        "packages": {name: version for name, version in installed.items() if version},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
