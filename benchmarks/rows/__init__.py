"""What each pipeline is held to, a module a subject: ROWS is a list of Row."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Literal

from components.contract import Data, Json

from ..trained import Figure, Figures, Rivals

__all__ = ["Figures", "Row", "rows"]


def nobody(data: Data, seed: int) -> Figures:  # noqa: ARG001
    """No rivals."""
    return {}


@dataclass(frozen=True)
class Row:
    """One metric of one pipeline on its test rows.

    rivals   what the rivals reach on the same rows: (data, seed) → name → metric → value. Rows of a pipeline with the
             same rivals ask them once a seed
    beside   other pipelines on the same data, whose own values stand with the rivals'
    mark     what the mean over the seeds must reach
    above    rivals whose mean it must beat as well
    level    rivals whose mean it must reach: where both can have all that there is, nothing lies above
    seeds    how many trainings of the winner's configuration the mean is over: the winner itself, and others. Rivals
             get as many seeds
    folds    in place of seeds: all rows are cut into so many parts, each is the test rows once, the mean is over them
    new_users  of the folds: it is users who are cut into parts, so that the test rows' users are new
    varied   in place of seeds: a setting and the values that it has in turn, one training each, with all else as the
             winner's; the mean is over them. Rivals are asked with the number of the value
    figures  where the metric is none of the family's: what finds it, of a model and its data (of its codes, of samples)
    """

    pipeline: str
    metric: str
    mode: Literal["max", "min"]
    rivals: Rivals = nobody
    mark: float | None = None
    above: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    seeds: int = 5
    folds: int = 0
    new_users: bool = False
    varied: tuple[str, tuple[Json, ...]] | None = None
    figures: Figure | None = None

    @property
    def runs(self) -> int:
        """Trainings that the mean is over."""
        return self.folds or (len(self.varied[1]) if self.varied else self.seeds)


def rows() -> list[Row]:
    """All that there are, by the names of their modules."""
    found: list[Row] = []
    for module in sorted(each.name for each in pkgutil.iter_modules(__path__)):
        found += importlib.import_module(f"{__name__}.{module}").ROWS
    return found
