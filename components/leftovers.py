"""What dead processes have left in a project: files and folders that were to be renamed into place, and never were."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from .workspace import Workspace

# A number may be that of a process in another container, so even a dead one's things are given some time.
NAMED_FOR_S, NAMELESS_FOR_S = 3600.0, 86400.0
# As receipts.replacing, receipts.replacing_folder and the servers' roster name them: .NAME.PID[.THREAD].tmp or .old
_NAMED = re.compile(r"(?:\..+?|servers)\.(\d+)(?:\.\d+)?\.(?:tmp|old)")
_WHERE_NAMED = (
    *(
        ".",
        "data",
        "expectations",
        "results/*",
        "results/*/*",
        "results/*/partitions/*",
        "results/*/partitions/*/scores",
    ),
    *(".tidemill", ".tidemill/hashes", ".tidemill/receipts/*", ".tidemill/validation"),
)
# As tempfile names them, where stages and the registry make them.
_NAMELESS = (".tidemill/tmp*", ".tidemill/register-*", ".tidemill/models/*/tmp*")


@dataclass(frozen=True)
class Leftover:
    path: Path
    why: str

    def bytes(self) -> int:
        files = [self.path, *self.path.rglob("*")] if self.path.is_dir() else [self.path]
        return sum(file.lstat().st_size for file in files if not file.is_dir())

    def remove(self) -> None:
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def leftovers(workspace: Workspace) -> list[Leftover]:
    """Everything of the kind whose process is dead, or that has not been touched for a day if nothing says whose."""
    return sorted({*_named(workspace), *_nameless(workspace)}, key=lambda left: left.path)


def _named(workspace: Workspace) -> Iterator[Leftover]:
    for where in _WHERE_NAMED:
        for path in workspace.root.glob(f"{where}/*.*" if where != "." else ".*"):
            named = _NAMED.fullmatch(path.name)
            if named and not psutil.pid_exists(int(named[1])) and _untouched_s(path) > NAMED_FOR_S:
                yield Leftover(path, f"process {named[1]} is dead")


def _nameless(workspace: Workspace) -> Iterator[Leftover]:
    for pattern in _NAMELESS:
        for path in workspace.root.glob(pattern):
            if path.is_dir() and (age_s := _untouched_s(path)) > NAMELESS_FOR_S:
                yield Leftover(path, f"untouched for {age_s / 86400:.0f} days")


def _untouched_s(path: Path) -> float:
    """Seconds since anything at or below it was written."""
    try:
        return time.time() - max(found.lstat().st_mtime for found in (path, *path.rglob("*")))
    except FileNotFoundError:  # somebody renamed it into place this moment
        return 0.0
