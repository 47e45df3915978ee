"""A pipeline's champion beside its rivals on the same test rows: python -m benchmarks.quality NAME [--json FILE].

NAME is a pipeline that has been run (`tidemill run NAME`). Rivals learn here and now; nothing is typed in.
Exit code 1 if the champion misses its mark or a rival beats it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components import datasets, metrics, params, plan, registry, tables
from components.contract import Data, Metrics
from components.errors import TidemillError
from components.workspace import Workspace


@dataclass(frozen=True)
class Comparison:
    """What the champion is held to: `metric` (more is better) at least `mark` and at least what each rival reaches.
    What stands in `beside` is shown, and held to nothing."""

    metric: str
    rivals: dict[str, Metrics] = field(default_factory=dict)
    mark: float | None = None
    beside: dict[str, Metrics] = field(default_factory=dict)

    def missed(self, champion: Metrics) -> list[str]:
        wanted = {name: rival[self.metric] for name, rival in self.rivals.items()}
        if self.mark is not None:
            wanted["the mark"] = self.mark
        return [f"{name} ({value:.4f})" for name, value in wanted.items() if not champion[self.metric] >= value]


# ── one function a pipeline ─────────────────────────────────────────────────────────────────────────────


def breast_cancer(data: Data, _: Mapping[str, Any]) -> Comparison:
    """Logistic regression on standardised columns, its strength by default; beside it, one chosen on the val rows.
    How the two compare with the family when the rows are split anew: benchmarks/resplits.py."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def taught(strength: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000)).fit(*plain(data, "train"))

    usual = taught(1.0)
    chosen = max((taught(c) for c in (0.01, 0.1, 1.0, 10.0)), key=lambda rival: rival.score(*plain(data, "val")))
    return Comparison(
        "test/accuracy",
        {"logistic regression": _measured(usual, data)},
        beside={"logistic regression, tuned": _measured(chosen, data)},
    )


def digits(data: Data, _: Mapping[str, Any]) -> Comparison:
    """A support vector machine and nearest neighbours on the pixels."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    pixels, classes = plain(data, "train")
    rivals = {"nearest neighbours": KNeighborsClassifier(3), "support vector machine": SVC(C=10)}
    return Comparison(
        "test/accuracy", {name: _measured(rival.fit(pixels, classes), data) for name, rival in rivals.items()}, 0.98
    )


def digits_anomaly(data: Data, settings: Mapping[str, Any]) -> Comparison:
    """IsolationForest and OneClassSVM on the normal training rows: raw, standardised, and principal components, plain
    and whitened. Each is chosen from its grid by AUROC on the val rows, as the champion is."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import OneClassSVM

    normal = data.spec.classes.index(settings["normal"])
    rows = {split: plain(data, split) for split in ("train", "val", "test")}
    taught = rows["train"][0][rows["train"][1] == normal]
    views: list[Any] = [FunctionTransformer(), StandardScaler()]
    views += [PCA(size, whiten=white, random_state=0) for size in (16, 32, 64) for white in (False, True)]
    grids: dict[str, list[Any]] = {
        "IsolationForest": [
            IsolationForest(n_estimators=300, max_samples=most, max_features=share, random_state=0)
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
    return Comparison("test/auroc", {name: {"test/auroc": test} for name, (_, test) in best.items()})


def cartpole(data: Data, settings: Mapping[str, Any]) -> Comparison:
    """The random policy whose episodes are the dataset."""
    from components import families

    return Comparison("test/return", {"random policy": families.family("dqn").baseline(data, "test", settings)}, 475.0)


COMPARISONS: dict[str, Callable[[Data, Mapping[str, Any]], Comparison]] = {
    "breast-cancer": breast_cancer,
    "cartpole": cartpole,
    "digits": digits,
    "digits-anomaly": digits_anomaly,
}


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


def _measured(rival: Any, data: Data) -> Metrics:
    inputs, truth = plain(data, "test")
    if hasattr(rival, "predict_proba"):
        return metrics.classification("test", rival.predict_proba(inputs), truth)
    return {"test/accuracy": float(np.mean(rival.predict(inputs) == truth))}


def project(workspace: Workspace) -> plan.Project:
    """A project in which nothing is trained by stages."""
    from components.sweep import Watcher

    def nobody(_: str) -> Watcher:
        raise NotImplementedError("nothing is trained here")

    return plan.Project(workspace, params.load(workspace), lambda _: None, nobody)


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────


def compare(workspace: Workspace, name: str) -> tuple[Metrics, Comparison]:
    """The champion's metrics on the test rows, and the comparison. Raises TidemillError if there is no champion."""
    resolved = plan.resolve(project(workspace), name)
    data = datasets.load(workspace, resolved.block.dataset, resolved.expectations, resolved.spec.task)
    champion = registry.load_champion(workspace, name)
    return champion.evaluate(dict(data.splits), "test"), COMPARISONS[name](data, resolved.block.settings)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("name", choices=sorted(COMPARISONS))
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args()
    try:
        champion, comparison = compare(Workspace.find(), given.name)
    except TidemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, reached in ({"champion": champion} | comparison.rivals | comparison.beside).items():
        told = "  ".join(f"{metric.removeprefix('test/')} {value:.4f}" for metric, value in reached.items())
        print(f"{name:>28}: {told}")
    missed = comparison.missed(champion)
    mark = "no rival is better" + (f", at least {comparison.mark}" if comparison.mark is not None else "")
    print(f"{comparison.metric} (mark: {mark}): {'missed: below ' + ', '.join(missed) if missed else 'reached'}")
    if given.json:
        figures = {"champion": champion, **dataclasses.asdict(comparison), "missed": missed}
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
