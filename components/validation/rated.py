"""Ratings as Great Expectations sees them: pairs that are rated again, users and items that training never saw.

As its neighbour checks.py, it is imported by the package itself alone: classes are registered as they are defined.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from numpy.typing import NDArray

from ..contract import SPLIT, SPLITS
from ..expectations import ColumnRule, Ratings
from .checks import RowShare, percent


class ExpectRepeatedPairShareToBeAtMost(RowShare):
    """Rows whose user rated the same item in an earlier row of their own split; with `across`, in another split before
    theirs."""

    user: str
    item: str
    across: bool = False
    success_keys: ClassVar[tuple[str, ...]] = ("share", "user", "item", "across")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        whole = rows[[self.user, self.item]].notna().all(axis=1).to_numpy()
        if not self.across:
            again: NDArray[np.bool_] = whole & rows.duplicated([SPLIT, self.user, self.item]).to_numpy()
            return again
        # Splits stand one after the other: a first row anywhere is the first of its split.
        pairs = rows.groupby([self.user, self.item], sort=False, dropna=False)
        strayed: NDArray[np.bool_] = whole & (rows[SPLIT] != pairs[SPLIT].transform("first")).to_numpy()
        return strayed


class ExpectUnseenShareToBeAtMost(RowShare):
    """Rows of val and of test whose value no training row has."""

    column: str
    success_keys: ClassVar[tuple[str, ...]] = ("share", "column")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        values = rows[self.column]
        known = values[rows[SPLIT] == SPLITS[0]].dropna().unique()
        unseen: NDArray[np.bool_] = (~values.isin(known) & values.notna()).to_numpy()
        return unseen


def checks(sound: dict[str, ColumnRule], stated: Ratings) -> Iterator[Expectation]:
    """What ratings are held to beside their columns' rules, the scale of the target among those."""
    if not {stated.user, stated.item} <= sound.keys():
        return
    for across, share in ((False, stated.repeats), (True, 0.0)):
        where = "in an earlier split" if across else "in the same split"
        yield ExpectRepeatedPairShareToBeAtMost(
            user=stated.user,
            item=stated.item,
            share=share,
            across=across,
            description=f"at most {percent(share)} of the rows of any split rating again what their user rated {where}",
            meta=_meta(stated.item, "pairs across splits" if across else "pairs within a split"),
        )
    for column, share in ((stated.user, stated.cold_users), (stated.item, stated.cold_items)):
        yield ExpectUnseenShareToBeAtMost(
            column=column,
            share=share,
            description=f"at most {percent(share)} of the rows of val and of test with one that no training row has",
            meta=_meta(column, "cold start"),
        )


def _meta(column: str, rule: str) -> dict[str, Any]:
    return {"column": column, "rule": rule}
