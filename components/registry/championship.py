"""Who is champion when a person decides: promote, roll back; and what there is to say about it: history, why."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pyarrow as pa

from ..contract import Json
from ..errors import RegistryError
from ..tracking.store import answering, open_store
from ..workspace import Workspace
from . import decision_of, gate, history, versions
from .history import By, Reign
from .versions import TAG, Version

PROBE_ROWS = 64


def reigns(workspace: Workspace, pipeline: str) -> list[Reign]:
    """Each champion of a pipeline with its time and reason, newest first. RegistryError if there never was one."""
    store = open_store(workspace)
    with answering(store.uri):
        found = history.reigns(history.ledger(store, pipeline))
    if not found:
        raise RegistryError(
            f"pipeline {pipeline!r} never had a champion", where=store.uri, fix=f"tidemill run {pipeline}"
        )
    return found


def why(workspace: Workspace, name: str) -> Json:
    """What the gate said of a version, and what would have had to be different."""
    version = versions.find(workspace, name)
    decision = decision_of(version.tags)
    told = json.loads(json.dumps(dataclasses.asdict(decision)))
    margin = json.loads(version.tags[f"{TAG}gate"])["margin"]
    store = open_store(workspace)
    with answering(store.uri):
        ledger = history.ledger(store, version.pipeline)
    changes = [f"{e.at} champion by {e.by}: {e.why}" for e in ledger if e.version == version.version]
    return (
        {"version": f"{version.pipeline}/{version.version}"}
        | told
        | {
            "wanted": gate.wanted(told, margin),
            "history": changes,
        }
    )


def promote(workspace: Workspace, name: str, probe: pa.RecordBatch, reason: str) -> Version:
    """Make a version champion, whatever its gate said, after it has been loaded and has scored `probe`."""
    return _take_over(workspace, versions.find(workspace, name), probe, "promote", reason)


def rollback(workspace: Workspace, pipeline: str, probe: pa.RecordBatch, reason: str) -> Version:
    """Give the championship back to the champion before the present one, after it has been loaded and has scored
    `probe`. A version that was rolled back from is not gone back to. Raises RegistryError if none is left."""
    now, store = versions.champion(workspace, pipeline), open_store(workspace)
    with answering(store.uri):
        ledger = history.ledger(store, pipeline)
        out = {*history.deposed(ledger), now.version}
        earlier = [entry.version for entry in reversed(ledger) if entry.version not in out]
        if not earlier:
            raise RegistryError(
                f"pipeline {pipeline!r} has no champion before version {now.version}",
                where=store.uri,
                fix=f"`tidemill promote {pipeline}/NUMBER` names a version yourself; tidemill history {pipeline}",
            )
    return _take_over(workspace, versions.find(workspace, f"{pipeline}/{earlier[0]}"), probe, "rollback", reason)


def ailing(workspace: Workspace, pipeline: str) -> RegistryError | None:
    """What is wrong with the champion that a pipeline should have by its ledger; None if nothing is."""
    store = open_store(workspace)
    with answering(store.uri):
        ledger, found = history.ledger(store, pipeline), versions.present(store, pipeline)
        if found is None and ledger:
            return RegistryError(
                f"pipeline {pipeline!r} has lost its champion",
                where=store.uri,
                why=f"the ledger names version {ledger[-1].version}, and no version holds the alias",
                fix="tidemill doctor --fix",
            )
        try:
            if found is not None:
                versions.opened(versions.local(workspace, store, found))
        except RegistryError as error:
            return error
    return None


def restore(workspace: Workspace, pipeline: str, probe: pa.RecordBatch, reason: str) -> Version:
    """Give the championship to the last champion in the ledger that is whole and scores `probe`; one that was rolled
    back from is passed over. Raises RegistryError, saying what ails each, if none is left."""
    store, ailments = open_store(workspace), []
    with answering(store.uri):
        ledger = history.ledger(store, pipeline)
    out = history.deposed(ledger)
    for number in dict.fromkeys(entry.version for entry in reversed(ledger) if entry.version not in out):
        try:
            return _take_over(workspace, _found_anew(workspace, f"{pipeline}/{number}"), probe, "doctor", reason)
        except RegistryError as error:
            ailments.append(f"version {number}: {error.what}")
    raise RegistryError(
        f"no champion of pipeline {pipeline!r} is whole",
        where=store.uri,
        why="; ".join(ailments) or "the ledger names none that was not rolled back from",
        fix="restore the files of one from a backup; or take the alias 'champion' away in the MLflow UI and "
        f"`tidemill run {pipeline}`",
    )


def _found_anew(workspace: Workspace, name: str) -> Version:
    """The version; a damaged copy that was fetched from elsewhere is fetched again."""
    version = versions.find(workspace, name)
    if version.fetched:
        try:
            versions.opened(version)
        except RegistryError:
            shutil.rmtree(version.folder)
            return versions.find(workspace, name)
    return version


def _take_over(workspace: Workspace, version: Version, probe: pa.RecordBatch, by: By, reason: str) -> Version:
    made = versions.opened(version)  # its files are what was registered, and its code runs
    scored = made.score(probe)
    if scored.num_rows != probe.num_rows or not scored.schema.equals(made.outputs()):
        raise RegistryError(
            f"version {version.version} of {version.pipeline!r} does not score as it promises",
            why=f"{scored.num_rows} rows of {scored.schema.names} for {probe.num_rows}",
            fix="nothing was changed; name another version",
        )
    store = open_store(workspace)
    with answering(store.uri):
        present = versions.present(store, version.pipeline)
        if present is None or int(present.version) != version.version:
            named = versions.numbered(store, version.pipeline, version.version)
            versions.crown(store, named, present, by, reason)
    return version
