"""Texts that are another one but for a few words are found across splits, and others are not."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.contract import Data
from components.expectations import ColumnRule, Expectations
from components.validation import Validation, alike, validate

TRAIN = (
    "The battery lasts two days, which is more than I had hoped for.",
    "Delete page 3 of the report now",
    "Could you book me a table for four at the Italian place tonight?",
    "The parcel came a week late and the box was torn open.",
    "good film",
    "turn the lights off",
)
ALIKE = {
    "the battery lasts THREE days which is more than I had hoped for": 0,  # one word
    "delete page 4 of the report now": 1,
    "Could you please book me a table for six at the Italian place tonight?": 2,  # one word more, one changed
    "The parcel came a week late; the box was torn open!": 3,  # one word less
    "turn the lights on": 5,
}
UNLIKE = (
    "The battery lasts two hours, which is far less than anyone would hope for.",
    "Delete the report",
    "The parcel came",
    "bad film",  # of two words, one is half of all
    "open torn was box the and late week a came parcel the",  # the same words in no order
    "turn up the heating off the hall",
    "",
    None,
)


def others(train: list[str], later: list[str | None], split: int = 1) -> list[int]:
    splits = np.array([0] * len(train) + [split] * len(later))
    return alike.earlier([*train, *later], splits)[len(train) :].tolist()


@pytest.mark.parametrize("split", [1, 2], ids=["val", "test"])
def test_a_text_with_a_few_other_words_is_found_and_another_text_is_not(split: int) -> None:
    assert others([*TRAIN], [*ALIKE], split) == list(ALIKE.values())
    assert others([*TRAIN], [*UNLIKE], split) == [-1] * len(UNLIKE)


def test_texts_are_compared_with_earlier_splits_alone() -> None:
    one, two = "delete page 3 of the report now", "delete page 4 of the report now"
    assert alike.earlier([one, two, "wholly other words stand here"], np.array([0, 0, 1])).tolist() == [-1, -1, -1]
    assert alike.earlier([one, two], np.array([1, 2])).tolist() == [-1, 0]
    assert alike.earlier([None, "two words"], np.array([0, 1])).tolist() == [-1, -1]
    assert alike.earlier([], np.zeros(0, np.int64)).tolist() == []


def spoken(rows: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    words = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in "nrstm"]
    return [" ".join(draw.choices(words, k=draw.randint(8, 14))) for _ in range(rows)]


def test_of_many_texts_those_with_one_other_word_are_found_and_no_others() -> None:
    draw, train, later = random.Random(1), spoken(5000, 0), spoken(2000, 2)
    for at in range(0, 2000, 10):
        words = draw.choice(train).split()
        words[draw.randrange(len(words))] = "otherwise"
        later[at] = " ".join(words)
    found = np.flatnonzero(np.array(others(train, later)) >= 0)
    assert found.tolist() == [*range(0, 2000, 10)]


def test_texts_that_are_all_alike_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    from rapidfuzz import process

    compared, pairs = 0, process.cpdist

    def counted(queries: list[str], choices: list[str], **more: object) -> object:
        nonlocal compared
        compared += len(queries)
        return pairs(queries, choices, **more)

    monkeypatch.setattr(process, "cpdist", counted)
    assert min(others([f"delete page {n} of the book" for n in range(3000)], ["delete page x of the book"] * 3000)) >= 0
    assert compared < 60_000, "3,000 × 3,000 pairs would be nine million"


# ── as a rule ───────────────────────────────────────────────────────────────────────────────────────────

PROMISED = Expectations(
    columns={
        "n": ColumnRule(role="id", kind="number"),
        "said": ColumnRule(kind="text"),
        "meant": ColumnRule(role="target", kind="category", values=["a", "b"]),
    }
)


def checked(limit: float | None, folder: Path) -> Validation:
    """100 rows of train, then 40 of val, of which 4 are a training row's but for a word, then 40 of test."""
    said = spoken(180, 5)
    for row in range(100, 104):
        said[row] = " ".join(["otherwise", *said[row - 60].split()[1:]])
    table = pa.table({"n": range(180), "said": said, "meant": ["a", "b"] * 90})
    splits = {"train": table.slice(0, 100), "val": table.slice(100, 40), "test": table.slice(140)}
    rule = ColumnRule(kind="text") if limit is None else ColumnRule(kind="text", alike=limit)
    promised = PROMISED.model_copy(update={"columns": PROMISED.columns | {"said": rule}})
    return validate(Data(promised.spec("d", "classification"), splits), promised, folder / "docs")


def test_a_share_above_the_limit_is_told_with_a_pair_to_look_at(tmp_path: Path) -> None:
    found = checked(0.05, tmp_path)
    (failure,) = found.failures
    assert (failure.column, failure.rule) == ("said", "texts alike across splits")
    assert (failure.split, failure.count, failure.rows) == ("val", 4, (100, 101, 102, 103))
    words = " ".join(spoken(180, 5)[40].split()[1:])
    assert f"got 10% of val; val 100 'otherwise {words}' is like train 40 '{spoken(180, 5)[40]}'" in failure.detail
    assert "expected at most 5% of the texts of any split" in failure.detail


@pytest.mark.parametrize("limit", [None, 0.1], ids=["unless asked", "at the limit"])
def test_a_share_that_is_allowed_is_shown_and_stops_nothing(limit: float | None, tmp_path: Path) -> None:
    found = checked(limit, tmp_path)
    assert found.passed
    assert "10% of val; val 100" in found.docs_page.read_text(encoding="utf-8")
