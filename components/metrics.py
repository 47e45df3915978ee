"""How good predictions are, in numpy: what families measure on a split and what their trivial rivals reach.

Legend: N rows, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .contract import Metrics

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

# What a probability of nothing at all is taken for, so that one sure mistake does not make a log loss infinite.
SMALLEST = 1e-7


def classification(split: str, probability_NK: Floats, truth_N: Ints) -> Metrics:
    """split/accuracy, split/loss (log loss, natural logarithm), split/macro_f1 and split/weighted_f1; for two classes
    split/auroc of the second.

    A figure that the rows do not define (AUROC with one class only) is left out.
    """
    chosen = probability_NK[np.arange(len(truth_N)), truth_N].astype(np.float64)
    macro, weighted = f1(probability_NK.argmax(1), truth_N, probability_NK.shape[1])
    metrics = {
        f"{split}/accuracy": float(np.mean(probability_NK.argmax(1) == truth_N)),
        f"{split}/loss": float(-np.log(np.clip(chosen, SMALLEST, 1)).mean()),
        f"{split}/macro_f1": macro,
        f"{split}/weighted_f1": weighted,
    }
    if probability_NK.shape[1] == 2 and 0 < truth_N.sum() < len(truth_N):
        metrics[f"{split}/auroc"] = auroc(probability_NK[:, 1], truth_N == 1)
    return metrics


def f1(predicted_N: Ints, truth_N: Ints, classes: int) -> tuple[float, float]:
    """(mean over the classes, mean weighted by the classes' rows) of the harmonic mean of precision and recall.

    A class that neither the truth nor a prediction names is left out of the mean, as in scikit-learn.
    """
    hits_K = np.bincount(truth_N[predicted_N == truth_N], minlength=classes)
    rows_K = np.bincount(truth_N, minlength=classes)
    named_K = rows_K + np.bincount(predicted_N, minlength=classes)
    f1_K = 2 * hits_K / np.maximum(named_K, 1)
    return float(f1_K[named_K > 0].mean()), float(np.average(f1_K, weights=rows_K))


def class_shares(split: str, train_N: Ints, truth_N: Ints, classes: int) -> Metrics:
    """The trivial classifier: gives every row the classes' shares among the training rows."""
    shares_K = np.bincount(train_N, minlength=classes) / len(train_N)
    return classification(split, np.tile(shares_K, (len(truth_N), 1)), truth_N)


def regression(split: str, predicted_N: Floats, truth_N: Floats) -> Metrics:
    """split/rmse and split/mae in the target's units, and split/r2 where the truth varies."""
    error_N = np.asarray(predicted_N, np.float64) - truth_N
    metrics = {
        f"{split}/rmse": float(np.sqrt(np.mean(error_N**2))),
        f"{split}/mae": float(np.mean(np.abs(error_N))),
    }
    if (variance := float(np.var(truth_N))) > 0:
        metrics[f"{split}/r2"] = 1 - float(np.mean(error_N**2)) / variance
    return metrics


def mean_target(split: str, train_N: Floats, truth_N: Floats) -> Metrics:
    """The trivial regressor: predicts the training rows' mean."""
    return regression(split, np.full(len(truth_N), np.mean(train_N)), truth_N)


def auroc(score_N: Floats, positive_N: NDArray[np.bool_]) -> float:
    """Chance that a positive row scores above a negative one, ties counting half: the Mann-Whitney statistic.

    NaN unless there are rows of both kinds.
    """
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return float("nan")
    _, group_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2  # from 1; tied rows share their ranks' mean
    ranks = middle_rank[group_N][positive_N].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def detection(split: str, score_N: Floats, anomalous_N: NDArray[np.bool_]) -> Metrics:
    """split/auroc and split/average_precision of scores that should be high for anomalies. The latter is the mean,
    over the anomalies, of the share of anomalies among the rows that score at least as high.

    A figure that the rows do not define is left out.
    """
    if not anomalous_N.any() or anomalous_N.all():
        return {}
    _, group_N = np.unique(-score_N, return_inverse=True)
    rows, hits = np.bincount(group_N), np.bincount(group_N, anomalous_N)  # from the highest score down, ties as one
    precision = np.cumsum(hits) / np.cumsum(rows)
    return {
        f"{split}/auroc": auroc(score_N, anomalous_N),
        f"{split}/average_precision": float(np.sum(precision * hits) / np.sum(hits)),
    }


def reconstruction(split: str, error_N: Floats) -> Metrics:
    """split/reconstruction_error, the mean of the rows' errors, which is split/loss as well."""
    mean = float(np.mean(error_N, dtype=np.float64))
    return {f"{split}/reconstruction_error": mean, f"{split}/loss": mean}


def principal_components(split: str, train_NE: Floats, rows_NE: Floats, width: int) -> Metrics:
    """The rival of a code of so many elements: the training rows' principal components (Pearson 1901), from which rows
    of E elements are reconstructed with the smallest mean squared error that a linear map can have."""
    mean_E = train_NE.mean(0, dtype=np.float64)
    directions_ME = np.linalg.svd(train_NE - mean_E, full_matrices=False)[2][:width]
    away_NE = rows_NE - mean_E
    left_NE = away_NE - (away_NE @ directions_ME.T) @ directions_ME
    return reconstruction(split, np.mean(left_NE**2, axis=1))
