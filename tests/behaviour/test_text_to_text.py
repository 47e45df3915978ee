"""A reader's own table of texts and what they become, from csv to what is written for new rows, by the command line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ..components.cases import rewritten
from ..conftest import Home

PARAMS = """\
seed: 3
datasets:
  translations: {table: data/sources/translations.csv, target: french, text: english}
pipelines:
  translate:
    dataset: translations
    family: tests.families.parrot:Parrot
    search: {trials: 1, epochs: 2}
    gate: {metric: wer, mode: min}
    scoring: {quarantine: 0.5}
"""
STAGES = ("validate", "train", "register", "score")


def write(file: Path, *rows: Sequence[str]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(rows)


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A project whose pipeline has run once."""
    home = Home(tmp_path_factory.mktemp("translated"))
    home.params("datasets: {}\npipelines: {}\n")
    pairs = [row for part in rewritten().splits.values() for row in part.to_pylist()]
    again = [(row["text"], f"{row['target']} aussi") for row in pairs[:20]]  # texts with two targets
    write(home.root / "pairs.csv", ("english", "french"), *((row["text"], row["target"]) for row in pairs), *again)
    words = ("data", "add", "translations", "pairs.csv", "--text", "english", "--target", "french")
    assert home.tidemill(*words).returncode == 0
    assert home.root.joinpath("params.yaml").read_text().startswith("datasets:\n  translations:")
    home.params(PARAMS)
    for stage in STAGES:
        done = home.tidemill("stage", stage, "translate")
        assert done.returncode == 0, done.stderr
    return home


def test_it_is_measured_and_promoted_by_its_own_figures(translated: Home) -> None:
    (result,) = translated.json("results")
    assert (result["metric"], result["baseline"], result["promoted"]) == ("test/wer", 1.0, True)
    assert result["rows_scored"] == len(pq.read_table(translated.root / "results/translate/score/scores.parquet"))
    said = translated.tidemill("why", "translate/1").stdout
    assert "promoted: test/wer" in said and "beats the baseline 1" in said
    compared = translated.json("compare", "translate/1", "translate@champion")
    told = {line["what"] for line in compared["lines"]}
    assert compared["same"] and {"metrics.test/perplexity", "metrics.baseline/loss", "gate.reason"} <= told


def test_the_worst_rows_stand_with_what_was_wanted_and_written(translated: Home) -> None:
    train = translated.root / "results/translate/train"
    with (train / "tables/worst.csv").open(encoding="utf-8", newline="") as opened:
        head, *rows = csv.reader(opened)
    assert head == ["row", "english", "wanted", "written", "loss", "score"]
    assert [float(row[4]) for row in rows] == sorted((float(row[4]) for row in rows), reverse=True)
    assert sorted(file.name for file in (train / "plots").iterdir()) == ["learning_curves.png", "worst.png"]


def test_new_texts_are_written_for_and_lead_back(translated: Home) -> None:
    write(translated.root / "new.csv", ("english",), ("the white dog sleeps",), ("",), ("my bird comes often",))
    done = translated.tidemill("score", "translate", "new.csv", "new.parquet")
    assert done.returncode == 0, done.stderr
    assert "3 rows = 2 scored + 1 set aside" in done.stderr
    rows = pq.read_table(translated.root / "new.parquet").to_pylist()
    assert [(row["row"], row["text"]) for row in rows] == [(0, "le chien blanc dort"), (2, "mon merle vient souvent")]
    assert all(row["score"] <= 0 for row in rows)
    traced = translated.tidemill("trace", "new.parquet", "--row", "2")
    assert traced.returncode == 0, traced.stderr
    assert "text2text" in traced.stdout and "translations" in traced.stdout


def test_texts_unlike_those_that_were_learnt_drift(translated: Home) -> None:
    words = [(f"zufällig ganz andere wörter {i}",) for i in range(200)]
    write(translated.root / "strange.csv", ("english",), *words)
    done = translated.tidemill("score", "translate", "strange.csv", "strange.parquet")
    assert done.returncode == 0, done.stderr
    assert "drift in" in done.stderr and "english.unknown" in done.stderr


def test_empty_targets_are_told_before_anything_is_learnt(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.params("datasets: {}\npipelines: {}\n")
    write(tmp_path / "pairs.csv", ("english", "french"), ("a cat", "un chat"), ("a dog", ""), ("bread", "pain"))
    refused = home.tidemill("data", "add", "pairs", "pairs.csv", "--text", "english", "--target", "french")
    assert refused.returncode != 0
    assert "target 'french' is missing in 1 rows: 1" in refused.stderr
    assert home.root.joinpath("params.yaml").read_text() == "datasets: {}\npipelines: {}\n"
