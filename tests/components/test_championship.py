"""Who is champion when a person decides, and the ledger of all who were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from mlflow import MlflowClient

from components import registry
from components.contract import Data
from components.errors import ParamsError, RegistryError
from components.params import Gate
from components.registry import championship, history, versions
from components.tracking.store import open_store
from components.workspace import Workspace

from .shelf import OBJECTIVE, candidate


def put(workspace: Workspace, folder: Path, data: Data, run_key: str) -> registry.Registered:
    return registry.register(workspace, candidate(workspace, folder, data, run_key), data, OBJECTIVE, Gate())


def probe(data: Data) -> pa.RecordBatch:
    return data.splits["test"].select([c.name for c in data.spec.columns]).slice(0, 8).combine_chunks().to_batches()[0]


@pytest.fixture
def two(workspace: Workspace, models: dict[str, Path], data: Data) -> Workspace:
    """A poor champion, then a good one."""
    assert put(workspace, models["poor"], data, "a").decision.promoted
    assert put(workspace, models["good"], data, "b").decision.promoted
    return workspace


def champion(workspace: Workspace) -> int:
    return registry.champion(workspace, "tides").version


def test_the_ledger_says_who_reigned_from_when_to_when_and_why(two: Workspace) -> None:
    now, before = championship.reigns(two, "tides")
    assert (now.version, now.until, now.by) == (2, "", "gate") and "beats champion version 1" in now.why
    assert (before.version, before.until) == (1, now.since) and "there was no champion" in before.why
    assert now.who


def test_a_rollback_gives_the_championship_back_and_bars_those_weights(
    two: Workspace, models: dict[str, Path], data: Data
) -> None:
    assert championship.rollback(two, "tides", probe(data), "complaints").version == 1
    assert champion(two) == 1
    now = championship.reigns(two, "tides")[0]
    assert (now.version, now.by, now.why) == (1, "rollback", "complaints")
    again = put(two, models["good"], data, "c").decision
    assert not again.promoted and "version 2 with the same weights was rolled back" in again.reason
    assert champion(two) == 1
    with pytest.raises(RegistryError, match="no champion before version 1"):
        championship.rollback(two, "tides", probe(data), "")
    championship.promote(two, "tides/2", probe(data), "it was the data")
    assert champion(two) == 2
    assert [reign.by for reign in championship.reigns(two, "tides")] == ["promote", "rollback", "gate", "gate"]
    championship.promote(two, "tides/2", probe(data), "again")
    assert len(championship.reigns(two, "tides")) == 4, "who is champion already does not become it"


def test_a_version_that_is_damaged_does_not_become_champion(two: Workspace, data: Data) -> None:
    folder = versions.find(two, "tides/1").model_folder
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    for change in (
        lambda: championship.rollback(two, "tides", probe(data), ""),
        lambda: championship.promote(two, "tides/1", probe(data), ""),
    ):
        with pytest.raises(RegistryError, match="not those that were saved"):
            change()
    assert champion(two) == 2 and len(championship.reigns(two, "tides")) == 2


def test_a_death_between_ledger_and_alias_is_made_good(
    two: Workspace, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(MlflowClient, "set_registered_model_alias", dies)
        championship.rollback(two, "tides", probe(data), "complaints")
    assert champion(two) == 2
    championship.promote(two, "tides/1", probe(data), "complaints")
    assert champion(two) == 1
    assert [entry.number for entry in history.ledger(open_store(two), "tides")] == [1, 2, 3]


def test_why_says_what_was_decided_and_what_was_lacking(two: Workspace, models: dict[str, Path], data: Data) -> None:
    assert not put(two, models["poor"], data, "c").decision.promoted
    told = championship.why(two, "tides/3")
    assert (told["version"], told["promoted"]) == ("tides/3", False)
    assert told["wanted"] and told["interval"][0] < 0 and told["history"] == []
    best = championship.why(two, "tides@champion")
    assert (best["version"], best["wanted"]) == ("tides/2", [])
    assert "champion by gate" in best["history"][0]


@pytest.mark.parametrize("name", ["tides/x", "tides@runner-up", ""])
def test_what_names_no_version_is_refused(two: Workspace, name: str) -> None:
    with pytest.raises((ParamsError, RegistryError)):
        versions.find(two, name)


def test_no_such_version_and_no_champion_ever(two: Workspace) -> None:
    with pytest.raises(RegistryError, match="no version 9"):
        versions.find(two, "tides/9")
    with pytest.raises(RegistryError, match="never had a champion"):
        championship.reigns(two, "ebbs")
