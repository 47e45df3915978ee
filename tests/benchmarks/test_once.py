"""A piece of a measurement is done once for what it is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import once as once_
from benchmarks import trained
from benchmarks.once import once
from benchmarks.rows.codes import agreement, apart
from benchmarks.rows.control import acting
from components import receipts
from components.errors import TidemillError
from components.receipts import Receipt
from components.workspace import Workspace

CALLS: list[tuple[Any, ...]] = []


def measure(*asked: Any, **named: Any) -> dict[str, float]:
    CALLS.append((*asked, named))
    return {"test/b": 0.1 + len(CALLS), "test/a": math.nan}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A project whose pipeline "digits" has been trained."""
    place = Workspace(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    for pins in once_.PINS:
        (tmp_path / pins).write_text("torch==2.13.0\n")
    receipts.leave(place, Receipt("digits", "train", "k1", {}, {}))
    monkeypatch.setattr(trained, "resolved", lambda name: SimpleNamespace(name=name, workspace=place))
    CALLS.clear()
    yield place


def test_the_second_time_nothing_is_done_and_the_same_is_found_in_the_same_order(workspace: Workspace) -> None:
    first, second = (once(measure, "digits", 0, False, ("normal", "3"), figures=(agreement,)) for _ in range(2))
    assert [("digits", 0, False, ("normal", "3"), {"figures": (agreement,)})] == CALLS
    assert list(first) == list(second) == ["test/b", "test/a"]
    assert first["test/b"] == second["test/b"] == 1.1 and math.isnan(second["test/a"])


@pytest.mark.parametrize(
    "other",
    [
        lambda: once(measure, "digits", 1),
        lambda: once(measure, "digits", 0, acting),
        lambda: once(measure, "digits", 0, figures=(agreement,)),
    ],
    ids=["a seed", "a rival", "a figure"],
)
def test_other_arguments_are_another_piece(workspace: Workspace, other: Any) -> None:
    once(measure, "digits", 0)
    other()
    other()
    assert len(CALLS) == 2


def test_another_training_or_another_package_is_another_piece(workspace: Workspace) -> None:
    once(measure, "digits", 0)
    receipts.leave(workspace, Receipt("digits", "train", "k2", {}, {}))
    once(measure, "digits", 0)
    (workspace.root / once_.PINS[1]).write_text("umap-learn==0.5.9\n")
    once(measure, "digits", 0)
    assert len(CALLS) == 3


def test_its_sources_are_the_rivals_own_and_what_measures_them_not_what_finds_a_pipeline() -> None:
    found = once_._sources([apart.__module__, trained.__name__])
    assert found.keys() >= {"benchmarks.rows.codes", "benchmarks.rows.starters", "benchmarks.trained"}
    assert {"components.codes", "components.plots.codes"} <= found.keys(), "no part of a train key"
    assert not {"components.plan", "components.params", "benchmarks.rows.control"} & found.keys()


def test_of_a_piece_that_fails_nothing_is_kept(workspace: Workspace) -> None:
    def fail(*_: Any) -> None:
        raise TidemillError("the environment raised")

    fail.__module__ = __name__
    with pytest.raises(TidemillError, match="the environment raised"):
        once(fail, "digits", 0)
    assert not list((workspace.state / "benchmarks").glob("*"))


def test_a_pipeline_that_has_not_been_trained_is_said_with_the_way_out(workspace: Workspace) -> None:
    with pytest.raises(TidemillError, match="movies has not been trained") as raised:
        once(measure, "movies", 0)
    assert raised.value.fix == "tidemill run movies" and not CALLS
