"""Series of the UCR archive, beside nearest neighbours and what Fawaz et al. 2019 published; cnn1d beside mlp as well.

The marks are their mean accuracies of ten runs, less one point: the better of FCN and ResNet for cnn1d (GunPoint 100.0,
ArrowHead 84.5, ItalyPowerDemand 96.3 %), the MLP for mlp (92.7, 77.8, 95.4 %).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from components.contract import Data

from . import Figures, Row


def neighbours(data: Data, seed: int) -> Figures:  # noqa: ARG001
    """One nearest neighbour among all official training series (train and val), by Euclidean distance and by dynamic
    time warping without a window."""
    from dtaidistance import dtw_ndim

    taught = pa.concat_tables([data.splits["train"], data.splits["val"]])
    a_NTC, b_NTC = (_series(rows, data.spec.columns[0].name) for rows in (taught, data.splits["test"]))
    truth, known = (np.array(rows[data.spec.target or ""].to_pylist()) for rows in (data.splits["test"], taught))
    warped = np.array([[dtw_ndim.distance_fast(a, b) for a in a_NTC] for b in b_NTC])
    straight = np.sqrt(((b_NTC[:, None] - a_NTC[None]) ** 2).sum((2, 3)))
    distances = {"1-NN, Euclidean": straight, "1-NN, DTW": warped}
    return {name: {"accuracy": float((known[d.argmin(1)] == truth).mean())} for name, d in distances.items()}


def _series(rows: pa.Table, name: str) -> np.ndarray:
    """[rows, steps, channels]"""
    tensors = rows[name].combine_chunks().to_numpy_ndarray()
    return np.ascontiguousarray(tensors.transpose(0, 2, 1), np.float64)


MARKS = {"gunpoint": (0.99, 0.917), "arrowhead": (0.835, 0.768), "italy-power": (0.953, 0.944)}
ROWS = [
    row
    for name, (mark, mlp_mark) in MARKS.items()
    for row in (
        Row(name, "accuracy", "max", neighbours, mark, beside=(f"{name}-mlp",)),
        Row(f"{name}-mlp", "accuracy", "max", neighbours, mlp_mark),
    )
]
