"""Whether DVC's side of a project is whole: its locks, and the objects in its cache that data.dvc names."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..digests import digest
from ..errors import DataError
from ..params import Params
from ..workspace import Workspace
from . import tracked


@dataclass(frozen=True)
class Absent:
    """A file that data.dvc names whose bytes the cache does not hold. `dataset` is the one that builds it, if any;
    `here`: the file itself holds these bytes."""

    path: str
    md5: str
    why: str
    dataset: str | None
    here: bool


def abandoned_lock(workspace: Workspace) -> Path | None:
    """DVC's repository lock if its holder is dead. Only with DVC's `hardlink_lock` can that be: the usual kind, whose
    file holds a number alone, is a lock of the kernel's, which goes with its process."""
    file = workspace.root / ".dvc" / "tmp" / "lock"
    try:
        said = file.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not said or said.isdigit():
        return None
    host, pid = ([*said.split("|"), "", ""])[1:3]  # FILE|HOST|PID|NUMBER, as flufl.lock names its claims
    if pid.isdigit():
        return file if host == socket.gethostname() and not psutil.pid_exists(int(pid)) else None
    return None if _dvc_at_work(workspace.root) else file  # DVC hashes that name; then nobody may be at work at all


def _dvc_at_work(root: Path) -> bool:
    """Whether a process of this machine that may hold DVC's lock works at or below a folder."""
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or not {"dvc", "tidemill"} & _words(process):
                continue
            if Path(process.cwd()).is_relative_to(root):
                return True
        except psutil.AccessDenied:  # somebody else's: believe it
            return True
        except psutil.Error:
            continue
    return False


def _words(process: psutil.Process) -> set[str]:
    return {word.rpartition("/")[2] for word in process.cmdline()[:4]}


def absent(workspace: Workspace, params: Params) -> list[Absent] | None:
    """Every file of data.dvc that is absent from the cache or damaged there; None where DVC is not set up."""
    if not (workspace.root / ".dvc").is_dir():
        return None
    named = {path: md5 for path, md5 in tracked.md5s(workspace).items() if md5}
    datasets = {tracked.path(workspace, workspace.data(name)): name for name in params.datasets}
    place = _cache(workspace) if named else None
    found = []
    for path, md5 in named.items():
        why = _fault(place, workspace, md5) if place else ""
        if why:
            file = workspace.root / path
            here = file.is_file() and digest(file, "md5", workspace.state / "hashes") == md5
            found.append(Absent(path, md5, why, datasets.get(path), here))
    return found


def put_back(workspace: Workspace, lost: Absent) -> None:
    """Give the file's bytes to the cache again. Raises DataError if they are not under data/."""
    if not lost.here:
        raise DataError("its bytes are not there", where=str(workspace.root / lost.path), fix="dvc pull")
    _object(_cache(workspace), lost.md5).unlink(missing_ok=True)
    tracked.cache(workspace, [workspace.root / lost.path])


def stored(workspace: Workspace, md5: str) -> Path:
    """Where the cache holds these bytes, if it does. Raises DataError if DVC cannot open the project."""
    return _object(_cache(workspace), md5)


def _fault(cache: Path, workspace: Workspace, md5: str) -> str:
    if md5.endswith(".dir"):
        return ""  # a folder's list; Tidemill tracks files
    stored = _object(cache, md5)
    if not stored.is_file():
        return f"no {stored.relative_to(cache.parent)}"
    if (got := digest(stored, "md5", workspace.state / "hashes")) != md5:
        return f"{stored.relative_to(cache.parent)} is damaged: its MD5 is {got}"
    return ""


def _object(cache: Path, md5: str) -> Path:
    return cache / md5[:2] / md5[2:]


def _cache(workspace: Workspace) -> Path:
    """The folder of the cache's objects, wherever DVC's settings put it."""
    from dvc.exceptions import DvcException

    try:
        with tracked.repository(workspace) as repo:
            return Path(repo.cache.local.path)
    except DvcException as error:
        fix = "git init, or: dvc config core.no_scm true" if "git" in str(error) else "mend .dvc/config"
        raise DataError("DVC cannot open this project", where=str(workspace.root), why=str(error), fix=fix) from error
