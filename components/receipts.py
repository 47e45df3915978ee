"""Run keys, atomic commits, receipts: the only place that knows when work counts as done.

A stage writes into a temporary folder, which takes its place by a rename; the receipt is written last, under
.tidemill/receipts/. A reader that finds no receipt, or whose outputs are not the bytes that the receipt names,
treats the work as never done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from . import room
from .contract import Json
from .errors import TidemillError
from .workspace import Workspace


def canonical(value: Json) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key(parts: Mapping[str, Json]) -> str:
    """The run key of a piece of work: the SHA-256 of what it is made from, 64 hex digits."""
    return hashlib.sha256(canonical(dict(parts)).encode()).hexdigest()


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def hashes(place: Path) -> dict[str, str]:
    """SHA-256 of a file, or of every file below a folder, by path relative to it, sorted."""
    if place.is_file():
        return {place.name: sha256(place)}
    return {p.relative_to(place).as_posix(): sha256(p) for p in sorted(place.rglob("*")) if p.is_file()}


# ── atomic commits ──────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is synced and takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a process that died
        if not psutil.pid_exists(int(left.name.split(".")[-3])):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with room.required(path):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Json) -> None:
    write_file(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `folder`; on success it takes its place.

    Folders cannot be exchanged in one step everywhere: for a moment neither stands there. That is why a
    receipt must be withdrawn before and written after.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):  # of a process that died
        shutil.rmtree(left)
    temporary, old = (folder.parent / f".{folder.name}.{os.getpid()}.{end}" for end in ("tmp", "old"))
    try:
        with room.required(folder):
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── receipts ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Receipt:
    """What a finished stage leaves.

    `inputs` are the parts that made `key`; `outputs` the SHA-256 of each file it left, by path below its
    results folder; `facts` what later stages and people want to know of it. Only `seconds` and `finished_at`
    depend on the clock, and neither enters a key.
    """

    pipeline: str
    stage: str
    key: str
    inputs: dict[str, Json]
    outputs: dict[str, str]
    facts: dict[str, Json] = field(default_factory=dict)
    seconds: float = 0.0
    finished_at: str = ""


def _file(workspace: Workspace, pipeline: str, stage: str) -> Path:
    return workspace.state / "receipts" / pipeline / f"{stage}.json"


def read(workspace: Workspace, pipeline: str, stage: str) -> Receipt | None:
    """The receipt of the stage's last finished run, whatever its key; None if there is none."""
    file = _file(workspace, pipeline, stage)
    try:
        return Receipt(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise TidemillError("not a receipt", where=str(file), why=str(error), fix=f"rm {file}") from error


def intact(workspace: Workspace, receipt: Receipt) -> bool:
    """Whether every output is still the bytes that the receipt names."""
    folder = workspace.results(receipt.pipeline, receipt.stage)
    files = ((folder / name, digest) for name, digest in receipt.outputs.items())
    return all(file.is_file() and sha256(file) == digest for file, digest in files)


def withdraw(workspace: Workspace, pipeline: str, stage: str) -> None:
    _file(workspace, pipeline, stage).unlink(missing_ok=True)


def leave(workspace: Workspace, receipt: Receipt) -> Receipt:
    """Write the receipt: from here on the work counts as done."""
    stamped = dataclasses.replace(receipt, finished_at=datetime.now(UTC).isoformat(timespec="seconds"))
    write_json(_file(workspace, receipt.pipeline, receipt.stage), dataclasses.asdict(stamped))
    return stamped
