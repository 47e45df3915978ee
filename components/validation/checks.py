"""What Great Expectations has no expectation for: shares of rows, balance of classes, leaks, whole episodes.

Each sees the whole table of summary.py. What it says in Data Docs is its `description`.
Importing this module registers the classes with Great Expectations, which takes seconds: only
the package itself does it.
"""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from numpy.typing import NDArray

from .. import letters
from ..contract import SPLIT, SPLITS
from . import alike
from .leakage import giveaway
from .summary import CONTENT, ROW

FIRST_ROWS = 5
QUOTED = 80  # characters of a text that is shown


class AllRows(TableMetricProvider):  # type: ignore[misc]
    """The table itself, as a metric, so that several expectations can look at all of its columns."""

    metric_name = "table.all_rows"

    @metric_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, execution_engine: Any, metric_domain_kwargs: Any, **_: Any) -> pd.DataFrame:
        rows, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, MetricDomainTypes.TABLE)
        return rows


class OverAllRows(BatchExpectation, ABC):  # type: ignore[misc]
    """An expectation over the whole table."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ("table.all_rows",)
    args_keys: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def judge(self, rows: pd.DataFrame) -> dict[str, Any]:
        """`success` and `result`, as Great Expectations wants them."""

    def _validate(self, metrics: Any, *_: Any, **__: Any) -> Any:
        return self.judge(metrics["table.all_rows"])


class RowShare(OverAllRows, ABC):
    """At most `share` of the rows of any split may offend."""

    share: float = 0.0
    success_keys: ClassVar[tuple[str, ...]] = ("share",)

    @abstractmethod
    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]: ...

    def judge(self, rows: pd.DataFrame) -> dict[str, Any]:
        return held(rows, self.offending(rows), self.share)


def held(rows: pd.DataFrame, offending: NDArray[np.bool_], most: float) -> dict[str, Any]:
    """Whether of no split more than the share `most` offends."""
    splits = rows[SPLIT].to_numpy()
    shares = {s: float(offending[splits == s].mean()) for s in SPLITS if (splits == s).any()}
    over = [s for s, share in shares.items() if share > most]
    observed = ", ".join(f"{percent(share)} of {s}" for s, share in shares.items() if share) or "none"
    named = _named(rows, offending & np.isin(splits, over))
    return {"success": not over, "result": {"observed_value": observed, **named}}


class ExpectColumnMissingShareToBeAtMost(RowShare):
    column: str
    success_keys: ClassVar[tuple[str, ...]] = ("share", "column")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        missing: NDArray[np.bool_] = rows[self.column].isna().to_numpy()
        return missing


class ExpectRepeatedRowShareToBeAtMost(RowShare):
    """Rows that repeat an earlier row of their own split; with `across`, a row of another split before theirs. `of` is
    the column that is the same for rows that are alike."""

    across: bool = False
    of: str = CONTENT
    success_keys: ClassVar[tuple[str, ...]] = ("share", "across", "of")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        within: NDArray[np.bool_] = rows.duplicated([SPLIT, self.of]).to_numpy()
        if not self.across:
            return within
        # Splits stand one after the other: a first row anywhere is the first of its split.
        first_split = rows.groupby(self.of, sort=False)[SPLIT].transform("first")
        across: NDArray[np.bool_] = (rows[SPLIT] != first_split).to_numpy()
        return across


class ExpectTextShareToBeAtMost(RowShare):
    """At most `share` of the texts of any split are marked (1) in a column of the summary."""

    column: str
    success_keys: ClassVar[tuple[str, ...]] = ("share", "column")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        marked: NDArray[np.bool_] = (rows[self.column] == 1).to_numpy()
        return marked


class ExpectTextsToDifferAcrossSplits(OverAllRows):
    """At most `share` of the texts of any split are alike (alike.py) to one of an earlier split."""

    column: str
    share: float = 0.0
    success_keys: ClassVar[tuple[str, ...]] = ("share", "column")

    def judge(self, rows: pd.DataFrame) -> dict[str, Any]:
        """With one pair to look at, of a split that has too many if there is one."""
        others = self._others(rows)
        judged = held(rows, others >= 0, self.share)
        named = judged["result"]["partial_unexpected_index_list"] or np.flatnonzero(others >= 0)[:1].tolist()
        if named:
            pair = " is like ".join(self._quoted(rows.loc[at]) for at in (named[0], others[named[0]]))
            judged["result"]["observed_value"] += f"; {pair}"
        return judged

    def _others(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        texts = [text if isinstance(text, str) else None for text in rows[self.column]]
        return alike.earlier(texts, pd.Categorical(rows[SPLIT], SPLITS).codes.astype(np.int64))

    def _quoted(self, row: pd.Series) -> str:
        return f"{row[SPLIT]} {row[ROW]} {textwrap.shorten(row[self.column], QUOTED, placeholder=' …')!r}"


class ExpectWordsToBeKnown(OverAllRows):
    """At most `share` of the words of any split are not in the training rows."""

    column: str
    share: float
    success_keys: ClassVar[tuple[str, ...]] = ("column", "share")

    def judge(self, rows: pd.DataFrame) -> dict[str, Any]:
        splits, texts = rows[SPLIT].to_numpy(), rows[self.column]
        plain = {s: texts[splits == s].dropna().tolist() for s in SPLITS}
        known = letters.words(plain[SPLITS[0]])
        shares = {s: letters.unknown(plain[s], known) for s in SPLITS[1:]}
        over = [s for s in SPLITS[1:] if shares[s] > self.share]
        strange = np.isin(splits, over)
        strange[strange] = letters.unknown_each(texts[strange].fillna("").tolist(), known) > self.share
        observed = ", ".join(f"{percent(share)} of the words of {s}" for s, share in shares.items())
        return {"success": not over, "result": {"observed_value": observed, **_named(rows, strange)}}


class ExpectClassesToBeBalanced(OverAllRows):
    """The training split holds two classes at least, and each of `classes` with a share of at least `share`."""

    column: str
    classes: list[str]
    share: float
    success_keys: ClassVar[tuple[str, ...]] = ("column", "classes", "share")

    def judge(self, rows: pd.DataFrame) -> dict[str, Any]:
        train = (rows[SPLIT] == SPLITS[0]).to_numpy()
        counts = rows.loc[train, self.column].value_counts().reindex(self.classes, fill_value=0)
        present = [str(name) for name in counts.index[counts > 0]]
        rarest, count = (str(counts.idxmin()), int(counts.min())) if len(counts) else ("", 0)
        total = int(train.sum())
        share = count / max(total, 1)
        observed = f"only {present[0]!r}" if len(present) == 1 else f"{rarest!r} in {percent(share)} of {total} rows"
        named = _named(rows, train & (rows[self.column] == rarest).to_numpy())
        success = len(present) > 1 and share >= self.share
        return {"success": success, "result": {"observed_value": observed, **named}}


class ExpectColumnNotToGiveAwayTheTarget(OverAllRows):
    """A predictor that sees this column alone scores at most `score` on rows that it was not fitted on."""

    column: str
    target: str
    classes: bool
    score: float
    success_keys: ClassVar[tuple[str, ...]] = ("column", "target", "classes", "score")

    def judge(self, rows: pd.DataFrame) -> dict[str, Any]:
        train = (rows[SPLIT] == SPLITS[0]).to_numpy()
        score = giveaway(rows[self.column], rows[self.target], train, self.classes)
        kind = "balanced accuracy" if self.classes else "R² of ranks"
        leaks = score > self.score
        named = _named(rows, ~train & leaks)
        return {"success": not leaks, "result": {"observed_value": f"{kind} {score:.4f}", **named}}


# ── recorded episodes ───────────────────────────────────────────────────────────────────────────────────


class ExpectEpisodesToEndOnce(RowShare):
    """The last row of an episode, and no other, is an end."""

    episode: str
    ends: list[str]
    success_keys: ClassVar[tuple[str, ...]] = ("share", "episode", "ends")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        last = ~rows.duplicated(self.episode, keep="last").to_numpy()
        amiss: NDArray[np.bool_] = last != (rows[self.ends] != 0).any(axis=1).to_numpy()
        return amiss


class ExpectStepsToBeContiguous(RowShare):
    """The rows of an episode count their steps from 0, one by one."""

    episode: str
    step: str
    success_keys: ClassVar[tuple[str, ...]] = ("share", "episode", "step")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        amiss: NDArray[np.bool_] = (rows.groupby(self.episode, sort=False).cumcount() != rows[self.step]).to_numpy()
        return amiss


class ExpectEpisodesToKeepToOneSplit(RowShare):
    episode: str
    success_keys: ClassVar[tuple[str, ...]] = ("share", "episode")

    def offending(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        strayed: NDArray[np.bool_] = (
            rows[SPLIT] != rows.groupby(self.episode, sort=False)[SPLIT].transform("first")
        ).to_numpy()
        return strayed


def percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _named(rows: pd.DataFrame, offending: NDArray[np.bool_]) -> dict[str, Any]:
    """How many rows offend, and which first, in the words of Great Expectations' own results."""
    count = int(offending.sum())
    return {
        "element_count": len(rows),
        "unexpected_count": count,
        "unexpected_percent": 100 * count / max(len(rows), 1),
        "partial_unexpected_index_list": rows.index[offending][:FIRST_ROWS].tolist(),
    }
