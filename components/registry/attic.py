"""Files of versions that need not stay: not among the newest, never champion, under no alias.

The version and what its gate said stay; a training that is registered again puts its files back.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

from ..tracking import census
from ..tracking.store import Store, pages
from ..workspace import Workspace
from . import history
from .versions import CLEANED, TAG


@dataclass(frozen=True)
class Files:
    """The files of one version. `run_id` is the run that it came from; `bytes` counts only what may go."""

    pipeline: str
    version: int
    run_id: str
    location: str
    bytes: int = 0


def names(store: Store) -> list[str]:
    """Every model that is registered there."""
    return [found.name for found in pages(store.client.search_registered_models)]


def sort_out(store: Store, pipeline: str, keep: int | None) -> tuple[list[Files], list[Files]]:
    """(may go, stays) of a pipeline's versions, newest first; `keep` newest stay, None: all. A version whose files
    are gone already is in neither."""
    found = store.client.search_model_versions(f"name = '{pipeline}'", max_results=10_000)
    newest = sorted(found, key=lambda version: int(version.version), reverse=True)
    if not newest:
        return [], []
    ever, go, stay = _distinguished(store, pipeline), [], []
    for place, version in enumerate(newest):
        number, uri = int(version.version), store.client.get_model_version_download_uri(pipeline, version.version)
        files = Files(pipeline, number, version.run_id, uri)
        # `promoted`: the gate's word stands before the ledger does, and is older than ledgers are.
        ours = f"{TAG}gate" in version.tags
        if keep is None or place < keep or number in ever or version.tags.get(f"{TAG}promoted") == "true" or not ours:
            stay.append(files)
        elif size := census.stored_bytes(store, uri):
            go.append(Files(pipeline, number, version.run_id, uri, size))
    return go, stay


def remove(workspace: Workspace, store: Store, files: Files) -> None:
    """Remove a version's files, and the copy that was fetched here. A version that became champion meanwhile stays."""
    if files.version in _distinguished(store, files.pipeline):
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    store.client.set_model_version_tag(files.pipeline, str(files.version), CLEANED, now)
    census.remove_stored(store, files.location)
    for copy in (workspace.state / "models" / files.pipeline).glob(f"{files.version}-*"):
        shutil.rmtree(copy)


def _distinguished(store: Store, pipeline: str) -> set[int]:
    """Versions that are or were champion by the ledger, or are under any alias."""
    told = history.ledger(store, pipeline)
    ever = {entry.version for entry in told} | {entry.before for entry in told if entry.before is not None}
    return ever | {int(number) for number in store.client.get_registered_model(pipeline).aliases.values()}
