"""What the values of a table's columns may be: learnt from the training rows, and true of tomorrow's rows too.

Bounds have slack, so that rows unseen do not fail by chance, and nonsense does:

numbers    as far again beyond the smallest and the largest value as these are apart, and ten times as far on a
           side with a long tail; but not below 0 if the smallest value is 0, or a fifth of their distance
dates      as far again, but a year at least before the first and ten years after the last
missing    1.5 times the training rows' share, and 0.05, and three standard errors in the smallest split
texts      the longest as a number is bounded; damaged, foreign and missing texts, and unknown words: 1.5 times the
           training rows' share, and 0.05; what the words of one half of the training rows do not know of the other's
           stands for unknown words
values     all values are listed if each was seen OFTEN; otherwise any value may come
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import letters
from ..expectations import ColumnRule
from .inference import OFTEN, Found, present

# A tail is long if it is so many times as long as the quartiles are apart; or half of that, where it is skewed.
TAIL, SKEW = 4, 1.5
_DAY_US = 86_400_000_000


def rule(found: Found, train: pa.ChunkedArray, smallest: int) -> ColumnRule:
    """The promise of a column, from its training rows as they are read for good. `smallest`: rows of the smallest
    split."""
    stated = ColumnRule(
        role=found.role, kind=found.kind or "text", dtype=found.dtype, shape=found.shape, parts=found.parts
    )
    if found.role == "ignored":
        return stated.model_copy(update={"missing": 1.0})
    values = present(train)
    update: dict[str, object] = {}
    if found.role == "input" and found.kind != "tensor":
        update["missing"] = _missing(1 - len(values) / len(train), len(train), smallest)
    if stated.is_learnt_text:
        update |= _text_bounds(values)
    if found.role != "id" and found.kind in ("number", "tensor"):
        update["min"], update["max"] = numbers(values)
    if found.kind == "date":
        update["min"], update["max"] = _date_bounds(values)
    if found.kind == "category" and found.role == "input":
        counts = {x["values"]: x["counts"] for x in pc.value_counts(values).to_pylist()}
        update["values"] = sorted(counts) if min(counts.values()) >= OFTEN else None
    return stated.model_copy(update=update)


def _missing(share: float, rows: int, smallest: int) -> float:
    likely = min(max(share, 1 / rows), 0.5)
    error = math.sqrt(likely * (1 - likely) / max(smallest, 1))
    return min(1.0, math.ceil((1.5 * share + 0.05 + 3 * error) * 100) / 100)


def _text_bounds(values: pa.ChunkedArray) -> dict[str, object]:
    texts = values.to_pylist()
    told = letters.told(texts, letters.scripts(texts))
    _, longest = _number_bounds(told["characters"].astype(np.float64))
    half = len(texts) // 2
    unknown = letters.unknown(texts[:half], letters.words(texts[half:]))
    return {
        "longest": int(longest or 1),
        "damaged": _roomy(float(told["damaged"].mean()) if texts else 0.0),
        "foreign": _roomy(float(told["foreign"].mean()) if texts else 0.0),
        "unknown": _roomy(unknown),
    }


def _roomy(share: float) -> float:
    return min(1.0, math.ceil((1.5 * share + 0.05) * 100) / 100)


def _elements(values: pa.ChunkedArray) -> np.ndarray:
    if isinstance(values.type, pa.FixedShapeTensorType):
        values = values.combine_chunks().storage.flatten()
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def numbers(values: pa.ChunkedArray) -> tuple[float | None, float | None]:
    """Between which numbers the values of a column, or the elements of its tensors, may be if they are like these."""
    return _number_bounds(_elements(values))


def _number_bounds(numbers: np.ndarray) -> tuple[float | None, float | None]:
    if not len(numbers):
        return None, None
    low, high = float(numbers.min()), float(numbers.max())
    quartiles = np.quantile(numbers, (0.25, 0.5, 0.75))
    apart = (high - low) or abs(high) or 1.0
    above, below = (
        apart * (10 if _has_long_tail(*side) else 1) for side in ((high, quartiles), (-low, -quartiles[::-1]))
    )
    positive = low == 0 or low >= apart / 5
    return outward(max(low - below, 0.0) if positive else low - below, -1), outward(high + above, 1)


def _has_long_tail(end: float, quartiles: np.ndarray) -> bool:
    """Whether the values thin out slowly towards `end`, which is the largest."""
    first, middle, third = (float(x) for x in quartiles)
    beyond, wide = end - third, third - first
    return beyond > TAIL * wide or (beyond > TAIL / 2 * wide and third - middle > SKEW * (middle - first))


def outward(x: float, way: int) -> float:
    """The next number in that direction that has two digits."""
    if x == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(x))) - 1)
    steps = (math.ceil if way > 0 else math.floor)(x / unit)
    return float(f"{steps * unit:.6g}")


def _date_bounds(values: pa.ChunkedArray) -> tuple[str, str]:
    moments = values.cast(pa.int64()).to_numpy()
    low, high = int(moments.min()), int(moments.max())
    first = low - max(high - low, 365 * _DAY_US)
    last = high + max(high - low, 3653 * _DAY_US)
    return str(np.datetime64(first, "us").astype("M8[D]")), str(np.datetime64(last, "us").astype("M8[D]"))
