"""The gate: whether a new version becomes champion.

It must beat the family's trivial baseline, and the present champion measured again on the same test rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import pyarrow as pa

from ..contract import Metrics, Objective
from ..errors import ParamsError, RegistryError, TidemillError
from ..model import Model
from ..params import Gate

Splits: TypeAlias = dict[str, pa.Table]


@dataclass(frozen=True)
class Decision:
    """What the gate said, on `metric` (test/…). `champion_version` and `champion_value` are the champion that was
    there before and what it reaches on the same rows; None if there was none."""

    promoted: bool
    reason: str
    metric: str
    value: float
    baseline: float
    champion_version: int | None
    champion_value: float | None


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
    """What a candidate is held to. `baseline`: what the trivial rival of its family reaches on the test rows."""

    objective: Objective
    margin: float
    baseline: Metrics

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
        return cls(judged, gate.margin, baseline)


def decide(made: Model, rival: Rival | None, splits: Splits, terms: Terms) -> Decision:
    """Measure the candidate and the champion on the test rows, and say which is to be champion and why.

    Raises RegistryError if the champion cannot be loaded or measured: it is never replaced unseen.
    """
    metric = f"test/{terms.objective.metric}"
    value = measure(made, splits, metric)
    floor = terms.baseline[metric]
    same = rival is not None and rival.weights_sha256 == made.weights_sha256
    best = None
    if rival:
        best = value if same else _measure_champion(rival, splits, metric)
    promoted, reason = _verdict(metric, value, rival, best, terms)
    if same and rival:
        promoted, reason = False, f"its weights are those of the champion, version {rival.version}"
    return Decision(promoted, reason, metric, value, floor, rival.version if rival else None, best)


def _verdict(metric: str, value: float, rival: Rival | None, best: float | None, terms: Terms) -> tuple[bool, str]:
    better, floor = terms.objective.better, terms.baseline[metric]
    said = f"{metric} {value:.6g}"
    if not better(value, floor):
        return False, f"{said} does not beat the baseline {floor:.6g}"
    if rival is None or best is None:
        return True, f"{said} beats the baseline {floor:.6g}, and there was no champion"
    shifted = value - terms.margin if terms.objective.mode == "max" else value + terms.margin
    margin = f" by more than {terms.margin:g}" if terms.margin else ""
    promoted = better(shifted, best)
    return (
        promoted,
        f"{said} {'beats' if promoted else 'does not beat'} champion version {rival.version} ({best:.6g}){margin}",
    )


def measure(made: Model, splits: Splits, metric: str) -> float:
    """One metric of a model on the test rows. Raises ParamsError if its family does not know the metric."""
    return _known(metric, made.evaluate(splits, "test"), "the family does not measure it")


def _measure_champion(rival: Rival, splits: Splits, metric: str) -> float:
    made = rival.open()
    try:
        return measure(made, splits, metric)
    except ParamsError:
        raise
    except Exception as error:
        raise RegistryError(
            f"the present champion, version {rival.version}, cannot be measured on the new test rows",
            why=error.what if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}",
            fix=rival.way_out,
        ) from error


def _known(metric: str, metrics: Metrics, why: str) -> float:
    if metric in metrics:
        return metrics[metric]
    names = ", ".join(name.partition("/")[2] for name in sorted(metrics))
    raise ParamsError(f"no metric {metric!r} for the gate", why=why, fix=f"set gate.metric to one of {names}")
