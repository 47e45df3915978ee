"""Hashes of files, remembered by their size, time and inode so that an unchanged file is read once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from . import receipts

Algorithm = Literal["md5", "sha256"]


def digest(file: Path, algorithm: Algorithm, memory: Path | None = None) -> str:
    """The hash of a file's bytes in hexadecimal. `memory` is a folder; losing it costs time alone.

    The file's state is taken before it is read: if it changes meanwhile, the next call reads it again.
    """
    if memory is None:
        return _hash(file, algorithm)
    file = file.resolve()
    state = file.stat()
    seen = [str(file), state.st_size, state.st_mtime_ns, state.st_ino]
    note = memory / f"{hashlib.sha256(f'{algorithm} {file}'.encode()).hexdigest()[:24]}.json"
    known = _recall(note)
    if known.get("seen") == seen:
        return str(known["digest"])
    found = _hash(file, algorithm)
    receipts.write_file(note, json.dumps({"seen": seen, "digest": found}).encode())
    return found


def _hash(file: Path, algorithm: Algorithm) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, algorithm).hexdigest()


def _recall(note: Path) -> dict[str, object]:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never seen, or half-written by a machine that lost power
        return {}
    return known if isinstance(known, dict) else {}
