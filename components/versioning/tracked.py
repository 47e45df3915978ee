"""data.dvc, and DVC's own folder: what versioning knows of DVC.

data.dvc has one entry under `outs` for each file. With one for the whole folder, `dvc repro` would record a partly
fetched folder as the new version; with one a file it refuses. DVC is imported only to fill its cache: the YAML is
read and written here as DVC reads and writes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from .. import receipts
from ..digests import digest
from ..errors import Busy, DataError
from ..workspace import Workspace

FILE = "data.dvc"


def path(workspace: Workspace, file: Path) -> str:
    """How data.dvc calls a file."""
    return file.relative_to(workspace.root).as_posix()


def md5s(workspace: Workspace) -> dict[str, str]:
    """Path → MD5 of every file that data.dvc tracks; nothing if there is no data.dvc."""
    return {str(out["path"]): str(out.get("md5", "")) for out in _read(workspace)["outs"]}


def record(workspace: Workspace, files: Sequence[Path]) -> bool:
    """Name these files' present bytes in data.dvc; returns whether it changed. Other entries stay as they are."""
    with _alone(workspace):
        document = _read(workspace)
        outs = {str(out["path"]): out for out in document["outs"]}
        before = {name: (out.get("md5"), out.get("size")) for name, out in outs.items()}
        for file in files:
            name = path(workspace, file)
            found = {"md5": digest(file, "md5", workspace.state / "hashes"), "size": file.stat().st_size, "hash": "md5"}
            outs.setdefault(name, CommentedMap(found | {"path": name})).update(found)
        if before == {name: (out.get("md5"), out.get("size")) for name, out in outs.items()}:
            return False
        document["outs"] = CommentedSeq(outs[name] for name in sorted(outs))
        text = io.StringIO()
        YAML().dump(document, text)
        receipts.write_file(workspace.root / FILE, text.getvalue().encode())
        return True


def cache(workspace: Workspace, files: Sequence[Path]) -> None:
    """Put tracked files into DVC's cache, so that `dvc push` and `dvc status` know them. Nothing where DVC is not
    set up. Raises Busy while another DVC command holds the project."""
    if not (workspace.root / ".dvc").is_dir() or not files:
        return
    from dvc.lock import LockError

    clear_stale_lock(workspace)
    try:
        with repository(workspace) as repo, repo.lock:
            for file in files:
                for out in repo.find_outs_by_path(str(file)):
                    out.save()
                    out.commit()
    except LockError as error:
        fix = f"wait for it to end, then: dvc commit {FILE}"
        raise Busy("DVC works on this project now", where=str(workspace.root), why=str(error), fix=fix) from error


def repository(workspace: Workspace) -> Any:
    """DVC's own view of the project; close it. DVC unpickles what it remembers of files, and by default from below
    /var/tmp, where any user of the machine may have put it: here it lies in the project, where only its owner gets."""
    from dvc.repo import Repo

    remembered = workspace.state / "dvc"
    remembered.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Repo(str(workspace.root), config={"core": {"site_cache_dir": str(remembered)}})


def clear_stale_lock(workspace: Workspace) -> None:
    """Take out of .dvc/tmp/rwlock what dead processes hold, and a file that one of them left half-written.

    DVC clears entries of dead processes by itself, but it stops at a half-written file, and believes an entry
    whose process number now belongs to something else.
    """
    file = _rwlock(workspace)
    if not file.is_file():
        return
    held, kept = _holders(file)
    if held not in (kept, {}):
        receipts.write_file(file, json.dumps(kept).encode())


def stale_lock(workspace: Workspace) -> str:
    """What `clear_stale_lock` would take out; "" if nothing."""
    file = _rwlock(workspace)
    if not file.is_file():
        return ""
    held, kept = _holders(file)
    if held is None:
        return "half-written"
    names = set(held.get("write", {})) - set(kept["write"])
    names |= {name for name, infos in held.get("read", {}).items() if infos and infos != kept["read"].get(name)}
    return f"held by dead processes: {', '.join(sorted(names))}" if names else ""


def _rwlock(workspace: Workspace) -> Path:
    return workspace.root / ".dvc" / "tmp" / "rwlock"


def _holders(file: Path) -> tuple[Any, dict[str, Any]]:
    """(what the lock says, what is true of it); the first is None if it is not what DVC writes, or half of it."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        kept = {
            "write": {name: info for name, info in held.get("write", {}).items() if _holds(info)},
            "read": {
                name: alive
                for name, infos in held.get("read", {}).items()
                if (alive := [info for info in infos if _holds(info)])
            },
        }
    except (ValueError, AttributeError, TypeError, KeyError):
        return None, {"write": {}, "read": {}}
    return held, kept


def _holds(info: dict[str, Any]) -> bool:
    """Whether the process of a lock's entry is alive and is DVC."""
    import psutil

    try:
        command = " ".join(psutil.Process(int(info["pid"])).cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's: believe it
        return True
    return "dvc" in command


def _read(workspace: Workspace) -> CommentedMap:
    file = workspace.root / FILE
    fix = f"restore it: git checkout {FILE}"
    try:
        document = YAML().load(file.read_text(encoding="utf-8")) if file.is_file() else CommentedMap(outs=[])
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"not YAML: {error.problem}", where=f"{file}:{line}", fix=fix) from error
    outs = document.get("outs") if isinstance(document, CommentedMap) else None
    if not isinstance(outs, list) or not all(isinstance(out, dict) and "path" in out for out in outs):
        raise DataError("holds no `outs` with a path each", where=str(file), fix=fix)
    return document


@contextlib.contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """One writer of data.dvc at a time."""
    workspace.state.mkdir(parents=True, exist_ok=True)
    with (workspace.state / "data.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
