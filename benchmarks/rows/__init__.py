"""What each pipeline is held to, a module a subject: ROWS is a list of Row."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from components.contract import Data


@dataclass(frozen=True)
class Row:
    """One metric of one pipeline on its test rows.

    rivals   what the rivals reach by the same metric on the same rows: (data, seed) → name → value
    mark     what the mean over the seeds must reach
    above    rivals whose mean it must beat as well
    seeds    how many trainings of the winner's configuration the mean is over; rivals get the same seeds
    """

    pipeline: str
    metric: str
    mode: Literal["max", "min"]
    rivals: Callable[[Data, int], Mapping[str, float]]
    mark: float | None = None
    above: tuple[str, ...] = ()
    seeds: int = 5


def rows() -> list[Row]:
    """All that there are, by the names of their modules."""
    found: list[Row] = []
    for module in sorted(each.name for each in pkgutil.iter_modules(__path__)):
        found += importlib.import_module(f"{__name__}.{module}").ROWS
    return found
