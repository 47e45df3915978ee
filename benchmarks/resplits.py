"""A family beside logistic regression on many splits of one table: python benchmarks/resplits.py [--splits N].

One small test split says little: two rows of breast-cancer's 113 are 1.8 points. Here all rows are split anew N
times (60/20/20, seeded); each time both are chosen on the val rows and measured on the same test rows. The family
gets the configurations of the pipeline's own search, all epochs each, by loss; logistic regression gets five strengths,
by accuracy and by loss.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.rows.starters import plain
from benchmarks.trained import data_of, resolved
from components import metrics
from components.contract import Data, State
from components.plan import Resolved
from components.tuning.configurations import Sampler, defaults

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)


def split(data: Data, seed: int) -> Data:
    """The same rows, split anew."""
    rows = pa.concat_tables(data.splits.values()).combine_chunks()
    order = np.random.default_rng(seed).permutation(len(rows))
    test, val, train = np.split(order, [len(rows) // 5, 2 * (len(rows) // 5)])
    return Data(data.spec, {"train": rows.take(train), "val": rows.take(val), "test": rows.take(test)})


def family_accuracy(resolved: Resolved, data: Data) -> float:
    """Test accuracy of the best epoch, by val loss, of the configurations that the pipeline's sweep draws."""
    family, block = resolved.family, resolved.block
    domains = block.search.domains(family.search_space(data.spec), block.settings)
    sampler = Sampler(domains, block.settings, defaults(family.Settings), resolved.project.params.seed)
    drawn = [sampler.first()]
    while len(drawn) < block.search.trials and (more := sampler.draw(drawn)):
        drawn.append(more)
    best: tuple[float, dict[str, Any], State] | None = None
    for hyper in drawn:
        for number, epoch in enumerate(family.fit(data, hyper, resolved.project.params.seed), 1):
            loss = epoch.metrics["val/loss"]
            if best is None or loss < best[0]:
                best = (loss, dict(hyper), epoch.state())
            if number == block.search.epochs:
                break
    assert best is not None
    net = family.load(data.spec, best[1], best[2])
    return family.measure(data.spec, family.judge(net, data, "test"), "test")["test/accuracy"]


def regression_accuracies(data: Data) -> dict[str, float]:
    """Test accuracy of logistic regression by default, and with the strength chosen on the val rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = {name: plain(data, name) for name in ("train", "val", "test")}
    taught = {
        c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=10_000)).fit(*rows["train"])
        for c in STRENGTHS
    }
    inputs, truth = rows["val"]
    reached = {c: metrics.classification("val", rival.predict_proba(inputs), truth) for c, rival in taught.items()}
    by_accuracy = max(STRENGTHS, key=lambda c: reached[c]["val/accuracy"])
    by_loss = min(STRENGTHS, key=lambda c: reached[c]["val/loss"])
    chosen = {"by default": 1.0, "chosen by val accuracy": by_accuracy, "chosen by val loss": by_loss}
    return {f"logistic regression, {name}": float(taught[c].score(*rows["test"])) for name, c in chosen.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/resplits.py", description=__doc__)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--pipeline", default="breast-cancer")
    given = parser.parse_args()
    if given.splits < 2:
        parser.error("a mean with an error needs two splits or more")
    pipeline = resolved(given.pipeline)
    data, family = data_of(pipeline), pipeline.block.family
    found: dict[str, list[float]] = {}
    for seed in range(given.splits):
        resplit = split(data, seed)
        reached = {family: family_accuracy(pipeline, resplit), **regression_accuracies(resplit)}
        for name, value in reached.items():
            found.setdefault(name, []).append(value)
        print(f"{seed + 1}/{given.splits}", "  ".join(f"{value:.4f}" for value in reached.values()), file=sys.stderr)
    ours = np.array(found[family])
    print(f"test accuracy, mean of {given.splits} splits of {given.pipeline}; difference to {family}")
    for name, values in found.items():
        apart = ours - np.array(values)
        error = apart.std(ddof=1) / len(apart) ** 0.5
        print(f"{name:>44}: {np.mean(values):.4f}   {apart.mean():+.4f} ± {error:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
