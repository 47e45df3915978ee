"""One long series cut into windows, for anomaly detection: a row is a step in its surroundings.

A row is the window around one step, its label that step's own, so labels stay as the source has them and a score is
said of a step. Windows overlap, so splits are stretches of time, and a row is in a split if its whole window lies in
that stretch: no step is in two splits, and half a window is lost at either end of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations

CLASSES = ("anomaly", "normal")


def cut(
    values_T: NDArray[np.float32], anomalous_T: NDArray[np.bool_], window: int, stretches: Mapping[str, range]
) -> pa.Table:
    """Columns step (the middle of the window, counted from 0), window float32 [1, window], kind, split; in the order of
    time, a row for each step that has a whole window in its stretch."""
    step_N = np.concatenate([_middles(stretch, window) for stretch in stretches.values()])
    overlapping = np.lib.stride_tricks.sliding_window_view(values_T, window)
    windows = overlapping[step_N - window // 2].reshape(-1, 1, window)
    splits = [name for name, stretch in stretches.items() for _ in _middles(stretch, window)]
    return pa.table(
        {
            "step": pa.array(step_N),
            "window": pa.FixedShapeTensorArray.from_numpy_ndarray(windows),
            "kind": pa.array(np.where(anomalous_T[step_N], *CLASSES), pa.string()),
            SPLIT: pa.array(splits, pa.string()),
        }
    )


def _middles(stretch: range, window: int) -> NDArray[np.int64]:
    return np.arange(stretch.start + window // 2, stretch.stop - window + window // 2 + 1)


def expectations(steps: int, window: int, low: float, high: float) -> Expectations:
    """Of a series of so many steps whose values lie between `low` and `high`."""
    return Expectations(
        columns={
            "step": ColumnRule(role="id", kind="number", min=0, max=steps - 1),
            "window": ColumnRule(kind="tensor", dtype="float32", shape=(1, window), min=low, max=high),
            "kind": ColumnRule(role="target", kind="category", values=list(CLASSES)),
        },
        class_share=0.0,  # what is learnt from may be normal throughout
    )
