"""Drift is called where it is large and no luck, and named by its column."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from components import profile
from components.scoring.drift import Terms, compare, holm, p_value, said, stability_index

COLUMNS = 200


def trained(draw: np.random.Generator, columns: int, rows: int = 3000) -> dict[str, dict[str, object]]:
    """Profiles of columns of three shapes: even, skewed with a spike and gaps, and few whole numbers."""
    return {f"x{i:03}": profile._bins(values(draw, i, rows)) | {"of": "column"} for i in range(columns)}


def values(draw: np.random.Generator, column: int, rows: int) -> np.ndarray:
    if column % 3 == 0:
        return draw.normal(size=rows)
    if column % 3 == 1:
        spiked = np.where(draw.random(rows) < 0.3, 0.0, draw.exponential(size=rows))
        return np.where(draw.random(rows) < 0.03, np.nan, spiked)
    return draw.poisson(3, rows).astype(np.float64)


def batch(
    draw: np.random.Generator, features: dict[str, dict[str, object]], rows: int, shift: dict[str, float]
) -> dict[str, list[int]]:
    counts = {}
    for i, (name, feature) in enumerate(features.items()):
        bins = profile.bin_of(feature, values(draw, i, rows) + shift.get(name, 0.0))
        counts[name] = np.bincount(bins, minlength=len(feature["counts"])).tolist()  # type: ignore[arg-type]
    return counts


def test_one_shifted_column_of_two_hundred_is_found_and_named() -> None:
    draw = np.random.default_rng(1)
    features = trained(draw, COLUMNS)
    for rows in (60, 1000):
        found = compare({"features": features}, batch(draw, features, rows, {"x042": 1.5}), Terms())
        assert found["drifting"] == ["x042"]
        assert found["features"][0]["most"]["now"] > 2 * found["features"][0]["most"]["trained"]
        assert said(found).startswith("x042 (PSI ")


@pytest.mark.parametrize("rows", [10, 40, 300])
def test_two_hundred_columns_without_drift_rarely_alarm(rows: int) -> None:
    """Batches of some columns stand for whole ones: the test is corrected for all, so alarms are at most `alpha`. With
    the index alone nearly every small batch would alarm."""
    draw, alarms, batches, bare = np.random.default_rng(2), 0, 60, 0
    features = trained(draw, COLUMNS)
    for _ in range(batches):
        found = compare({"features": features}, batch(draw, features, rows, {}), Terms())
        alarms += bool(found["drifting"])
        bare += found["psi_max"] > 0.25
    assert alarms <= 3, "one in a hundred is promised; three of sixty come by chance once in three hundred times"
    assert rows > 100 or bare == batches


def test_a_large_sample_with_a_small_difference_is_no_drift() -> None:
    draw = np.random.default_rng(3)
    features = trained(draw, 3, 50_000)
    found = compare({"features": features}, batch(draw, features, 20_000, {"x000": 0.1}), Terms())
    told = next(one for one in found["features"] if one["feature"] == "x000")
    assert told["p_holm"] < 1e-6 and not told["drifts"]


def test_an_unseen_category_and_missing_values_drift() -> None:
    feature = {"kind": "category", "of": "column", "values": ["a", "b"], "counts": [500, 500, 0, 0]}
    for counts, where in (([30, 30, 40, 0], "other"), ([30, 30, 0, 40], "missing")):
        found = compare({"features": {"c": feature}}, {"c": counts}, Terms())
        assert found["drifting"] == ["c"]
        assert found["features"][0]["most"]["bin"] == where
    assert compare({"features": {"c": feature}}, {"c": [5, 4, 1, 0]}, Terms())["drifting"] == [], "one in ten is luck"


def test_limit_and_alpha_both_count() -> None:
    features = {"c": {"kind": "category", "of": "column", "values": ["a", "b"], "counts": [500, 500, 0, 0]}}
    counts = {"c": [80, 20, 0, 0]}
    assert compare({"features": features}, counts, Terms())["drifting"] == ["c"]
    assert compare({"features": features}, counts, Terms(limit=0.6))["drifting"] == []
    assert compare({"features": features}, counts, Terms(alpha=1e-12))["drifting"] == []


def test_figures_are_those_of_the_books() -> None:
    assert stability_index([100, 100], [100, 100]) == 0
    p, q = np.array([100.5, 300.5]) / 401, np.array([50.5, 50.5]) / 101
    assert stability_index([100, 300], [50, 50]) == pytest.approx(((q - p) * np.log(q / p)).sum())
    a, b = [100, 200, 300], [40, 30, 50]
    wanted = stats.chi2_contingency([a, b], correction=False).pvalue
    assert p_value(a, b) == pytest.approx(wanted)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_nothing_to_compare_is_no_drift() -> None:
    feature = {"kind": "number", "of": "column", "edges": [1.0], "counts": [5, 5, 0]}
    found = compare({"features": {"x": feature}}, {"x": [0, 0, 0]}, Terms())
    assert (found["drifting"], found["rows_compared"], found["psi_max"]) == ([], 0, 0.0)
    assert compare({"features": {}}, {}, Terms())["drifting"] == []
