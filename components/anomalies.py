"""What families that find anomalies share: which rows are normal, the threshold, what came of each row, the trivial
rival, and anomalies made of normal val rows where the split holds none.

No label but "normal" may enter the weights. Labelled anomalies of val choose among trials and epochs. Where val has
none, a copy of each of its rows is corrupted and stands for one, as in Goswami et al. 2023, "Unsupervised model
selection for time-series anomaly detection". They are like no anomaly in particular: so they choose, and figures of
test rows are always of labelled ones.

Legend: N rows of a split, C channels, … the sides of a row: T steps, or H height and W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from . import metrics
from .contract import Data, Metrics, Objective, Outcomes, Spec
from .errors import DataError, ParamsError
from .tables import labels

Mask: TypeAlias = NDArray[np.bool_]
Scores: TypeAlias = NDArray[np.float32]

OBJECTIVE = Objective("auroc", "max")
OUTPUTS = pa.schema([("anomaly_score", pa.float32()), ("anomaly", pa.bool_())])
SHORTEST, LONGEST = 0.1, 0.4  # a corrupted stretch, as shares of a row's side


# ── what is normal ──────────────────────────────────────────────────────────────────────────────────────


def anomalous(data: Data, split: str, normal: str) -> Mask:
    """Which rows are of another class than the normal one. Raises ParamsError if the data has no class of that name."""
    spec = data.spec
    if normal not in spec.classes or spec.target is None:
        raise ParamsError(
            f"setting 'normal' got {normal!r}, expected a class of {spec.dataset}",
            fix=f"settings: {{normal: …}}, one of {', '.join(spec.classes)}",
        )
    found: Mask = labels(data.splits[split], spec.target, spec.classes) != spec.classes.index(normal)
    return found


def learnable(data: Data, normal: str) -> pa.Table:
    """The normal training rows. Raises DataError if there are fewer than two."""
    found = data.splits["train"].filter(pa.array(~anomalous(data, "train", normal)))
    if len(found) < 2:
        raise DataError(f"{len(found)} training rows of class {normal!r}", where=data.spec.dataset)
    return found


def threshold(score_N: Scores, anomalous_N: Mask, false_alarms: float) -> float:
    """The score above which a row is called an anomaly: at most the share `false_alarms` of the normal rows are.
    Raises DataError if none is normal."""
    normal_N = np.sort(score_N[~anomalous_N])
    if not len(normal_N):
        fault = f"split 'val' holds 0 normal rows and {len(score_N)} anomalies"
        raise DataError(fault, fix="a threshold is chosen by normal rows: add some, or name another class as `normal`")
    return float(normal_N[-1 - min(int(false_alarms * len(normal_N)), len(normal_N) - 1)])


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────


def outcomes(score_N: Scores, anomalous_N: Mask, threshold: float, near: int = 0) -> Outcomes:
    """What came of each row. With `near`, rows are taken for windows of one series in its order, and those that lie at
    most so many rows from an anomaly are marked: where the highest score may be."""
    found = {"score": score_N, "anomalous": anomalous_N, "flagged": score_N > threshold}
    if near:
        reach_N = np.convolve(anomalous_N.astype(np.int64), np.ones(2 * near + 1, np.int64))
        found["near"] = reach_N[near : near + len(anomalous_N)] > 0
    return found


def measure(spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
    """Of the scores: split/auroc, split/average_precision and split/loss, the mean score of normal rows. Of the
    threshold: split/false_alarm_rate and split/detection_rate, the shares of normal rows and of anomalies above it.
    Where outcomes say what is near an anomaly, split/hit: whether the row of the highest score is (Wu & Keogh 2021,
    "Current time series anomaly detection benchmarks are flawed"). Raises DataError unless rows are of both kinds.
    """
    score_N, anomalous_N, flagged_N = outcomes["score"], outcomes["anomalous"], outcomes["flagged"]
    if not anomalous_N.any() or anomalous_N.all():
        fault = f"split {split!r} holds {(~anomalous_N).sum()} normal rows and {anomalous_N.sum()} anomalies"
        raise DataError(fault, where=spec.dataset, fix="it needs both: name another class as `normal`, or add rows")
    found = metrics.detection(split, score_N, anomalous_N) | {
        f"{split}/loss": float(score_N[~anomalous_N].mean()),
        f"{split}/false_alarm_rate": float(flagged_N[~anomalous_N].mean()),
        f"{split}/detection_rate": float(flagged_N[anomalous_N].mean()),
    }
    if "near" in outcomes:
        highest = outcomes["near"][score_N == score_N.max()]  # all of them: a tie is no matter of the rows' order
        found[f"{split}/hit"] = float(highest.mean())
    return found


class Detector(Protocol):
    """A net that knows the score above which a row is an anomaly."""

    threshold: torch.Tensor


Net = TypeVar("Net", bound=Detector)


def evaluation(
    data: Data, normal: str, false_alarms: float, val_NC: torch.Tensor, scores: Callable[[Net, torch.Tensor], Scores]
) -> Callable[[Net], Metrics]:
    """What gives a net its threshold by its `scores` of val rows (N × C × …), made anomalies among them if there are no
    others, and measures it by them: the metrics that trials and epochs are chosen by."""
    val_NC, anomalous_N = chosen_by(val_NC, anomalous(data, "val", normal))

    def evaluate(net: Net) -> Metrics:
        score_N = scores(net, val_NC)
        highest = threshold(score_N, anomalous_N, false_alarms)
        net.threshold.fill_(highest)
        return measure(data.spec, outcomes(score_N, anomalous_N, highest), "val")

    return evaluate


def baseline(data: Data, split: str, normal: str, x_NC: torch.Tensor, normal_NC: torch.Tensor) -> Metrics:
    """Of the squared distance from the mean of the normal training rows (N × C × …, scaled as the split's are)."""
    score_N = (x_NC - normal_NC.mean(0)).square().flatten(1).mean(1)
    return {f"{split}/auroc": metrics.auroc(score_N.numpy(), anomalous(data, split, normal))}


def scored(score_N: Scores, threshold: float) -> pa.RecordBatch:
    """What a family scores: the columns of OUTPUTS."""
    return pa.RecordBatch.from_arrays([pa.array(score_N), pa.array(score_N > threshold)], schema=OUTPUTS)


# ── made anomalies ──────────────────────────────────────────────────────────────────────────────────────


def chosen_by(x_NC: torch.Tensor, anomalous_N: Mask) -> tuple[torch.Tensor, Mask]:
    """The rows that trials and epochs are chosen by, and which of them are anomalies: val rows (N × C × …) as they
    are, or, if none is an anomaly, each of them and a corrupted copy of each. The same for every trial."""
    if anomalous_N.any():
        return x_NC, anomalous_N
    return torch.cat([x_NC, corrupted(x_NC)]), np.repeat([False, True], len(x_NC))


def corrupted(x_NC: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A copy of each row (N × C × …, on the CPU) in which one stretch, of a tenth to four tenths of each side, runs
    backwards, is flat, lies higher or lower, or is noise: one after the other. Torch's generator is not touched."""
    draw = np.random.default_rng(seed)
    made_NC = x_NC.clone()
    if not made_NC.numel():
        return made_NC
    deviation = float(x_NC.float().std(correction=0)) or 1.0
    for number, row_C in enumerate(made_NC):
        box = row_C[(slice(None), *(_stretch(side, draw) for side in row_C.shape[1:]))]
        box.copy_(_CORRUPTIONS[number % len(_CORRUPTIONS)](box, deviation, draw))
    return made_NC


def _stretch(side: int, draw: np.random.Generator) -> slice:
    length = min(side, max(2, round(side * draw.uniform(SHORTEST, LONGEST))))
    start = int(draw.integers(0, side - length + 1))
    return slice(start, start + length)


def _backwards(box_C: torch.Tensor, deviation: float, draw: np.random.Generator) -> torch.Tensor:  # noqa: ARG001
    return box_C.flip(-1)


def _flat(box_C: torch.Tensor, deviation: float, draw: np.random.Generator) -> torch.Tensor:  # noqa: ARG001
    mean = box_C.float().mean(tuple(range(1, box_C.ndim)), keepdim=True)
    return mean.to(box_C.dtype).expand_as(box_C)


def _shifted(box_C: torch.Tensor, deviation: float, draw: np.random.Generator) -> torch.Tensor:
    return _moved(box_C, deviation * draw.uniform(0.5, 2.0) * draw.choice([-1.0, 1.0]))


def _noisy(box_C: torch.Tensor, deviation: float, draw: np.random.Generator) -> torch.Tensor:
    noise_C = torch.from_numpy(draw.normal(0, deviation * draw.uniform(0.5, 1.5), tuple(box_C.shape)))
    return _moved(box_C, noise_C.float())


def _moved(box_C: torch.Tensor, by: torch.Tensor | float) -> torch.Tensor:
    """In whole numbers for whole numbers, and within what their type holds."""
    moved_C = box_C.float() + by
    if not box_C.dtype.is_floating_point:
        kind = torch.iinfo(box_C.dtype)
        moved_C = moved_C.round().clamp(kind.min, kind.max)
    return moved_C.to(box_C.dtype)


_CORRUPTIONS: tuple[Callable[[torch.Tensor, float, np.random.Generator], torch.Tensor], ...] = (
    _backwards,
    _flat,
    _shifted,
    _noisy,
)
