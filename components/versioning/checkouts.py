"""What was, by its name: the files of a commit in a folder of their own, and a dataset's bytes by their MD5.

Neither touches the project's own files.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..digests import digest
from ..errors import TidemillError
from ..workspace import Workspace
from . import condition, tracked


@contextlib.contextmanager
def checkout(workspace: Workspace, commit: str, place: Path) -> Iterator[Workspace]:
    """The project as of a commit, in a git worktree at `place` that goes again however the block ends.

    Raises TidemillError if git does not know the commit, or the project was not there yet.
    """
    _forget(workspace, place)  # what a killed process has left, once its folder is gone
    inside = _git(workspace, "rev-parse", "--show-prefix")  # the project may be a folder of its repository
    try:
        # A repository's own hooks expect a person at work.
        _git(workspace, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", "--force", str(place), commit)
        there = Workspace(place / inside)
        if not there.params.is_file():
            raise TidemillError(f"{there.params.name} was not there yet", where=f"commit {commit[:12]}")
        yield there
    finally:
        shutil.rmtree(place, ignore_errors=True)
        _forget(workspace, place)


def _forget(workspace: Workspace, place: Path) -> None:
    """Let git forget worktrees of ours whose folder is gone. `git worktree prune` would take those of a person as well
    whose disk is not there at the moment."""
    lines = _git(workspace, "worktree", "list", "--porcelain").splitlines()
    for there in (Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")):
        ours = there == place.resolve() or there.is_relative_to(workspace.state.resolve())
        if ours and not there.exists():
            _git(workspace, "worktree", "remove", "--force", str(there))


def root(workspace: Workspace) -> Path:
    """The folder of the git repository that the project is in."""
    return Path(_git(workspace, "rev-parse", "--show-toplevel"))


def require_commit(workspace: Workspace, commit: str) -> None:
    """Raise TidemillError unless git holds the commit."""
    try:
        _git(workspace, "cat-file", "-e", f"{commit}^{{commit}}")
    except TidemillError as error:
        raise TidemillError(
            f"commit {commit[:12]} is not in this repository",
            where=str(workspace.root),
            why=error.why,
            fix="git fetch --all, or work where the model was trained",
        ) from error


def bring(workspace: Workspace, name: str, md5: str, place: Path) -> list[str]:
    """Put the bytes of a dataset with this MD5 at `place`: from data/, DVC's cache or DVC's remote.

    Returns where they were not, and why; an empty list if they are at `place`.
    """
    tried = []
    for source in (_from_data, _from_cache, _from_remote):
        why = source(workspace, name, md5, place)
        if not why and (got := digest(place, "md5")) != md5:  # altered on the way, or damaged there
            why = f"what {source.__name__.removeprefix('_from_')} holds under this name has the MD5 {got}"
        if not why:
            return []
        place.unlink(missing_ok=True)
        tried.append(why)
    return tried


def _from_data(workspace: Workspace, name: str, md5: str, place: Path) -> str:
    file = workspace.data(name)
    if not file.is_file():
        return f"data/{file.name} is not there"
    if (got := digest(file, "md5", workspace.state / "hashes")) != md5:
        return f"data/{file.name} has the MD5 {got} now"
    shutil.copyfile(file, place)
    return ""


def _from_cache(workspace: Workspace, _name: str, md5: str, place: Path) -> str:
    if not (workspace.root / ".dvc").is_dir():
        return "DVC is not set up here"
    stored = condition.stored(workspace, md5)
    if not stored.is_file():
        return "DVC's cache does not hold it"
    shutil.copyfile(stored, place)
    return ""


def _from_remote(workspace: Workspace, _name: str, md5: str, place: Path) -> str:
    if not (workspace.root / ".dvc").is_dir():
        return "so there is no remote"
    from dvc.config import NoRemoteError

    try:
        with tracked.repository(workspace) as repo:
            remote = repo.cloud.get_remote_odb(command="fetch")
            remote.fs.get_file(remote.oid_to_path(md5), str(place))
    except NoRemoteError:
        return "DVC has no remote"
    except FileNotFoundError:
        return "DVC's remote does not hold it"
    except Exception as error:  # whatever the remote's own client raises
        return f"DVC's remote does not answer: {type(error).__name__}: {str(error).strip()[:200]}"
    return ""


def _git(workspace: Workspace, *arguments: str) -> str:
    """What git says. Raises TidemillError with git's own words if it says no."""
    try:
        done = subprocess.run(["git", *arguments], cwd=workspace.root, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise TidemillError("git is not installed", why=str(error), fix="install git") from error
    if done.returncode:
        raise TidemillError(f"git {arguments[0]} failed", where=str(workspace.root), why=done.stderr.strip())
    return done.stdout.strip()
