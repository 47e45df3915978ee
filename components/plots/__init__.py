"""What a trained model looks like: curves of its sweep, its errors by the task's kind, its worst test rows.

PNG for people, csv for `dvc plots`. What is drawn follows from the task, never from the family.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from ..contract import Data, Objective, Spec, Task
from ..model import Model
from ..sweep import Trial, same_again, searched
from ..tables import labels
from ..tensors import is_image, is_series
from . import codes, control, figures, samples

BATCH_ROWS, WORST, TEXTS, GROUPS = 8192, 24, 12, 12
WRITTEN = 512  # test rows that are looked at where each is written for
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Seen:
    """Test rows and what the model makes of them. `named` says which they are, `data` is what they are from. `trials`
    are the sweep's, its best first, ranked by `objective`, and replicas last."""

    model: Model
    data: Data
    rows: pa.Table
    scored: pa.Table
    title: str
    named: str
    trials: Sequence[Trial]
    objective: Objective

    @property
    def spec(self) -> Spec:
        return self.data.spec

    def truth(self) -> NDArray[np.int64]:
        """The classes of the rows, by number."""
        return labels(self.rows, self.spec.target or "", self.spec.classes)

    def floats(self, name: str) -> Floats:
        return np.asarray(self.scored[name].to_numpy(), np.float64)

    def losses(self) -> Floats:
        """Of each row, as its family measures it."""
        outcomes = self.model.judge({"test": self.rows}, "test")
        each = ({name: array[at : at + 1] for name, array in outcomes.items()} for at in range(self.rows.num_rows))
        return np.array([self.model.measure(one, "test").get("test/loss", np.nan) for one in each], np.float64)


def draw(
    folder: Path, model: Model, data: Data, trials: Sequence[Trial], objective: Objective, name: str = ""
) -> list[Path]:
    """Write the plots of a sweep and of its best trial, the first of `trials`; returns the files, sorted.

    `name` is the pipeline's, for the titles; by default the dataset's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = name or data.spec.dataset
    _curves(folder, model, data, trials, objective, title)
    if data.spec.task in _BY_TASK:
        rows = _LOOKED_AT.get(data.spec.task, lambda every: every)(data.splits["test"])
        named = "test rows" if rows.num_rows == data.splits["test"].num_rows else f"first {rows.num_rows} test rows"
        seen = Seen(model, data, rows, _score(model, rows), title, named, trials, objective)
        _BY_TASK[data.spec.task](folder, seen)
    return sorted(file for file in folder.iterdir() if file.is_file())


def _score(model: Model, rows: pa.Table) -> pa.Table:
    inputs = rows.select([column.name for column in model.spec.columns])
    scored = [model.score(batch) for batch in inputs.to_batches(max_chunksize=BATCH_ROWS)]
    return pa.Table.from_batches(scored, model.outputs())


# ── the sweep ───────────────────────────────────────────────────────────────────────────────────────────


def _curves(folder: Path, model: Model, data: Data, trials: Sequence[Trial], objective: Objective, title: str) -> None:
    best, metric, rivals = trials[0], f"val/{objective.metric}", searched(trials)
    _write_csv(folder / "curves.csv", _table_of(best))
    shown, again = (
        [[m.get(metric, float("nan")) for m in trial.curve] for trial in some if trial.curve]
        for some in (rivals, same_again(best, trials)[1:])
    )
    other = [name for name in ("train/loss", "val/loss") if any(name in m for m in best.curve) and name != metric]
    made = figures.figure(10 if other else 6.5, 4.2, f"{title}: {metric} by epoch, {len(rivals)} trials")
    panels: Any = made.subplots(1, 2 if other else 1, squeeze=False)[0]
    figures.curves(panels[0], shown[1:], shown[0] if shown else [], best.best_epoch, again)
    floor = model.family.baseline(data, "val", model.hyper).get(metric)
    low, high = panels[0].get_ylim()
    if floor is not None and low <= floor <= high:
        panels[0].axhline(floor, color=figures.ORANGE, linestyle="--", linewidth=1.2, label="trivial baseline")
    figures.epochs(panels[0], f"{metric} ({'more' if objective.mode == 'max' else 'less'} is better)")
    if other:
        _losses(panels[1], best, [*other, *([metric] if metric == "val/loss" else [])])
    figures.save(made, folder / "learning_curves.png")


def _losses(axes: Any, best: Trial, names: Sequence[str]) -> None:
    colours = {"train/loss": figures.GREEN, "val/loss": figures.BLUE}
    values = []
    for name in sorted(names):
        curve = [m.get(name, float("nan")) for m in best.curve]
        axes.plot(range(1, len(curve) + 1), curve, color=colours[name], linewidth=2, label=name)
        values += curve
    axes.set_ylim(*figures.spread(np.array(values)))
    figures.epochs(axes, "loss of the best trial")


def _table_of(trial: Trial) -> list[list[Any]]:
    names = sorted({name for metrics in trial.curve for name in metrics})
    rows = [[step, *(metrics.get(name, "") for name in names)] for step, metrics in enumerate(trial.curve, 1)]
    return [["step", *names], *rows]


# ── by task ─────────────────────────────────────────────────────────────────────────────────────────────


def _classification(folder: Path, seen: Seen) -> None:
    classes, truth_N = list(seen.spec.classes), seen.truth()
    actual, predicted = [classes[i] for i in truth_N], seen.scored["class"].to_pylist()
    _write_csv(folder / "confusion.csv", [["actual", "predicted"], *zip(actual, predicted, strict=True)])
    counts_KK = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts_KK, (truth_N, np.array([classes.index(p) for p in predicted])), 1)
    right = float(np.trace(counts_KK)) / max(1, len(actual))
    side = 4.6 if len(classes) <= 4 else 6.4
    made = figures.figure(side + 1, side, f"{seen.title}: test accuracy {right:.4f}, {len(actual)} rows")
    figures.confusion(made, counts_KK, classes)
    figures.save(made, folder / "confusion.png")
    names = [f"probability_{name}" for name in classes]
    if not set(names) <= set(seen.scored.column_names):
        return
    probability_NK = np.stack([seen.floats(name) for name in names], 1)
    if len(classes) == 2:
        made = figures.figure(5.6, 5.6, f"{seen.title}: calibration on the test rows")
        figures.calibration(made, probability_NK[:, 1], truth_N == 1, classes[1])
        figures.save(made, folder / "calibration.png")
    loss_N = -np.log(np.clip(probability_NK[np.arange(len(truth_N)), truth_N], 1e-7, 1))
    captions = [
        f"{a}, taken for {p} ({q:.2f})" for a, p, q in zip(actual, predicted, probability_NK.max(1), strict=True)
    ]
    _worst(folder, seen, {"actual": actual, "predicted": predicted, "loss": loss_N}, captions)


def _regression(folder: Path, seen: Seen) -> None:
    target = seen.spec.target or ""
    truth_N = np.asarray(pc.cast(seen.rows[target], pa.float64()).to_numpy(), np.float64)
    name = next(field.name for field in seen.scored.schema if pa.types.is_floating(field.type))
    predicted_N = seen.floats(name)
    rmse = float(np.sqrt(np.mean((predicted_N - truth_N) ** 2)))
    made = figures.figure(10, 4.4, f"{seen.title}: test rmse {rmse:.6g}, {len(truth_N)} rows")
    figures.residuals(made, predicted_N, truth_N, target)
    figures.save(made, folder / "residuals.png")
    captions = [f"{t:.4g}, predicted {p:.4g}" for t, p in zip(truth_N, predicted_N, strict=True)]
    shown = {"actual": truth_N, "predicted": predicted_N, "loss": np.abs(predicted_N - truth_N)}
    _worst(folder, seen, shown, captions)


def _anomaly(folder: Path, seen: Seen) -> None:
    name = next(field.name for field in seen.scored.schema if pa.types.is_floating(field.type))
    score_N, truth_N = seen.floats(name), seen.truth()
    actual = [seen.spec.classes[i] for i in truth_N]
    groups = {c: score_N[truth_N == i] for i, c in enumerate(seen.spec.classes)}
    groups = {c: values for c, values in groups.items() if len(values)}
    kept = dict(sorted(groups.items(), key=lambda group: (float(np.median(group[1])), group[0]))[:GROUPS])
    made = figures.figure(7, 1.6 + 0.7 * len(kept), f"{seen.title}: {name} of the test rows by {seen.spec.target}")
    figures.histograms(made, kept, name)
    figures.save(made, folder / "scores.png")
    _worst(
        folder,
        seen,
        {"actual": actual, "loss": score_N},
        [f"{a}: {s:.4g}" for a, s in zip(actual, score_N, strict=True)],
    )


def _text2text(folder: Path, seen: Seen) -> None:
    (source,), loss_N, score_N = seen.spec.columns, seen.losses(), seen.floats("score")
    texts = {source.name: seen.rows[source.name].to_pylist()}
    texts |= {"wanted": seen.rows[seen.spec.target].to_pylist(), "written": seen.scored["text"].to_pylist()}
    captions = [f"loss {loss:.3f} a token, score {score:.3f}" for loss, score in zip(loss_N, score_N, strict=True)]
    _worst(folder, seen, {**texts, "loss": loss_N, "score": score_N}, captions, ("wanted", "written"))


def _control(folder: Path, seen: Seen) -> None:
    for name, rows in control.draw(folder, seen):
        _write_csv(folder / name, rows)


def _representation(folder: Path, seen: Seen) -> None:
    probed = codes.draw(folder, seen.model, seen.data, seen.title)
    if probed:
        _write_csv(folder / "probe.csv", probed)
    name = next(field.name for field in seen.scored.schema if pa.types.is_floating(field.type))
    error_N = seen.floats(name)
    _worst(folder, seen, {"loss": error_N}, [f"{name.replace('_', ' ')} {error:.4g}" for error in error_N])


# Of the test rows those that are looked at, where all would be too many.
_LOOKED_AT: Mapping[Task, Callable[[pa.Table], pa.Table]] = {
    "text2text": lambda rows: rows.slice(0, WRITTEN),
    "generation": samples.spread,
}
_BY_TASK: Mapping[Task, Callable[[Path, Seen], None]] = {
    "classification": _classification,
    "regression": _regression,
    "anomaly": _anomaly,
    "text2text": _text2text,
    "control": _control,
    "representation": _representation,
    "generation": samples.draw,
}


# ── the worst rows ──────────────────────────────────────────────────────────────────────────────────────


def _worst(
    folder: Path,
    seen: Seen,
    shown: Mapping[str, Sequence[Any] | Floats],
    captions: Sequence[str],
    below: Sequence[str] = (),
) -> None:
    """The rows of the highest loss (or score): a table, and a picture if they are images, series or texts. `below`: of
    `shown`, what stands below each text."""
    order = np.argsort(-np.asarray(shown["loss"]), kind="stable")[:WORST]
    columns: dict[str, Any] = {"row": order}
    if seen.spec.id:
        columns[seen.spec.id] = seen.rows[seen.spec.id].take(pa.array(order))
    columns |= {name: [_short(values[i]) for i in order] for name, values in shown.items()}
    for column in seen.spec.columns:
        if column.kind != "tensor" and column.name not in columns:
            columns[column.name] = seen.rows[column.name].take(pa.array(order))
    pa_csv.write_csv(pa.table(columns), folder / "worst.csv")
    for looks_so, grid in ((is_image, figures.pictures), (is_series, figures.strips)):
        shown_as = [c for c in seen.spec.columns if c.kind == "tensor" and looks_so(c.shape, c.parts)]
        if len(shown_as) == 1:
            made = figures.figure(9.6, 7.2, f"{seen.title}: the {len(order)} of the {seen.named} with the highest loss")
            cells = seen.rows[shown_as[0].name].combine_chunks().take(pa.array(order)).to_numpy_ndarray()
            grid(made, list(cells), [captions[i] for i in order], columns=6)
            figures.save(made, folder / "worst.png")
            return
    if any(c.kind == "text" for c in seen.spec.columns):
        drawn = order[:TEXTS]
        title = f"{seen.title}: the {len(drawn)} of the {seen.named} with the highest loss"
        made = figures.figure(9.6, 9.6, title)
        more = [[f"{name}: {shown[name][i]}" for name in below] for i in drawn]
        figures.texts(made, _said(seen, drawn, more), [captions[i] for i in drawn])
        figures.save(made, folder / "worst.png")


def _said(seen: Seen, drawn: NDArray[np.int64], more: Sequence[Sequence[str]]) -> list[list[str]]:
    """The first text of these rows, and what else stands below each."""
    name = next(c.name for c in seen.spec.columns if c.kind == "text")
    said = seen.rows[name].take(pa.array(drawn)).to_pylist()
    return [[text or "", *others] for text, others in zip(said, more, strict=True)]


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float | np.floating) else value


def _write_csv(file: Path, rows: Sequence[Sequence[Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)
