"""What recurrent nets for text must know beside the contract: order, long and empty texts, what does not matter."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.contract import SPLITS, Column, Data, Spec
from components.errors import DataError, ParamsError
from components.families.rnn import Rnn, Settings

from .cases import Case, evaluate, one_thread, reviews, table  # noqa: F401

SMALL = {"embedding": 16, "width": 12, "dropout": 0.1, "lr": 2e-2, "batch_rows": 32, "longest": 24}
PIECES = {**SMALL, "cell": "gru", "vocabulary": "pieces", "tokens": 400, "mixup": 0.3, "average": 0.9}
HEART = {**SMALL, "dropout": 0.0, "token_dropout": 0.0, "label_smoothing": 0.0, "average": 0.0, "seen": 1}
CLASSES, NUMBERS = reviews("classification"), reviews("regression")
CASES = [
    Case("words", CLASSES, SMALL, HEART, reached=0.1),
    Case("pieces", CLASSES, PIECES, {**HEART, "cell": "gru", "linear": False}, reached=0.1),
    Case("regression", NUMBERS, SMALL, HEART, reached=4.0),
]


def alike(**texts: Any) -> Data:
    """The same texts and targets in every split."""
    spec = Spec("said", "classification", (Column("text", "text"),), "target", ("a", "b"))
    return Data(spec, dict.fromkeys(SPLITS, pa.table(texts)))


def taught(data: Data, hyper: dict[str, Any], epochs: int) -> Any:
    *_, epoch = itertools.islice(Rnn().fit(data, hyper, 0), epochs)
    return Rnn().load(data.spec, hyper, epoch.state().served())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_it_reads_words_in_their_order(cell: str) -> None:
    """Only the order tells these two apart: every pair of neighbours stands in both."""
    draw = np.random.default_rng(0)
    said, target = [], []
    for i in range(120):
        first, second = ("up", "down") if i % 2 else ("down", "up")
        between = ["then"] * int(draw.integers(2, 5))
        said.append(" ".join(["then", first, *between, second, "then"]))
        target.append("a" if i % 2 else "b")
    data = alike(text=said, target=target)
    hyper = {**HEART, "cell": cell, "linear": False}
    assert evaluate(Rnn(), taught(data, hyper, 25), data, "test")["test/accuracy"] == 1.0
    bag = {**HEART, "embedding": 2, "width": 2, "token_dropout": 0.9, "lr": 1e-9}
    assert evaluate(Rnn(), taught(data, bag, 1), data, "test")["test/accuracy"] < 1.0


def test_the_linear_model_begins_at_the_log_count_ratios() -> None:
    """Wang & Manning 2012, by hand: `fine` stands in 3 of 3 texts of a, in 1 of 3 of b, each counted once more."""
    said = ["fine day", "fine day", "fine sea", "grey day", "grey sea", "fine grey"]
    data = alike(text=said, target=["a", "a", "a", "b", "b", "b"])
    net = taught(data, {**HEART, "lr": 1e-12}, 1)
    fine = net.vocabulary.encode(["fine"]).ids_T
    at = int(torch.searchsorted(net.gram_G.cpu(), fine)[0])
    counts = np.array([[3 + 1, 1 + 1], [2 + 1, 1 + 1], [1 + 1, 1 + 1], [0 + 1, 3 + 1], [2 + 1, 0 + 1]], float)
    share = counts / counts.sum(0)  # of fine, day, sea, grey, and the pair "fine day", the only one there twice
    assert net.ratio_GK[at].tolist() == pytest.approx(
        [np.log(share[0, 0] / share[0, 1]), np.log(share[0, 1] / share[0, 0])]
    )
    assert len(net.gram_G) == 5


def test_a_texts_score_does_not_hang_on_its_neighbours_or_on_padding() -> None:
    net = taught(CLASSES, SMALL, 2)
    short, long = "Superb.", "not awful " * 12
    alone = [Rnn().score(net, pa.record_batch({"text": [text]})).column(1)[0].as_py() for text in (short, long)]
    together = Rnn().score(net, pa.record_batch({"text": [long, short, long]})).column(1).to_pylist()
    assert together == pytest.approx([alone[1], alone[0], alone[1]], abs=1e-6)


def test_what_stands_beyond_the_longest_is_not_read() -> None:
    net = taught(CLASSES, {**SMALL, "longest": 5}, 1)
    scored = Rnn().score(net, pa.record_batch({"text": ["a b c d e superb", "a b c d e awful"]}))
    assert scored.column(1)[0] == scored.column(1)[1]


def test_empty_missing_and_strange_texts_have_finite_scores_and_codes() -> None:
    net = taught(CLASSES, SMALL, 1)
    batch = pa.record_batch({"text": pa.array(["", None, "…", "слово", "\n", "nice"])})
    assert np.isfinite(Rnn().score(net, batch).column(1).to_numpy()).all()
    assert np.isfinite(Rnn().encode(net, batch)).all()


def test_its_vocabulary_is_of_the_training_rows_alone() -> None:
    other = {**CLASSES.splits, "val": pa.table({"text": ["zebra zebra zebra"] * 5, "target": ["good"] * 5})}
    for hyper in (SMALL, PIECES):
        words = taught(Data(CLASSES.spec, other), hyper, 1).vocabulary.tokenizer.get_vocab()
        assert not any("zebra" in word for word in words) and any("film" in word for word in words)


def test_training_texts_without_a_word_that_comes_twice_are_refused() -> None:
    data = alike(text=["one", "two", "three", "four"], target=["a", "b", "a", "b"])
    with pytest.raises(DataError, match="hold no word often enough"):
        next(Rnn().fit(data, SMALL, 0))


def test_tables_are_for_another_family() -> None:
    with pytest.raises(DataError, match=r"takes one column of text(.|\n)*size \(number\)(.|\n)*text: COLUMN"):
        next(Rnn().fit(table("classification"), {}, 0))
    two = dataclasses.replace(CLASSES.spec, columns=(Column("text", "text"), Column("more", "text")))
    with pytest.raises(DataError, match="takes one column of text"):
        next(Rnn().fit(Data(two, CLASSES.splits), {}, 0))


@pytest.mark.parametrize("wrong", [{"cell": "lst"}, {"vocabulary": "letters"}])
def test_a_setting_that_names_nothing_is_refused(wrong: dict[str, str]) -> None:
    (name,) = wrong
    with pytest.raises(ParamsError, match=f"setting '{name}' got '{wrong[name]}', expected one of"):
        Settings(**wrong)  # type: ignore[arg-type]
