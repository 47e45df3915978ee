"""The starter pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from components import metrics, params, tables
from components.contract import Data
from components.workspace import Workspace

from . import Figures, Row


def breast_cancer(data: Data, seed: int) -> Figures:  # noqa: ARG001
    """Logistic regression on standardised columns, its strength by default, and one whose strength is chosen on the
    val rows. How they compare with the family when the rows are split anew: benchmarks/resplits.py."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def taught(strength: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000)).fit(*plain(data, "train"))

    usual = taught(1.0)
    chosen = max((taught(c) for c in (0.01, 0.1, 1.0, 10.0)), key=lambda rival: rival.score(*plain(data, "val")))
    tests = plain(data, "test")
    rivals = {"logistic regression": usual, "logistic regression, tuned": chosen}
    return {name: {"accuracy": rival.score(*tests)} for name, rival in rivals.items()}


def digits(data: Data, seed: int) -> Figures:  # noqa: ARG001
    """A support vector machine and nearest neighbours on the pixels."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    rivals = {"nearest neighbours": KNeighborsClassifier(3), "support vector machine": SVC(C=10)}
    taught = {name: rival.fit(*plain(data, "train")) for name, rival in rivals.items()}
    return {name: {"accuracy": rival.score(*plain(data, "test"))} for name, rival in taught.items()}


def digits_anomaly(data: Data, seed: int) -> Figures:
    """The rivals of the pipeline's normal class."""
    return one_class(data, data.spec.classes.index(_settings("digits-anomaly")["normal"]), seed)


def one_class(data: Data, normal: int, seed: int) -> Figures:
    """IsolationForest and OneClassSVM on the normal training rows: raw, standardised, and principal components, plain
    and whitened. Each is chosen from its grid by AUROC on the val rows, as a trial is."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import OneClassSVM

    rows = {split: plain(data, split) for split in ("train", "val", "test")}
    taught = rows["train"][0][rows["train"][1] == normal]
    views: list[Any] = [FunctionTransformer(), StandardScaler()]
    views += [PCA(size, whiten=white, random_state=seed) for size in (16, 32, 64) for white in (False, True)]
    grids: dict[str, list[Any]] = {
        "IsolationForest": [
            IsolationForest(n_estimators=300, max_samples=most, max_features=share, random_state=seed)
            for most in (64, 256)
            for share in (0.3, 1.0)
        ],
        "OneClassSVM": [
            (nu, times) for nu in (0.01, 0.05, 0.1, 0.2, 0.5) for times in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
        ],
    }
    best: dict[str, tuple[float, float]] = {}
    for view in views:
        seen = view.fit(taught).transform(taught)
        inputs = {split: (view.transform(rows[split][0]), rows[split][1] != normal) for split in ("val", "test")}
        for name, grid in grids.items():
            for rival in grid:
                if name == "OneClassSVM":  # its width, as multiples of scikit-learn's own rule for this view
                    rival = OneClassSVM(nu=rival[0], gamma=rival[1] / (seen.shape[1] * seen.var()))  # noqa: PLW2901
                rival.fit(seen)
                val, test = (
                    metrics.auroc(-rival.decision_function(x), anomalous)
                    for x, anomalous in (inputs["val"], inputs["test"])
                )
                best[name] = max(best.get(name, (0.0, 0.0)), (val, test))
    return {name: {"auroc": test} for name, (_, test) in best.items()}


ROWS = [
    Row("breast-cancer", "accuracy", "max", breast_cancer, above=("logistic regression",)),
    Row("digits", "accuracy", "max", digits, mark=0.98, above=("nearest neighbours", "support vector machine")),
    Row("digits-anomaly", "auroc", "max", digits_anomaly, above=("IsolationForest", "OneClassSVM")),
]


def plain(data: Data, split: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Inputs and class numbers as rivals want them: one row of numbers each."""
    rows, spec = data.splits[split], data.spec
    blocks = [
        tables.tensors(rows, column).reshape(len(rows), -1).numpy() / 255.0
        if column.kind == "tensor"
        else tables.numbers(rows, column.name)[:, None]
        for column in spec.columns
    ]
    return np.hstack(blocks), tables.labels(rows, str(spec.target), spec.classes)


def _settings(pipeline: str) -> Mapping[str, Any]:
    return params.load(Workspace.find()).pipelines[pipeline].settings
