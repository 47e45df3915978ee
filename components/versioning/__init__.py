"""Which bytes a dataset is: data/NAME.parquet, its entry in data.dvc, and the commit of the code beside it.

With tracked.py and condition.py, the only place that speaks to DVC and git.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from .. import datasets, intake, params, receipts
from ..contract import SPLIT, Json
from ..datasets import parquet, series, sources, splits
from ..digests import digest
from ..errors import DataError, DatasetChanged, ParamsError
from ..params import DatasetBlock, Name, Params
from ..workspace import Workspace
from . import blocks, tracked
from .tracked import clear_stale_lock, stale_lock

__all__ = [
    "DataVersion",
    "Fetched",
    "add",
    "add_environment",
    "clear_stale_lock",
    "commit",
    "data_version",
    "fetch",
    "known",
    "named_at",
    "stale_lock",
    "standing",
]

Say = Callable[[str], None]


@dataclass(frozen=True)
class DataVersion:
    """The bytes that lie under data/ now, and those that data.dvc names (None: it names none)."""

    dataset: str
    md5: str
    tracked_md5: str | None


@dataclass(frozen=True)
class Fetched:
    """What came of fetching a dataset. `recorded`: data.dvc names another version than before."""

    dataset: str
    action: Literal["built", "unchanged"]
    md5: str
    recorded: bool


# ── datasets ────────────────────────────────────────────────────────────────────────────────────────────


def fetch(
    workspace: Workspace, params: Params, names: list[str] | None, say: Say, record: bool = False
) -> list[Fetched]:
    """Build each dataset (None: all) that is absent, damaged, or whose source has changed; leave the others alone.

    A built-in dataset must be, byte for byte, what data.dvc says. A table of the user's may change: with `record`
    data.dvc then names its new version, otherwise that is only said.

    Raises DatasetChanged, DataError or ParamsError; what was under data/ before is then still there.
    """
    for name in names or []:
        if name not in params.datasets:
            known = ", ".join(params.datasets) or "none"
            raise ParamsError(f"no dataset {name!r}", where="params.yaml: datasets", fix=f"known: {known}")
    return [_fetch(workspace, name, params.datasets[name], say, record) for name in names or params.datasets]


def add(workspace: Workspace, name: str, path: Path, said: Mapping[str, str], say: Say) -> Fetched:
    """Copy a csv or Parquet file (or a folder of them) to data/sources/, build dataset `name` from it, name both in
    data.dvc, and add the dataset's block to params.yaml. Where the block is there, it is a new version of the file.
    `said`: what the block says of the table's columns beside its place (target, text, series, user, item).

    Raises ParamsError if the name is taken by something else or no target is known, DataError if the file is no use;
    then nothing has changed.
    """
    block = _block_for(workspace, name, path, said)
    place = workspace.root / str(block.table)
    expected = workspace.expectations(name).is_file()
    aside = place.parent / f".{name}.{os.getpid()}"
    copy = aside / place.name
    try:
        size = _copy(path.expanduser(), copy)
        say(f"{name}: copied {size / 1e6:.1f} MB to {block.table}")
        trial = block.model_copy(update={"table": str(copy.relative_to(workspace.root))})
        md5 = _build(workspace, name, datasets.recipe(workspace, name, trial, say), None, say)
        if place.exists():
            place.rename(aside / "before")
        copy.rename(place)
    except BaseException:
        if not expected:
            workspace.expectations(name).unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if name not in params.load(workspace).datasets:
        blocks.add_dataset(workspace, name, {"table": block.table or "", **said})
        say(f"{name}: added to {workspace.params.name}; what it promises is in expectations/{name}.yaml")
    files = [workspace.data(name), *intake.files(place).values()]
    return Fetched(name, "built", md5, _record(workspace, files, say))


def add_environment(workspace: Workspace, name: str, said: Mapping[str, Json], say: Say) -> Fetched:
    """Record an environment's episodes as dataset `name`, add the dataset's block, which is `said`, to params.yaml, and
    name the rows in data.dvc. Where that block is there already, they are recorded again if anything else is new.

    Raises ParamsError if the name is taken by something else, DataError if the environment is no use; then nothing has
    changed.
    """
    _check_name(name)
    block, stands = DatasetBlock(**said), params.load(workspace).datasets.get(name)
    if stands not in (None, block):
        raise ParamsError(
            f"dataset {name!r} is there already, and its block is another",
            where=f"params.yaml datasets.{name}",
            fix=f"choose another name, or edit the block and run `tidemill data fetch {name}`",
        )
    expected = workspace.expectations(name).is_file()
    try:
        fetched = _fetch(workspace, name, block, say, record=False)
    except BaseException:
        if not expected:
            workspace.expectations(name).unlink(missing_ok=True)
        raise
    if stands is None:
        blocks.add_dataset(workspace, name, said)
        say(f"{name}: added to {workspace.params.name}; what it promises is in expectations/{name}.yaml")
    return replace(fetched, recorded=_record(workspace, [workspace.data(name)], say))


def data_version(workspace: Workspace, name: str) -> DataVersion:
    """The version of a dataset, from its real bytes. Raises DataError if it is not there."""
    file = workspace.data(name)
    if not file.is_file():
        raise DataError(f"dataset {name!r} is not there yet", where=str(file), fix=f"tidemill data fetch {name}")
    return DataVersion(name, _md5(workspace, file), tracked.md5s(workspace).get(tracked.path(workspace, file)))


def standing(workspace: Workspace, name: str) -> tuple[str | None, str | None]:
    """(MD5 of a dataset's bytes under data/ now, MD5 that data.dvc names); None for what is not there."""
    file = workspace.data(name)
    md5 = _md5(workspace, file) if file.is_file() else None
    return md5, tracked.md5s(workspace).get(tracked.path(workspace, file))


def known(workspace: Workspace) -> list[str]:
    """Names of the datasets that lie under data/ or that data.dvc names, sorted."""
    folder = workspace.data("x").parent
    named = (workspace.root / path for path in tracked.md5s(workspace))
    files = {file for file in (*folder.glob("*.parquet"), *named) if file == workspace.data(file.stem)}
    return sorted(file.stem for file in files)


def named_at(workspace: Workspace, md5: str) -> str:
    """The commit in which data.dvc first named these bytes; empty where git knows none."""
    return _git(workspace, "log", "--reverse", "--format=%H", f"-S{md5}", "--", tracked.FILE).partition("\n")[0]


def commit(workspace: Workspace) -> str:
    """The git commit of the project, with -dirty if tracked files differ from it; empty where git names none."""
    head = _git(workspace, "rev-parse", "HEAD")
    if not head:
        return ""
    return head + ("-dirty" if _git(workspace, "status", "--porcelain", "--untracked-files=no", "--", ".") else "")


def _git(workspace: Workspace, *arguments: str) -> str:
    """What git says; empty where there is no git, no repository or no commit yet."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=workspace.root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _fetch(workspace: Workspace, name: str, block: DatasetBlock, say: Say, record: bool) -> Fetched:
    file = workspace.data(name)
    named = tracked.md5s(workspace).get(tracked.path(workspace, file))
    if block.table and file.is_file() and not (workspace.root / block.table).expanduser().exists():
        say(f"{name}: {block.table} is not there; data/{file.name} is used as it is")
        return Fetched(name, "unchanged", _md5(workspace, file), False)
    recipe = datasets.recipe(workspace, name, block, say)
    if recipe.remark:
        say(f"{name}: {recipe.remark}")
    if file.is_file() and parquet.note(file) == recipe.note:
        md5 = _md5(workspace, file)
        if named in (None, md5):
            recorded = record and named is None and _record(workspace, [file], say)
            return Fetched(name, "unchanged", md5, recorded)
        if not (record or recipe.pinned):
            say(f"{name}: data.dvc names another version; `tidemill data fetch {name}` records this one")
            return Fetched(name, "unchanged", md5, False)
    md5 = _build(workspace, name, recipe, named, say)
    if record:
        return Fetched(name, "built", md5, _record(workspace, [file], say))
    if named not in (None, md5):
        say(f"{name}: a new version; `tidemill data fetch {name}` records it in data.dvc")
    return Fetched(name, "built", md5, False)


def _build(workspace: Workspace, name: str, recipe: datasets.Recipe, named: str | None, say: Say) -> str:
    """Build a dataset's file aside, and put it in its place if it is what it should be. Returns its MD5."""
    file = workspace.data(name)
    say(f"{name}: building data/{file.name}")
    table = recipe.build()
    with receipts.replacing(file) as aside:
        parquet.write(table, aside, recipe.note)
        md5 = digest(aside, "md5")
        if recipe.pinned and named not in (None, md5):
            raise DatasetChanged(
                f"dataset {name!r} comes out with other bytes than {tracked.FILE} names",
                where=str(workspace.root / tracked.FILE),
                why=f"MD5 is {md5}, {tracked.FILE} says {named}: other versions of packages, or changed code",
                fix=f"install requirements.lock; or, if the change is meant, take the entry out of {tracked.FILE} and "
                f"run `tidemill data fetch {name}`",
            )
    parts = ", ".join(f"{count} {split}" for split, count in splits.counts(table[SPLIT].combine_chunks()).items())
    say(f"{name}: {table.num_rows} rows ({parts}), {file.stat().st_size / 1e6:.1f} MB")
    return md5


def _record(workspace: Workspace, files: list[Path], say: Say) -> bool:
    """Name the files' bytes in data.dvc and give them to DVC's cache; whether data.dvc changed."""
    changed = tracked.record(workspace, files)
    tracked.cache(workspace, files)
    if changed:
        say(f"{tracked.FILE}: recorded {', '.join(tracked.path(workspace, file) for file in files)}")
    return changed


def _md5(workspace: Workspace, file: Path) -> str:
    return digest(file, "md5", workspace.state / "hashes")


# ── a file of the user's ────────────────────────────────────────────────────────────────────────────────


def _block_for(workspace: Workspace, name: str, path: Path, said: Mapping[str, str]) -> DatasetBlock:
    """The dataset's block in params.yaml, or the one that it is to get, of which `said` is all but the place."""
    _check_name(name)
    source = path.expanduser()
    files = intake.files(source)
    place = f"data/sources/{name}{'' if source.is_dir() else source.suffix.lower()}"
    block = params.load(workspace).datasets.get(name)
    where = f"params.yaml datasets.{name}"
    if block is None:
        if "target" not in said and said.get("series") != series.FILES:
            columns = ", ".join(sources.find(source).names[:30])
            raise ParamsError(
                "no target given",
                where=f"{len(files)} files in {source}",
                why=f"columns are {columns}",
                fix="--target COLUMN",
            )
        return DatasetBlock(table=place, **said)
    if block.table != place:
        reads = f"reads {block.table}" if block.table else "is no table"
        raise ParamsError(f"dataset {name!r} is there already, and {reads}", where=where, fix="choose another name")
    for key, value in said.items():
        stands = getattr(block, key)
        if value != stands:
            raise ParamsError(f"{key} is {stands!r} already, got {value!r}", where=where, fix="edit the block first")
    return block


def _check_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ParamsError(
            f"{name!r} is no name for a dataset", fix="use letters, digits, - and _ (63 at most)"
        ) from None


def _copy(source: Path, place: Path) -> int:
    """Copy a table's files; returns their bytes."""
    size = 0
    for name, file in intake.files(source).items():
        copy = place / name if source.is_dir() else place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        size += copy.stat().st_size
    return size
