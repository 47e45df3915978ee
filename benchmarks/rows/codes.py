"""Codes beside principal components: what they keep of a row, and how well they fall into its classes.

Clusters are k-means's, of the test rows' codes, as many as there are classes, from the best of ten starts, for all
alike. No rival and no code has seen a label. UMAP is fitted on the training rows as its authors advise for clusters
(30 neighbours, no least distance); it is shown, not to be beaten.
"""

from __future__ import annotations

from components import codes, metrics
from components.contract import Data, Metrics
from components.model import Model
from components.plots.codes import coded

from .. import trained
from . import Figures, Row
from .starters import plain

PIPELINE = "digits-codes"
PCA, PIXELS, ON_PCA, UMAP = "PCA at the same width", "k-means on pixels", "k-means on PCA codes", "UMAP + k-means"
NEIGHBOURS, DISTANCE = 30, 0.0


def kept(data: Data, seed: int) -> Figures:  # noqa: ARG001
    """As many principal components of the training rows as a code has elements. Pixels are 0 to 1 for both."""
    found = metrics.principal_components("test", plain(data, "train")[0], plain(data, "test")[0], _width())
    return {PCA: {"reconstruction_error": found["test/reconstruction_error"]}}


def apart(data: Data, seed: int) -> Figures:
    from sklearn.decomposition import PCA as Components
    from umap import UMAP as Rival

    (train_NE, _), (test_NE, label_N) = plain(data, "train"), plain(data, "test")
    components = Components(_width(), svd_solver="full").fit(train_NE)
    flat = Rival(n_neighbors=NEIGHBOURS, min_dist=DISTANCE, random_state=seed, n_jobs=1).fit(train_NE)
    views = {PIXELS: test_NE, ON_PCA: components.transform(test_NE), UMAP: flat.transform(test_NE)}
    return {name: codes.cluster(view_ND, label_N) for name, view_ND in views.items()}


def agreement(made: Model, data: Data) -> Metrics:
    """`nmi` and `ari` of the test rows' codes."""
    seen = coded(made, data.splits["test"])
    assert seen.label_N is not None  # digits have classes
    return codes.cluster(seen.codes_ND, seen.label_N)


def _width() -> int:
    return int(trained.settings(PIPELINE).code)


ROWS = [
    Row(PIPELINE, "reconstruction_error", "min", kept, above=(PCA,)),
    *(Row(PIPELINE, metric, "max", apart, above=(ON_PCA,), figures=agreement) for metric in ("nmi", "ari")),
]
