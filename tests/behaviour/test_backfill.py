"""Past partitions, scored as a person asks for it: once each, going on after a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ..conftest import BIN, Home, write_customers

ROWS = 40
DAYS = ("2026-01-01", "2026-01-02", "2026-01-04")


@pytest.fixture(scope="module")
def filled(started: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A copy of the project that has run, with three days of customers to score."""
    home = Home(tmp_path_factory.mktemp("backfill") / "copy")
    subprocess.run(["cp", "-r", str(started.root), str(home.root)], check=True)
    text = (home.root / "params.yaml").read_text()
    home.params(text + "    scoring: {input: incoming/%Y-%m-%d.csv}\n")
    (home.root / "incoming").mkdir()
    for day, name in enumerate(DAYS):
        write_customers(home.root / "incoming" / f"{name}.csv", ROWS, seed=day)
    return home


def output(home: Home, day: str) -> Path:
    return home.root / "results" / "customers" / "partitions" / day / "scores.parquet"


def test_a_backfill_goes_on_after_a_kill_and_scores_nothing_twice(filled: Home) -> None:
    words = ("backfill", "customers", "--from", "2026-01-01", "--to", "2026-01-05", "--at-once", "1")
    first = output(filled, DAYS[0])
    told = first.with_name(f"{first.name}.receipt.json")
    killed = subprocess.Popen(
        [str(BIN / "tidemill"), *words],
        cwd=filled.root,
        env=filled.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not told.is_file():
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    before = first.stat()
    done = filled.tidemill(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert "2 partitions are absent: 2026-01-03, 2026-01-05" in done.stderr
    rows = json.loads(done.stdout)
    assert [(row["partition"], row["rows"]) for row in rows] == [(day, ROWS) for day in DAYS]
    assert rows[0]["unchanged"] is True
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for row, day in zip(rows, DAYS, strict=True):
        assert filled.root / row["output"] == output(filled, day)
        assert pq.read_table(output(filled, day)).num_rows == ROWS


def test_a_span_without_partitions_and_a_path_without_codes_are_told_at_once(filled: Home) -> None:
    none = filled.tidemill("backfill", "customers", "--from", "2025-01", "--to", "2025-02")
    assert (none.returncode, none.stdout) == (3, "")
    assert "no partition is there of 2025-01-01 … 2025-02-28" in none.stderr
    bare = filled.tidemill("backfill", "cancer", "--from", "2025", "--to", "2025")
    assert bare.returncode == 2
    assert "write %Y, %m, %d and %H" in bare.stderr


def test_a_partitions_scores_lead_back_to_it(filled: Home) -> None:
    traced = filled.tidemill("trace", str(output(filled, DAYS[2])))
    assert traced.returncode == 0, traced.stderr
    assert "incoming/2026-01-04.csv" in traced.stdout
    assert "customers/1" in traced.stdout


def test_a_run_scores_the_latest_partition_and_a_new_one_makes_it_run(filled: Home) -> None:
    assert filled.tidemill("stage", "score", "customers").returncode == 0
    write_customers(filled.root / "incoming" / "2025-12-31.csv", 7)  # older than the latest
    assert score(filled) == "unchanged"
    shutil.copyfile(filled.root / "incoming" / "2026-01-04.csv", filled.root / "incoming" / "2026-01-06.csv")
    assert score(filled) == "run", "the same bytes, another day"


def score(home: Home) -> str:
    (action,) = [step["action"] for step in home.json("plan", "customers") if step["stage"] == "score"]
    return str(action)
