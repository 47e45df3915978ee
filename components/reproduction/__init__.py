"""A version trained again: the winning trial alone, by the code, on the bytes and with the settings on record.

The code is that of the version's commit, in a git worktree that goes again; nothing of the checkout at hand is read
but its data and its caches, and nothing of it changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import lineage, versioning
from ..contract import Json, Metrics
from ..digests import digest
from ..errors import DataError, TidemillError
from ..versioning import checkouts
from ..workspace import Workspace
from . import recorded, verdict
from .recorded import Recorded
from .replaying import Replay
from .verdict import Made, Verdict

__all__ = ["Verdict", "reproduce"]

Say = Callable[[str], None]
_SAY_EVERY_S = 5.0


def reproduce(workspace: Workspace, name: str, say: Say) -> Verdict:
    """Train the winner of a version again, and compare. `name` is `PIPELINE`, `PIPELINE@champion` or `PIPELINE/NUMBER`.

    Raises DataError if the bytes that it was trained on can be had no more, TrainingFailed if it fails to learn, and
    TidemillError if too little is on record, or if the code of its commit is not the code that trained it.
    """
    told = recorded.find(workspace, name)
    checkouts.require_commit(workspace, told.commit)
    now = lineage.environment()
    expected = verdict.expected_differences(told, now)
    for line in expected:
        say(f"{told.version}: other bytes are to be expected: {line}")
    if not told.curve:
        say(f"{told.version}: its learning curve is not on record any more; weights and metrics are compared")
    place = workspace.state / f".reproduce.{os.getpid()}.tmp"  # so named that `tidemill clean` finds a dead one's
    place.mkdir(parents=True, exist_ok=True)
    try:
        with checkouts.checkout(workspace, told.commit, place / "tree") as there:
            say(f"{told.version}: commit {told.commit[:12]} is checked out")
            replay = Replay(workspace, there, place, _task(told, place, now))
            _bring(workspace, there, told, replay, say)
            made = _train(told, replay, say)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return verdict.judge(told, made, expected)


def _task(told: Recorded, place: Path, now: dict[str, Json]) -> Json:
    """What replay.py is given."""
    return {
        "dataset": told.dataset,
        "inputs": told.inputs,
        "parts": [dataclasses.asdict(part) for part in told.parts],
        "threads": told.environment.get("threads") or now["threads"],
        "model": str(place / "model"),
    }


def _bring(workspace: Workspace, there: Workspace, told: Recorded, replay: Replay, say: Say) -> None:
    """Put the bytes that the version was trained on into the checkout: as they are kept, or else built again."""
    file = there.data(told.dataset)
    file.parent.mkdir(exist_ok=True)
    tried = checkouts.bring(workspace, told.dataset, told.data_md5, file)
    if not tried:
        return
    say(f"{told.version}: building {told.dataset} as of its commit, since {'; '.join(tried)}")
    packages = workspace.state / "packages"  # what was downloaded once
    if packages.is_dir():
        there.state.mkdir(exist_ok=True)
        (there.state / "packages").symlink_to(packages.resolve())
    try:
        with contextlib.closing(replay.play("build")) as listened:
            for news in listened:
                say(f"{told.version}: {news['say']}")
    except TidemillError as error:
        tried.append(f"it does not build at this commit: {error.why}")
    else:
        if (got := digest(file, "md5")) == told.data_md5:
            return
        tried.append(f"built at this commit its MD5 is {got}")
    raise DataError(
        f"the bytes with MD5 {told.data_md5} that {told.version} was trained on cannot be had",
        where=f"dataset {told.dataset!r}",
        why="; ".join(tried),
        fix=f"put them back as data/{file.name}, or give DVC a remote that holds them (dvc remote add)",
    )


def _train(told: Recorded, replay: Replay, say: Say) -> Made:
    with contextlib.closing(replay.play("train")) as news:
        last = _listen(told, news, say)
    md5 = versioning.data_version(replay.there, told.dataset).md5
    return Made(md5, last["code"], tuple(last["curve"]), last["metrics"], last["weights_sha256"])


def _listen(told: Recorded, listened: Iterator[Json], say: Say) -> dict[str, Json]:
    """All that a training tells, its curve put together; says how far it has come."""
    curve: list[Metrics] = []
    last: dict[str, Json] = {}
    began, said_at = 0.0, -_SAY_EVERY_S  # seconds since the first epoch ended, when a person was last told
    for news in listened:
        last |= news
        if "code" in news and news["code"] != told.inputs["code"]:
            raise _other_code(told)
        if "epoch" in news:
            curve.append(news["metrics"])
            began = began or time.monotonic()
            elapsed = time.monotonic() - began
            if elapsed - said_at >= _SAY_EVERY_S or len(curve) == told.epochs:
                said_at = elapsed
                left = elapsed / max(len(curve) - 1, 1) * (told.epochs - len(curve))
                say(
                    f"{told.version}: epoch {len(curve)} of {told.epochs}"
                    + (f", {left:.0f} s left" if left >= 1 else "")
                )
    return last | {"curve": curve}


def _other_code(told: Recorded) -> TidemillError:
    if told.dirty:
        what = (
            f"{told.version} was trained from a tree with uncommitted changes, and the code of its commit is other code"
        )
        why = "what was changed is in no commit, so nobody can check it out"
        fix = f"commit, then: tidemill run {told.version.partition('/')[0]}; what it registers can be reproduced"
    else:
        what = f"the code of this commit, with the packages of now, is not the code that trained {told.version}"
        why = "part of it is in no commit of this repository: Tidemill itself, or a family's own package"
        fix = "install the Tidemill, and the package of the family, that trained it, then run this command again"
    return TidemillError(what, where=f"commit {told.commit[:12]}", why=why, fix=fix)
