"""A disk that is full, told as what it is: how much is missing where."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import NoRoom

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def required(place: Path, size: int | None = None) -> Iterator[None]:
    """Turn the error of a full disk into NoRoom. `size`: bytes to be written at `place`, if that is known."""
    try:
        yield
    except Exception as error:
        if not _full(error):
            raise
        raise missing(place, size) from error


def missing(place: Path, size: int | None = None) -> NoRoom:
    free = shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free
    needed = f"{_readable(size)} were to be written, " if size else ""
    return NoRoom(
        "there is no room on the disk",
        where=str(place),
        why=f"{needed}{_readable(free)} are free",
        fix="make room there (tidemill clean shows what need not stay), then run the same command again: it goes on",
    )


def _full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"(os error {number})" in str(error) for number in _FULL)  # as libraries in Rust, safetensors, say it


def _readable(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
