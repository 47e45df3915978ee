"""What sweeps have left in the place for checkpoints, a folder or any fsspec URL: whose, since when, how large."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any

import fsspec

from . import checkpoints
from .errors import Unreachable
from .sweep import FINISHED_FILE

KEY_DIGITS = 16  # of its run key, in the name of a sweep's folder
_FOLDER = re.compile(rf"(.+)-([0-9a-f]{{{KEY_DIGITS}}})")


@dataclass(frozen=True)
class Left:
    """One sweep's folder. `key` is the start of its run key; `finished_at` is in seconds since 1970, None while the
    sweep is not finished, or where the storage does not know."""

    place: str
    pipeline: str
    key: str
    finished_at: float | None

    def bytes(self) -> int:
        fs, path = fsspec.core.url_to_fs(self.place)
        return sum(int(info["size"] or 0) for info in fs.find(path, detail=True).values())

    def remove(self) -> None:
        """Remove the sweep; the mark that it is finished goes last, so that after a death in between the rest is
        found again. A sweep that is not finished any more stays."""
        fs, path = fsspec.core.url_to_fs(self.place)
        if checkpoints.read_json(posixpath.join(self.place, FINISHED_FILE)) is None:
            return
        for name in _names(fs, path):
            if name != FINISHED_FILE:
                checkpoints.remove(posixpath.join(self.place, name))
        checkpoints.remove(self.place)


def sweeps(storage: str) -> list[Left]:
    """Every sweep there. Raises Unreachable if the storage does not answer."""
    try:
        fs, root = fsspec.core.url_to_fs(storage)
        found = ((name, _FOLDER.fullmatch(name)) for name in _names(fs, root))
        return [
            Left(posixpath.join(storage, name), named[1], named[2], _finished_at(fs, posixpath.join(storage, name)))
            for name, named in found
            if named
        ]
    except Exception as error:  # whatever the storage's own client raises
        raise Unreachable(
            "the storage for checkpoints does not answer",
            where=storage,
            why=f"{type(error).__name__}: {error}",
            fix="see TIDEMILL_STORAGE",
        ) from error


def _names(fs: Any, path: str) -> list[str]:
    fs.invalidate_cache()  # remote file systems remember listings, and another process may have written since
    try:
        return sorted(posixpath.basename(found.rstrip("/")) for found in fs.ls(path, detail=False))
    except FileNotFoundError:
        return []


def _finished_at(fs: Any, place: str) -> float | None:
    mark = posixpath.join(place, FINISHED_FILE)
    if checkpoints.read_json(mark) is None:  # absent or half-written, which is how a sweep reads it too
        return None
    try:
        return float(fs.modified(fsspec.core.url_to_fs(mark)[1]).timestamp())
    except NotImplementedError:
        return None
