"""A sweep's outcome as a page to read: what won, by how much, whether it learnt by heart, and what else was tried."""

from __future__ import annotations

import base64
import html as markup
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..contract import Metrics, Objective
from ..sweep import Trial, measure_seeds, searched

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#1a1a1a;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .9rem .25rem 0;text-align:left;"
    "border-bottom:1px solid #ddd;vertical-align:top}th{font-weight:600}img{max-width:100%;margin:.5rem 0}"
)

_WHOLE = (
    "Epoch and val figures are of a net that learnt from train rows alone. Served is a second one (whole: true), which "
    "learnt from train and val rows together, from the epoch of its own lowest training loss: no row but the test rows "
    "can say how good it is."
)


@dataclass(frozen=True)
class Outcome:
    """A finished sweep. `metrics` and `baseline` are of the test rows."""

    pipeline: str
    objective: Objective
    best: Trial
    trials: Sequence[Trial]
    metrics: Metrics
    baseline: Metrics


def markdown(outcome: Outcome) -> str:
    """The short table, how far train and val rows are apart, and how far seeds are."""
    head, *rows = _result(outcome)
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    said = [text for text in (_apart(outcome.best), _by_seeds(outcome)) if text]
    return "\n".join([*lines, *(line for text in said for line in ("", text))]) + "\n"


def html(outcome: Outcome, pictures: Sequence[Path] = ()) -> str:
    """The whole page, pictures inside it."""
    best = outcome.best
    hyper = [["setting", "value"], *([name, str(value)] for name, value in sorted(best.hyper.items()))]
    body = [
        f"<h1>{markup.escape(outcome.pipeline)}</h1>",
        f"<p>Trial {best.key[:8]}, epoch {best.best_epoch} of {len(best.curve)}, "
        f"val/{outcome.objective.metric} {best.best:.6g}. {_apart(best)}</p>",
        _table(_result(outcome)),
        "<h2>Best configuration</h2>",
        _table(hyper),
        *_seeds(outcome),
        *(_picture(picture) for picture in pictures),
        "<h2>Trials</h2>",
        _table(list(_trials(outcome))),
    ]
    head = f"<meta charset='utf-8'><title>{markup.escape(outcome.pipeline)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _apart(best: Trial) -> str:
    """How much worse val rows are off than train rows in the best epoch: whether the net has learnt them by heart.
    Nothing where a family does not tell both losses. With `whole` (training.Lesson) another net is served."""
    whole = best.hyper.get("whole") is True
    told = best.curve[best.best_epoch - 1] if 0 < best.best_epoch <= len(best.curve) else {}
    if not {"train/loss", "val/loss"} <= told.keys():
        return _WHOLE if whole else ""
    train, val = told["train/loss"], told["val/loss"]
    apart = (
        f"In that epoch train/loss was {train:.4g} and val/loss {val:.4g}: apart by {val - train:+.4g}. "
        "What regularises (dropout, augmentation, smoothed labels) makes the first worse, never the second."
    )
    return f"{apart} {_WHOLE}" if whole else apart


def _by_seeds(outcome: Outcome) -> str:
    """How far seeds are apart; nothing unless there are several, and which have failed."""
    again = [trial for trial in outcome.trials if trial.seed is not None]
    if not again:
        return ""
    failed = sum(trial.status == "failed" for trial in again)
    said = [f"{failed} of {len(again)} other seeds failed."] if failed else []
    if told := measure_seeds(outcome.best, outcome.trials):
        said.insert(
            0,
            f"With {told['seeds/count']:.0f} seeds the best configuration comes to val/{outcome.objective.metric} "
            f"{told['seeds/mean']:.6g} ± {told['seeds/std']:.3g} (mean, standard deviation).",
        )
    return " ".join(said)


def _seeds(outcome: Outcome) -> list[str]:
    """The best configuration with other seeds; nothing where it was learnt with one."""
    again = sorted((t for t in outcome.trials if t.seed is not None), key=lambda trial: trial.seed or 0)
    if not again:
        return []
    rows = [["seed", "status", "epochs", f"best val/{outcome.objective.metric}", "error"]]
    rows += [[str(t.seed), t.status, str(len(t.curve)), f"{t.best:.6g}", t.error or "–"] for t in again]
    return ["<h2>The same with other seeds</h2>", f"<p>{markup.escape(_by_seeds(outcome))}</p>", _table(rows)]


def _result(outcome: Outcome) -> list[list[str]]:
    rows = [["metric", "model", "trivial baseline"]]
    for name, value in sorted(outcome.metrics.items()):
        rows.append([name, f"{value:.6g}", f"{outcome.baseline[name]:.6g}" if name in outcome.baseline else "–"])
    return rows


def _trials(outcome: Outcome) -> Iterator[list[str]]:
    settings = sorted({name for trial in outcome.trials for name in trial.hyper})
    yield ["trial", "status", "epochs", f"best val/{outcome.objective.metric}", *settings]
    for trial in sorted(searched(outcome.trials), key=lambda t: (outcome.objective.key(t.best), t.key)):
        values = [_short(trial.hyper.get(name, "")) for name in settings]
        yield [trial.key[:8], trial.status, str(len(trial.curve)), f"{trial.best:.6g}", *values]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = ["".join(f"<th>{markup.escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{markup.escape(cell)}</td>" for cell in row) for row in rest]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _picture(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f"<img alt='{markup.escape(file.stem)}' src='data:image/png;base64,{data}'>"
