"""Whether rows to score are like the rows that the model was trained on: feature by feature, by their bins.

A feature drifts if its population stability index is above the limit and, at the same time, a chi-squared test of
homogeneity, corrected for the number of features, finds the two samples different. The index says that the
difference is large (Siddiqi 2006, "Credit risk scorecards"; its limit should grow as samples shrink: Yurdakul 2018,
"Statistical properties of population stability index"), the test that it is not luck: so neither few rows nor many cry
wolf. Holm 1979, "A simple sequentially rejective multiple test procedure". Univariate tests with a correction, on
what a net makes of its inputs: Rabanser et al. 2019, "Failing loudly".

Legend: K bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .. import profile as profiles
from ..contract import Json
from ..profile import Counts

FORMAT = 1
EXPECTED = 5  # rows that a cell of the test must be expected to hold (Cochran 1954); rarer bins go together
_DIGITS = 6


@dataclass(frozen=True)
class Terms:
    """When inputs count as drifted. `block`: then nothing is delivered."""

    limit: float = 0.25
    alpha: float = 0.01
    block: bool = False


def compare(profile: Json, counts: Counts, terms: Terms) -> dict[str, Json]:
    """Every feature's index and p-values, the most drifted first, and the names of those that drift."""
    features = profile["features"]
    names = list(counts)
    p_values = [p_value(features[n]["counts"], counts[n]) for n in names]
    told = [
        _told(name, features[name], counts[name], p, corrected, terms)
        for name, p, corrected in zip(names, p_values, holm(p_values), strict=True)
    ]
    told.sort(key=lambda one: (not one["drifts"], -one["psi"], one["feature"]))
    return {
        "format": FORMAT,
        "limit": terms.limit,
        "alpha": terms.alpha,
        "rows_compared": max((sum(c) for c in counts.values()), default=0),
        "drifting": [one["feature"] for one in told if one["drifts"]],
        "psi_max": max((one["psi"] for one in told), default=0.0),
        "features": told,
    }


def said(result: Mapping[str, Json], most: int = 3) -> str:
    """The worst of the drifting features with their index, in a line."""
    drifting = [one for one in result["features"] if one["drifts"]]
    worst = ", ".join(f"{one['feature']} (PSI {one['psi']:.2f})" for one in drifting[:most])
    more = f" and {len(drifting) - most} more" if len(drifting) > most else ""
    return f"{worst}{more}; the limit is {result['limit']:g}"


def _told(name: str, feature: Json, counts: Sequence[int], p: float, corrected: float, terms: Terms) -> dict[str, Json]:
    index = stability_index(feature["counts"], counts)
    told = {"feature": name, "of": feature["of"], "psi": _short(index), "p": _short(p), "p_holm": _short(corrected)}
    told["drifts"] = bool(index > terms.limit and corrected < terms.alpha)
    if told["drifts"]:
        before, now = _shares(feature["counts"]), _shares(counts)
        at = int(np.abs(now - before).argmax())
        told["most"] = {"bin": profiles.name_of(feature, at), "trained": _short(before[at]), "now": _short(now[at])}
    return told


def stability_index(trained: Sequence[int], now: Sequence[int]) -> float:
    """Σ (q - p) ln(q / p) over the bins; half a row more in each, so that an empty one is not infinitely far."""
    filled = (np.array(trained) + np.array(now)) > 0
    if not sum(now) or not sum(trained):
        return 0.0
    p_K, q_K = _shares(np.array(trained)[filled] + 0.5), _shares(np.array(now)[filled] + 0.5)
    return float(((q_K - p_K) * np.log(q_K / p_K)).sum())


def p_value(trained: Sequence[int], now: Sequence[int]) -> float:
    """Of Pearson's chi-squared test that both samples fall into the bins with the same probabilities."""
    a_K, b_K = np.array(trained, np.float64), np.array(now, np.float64)
    if not a_K.sum() or not b_K.sum():
        return 1.0
    cells = _cells(a_K + b_K, min(a_K.sum(), b_K.sum()) / (a_K.sum() + b_K.sum()))
    if cells.max() == 0:
        return 1.0
    a_C, b_C = np.bincount(cells, a_K), np.bincount(cells, b_K)
    ratio = np.sqrt(b_K.sum() / a_K.sum())
    statistic = float(((a_C * ratio - b_C / ratio) ** 2 / (a_C + b_C)).sum())
    half = torch.tensor([cells.max() / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected so that the chance of any false one among them stays below what is read off each."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.array(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(order) else stepped
    found: list[float] = corrected.tolist()
    return found


def _cells(together_K: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """The cell of each bin: neighbours go together until the smaller sample may expect EXPECTED rows in each.
    Neighbours and not the rarest, since those are picked by the very luck that is tested."""
    cells, cell, held = np.zeros(len(together_K), np.int64), 0, 0.0
    for at, expected in enumerate(together_K * share):
        cells[at], held = cell, held + expected
        if held >= EXPECTED and together_K[at + 1 :].sum() * share >= EXPECTED:
            cell, held = cell + 1, 0.0
    return cells


def _shares(counts: Sequence[int] | NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.asarray(counts, np.float64) / max(np.sum(counts), 1)
    return found


def _short(value: float) -> float:
    """Rounded: the last bits are no news, and JSON stays short."""
    return float(f"{value:.{_DIGITS}g}")
