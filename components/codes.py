"""What codes are worth, looked at from outside: a linear probe, clusters, and a map. For reports and benchmarks: no
family learns from any of it. The same codes give the same figures and the same map each time.

Legend: N rows, D elements of a code, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

SEED = 0
SIZES = (100, 1_000, 0)  # labels that a probe learns from; 0: all there are
DRAWS = 5  # subsets of that many labels that a probe's accuracy is the mean over, where they are not all
STARTS = 10  # of k-means
ITERATIONS = 1_000  # of a probe's solver, at most
MAPPED = 2_000  # rows that a map shows at most
NEIGHBOURS = 30.0  # about as many shape a point's place (the perplexity of t-SNE)
FEW = 10  # rows that are too few for it

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


# ── a linear probe ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rows:
    """Inputs of rows, whatever they are, and their classes."""

    inputs_ND: Floats
    label_N: Labels


def probe(train: Rows, test: Rows, sizes: Sequence[int] = SIZES) -> dict[int, float]:
    """Accuracy on the test rows of logistic regression on so many labelled training rows, drawn evenly over the classes
    (Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes"). Inputs are standardised.

    Sizes that the training rows do not reach, or that give a class no row, are left out; 0 becomes their number.
    """
    found: dict[int, float] = {}
    classes = len(np.unique(train.label_N))
    for size in sizes:
        if size and classes <= size < len(train.label_N):
            drawn = [subset(train.label_N, size, SEED + draw) for draw in range(DRAWS)]
            found[size] = float(np.mean([_accuracy(train, at, test) for at in drawn]))
        elif not size:
            found[len(train.label_N)] = _accuracy(train, np.arange(len(train.label_N)), test)
    return found


def subset(label_N: Labels, size: int, seed: int) -> NDArray[np.int64]:
    """So many row numbers, in each class as many as its share of the rows asks for, at least one."""
    draw, order = np.random.default_rng(seed), []
    for label in np.unique(label_N):
        rows = draw.permutation(np.flatnonzero(label_N == label))
        # A class's own rows at even distances between 0 and 1: what lies lowest are as many of each as its share.
        order += [(place / len(rows), int(label), int(row)) for place, row in enumerate(rows)]
    return np.sort(np.array([row for *_, row in sorted(order)[:size]], np.int64))


def _accuracy(train: Rows, at: NDArray[np.int64], test: Rows) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(1):  # sums that are split among threads end in other bits
        rival = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
        rival.fit(train.inputs_ND[at], train.label_N[at])
        return float(rival.score(test.inputs_ND, test.label_N))


# ── clusters ────────────────────────────────────────────────────────────────────────────────────────────


def clustered(codes_ND: Floats, clusters: int) -> Labels:
    """The cluster of each row, by k-means (Lloyd 1982) from the best of ten starts. Fewer where rows are alike."""
    from sklearn.cluster import KMeans

    different = len(np.unique(codes_ND, axis=0))
    with threadpool_limits(1):
        chosen = KMeans(min(clusters, different), n_init=STARTS, random_state=SEED).fit_predict(codes_ND)
    found: Labels = chosen.astype(np.int64)
    return found


def cluster(codes_ND: Floats, label_N: Labels) -> dict[str, float]:
    """How well as many clusters as there are classes agree with these: `nmi`, normalised mutual information, and `ari`,
    the Rand index less what chance would give (Hubert & Arabie 1985)."""
    return agreement(clustered(codes_ND, len(np.unique(label_N))), label_N)


def agreement(cluster_N: Labels, label_N: Labels) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    nmi, ari = normalized_mutual_info_score(label_N, cluster_N), adjusted_rand_score(label_N, cluster_N)
    return {"nmi": float(nmi), "ari": float(ari)}


# ── a map ───────────────────────────────────────────────────────────────────────────────────────────────


def map2(codes_ND: Floats) -> NDArray[np.float64]:
    """xy_N2: a place in the plane for each row, near those of rows with codes near its own (t-SNE, van der Maaten &
    Hinton 2008, begun from the first two principal components, as Kobak & Berens 2019 advise). Of a few rows it is
    those components themselves."""
    from sklearn.manifold import TSNE

    start_N2 = _plane(codes_ND)
    if len(codes_ND) < FEW:
        return start_N2
    perplexity = min(NEIGHBOURS, math.floor((len(codes_ND) - 1) / 3))
    begin_N2 = (1e-4 * start_N2 / (start_N2[:, 0].std() or 1.0)).astype(np.float32)
    with threadpool_limits(1):
        made = TSNE(perplexity=perplexity, init=begin_N2, method="barnes_hut", random_state=SEED, n_jobs=1)
        xy_N2: NDArray[np.float64] = made.fit_transform(codes_ND.astype(np.float32)).astype(np.float64)
    return xy_N2


def _plane(codes_ND: Floats) -> NDArray[np.float64]:
    """The first two principal components of the rows, each with its largest value on the positive side."""
    away_ND = codes_ND - codes_ND.mean(0, dtype=np.float64)
    with threadpool_limits(1):
        _, _, directions_DD = np.linalg.svd(away_ND, full_matrices=False)
    xy_N2 = np.zeros((len(codes_ND), 2))
    found = away_ND @ directions_DD[:2].T
    xy_N2[:, : found.shape[1]] = found * np.where(found.max(0) < -found.min(0), -1.0, 1.0)
    return xy_N2
