"""Who was champion from when to when, and why: a ledger beside the registered model, only ever appended to.

Each entry is a tag of the registered model in MLflow, so it lies where the versions lie and every machine sees the
same. An entry is written before the alias moves: after a death between the two, the same command finds its entry and
moves the alias.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from ..tracking.runs import user
from ..tracking.store import Store

KEY = "tidemill.history."
By = Literal["gate", "promote", "rollback", "doctor"]


@dataclass(frozen=True)
class Entry:
    """A change of champion. `before` is the version that was champion until then, None if there was none."""

    number: int
    at: str
    version: int
    before: int | None
    by: By
    why: str
    who: str


@dataclass(frozen=True)
class Reign:
    """One champion's time: from `since` until `until` ("" while it lasts)."""

    version: int
    since: str
    until: str
    by: By
    why: str
    who: str


def ledger(store: Store, pipeline: str) -> list[Entry]:
    """Every entry of a pipeline, oldest first; none where there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        tags = store.client.get_registered_model(pipeline).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    found = (json.loads(value) for key, value in tags.items() if key.startswith(KEY))
    return sorted((Entry(**entry) for entry in found), key=lambda entry: entry.number)


def reigns(told: list[Entry]) -> list[Reign]:
    """The ledger as one row a champion, newest first."""
    ends = [*(entry.at for entry in told[1:]), ""][: len(told)]
    return [
        Reign(e.version, e.at, until, e.by, e.why, e.who) for e, until in reversed(list(zip(told, ends, strict=True)))
    ]


def append(store: Store, name: str, version: int, before: int | None, by: By, why: str) -> None:
    """Say that `version` becomes champion, unless the last entry says so already."""
    told = ledger(store, name)
    if told and told[-1].version == version:
        return
    number = told[-1].number + 1 if told else 1
    at = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(number, at, version, before, by, why, user())
    store.client.set_registered_model_tag(name, f"{KEY}{number:06d}", json.dumps(asdict(entry), sort_keys=True))


def deposed(told: list[Entry]) -> dict[int, str]:
    """Versions that a person took the championship from, and when; a version that came back since is not among them."""
    found: dict[int, str] = {}
    for entry in told:
        found.pop(entry.version, None)
        if entry.by == "rollback" and entry.before is not None:
            found[entry.before] = entry.at
    return found
