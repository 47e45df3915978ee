"""Whatever dies, whenever it does, the same command goes on, and in the end all is as if nothing had happened.

`make faults` plays many rounds of each fault alone. Here five pipelines suffer all of them in turn.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .injections import storm
from .world import World, made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with made(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.mark.parametrize("number", range(5))
def test_nothing_is_lost_in_a_storm(world: World, number: int) -> None:
    assert storm(world, number) == []
