"""The gate: whether a new version becomes champion, and on what evidence.

It must beat the family's trivial baseline, reach the floors of every slice, and be better than the present champion by
more than the margin. The two are measured on the same test rows (or the same episodes), and the difference is
bootstrapped in pairs (Efron & Tibshirani 1993, ch. 16; percentile interval): the lower end of its interval decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from ..contract import Json, Metrics, Objective, Outcomes
from ..errors import ParamsError, RegistryError, TidemillError
from ..model import Model
from ..params import Gate

Splits: TypeAlias = dict[str, pa.Table]
Interval: TypeAlias = tuple[float, float]
SEED, RESAMPLES = 0, 1000
UNBEATEN = "does not beat the baseline"  # in a decision's reason


@dataclass(frozen=True)
class Slice:
    """What the candidate reaches on the test rows with one value in one column, and what it must reach there."""

    column: str
    of: str
    rows: int
    value: float
    floor: float


@dataclass(frozen=True)
class Decision:
    """What the gate said, on `metric` (test/…). `champion_version` and `champion_value` are the champion that was
    there before and what it reaches on the same rows; None if there was none. `difference` is how much better the
    candidate is, in the direction that is better, and `interval` where it lies at the gate's confidence. `failed` are
    the slices below their floors. `intervals`: test metric → where it lies at the same confidence."""

    promoted: bool
    reason: str
    metric: str
    value: float
    baseline: float
    champion_version: int | None
    champion_value: float | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    failed: tuple[Slice, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Rival:
    """The present champion. `open` loads it, which is left undone where its weights are the candidate's own.
    `way_out` says what to do if it cannot be measured."""

    version: int
    weights_sha256: str
    open: Callable[[], Model]
    way_out: str


@dataclass(frozen=True)
class Terms:
    """What a candidate is held to. `objective`: the metric that decides and its direction. `baseline`: what the trivial
    rival of its family reaches on the test rows."""

    objective: Objective
    baseline: Metrics
    gate: Gate = field(default_factory=Gate)

    @classmethod
    def of(cls, gate: Gate, objective: Objective, baseline: Metrics) -> Terms:
        """The gate's own metric and direction where params.yaml gives them, else the family's objective.

        Raises ParamsError if the metric has no direction, or is none that the family's baseline measures.
        """
        if gate.metric not in (None, objective.metric) and gate.mode is None:
            raise ParamsError(
                f"got metric {gate.metric!r} without a mode, expected max or min",
                where="params.yaml gate",
                why=f"the family's objective is {objective.metric!r}, which says nothing of other metrics",
                fix="add gate.mode: max if more of it is better, else min",
            )
        judged = replace(objective, metric=gate.metric or objective.metric, mode=gate.mode or objective.mode)
        _known(f"test/{judged.metric}", baseline, "the family's baseline does not measure it")
        return cls(judged, baseline, gate)

    def require_floors(self, rows: pa.Table, why: str = "") -> None:
        """Raise ParamsError if a floor is for a column that the test rows lack, or for any, if `why` is said."""
        for column in sorted(self.gate.floors):
            if why or column not in rows.column_names:
                raise ParamsError(
                    f"got a floor for {column!r}, expected a column of the test rows",
                    where="params.yaml gate.floors",
                    why=why or f"columns: {rows.column_names}",
                )


def decide(made: Model, rival: Rival | None, splits: Splits, terms: Terms) -> Decision:
    """Measure the candidate and the champion on the test rows, and say which is to be champion and why.

    Raises RegistryError if the champion cannot be loaded or measured: it is never replaced unseen. Raises ParamsError
    if a floor's column is none of the test rows.
    """
    metric, outcomes = f"test/{terms.objective.metric}", made.judge(splits, "test")
    value, drawn = _value(made, outcomes, metric), _drawn(made, outcomes)
    intervals = {
        name: percentiles(_each(drawn, name), terms.gate.confidence) for name in made.measure(outcomes, "test")
    }
    told = Decision(False, "", metric, value, terms.baseline[metric], None, None, intervals=intervals)
    failed = tuple(s for s in _slices(made, outcomes, splits, terms) if not _reaches(s.value, s.floor, terms))
    if rival:
        if rival.weights_sha256 == made.weights_sha256:
            why = f"its weights are those of the champion, version {rival.version}"
            return replace(told, reason=why, champion_version=rival.version, champion_value=value, failed=failed)
        best, interval = _compared(_each(drawn, metric), rival, splits, terms)
        better = value - best if terms.objective.mode == "max" else best - value
        told = replace(told, champion_version=rival.version, champion_value=best, difference=better, interval=interval)
    told = replace(told, failed=failed)
    promoted, reason = _verdict(told, terms)
    return replace(told, promoted=promoted, reason=reason)


def _verdict(told: Decision, terms: Terms) -> tuple[bool, str]:
    said = f"{told.metric} {told.value:.6g}"
    if not terms.objective.better(told.value, told.baseline):
        return False, f"{said} {UNBEATEN} {told.baseline:.6g}"
    if told.failed:
        shown = [f"{s.column}={s.of} {s.value:.4g} ({s.rows} rows, floor {s.floor:g})" for s in told.failed]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        return False, f"{said}, but slices are below their floors: {', '.join(shown[:3])}{more}"
    if told.champion_value is None or told.difference is None or told.interval is None:
        return True, f"{said} beats the baseline {told.baseline:.6g}, and there was no champion"
    margin = f" by more than {terms.gate.margin:g}" if terms.gate.margin else ""
    low, high = told.interval
    # A champion without a figure of its own has nothing to lose.
    promoted = low > terms.gate.margin or (np.isnan(told.champion_value) and not np.isnan(told.value))
    return bool(promoted), (
        f"{said} {'beats' if promoted else 'does not beat'} champion version {told.champion_version} "
        f"({told.champion_value:.6g}){margin}: better by {told.difference:.4g}, "
        f"{terms.gate.confidence:.0%} interval {low:.4g} to {high:.4g}"
    )


def wanted(told: Mapping[str, Json], margin: float) -> list[str]:
    """What would have had to be different for a refused version to be promoted; `told` is its Decision as JSON."""
    lines: list[str] = []
    if told["promoted"]:
        return lines
    for below in told["failed"]:
        where = f"{told['metric']} on {below['column']}={below['of']}"
        lines.append(f"{where}: {below['floor']:g} or better, was {below['value']:.4g}")
    if UNBEATEN in told["reason"]:
        lines.append(f"{told['metric']} better than {told['baseline']:.6g}, was {told['value']:.6g}")
    if told["interval"] is None and told["champion_version"] is not None:
        lines.append("other weights than the champion's: other data, settings, code or seed")
    if told["interval"] is not None and told["interval"][0] <= margin:
        low, better = told["interval"][0], told["difference"]
        lines.append(
            f"the lower end of the difference's interval above {margin:g}, was {low:.4g}: a difference of about "
            f"{margin + better - low:.4g} on as many test rows, was {better:.4g}"
        )
        if better > margin:
            times = ((better - low) / (better - margin)) ** 2
            lines.append(f"or the same difference on about {times:.1f} times as many test rows")
    return lines


# ── evidence ────────────────────────────────────────────────────────────────────────────────────────────


def _compared(ours: np.ndarray, rival: Rival, splits: Splits, terms: Terms) -> tuple[float, Interval]:
    """(what the champion reaches, the interval of how much better the candidate is), on the same rows. `ours`: the
    candidate's figure in each draw."""
    metric, present = f"test/{terms.objective.metric}", rival.open()
    try:
        theirs = present.judge(splits, "test")
        best = _value(present, theirs, metric)
    except ParamsError:
        raise
    except Exception as error:
        raise RegistryError(
            f"the present champion, version {rival.version}, cannot be measured on the new test rows",
            why=error.what if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}",
            fix=rival.way_out,
        ) from error
    sign = 1.0 if terms.objective.mode == "max" else -1.0
    return best, percentiles(sign * (ours - _each(_drawn(present, theirs), metric)), terms.gate.confidence)


def redrawn(rows: int) -> Iterator[np.ndarray]:
    """Numbers of rows, drawn anew with replacement: the same for whoever is measured, so two are compared in pairs."""
    draw = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        yield draw.integers(0, rows, rows)


def _drawn(model: Model, outcomes: Outcomes) -> list[Metrics]:
    """The model's metrics in each draw; none of one that defines no figure, such as a draw without one of the
    classes."""
    found: list[Metrics] = []
    for rows in redrawn(_size(outcomes)):
        try:
            found.append(model.measure(_some(outcomes, rows), "test"))
        except TidemillError:
            found.append({})
    return found


def _each(drawn: Sequence[Metrics], metric: str) -> np.ndarray:
    return np.array([metrics.get(metric, float("nan")) for metrics in drawn])


def percentiles(figures: np.ndarray, confidence: float) -> Interval:
    """The percentile interval of a figure that each draw gave. Draws that define none are left out; NaN if all do."""
    defined = figures[~np.isnan(figures)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _slices(made: Model, outcomes: Outcomes, splits: Splits, terms: Terms) -> list[Slice]:
    """The candidate on each slice that has a floor and rows enough for a figure."""
    metric, rows, found = f"test/{terms.objective.metric}", splits["test"], []
    terms.require_floors(rows, "" if rows.num_rows == _size(outcomes) else "episodes are judged, not rows")
    for column, floor in sorted(terms.gate.floors.items()):
        values = np.array([str(value) for value in rows[column].to_pylist()])
        for of in sorted(set(values)):
            chosen = np.flatnonzero(values == of)
            if len(chosen) >= terms.gate.slice_rows:
                value = made.measure(_some(outcomes, chosen), "test").get(metric, float("nan"))
                found.append(Slice(column, of, len(chosen), value, floor))
    return found


def _reaches(value: float, floor: float, terms: Terms) -> bool:
    return value >= floor if terms.objective.mode == "max" else value <= floor


def _some(outcomes: Outcomes, rows: np.ndarray) -> Outcomes:
    return {name: array[rows] for name, array in outcomes.items()}


def _size(outcomes: Outcomes) -> int:
    return len(next(iter(outcomes.values())))


def _value(made: Model, outcomes: Outcomes, metric: str) -> float:
    """Raises ParamsError if the model's family does not know the metric."""
    return _known(metric, made.measure(outcomes, "test"), "the family does not measure it")


def _known(metric: str, metrics: Metrics, why: str) -> float:
    if metric in metrics:
        return metrics[metric]
    names = ", ".join(name.partition("/")[2] for name in sorted(metrics))
    raise ParamsError(f"no metric {metric!r} for the gate", why=why, fix=f"set gate.metric to one of {names}")
