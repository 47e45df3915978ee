"""Every version in the registry by its tags, whoever registered it; no file is fetched."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from ..contract import Json
from ..tracking.store import answering, open_store, pages
from ..workspace import Workspace
from . import decision_of
from .versions import CHAMPION, TAG


@dataclass(frozen=True)
class Listed:
    """One version. `tags` are those that Tidemill gave it, without their prefix."""

    pipeline: str
    version: int
    champion: bool
    tags: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.pipeline}/{self.version}"

    def decision(self) -> dict[str, Json]:
        """What the gate said of it, as plain values."""
        told = decision_of({TAG + name: value for name, value in self.tags.items()})
        plain: dict[str, Json] = json.loads(json.dumps(dataclasses.asdict(told)))
        return plain


def versions(workspace: Workspace) -> list[Listed]:
    """The versions that Tidemill registered, by pipeline and number. Raises Unreachable if MLflow does not answer."""
    store = open_store(workspace)
    with answering(store.uri):
        champions = {
            (model.name, str(model.aliases[CHAMPION]))
            for model in pages(store.client.search_registered_models)
            if CHAMPION in model.aliases
        }
        found = [
            Listed(version.name, int(version.version), (version.name, str(version.version)) in champions, own)
            for version in pages(store.client.search_model_versions)
            if "gate" in (own := _own(version.tags))
        ]
    return sorted(found, key=lambda listed: (listed.pipeline, listed.version))


def _own(tags: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(TAG): value for name, value in tags.items() if name.startswith(TAG)}
