"""A reader's own files, as the README has them: texts, pairs of texts, series in a table and in a folder, from bare
files to scores of new ones, with built-in families and no line of code."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ..conftest import Home

PARAMS = """\
seed: 4
datasets:
  reviews: {table: reviews.csv, text: review, target: verdict}
  translations: {table: translations.csv, text: english, target: french}
  gestures: {table: gestures.csv, target: gesture, series: "t*"}
  machines: {table: recordings, series: files}
pipelines:
  reviews:
    dataset: reviews
    family: rnn
    settings: {embedding: 8, width: 4, batch_rows: 16}
    search: {trials: 1, epochs: 2}
  translate:
    dataset: translations
    family: seq2seq
    settings: {embedding: 16, width: 16, attention: 16, batch_rows: 8, lr: 0.02}
    search: {trials: 1, epochs: 12}
  gestures:
    dataset: gestures
    family: cnn1d
    settings: {width: 8}
    search: {trials: 1, epochs: 2}
  machines:
    dataset: machines
    family: cnn1d
    settings: {width: 8}
    search: {trials: 1, epochs: 2}
"""
PIPELINES = ("reviews", "translate", "gestures", "machines")
ENGLISH = (("the", "a", "my"), ("dog", "cat", "bird", "horse"), ("sleeps", "sings", "runs"), ("now", "here", "often"))
FRENCH = (("le", "un", "mon"), ("chien", "chat", "merle", "cheval"), ("dort", "chante", "court"), ("là", "ici", "bien"))
STEPS = 16


def write(file: Path, *rows: Sequence[object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(rows)


def reviews(rows: int, seed: int) -> Iterator[tuple[str, str]]:
    draw = random.Random(seed)
    for _ in range(rows):
        good = draw.random() < 0.5
        liked = draw.choice(["loved", "enjoyed", "praised"] if good else ["hated", "regretted", "disliked"])
        rest = draw.choices(["the", "plot", "music", "ending", "actors", "and", "colours", "story"], k=8)
        yield f"I {liked} {' '.join(rest)}.", "good" if good else "bad"


def pairs() -> list[tuple[str, str]]:
    places = [(a, b, c, d) for a in range(3) for b in range(4) for c in range(3) for d in range(3)]
    return [(phrase(ENGLISH, at), phrase(FRENCH, at)) for at in places]


def phrase(words: Sequence[Sequence[str]], at: Sequence[int]) -> str:
    return " ".join(some[n] for some, n in zip(words, at, strict=True))


def motion(kind: str, draw: random.Random) -> list[float]:
    """A wave that is slow or fast, at a phase of its own, with noise."""
    phase, turns = draw.random(), 1 if kind == "slow" else 4
    return [
        round(math.sin(2 * math.pi * (phase + turns * step / STEPS)) + draw.gauss(0, 0.1), 4) for step in range(STEPS)
    ]


def recording(kind: str, draw: random.Random) -> list[Sequence[object]]:
    return [("speed", "current"), *zip(motion(kind, draw), motion("slow", draw), strict=True)]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A fresh folder with four of somebody's tables, after `tidemill run --all`."""
    home, draw = Home(tmp_path_factory.mktemp("mine")), random.Random(0)
    write(home.root / "reviews.csv", ("review", "verdict"), *reviews(90, 1))
    write(home.root / "translations.csv", ("english", "french"), *pairs())
    steps = [f"t{step}" for step in range(STEPS)]
    kinds = [draw.choice(("slow", "fast")) for _ in range(60)]
    write(home.root / "gestures.csv", ("gesture", *steps), *((kind, *motion(kind, draw)) for kind in kinds))
    for number, kind in enumerate(kinds):
        write(home.root / f"recordings/{kind}/M{number:02}.csv", *recording(kind, draw))
    home.params(PARAMS)
    done = home.tidemill("run", "--all", timeout_s=580)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return home


def scored(home: Home, pipeline: str, source: str) -> list[dict[str, object]]:
    out = f"{pipeline}.parquet"
    done = home.tidemill("score", pipeline, source, out)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, object]] = pq.read_table(home.root / out).to_pylist()
    return rows


def test_each_is_checked_learnt_measured_and_scored(mine: Home) -> None:
    results = {row["pipeline"]: row for row in mine.json("results")}
    assert tuple(results) == PIPELINES
    for name, row in results.items():
        assert row["rows_scored"] == len(pq.read_table(mine.root / f"results/{name}/score/scores.parquet")) > 0
        assert (str(row["version"]), row["promoted"]) == ("1", True), row["reason"]
        checked = json.loads((mine.root / f"results/{name}/validate/validation.json").read_text())
        assert checked["passed"] and checked["checks"] > 5
    assert {step["action"] for step in mine.json("plan")} == {"unchanged"}


def test_what_was_inferred_is_there_to_be_edited(mine: Home) -> None:
    said = {file.stem: file.read_text(encoding="utf-8") for file in (mine.root / "expectations").glob("*.yaml")}
    assert said.keys() == {"reviews", "translations", "gestures", "machines"}
    assert "kind: text" in said["reviews"] and "role: target\n    kind: text" in said["translations"]
    assert "parts: [t0, t1" in said["gestures"] and "parts: [speed, current]" in said["machines"]


def test_new_reviews_get_a_verdict(mine: Home) -> None:
    new = [*reviews(5, 9)]
    write(mine.root / "tomorrow.csv", ("review",), *([text] for text, _ in new))
    rows = scored(mine, "reviews", "tomorrow.csv")
    assert [row["row"] for row in rows] == [*range(5)]
    assert [row["class"] for row in rows] == [verdict for _, verdict in new]


def test_new_texts_are_written_for(mine: Home) -> None:
    write(mine.root / "phrases.csv", ("english",), ("my dog sings here",), ("a horse sleeps often",))
    rows = scored(mine, "translate", "phrases.csv")
    assert len(rows) == 2 and all(isinstance(row["text"], str) and float(str(row["score"])) <= 0 for row in rows)


def test_new_series_in_a_table_get_a_class(mine: Home) -> None:
    draw = random.Random(7)
    write(mine.root / "new.csv", [f"t{step}" for step in range(STEPS)], *(motion("fast", draw) for _ in range(3)))
    rows = scored(mine, "gestures", "new.csv")
    assert len(rows) == 3 and {row["class"] for row in rows} <= {"slow", "fast"}


def test_new_series_in_a_folder_become_a_folder_of_scores(mine: Home) -> None:
    draw = random.Random(8)
    for name in ("A7", "A8"):
        write(mine.root / f"incoming/{name}.csv", *recording("fast", draw))
    done = mine.tidemill("score", "machines", "incoming", "outgoing")
    assert done.returncode == 0, done.stderr
    for name in ("A7", "A8"):
        (row,) = pq.read_table(mine.root / f"outgoing/{name}.csv.parquet").to_pylist()
        assert row["class"] in ("slow", "fast") and name in row.values(), "each is named after its file"


def test_what_is_wrong_with_a_table_is_said_where_a_reader_looks(mine: Home) -> None:
    write(mine.root / "short.csv", [f"t{step}" for step in range(STEPS - 1)], [0.5] * (STEPS - 1))
    done = mine.tidemill("score", "gestures", "short.csv", "short.parquet")
    assert done.returncode not in (0, 1) and "t15" in done.stderr and "Traceback" not in done.stderr
    assert not (mine.root / "short.parquet").exists()


def test_texts_that_nearly_repeat_others_stop_where_a_reader_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write(tmp_path / "translations.csv", ("english", "french"), *pairs())
    home.params(PARAMS)
    assert home.tidemill("data", "fetch", "translations").returncode == 0
    promises = tmp_path / "expectations/translations.yaml"
    text = promises.read_text(encoding="utf-8")
    promises.write_text(text.replace("  english:\n    kind: text\n", "  english:\n    kind: text\n    alike: 0.2\n"))
    done = home.tidemill("stage", "validate", "translate")
    assert done.returncode == 4, done.stderr
    assert "english: texts alike across splits" in done.stderr and " is like train " in done.stderr
    assert "expectations/translations.yaml" in done.stderr
