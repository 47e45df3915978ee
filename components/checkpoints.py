"""Checkpoints: a State and a record as safetensors + JSON in one place, a folder or any fsspec URL. No pickle.

A trial's folder holds one folder a checkpoint, named by its epoch:

    <folder>/000012/<hash>.safetensors     the state's tensors
    <folder>/000012/checkpoint.json        the rest, and the tensors' SHA-256: it makes the checkpoint whole

A reader never sees half of one. On a disk both files are written aside, synced, and renamed into place
together. Elsewhere (object stores know no rename) the JSON is written last, and what it does not name does not
exist. Whatever is read is held against its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from . import room
from .contract import Json, State
from .errors import TidemillError

Record = dict[str, Json]

DESCRIPTION = "checkpoint.json"
KEPT = 2  # the newest, and the one before in case the newest is damaged
_EPOCH = re.compile(r"\d{6,}")
_TENSORS = re.compile(r"[0-9a-f]{16}\.safetensors")
_DESCRIBED = {"aliases": dict, "bytes": int, "record": dict, "scalars": dict, "sha256": str, "tensors": str}
_ASIDE = ".aside-"
_MINE = uuid.uuid4().hex  # tells this process's unfinished files from a dead one's


class Damaged(TidemillError):
    """A checkpoint that is absent, incomplete, or not the bytes that were written."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read whole: where it lies, its epoch, its state and its record."""

    place: str
    epoch: int
    state: State
    record: Record


def write(folder: str, epoch: int, state: State, record: Mapping[str, Json]) -> str:
    """Write one checkpoint below a trial's folder and return its place.

    The first whole copy of an epoch is kept: a second writer, such as a trial's process that has outlived its
    driver, changes nothing. Tensors may share storage, have no dimension, and be of any type.
    """
    fs, root = _open(folder)
    place, target = place_of(folder, epoch), place_of(root, epoch)
    if fs.exists(target):
        if _intact(fs, target):
            return place
        _remove(fs, target)
    tensors, aliases = _distinct(state.tensors)
    content = save_tensors(tensors)
    digest = hashlib.sha256(content).hexdigest()
    name = f"{digest[:16]}.safetensors"
    described = {
        "aliases": aliases,
        "bytes": len(content),
        "record": dict(record),
        "scalars": dict(state.scalars),
        "sha256": digest,
        "tensors": name,
    }
    _commit(fs, target, {name: content, DESCRIPTION: json.dumps(described, sort_keys=True).encode()})
    return place


def is_name(text: Json) -> bool:
    """Whether a trial's folder may hold a checkpoint of this name."""
    return isinstance(text, str) and _EPOCH.fullmatch(text) is not None


def place_of(folder: str, epoch: int) -> str:
    """Where the checkpoint of an epoch lies, whether it is there or not."""
    return posixpath.join(folder, f"{epoch:06d}")


def read(place: str) -> tuple[State, Record]:
    """The state and record of one checkpoint. Raises Damaged unless they are what was written."""
    fs, path = _open(place)
    described = _describe(fs, path)
    content = _content(fs, path, described)
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    for alias, name in described["aliases"].items():
        tensors[alias] = tensors[name].clone()
    return State(dict(sorted(tensors.items())), described["scalars"]), described["record"]


def latest(folder: str, until: int | None = None) -> Checkpoint | None:
    """The newest whole checkpoint below a trial's folder, of epoch `until` or earlier; None if there is none.

    A damaged one is passed over for the one before.
    """
    tried: list[int] = []
    while (epochs := _epochs(*_open(folder))) != tried:  # again if a writer has replaced all that was listed
        tried = epochs
        for epoch in reversed(epochs):
            if until is None or epoch <= until:
                place = place_of(folder, epoch)
                try:
                    return Checkpoint(place, epoch, *read(place))
                except Damaged:
                    continue
    return None


def newest_record(folder: str) -> tuple[str, Record] | None:
    """Place and record of the newest checkpoint, without reading its tensors: they are there, in full length."""
    fs, root = _open(folder)
    for epoch in reversed(_epochs(fs, root)):
        path = place_of(root, epoch)
        try:
            described = _describe(fs, path)
            if fs.size(posixpath.join(path, described["tensors"])) == described["bytes"]:
                return place_of(folder, epoch), described["record"]
        except (Damaged, FileNotFoundError):
            continue
    return None


def prune(folder: str, keep: Collection[int] = ()) -> None:
    """Remove all but the newest checkpoints, those of the epochs in `keep`, and what dead writers left half done."""
    fs, root = _open(folder)
    for epoch in _epochs(fs, root)[:-KEPT]:
        if epoch not in keep:
            _remove(fs, place_of(root, epoch))
    clear(folder)


def clear(folder: str) -> None:
    """Remove what dead writers left half done in a folder. For whoever alone writes there now."""
    fs, root = _open(folder)
    for name in _names(fs, root):
        if name.startswith(_ASIDE) and not name.endswith(_MINE):
            _remove(fs, posixpath.join(root, name))


def remove(place: str) -> None:
    """Remove a checkpoint, or a folder of them, if it is there."""
    fs, path = _open(place)
    if fs.exists(path):
        _remove(fs, path)


def write_json(place: str, value: Json) -> None:
    """Write a whole file or nothing, where checkpoints lie."""
    fs, path = _open(place)
    content = json.dumps(value, sort_keys=True).encode()
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, content)
        return
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{_ASIDE}{file.name}-{_MINE}")
    with room.required(file, len(content)), _gone_on_failure(fs, aside):
        _write_synced(aside, content)
        aside.replace(file)
    _sync(file.parent)


def read_json(place: str) -> Json:
    """What `write_json` wrote; None if there is nothing, or nothing whole."""
    fs, path = _open(place)
    _forget_listings(fs)
    try:
        return json.loads(fs.cat_file(path))
    except (FileNotFoundError, ValueError):
        return None


# ── one place ───────────────────────────────────────────────────────────────────────────────────────────


def _open(place: str) -> tuple[Any, str]:
    """The file system of a folder or URL, and the path there."""
    fs, path = fsspec.core.url_to_fs(place)
    return fs, path.rstrip("/")


def _names(fs: Any, root: str) -> list[str]:
    _forget_listings(fs)
    try:
        return sorted(posixpath.basename(path.rstrip("/")) for path in fs.ls(root, detail=False))
    except FileNotFoundError:
        return []


def _forget_listings(fs: Any) -> None:
    """Remote file systems remember listings, and another process may have written since."""
    fs.invalidate_cache()


def _epochs(fs: Any, root: str) -> list[int]:
    return sorted(int(name) for name in _names(fs, root) if _EPOCH.fullmatch(name))


def _describe(fs: Any, path: str) -> dict[str, Json]:
    try:
        described: dict[str, Json] = json.loads(fs.cat_file(posixpath.join(path, DESCRIPTION)))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise _damaged(path, f"{DESCRIPTION}: {error}") from error
    if not isinstance(described, dict) or not all(isinstance(described.get(n), t) for n, t in _DESCRIBED.items()):
        raise _damaged(path, f"{DESCRIPTION} is not what was written")
    if not _TENSORS.fullmatch(described["tensors"]):  # a path would lead out of the checkpoint
        raise _damaged(path, f"{DESCRIPTION} names {described['tensors']!r} as its tensors")
    return described


def _content(fs: Any, path: str, described: Mapping[str, Json]) -> bytes:
    try:
        content: bytes = fs.cat_file(posixpath.join(path, described["tensors"]))
    except FileNotFoundError as error:
        raise _damaged(path, "its tensors are absent") from error
    if hashlib.sha256(content).hexdigest() != described["sha256"]:
        raise _damaged(path, "its tensors are not the bytes that were written")
    return content


def _intact(fs: Any, path: str) -> bool:
    with contextlib.suppress(Damaged):
        return bool(_content(fs, path, _describe(fs, path)))
    return False


def _damaged(path: str, why: str) -> Damaged:
    return Damaged("damaged checkpoint", where=path, why=why, fix="run the same command again: it is learnt anew")


def _commit(fs: Any, target: str, files: Mapping[str, bytes]) -> None:
    """Put the files at `target`, the last of them last; on a disk all at once."""
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(target, exist_ok=True)
        for name, content in files.items():
            fs.pipe_file(posixpath.join(target, name), content)
        return
    goal = Path(target)
    aside = goal.with_name(f"{_ASIDE}{goal.name}-{_MINE}")
    with room.required(goal, sum(map(len, files.values()))), _gone_on_failure(fs, aside):
        aside.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write_synced(aside / name, content)
        _sync(aside)
    try:
        aside.rename(goal)
    except OSError:
        if not _intact(fs, target):  # only another writer's whole copy may have been first
            raise
        _remove(fs, str(aside))
    _sync(goal.parent)


@contextlib.contextmanager
def _gone_on_failure(fs: Any, aside: Path) -> Iterator[None]:
    """What could not be written whole must not take up the room that is left."""
    try:
        yield
    except OSError:
        _remove(fs, str(aside))
        raise


def _write_synced(file: Path, content: bytes) -> None:
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(fs: Any, path: str) -> None:
    """Remove a file or folder; a checkpoint's JSON first, so that no reader takes the rest for whole."""
    for step in (posixpath.join(path, DESCRIPTION), path):
        try:
            fs.rm(step, recursive=True)
        except (FileNotFoundError, NotADirectoryError):
            continue  # a file, or another process removes the same


# ── tensors ─────────────────────────────────────────────────────────────────────────────────────────────


def _distinct(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors as safetensors wants them, contiguous and on storage of their own, and the names whose tensor
    is that of another name (tied weights), by that name: those are stored once."""
    first: dict[tuple[Any, ...], str] = {}
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    taken: set[int] = set()
    for name, tensor in sorted(tensors.items()):
        same = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and same in first:
            aliases[name] = first[same]
            continue
        first[same] = name
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.nbytes() != plain.nbytes or storage.data_ptr() in taken:
            plain = plain.clone()
        taken.add(plain.untyped_storage().data_ptr())
        kept[name] = plain
    return kept, aliases
