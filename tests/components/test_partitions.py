"""Paths with strftime codes: which partitions there are, which are meant, and what is told when they are wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components import params, partitions
from components.errors import BadInput, ParamsError
from components.workspace import Workspace

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("a\n1\n")


def layout(root: Path, pattern: str) -> partitions.Layout:
    return partitions.require(root, "p", pattern)


def names(found: list[partitions.Partition]) -> list[str]:
    return [one.name for one in found]


def test_the_finest_code_says_the_step(tmp_path: Path) -> None:
    steps = {p: layout(tmp_path, p).step for p in ("%Y.csv", "%Y/%m.csv", "in/%Y/%m/%d/", "%Y%m%d/%H.parquet")}
    assert list(steps.values()) == ["year", "month", "day", "hour"]


def test_what_is_there_is_read_back_from_the_names(tmp_path: Path) -> None:
    put(tmp_path, "in/2026-01-02.csv", "in/2025-12-31.csv", "in/2026-02-30.csv", "in/2026-1-3.csv", "in/new.csv")
    (tmp_path / "in/2026-03-01.csv").mkdir()  # an empty folder is no partition
    found = layout(tmp_path, "in/%Y-%m-%d.csv").existing()
    assert names(list(found.values())) == ["2025-12-31", "2026-01-02"]
    assert list(found) == [datetime(2025, 12, 31, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]


def test_folders_hours_and_absolute_paths(tmp_path: Path) -> None:
    put(tmp_path, "in/2026/01/02/05/a.csv", "in/2026/01/02/23/a.csv", "in/2026/01/02/06")
    for root, pattern in ((tmp_path, "in/%Y/%m/%d/%H/"), (Path("/"), f"{tmp_path}/in/%Y/%m/%d/%H/")):
        found = list(layout(root, pattern).existing().values())
        assert names(found) == ["2026-01-02T05", "2026-01-02T23"]
        assert partitions.latest(root, "p", pattern) == tmp_path / "in/2026/01/02/23"


def test_a_code_may_stand_twice_and_the_rest_is_taken_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "in [a]/2026/2026-01.csv", "in [a]/2025/2026-02.csv", "in a/2026/2026-03.csv", "100%/2026.csv")
    assert names(list(layout(tmp_path, "in [a]/%Y/%Y-%m.csv").existing().values())) == ["2026-01"]
    assert names(list(layout(tmp_path, "100%%/%Y.csv").existing().values())) == ["2026"]
    assert partitions.latest(tmp_path, "p", "100%") == tmp_path / "100%"


def test_the_latest_is_by_time_and_a_path_without_codes_is_itself(tmp_path: Path) -> None:
    put(tmp_path, "31-01-2026.csv", "01-02-2026.csv", "plain.csv")
    assert partitions.latest(tmp_path, "p", "%d-%m-%Y.csv") == tmp_path / "01-02-2026.csv"
    assert partitions.latest(tmp_path, "p", "plain.csv") == tmp_path / "plain.csv"
    with pytest.raises(ParamsError, match="expected at least one partition") as caught:
        partitions.latest(tmp_path, "p", "in/%Y.csv")
    assert caught.value.where == "params.yaml pipelines.p.scoring.input"
    with pytest.raises(ParamsError, match="expected a file or folder that exists"):
        partitions.latest(tmp_path, "p", "gone.csv")


@pytest.mark.parametrize(
    ("pattern", "first", "last", "expected"),
    [
        ("%Y-%m-%d.csv", "2026-02-27", "2026-03-01", ["2026-02-27", "2026-02-28", "2026-03-01"]),
        ("%Y-%m-%d.csv", "2026-01-05", "2026-01-05", ["2026-01-05"]),
        ("%Y-%m-%d-%H.csv", "2026-01-01T22", "2026-01-02 00:00", ["2026-01-01T22", "2026-01-01T23", "2026-01-02T00"]),
        ("%Y-%m.csv", "2025-11", "2026-02", ["2025-11", "2025-12", "2026-01", "2026-02"]),
        ("%Y.csv", "2024", "2026", ["2024", "2025", "2026"]),
        ("%Y-%m.csv", "2025", "2025", [f"2025-{month:02d}" for month in range(1, 13)]),
    ],
)
def test_both_bounds_are_in(tmp_path: Path, pattern: str, first: str, last: str, expected: list[str]) -> None:
    assert names(layout(tmp_path, pattern).span(first, last, NOW)) == expected


def test_a_coarse_bound_means_all_that_it_names(tmp_path: Path) -> None:
    assert len(layout(tmp_path, "%Y-%m-%d.csv").span("2024-02", "2024-02", NOW)) == 29
    # Where clocks change, an hour is neither left out nor done twice.
    assert len(layout(tmp_path, "%Y-%m-%d-%H.csv").span("2026-03-29", "2026-03-29", NOW)) == 24
    assert len(layout(tmp_path, "%Y-%m-%d-%H.csv").span("2026-10-25", "2026-10-25", NOW)) == 24


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        ("2026-01-02", "2026-01-01", "--from 2026-01-02 is later than --to 2026-01-01"),
        ("2026-01-02", "2026-11-24", "--to 2026-11-24 lies in the future"),
        ("yesterday", "2026-01-01", "--from: got 'yesterday', expected the day of a partition, such as 2026-01-31"),
        ("2026-01-01T05", "2026-01-02", "--from: got '2026-01-01T05', expected the day"),
        ("2026-02-30", "2026-03-01", "--from: '2026-02-30' is no date: day is out of range for month"),
        ("2026-01-01", "2026-13", "--to: '2026-13' is no date"),
        ("0000-01-01", "2026-01-01", "--from: '0000-01-01' is no date"),
    ],
)
def test_bad_bounds_are_told(tmp_path: Path, first: str, last: str, told: str) -> None:
    with pytest.raises(ParamsError) as caught:
        layout(tmp_path, "%Y-%m-%d.csv").span(first, last, NOW)
    assert told in str(caught.value)


@pytest.mark.parametrize("pattern", [None, "incoming/new.csv", "100%.csv"])
def test_a_path_without_codes_has_no_partitions(tmp_path: Path, pattern: str | None) -> None:
    with pytest.raises(ParamsError, match="names no partitions") as caught:
        partitions.require(tmp_path, "p", pattern)
    assert "incoming/%Y-%m-%d.csv" in caught.value.fix


def test_absent_partitions_are_told_from_those_that_are_there(tmp_path: Path) -> None:
    put(tmp_path, "2026-01-01.csv", "2026-01-03.csv")
    days = layout(tmp_path, "%Y-%m-%d.csv")
    there, absent = partitions.present(days.span("2026-01-01", "2026-01-04", NOW), days)
    assert (names(there), names(absent)) == (["2026-01-01", "2026-01-03"], ["2026-01-02", "2026-01-04"])
    with pytest.raises(BadInput, match="no partition is there of 2025-01-01 … 2025-01-31"):
        partitions.present(days.span("2025-01", "2025-01", NOW), days)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("in/%d.csv", "%Y and %m must stand there too"), ("in/%Y-%j.csv", "%j is no code of a partition; write %Y, %m")],
)
def test_params_yaml_with_codes_that_tell_no_time_is_refused(tmp_path: Path, pattern: str, told: str) -> None:
    (tmp_path / "params.yaml").write_text(
        f"datasets: {{digits: {{}}}}\npipelines:\n  p:\n    dataset: digits\n    family: cnn\n"
        f"    scoring: {{input: '{pattern}'}}\n"
    )
    with pytest.raises(ParamsError, match=r"params.yaml:6 pipelines.p.scoring.input") as caught:
        params.load(Workspace(tmp_path))
    assert told in str(caught.value)
