"""How well one column alone gives the target away: the mark of a leak, not of a good column.

A predictor that can only look things up is fitted on training rows and scored on held-out rows. It knows a copy
of the target, a renamed encoding and a monotone transform alike, because it learns what each value (or each
stretch of values) stands for. Classes are scored by balanced accuracy (the mean share of each class that is found,
Brodersen et al. 2010), so that a majority class is no leak; numbers by R² between the ranks of target and
prediction, so that neither outliers nor the scale of the target decide.

Legend: N rows, K classes, B bins, V distinct values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# More rows than this on a side change no verdict: an even sample of them is used.
ROWS = 50_000
# A column of numbers with at most this many values, each seen a few times, is looked up value by value.
VALUES, SEEN = 256, 4
# How many stretches at most the rows of a class (or all rows, for a target of numbers) are cut into, and rows in each.
CLASS_BINS, CLASS_ROWS = 64, 4
NUMBER_BINS, NUMBER_ROWS = 512, 1
HUGE = 1e300  # stands for infinity, which has no middle


def giveaway(values: pd.Series, target: pd.Series, train: NDArray[np.bool_], classes: bool) -> float:
    """Score in 0…1 of predicting `target` from `values` alone; 1 gives every held-out row away.

    `train` marks the rows to fit on; the others are held out. The score is the lower of those on either side, so
    that neither luck on few held-out rows nor rote on the training rows makes a leak. 0 where a side has no rows.
    """
    known = target.notna().to_numpy()
    fit, held_out = (_sample(np.flatnonzero(known & side)) for side in (train, ~train))
    if not len(fit) or not len(held_out):
        return 0.0
    rows = np.concatenate([fit, held_out])
    codes_N, bins = _codes(values.iloc[rows], target.iloc[rows], len(fit), classes)
    if classes:
        target_N, names = pd.factorize(target.iloc[rows])
        found_N = _majorities(codes_N, target_N, len(fit), bins, len(names))[codes_N] == target_N
        return min(_balanced(found_N[side], target_N[side]) for side in _sides(len(fit)))
    ranks_N = _ranks(target.iloc[rows].to_numpy(np.float64), len(fit))
    guessed_N = _means(codes_N, ranks_N, len(fit), bins)[codes_N]
    return min(_r2(ranks_N[side], guessed_N[side]) for side in _sides(len(fit)))


def _sides(fitted: int) -> tuple[slice, slice]:
    return slice(None, fitted), slice(fitted, None)


def _sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows if len(rows) <= ROWS else rows[np.linspace(0, len(rows) - 1, ROWS).astype(np.int64)]


def _codes(values: pd.Series, target: pd.Series, fitted: int, classes: bool) -> tuple[NDArray[np.int64], int]:
    """Which of B values or stretches each row has, and B. Missing values are one of them."""
    if pd.api.types.is_datetime64_any_dtype(values):
        values = values.astype(np.int64).astype(np.float64).where(values.notna())
    if not pd.api.types.is_numeric_dtype(values):
        codes_N, names = pd.factorize(values)
        return np.where(codes_N < 0, len(names), codes_N), len(names) + 1
    x_N = values.to_numpy(np.float64, na_value=np.nan).clip(-HUGE, HUGE)
    fitted_N, distinct_V = x_N[:fitted], np.unique(x_N[:fitted])
    if len(distinct_V) <= min(VALUES, fitted // SEEN):
        points = distinct_V
    elif classes:
        class_N = pd.factorize(target.iloc[:fitted])[0]
        # Every class has points of its own, its smallest and largest value among them: one that owns a stretch
        # owns whole bins, however rare it is.
        owned = [_points(fitted_N[class_N == k], CLASS_BINS, CLASS_ROWS) for k in range(class_N.max() + 1)]
        points = np.unique(np.concatenate(owned))
    else:
        points = _points(fitted_N, NUMBER_BINS, NUMBER_ROWS)
    points = points[~np.isnan(points)]
    # A value belongs to the nearest point. Missing ones have a bin of their own, the last.
    middles = (points[1:] + points[:-1]) / 2
    return np.where(np.isnan(x_N), len(points), np.searchsorted(middles, x_N)), len(points) + 1


def _points(x_N: NDArray[np.float64], most: int, rows_each: int) -> NDArray[np.float64]:
    """At most `most` quantiles of what is there, evenly spaced from the smallest value to the largest."""
    ordered = np.sort(x_N[~np.isnan(x_N)])
    count = min(most, max(len(ordered) // rows_each, 2))
    return (
        np.unique(ordered[np.linspace(0, len(ordered) - 1, count).round().astype(np.int64)])
        if len(ordered)
        else ordered
    )


def _majorities(
    codes_N: NDArray[np.int64], target_N: NDArray[np.int64], fitted: int, bins: int, classes: int
) -> NDArray[np.int64]:
    """The class that each of B bins stands for, every class weighing the same; -1 for bins never seen."""
    counts_BK = np.bincount(codes_N[:fitted] * classes + target_N[:fitted], minlength=bins * classes)
    counts_BK = counts_BK.reshape(bins, classes)
    weights_BK = counts_BK / np.maximum(counts_BK.sum(axis=0), 1)
    majorities: NDArray[np.int64] = np.where(counts_BK.any(axis=1), weights_BK.argmax(axis=1), -1)
    return majorities


def _balanced(found_N: NDArray[np.bool_], target_N: NDArray[np.int64]) -> float:
    there = np.bincount(target_N)
    shares_K = np.bincount(target_N, found_N)[there > 0] / there[there > 0]
    return float(shares_K.mean()) if len(shares_K) > 1 else 0.0


def _ranks(y_N: NDArray[np.float64], fitted: int) -> NDArray[np.float64]:
    """Each target's place, 0…1, among those of the training rows; ties share their mean."""
    ordered = np.sort(y_N[:fitted])
    below, upto = np.searchsorted(ordered, y_N, "left"), np.searchsorted(ordered, y_N, "right")
    return (below + upto) / (2 * fitted)


def _means(codes_N: NDArray[np.int64], ranks_N: NDArray[np.float64], fitted: int, bins: int) -> NDArray[np.float64]:
    """The mean rank in each of B bins; bins never seen have the mean of all."""
    there = np.bincount(codes_N[:fitted], minlength=bins)
    sums = np.bincount(codes_N[:fitted], ranks_N[:fitted], minlength=bins)
    return np.where(there > 0, sums / np.maximum(there, 1), ranks_N[:fitted].mean())


def _r2(true_N: NDArray[Any], guessed_N: NDArray[Any]) -> float:
    spread = float(np.square(true_N - true_N.mean()).sum())
    return max(0.0, 1 - float(np.square(true_N - guessed_N).sum()) / spread) if spread > 0 else 0.0
