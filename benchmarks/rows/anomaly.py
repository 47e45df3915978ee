"""Anomaly detection: windows of one series, and each of ten digits as the normal one.

The rivals on series see the steps that the rows are windows of, and score every row by its own step.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components import anomalies
from components.contract import Data, Metrics

from . import Figures, Row
from .starters import one_class

NORMAL, NEAR = "normal", 100


def profiles(data: Data, seed: int) -> Figures:  # noqa: ARG001
    """The matrix profile of the test rows' series (Yeh et al. 2016, "Matrix profile I"), by stumpy: each window's
    distance from the nearest one, both standardised, of the training rows' series, or of both series as the profile
    alone has it. And a moving z-score: how many deviations a step lies from the mean of a window before it."""
    import stumpy

    train_T, test_T = (_steps(data.splits[split]).astype(np.float64) for split in ("train", "test"))
    window = data.spec.columns[0].shape[-1]
    rows = len(data.splits["test"])
    joined = stumpy.stump(test_T, window, train_T, ignore_trivial=False)[:, 0]
    whole = stumpy.stump(np.concatenate([train_T, test_T]), window)[-rows:, 0]
    before_NT = np.lib.stride_tricks.sliding_window_view(test_T, window // 2)[:rows]
    away_N = np.abs(test_T[window // 2 :][:rows] - before_NT.mean(1)) / np.maximum(before_NT.std(1), 1e-9)
    scores = {"matrix profile of train": joined, "matrix profile": whole, "moving z-score": away_N}
    return {name: _figures(data, score_N.astype(np.float32)) for name, score_N in scores.items()}


def _steps(rows: pa.Table) -> NDArray[np.float32]:
    """The series that the rows are windows of, a row a step: the first window and the last step of each later one."""
    windows = rows["window"].combine_chunks().to_numpy_ndarray()[:, 0]
    steps: NDArray[np.float32] = np.concatenate([windows[0], windows[1:, -1]])
    return steps


def _figures(data: Data, score_N: NDArray[np.float32]) -> Metrics:
    anomalous_N = anomalies.anomalous(data, "test", NORMAL)
    found = anomalies.measure(data.spec, anomalies.outcomes(score_N, anomalous_N, np.inf, NEAR), "test")
    return {name.removeprefix("test/"): value for name, value in found.items()}


def each_digit(data: Data, run: int) -> Figures:
    """Those of digits-anomaly, where the class of number `run` is normal."""
    return one_class(data, run, seed=0)


DIGITS = tuple(str(digit) for digit in range(10))
PROFILES = ("matrix profile of train", "matrix profile")
ROWS = [
    Row("series-anomaly", "hit", "max", profiles, mark=1.0),
    Row("series-anomaly", "auroc", "max", profiles),
    Row("ecg-anomaly", "auroc", "max", profiles, above=PROFILES),
    Row("ecg-anomaly", "average_precision", "max", profiles, above=PROFILES),
    Row(
        "digits-one-class",
        "auroc",
        "max",
        each_digit,
        beside=("digits-anomaly",),
        above=("IsolationForest", "OneClassSVM", "digits-anomaly"),
        varied=("normal", DIGITS),
    ),
]
