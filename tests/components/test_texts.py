"""What families on text share: vocabularies that repeat and give text back, rows of tokens, batches of like length."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import texts
from components.contract import Column, Spec
from components.errors import BadInput, DataError
from components.texts import PAD, UNKNOWN, Tokens, Vocabulary

from ..conftest import REPOSITORY
from .cases import reviews

SAID = reviews("classification").splits["train"]["text"].to_pylist()
MAKERS = {"words": texts.words, "pieces": texts.pieces}
both = pytest.mark.parametrize("kind", MAKERS)


def made(kind: str, said: list[str] = SAID, most: int = 500, seen: int = 2, **more: bool) -> Vocabulary:
    return MAKERS[kind](said, most, seen, 64, **more)  # type: ignore[operator,no-any-return]


# ── vocabularies ────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_texts_give_the_same_vocabulary_in_any_process() -> None:
    code = "import json; from tests.components.test_texts import MAKERS, made; "
    code += "print(json.dumps([made(kind).to_json() for kind in MAKERS]))"
    fresh = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(fresh.stdout) == [made(kind).to_json() for kind in MAKERS]


@both
def test_it_comes_back_from_json(kind: str) -> None:
    vocabulary = made(kind)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again.size == vocabulary.size and again.longest == 64
    assert torch.equal(again.encode(SAID).ids_T, vocabulary.encode(SAID).ids_T)


def test_words_keep_their_apostrophes_and_lose_their_case() -> None:
    vocabulary = made("words", ["Don't stop!", "don't STOP!"], seen=1)
    found = vocabulary.tokenizer.get_vocab()
    assert {"don't", "stop", "!"} == found.keys() - set(texts.SPECIALS)
    assert vocabulary.decode(vocabulary.encode(["DON'T stop !"]).ids_T.tolist()) == "don't stop!"
    assert made("words", ["Don't stop!"] * 2, seen=1, lower=False).tokenizer.token_to_id("Don't") is not None


def test_words_seen_too_seldom_are_unknown_and_the_commonest_are_kept() -> None:
    vocabulary = made("words", ["a a a b b c"], most=len(texts.SPECIALS) + 1)
    assert vocabulary.encode(["a b c d"]).ids_T.tolist() == [vocabulary.size - 1, UNKNOWN, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("text", ["not so dull, really", "ein längeres Wort", "日本語 🙂", "tab\tand\nline"])
def test_pieces_know_no_unknown_text_and_give_it_back(text: str) -> None:
    vocabulary = made("pieces")
    tokens = vocabulary.encode([text])
    assert UNKNOWN not in tokens.ids_T
    assert vocabulary.decode(tokens.ids_T.tolist()).strip() == text.lower()


@both
def test_a_text_without_tokens_has_one_and_a_long_one_is_cut(kind: str) -> None:
    tokens = made(kind).encode(["", "the film was long " * 50])
    assert tokens.lengths_N.tolist() == [1, 64]
    assert tokens.ids_T[0] == UNKNOWN


@pytest.mark.parametrize("kind", [*MAKERS, "characters"])
def test_the_names_of_special_tokens_are_text_like_any_other(kind: str) -> None:
    said = ["Press <end> now", "<pad>", "<start> <unknown>"]
    vocabulary = {**MAKERS, "characters": texts.characters}[kind](said, 500, 1, 64, lower=False)
    for each in (vocabulary, Vocabulary.from_json(vocabulary.to_json())):
        assert each.encode(said).ids_T.min() >= len(texts.SPECIALS)
        assert each.decode(each.encode(["<end>"]).ids_T.tolist()).replace(" ", "") == "<end>"


@pytest.mark.parametrize("text", ["Chargement…", "½ fl", "全角：ＡＢＣ", "x² 10 ™"])
@pytest.mark.parametrize("kind", ["pieces", "characters"])
def test_what_is_to_be_written_comes_back_sign_by_sign(kind: str, text: str) -> None:
    vocabulary = {"pieces": texts.pieces, "characters": texts.characters}[kind]([text], 500, 1, 64, lower=False)
    assert vocabulary.decode(vocabulary.encode([text]).ids_T.tolist()).strip() == text
    assert "…" not in made("pieces", [text]).decode(made("pieces", [text]).encode([text]).ids_T.tolist())


def test_a_long_text_may_keep_its_end() -> None:
    said = "the film was long " * 50
    whole = Vocabulary(made("words").tokenizer, 1000).encode([said]).ids_T
    assert torch.equal(made("words").encode([said]).ids_T, whole[:64])
    assert torch.equal(made("words").encode([said], 9).ids_T, whole[:9])
    assert torch.equal(made("words").encode([said], end=True).ids_T, whole[-64:])


def test_texts_without_a_word_give_no_vocabulary() -> None:
    with pytest.raises(DataError, match="hold no word often enough"):
        made("words", ["", " "])


# ── the column ──────────────────────────────────────────────────────────────────────────────────────────


def test_reading_takes_text_alone() -> None:
    spec = Spec("said", "classification", (Column("text", "text"),))
    assert texts.read(spec, pa.table({"text": pa.array(["a", None], pa.large_string())})) == ["a", ""]
    with pytest.raises(BadInput, match="column 'text' is int64, expected text"):
        texts.read(spec, pa.table({"text": [1]}))
    with pytest.raises(BadInput, match="no column 'text'"):
        texts.read(spec, pa.table({"other": ["a"]}))


# ── rows of tokens ──────────────────────────────────────────────────────────────────────────────────────

TOKENS = Tokens.of([[5, 6, 5, 6], [7], [5, 1, 6]])


def test_rows_are_padded_to_the_longest_of_the_batch_alone() -> None:
    ids_BT, lengths_B = TOKENS.padded(torch.tensor([1, 2]))
    assert ids_BT.tolist() == [[7, PAD, PAD], [5, 1, 6]] and lengths_B.tolist() == [1, 3]
    assert TOKENS.padded(torch.tensor([1]))[0].shape == (1, 1)
    assert TOKENS.padded(torch.tensor([], dtype=torch.int64))[0].shape == (0, 0)


def test_bags_stand_one_after_the_other() -> None:
    ids, starts = TOKENS.joined(torch.tensor([2, 0, 1]))
    assert ids.tolist() == [5, 1, 6, 5, 6, 5, 6, 7] and starts.tolist() == [0, 3, 7]


def test_grams_are_tokens_and_pairs_each_once_without_unknown_words() -> None:
    grams = texts.grams(TOKENS, 10)
    rows = [grams.joined(torch.tensor([i]))[0].tolist() for i in range(3)]
    assert rows == [[5, 6, 10 * 6 + 6, 10 * 7 + 5], [7], [5, 6]], "5 and 6 of the last row are no neighbours"
    few = grams.among(torch.tensor([6, 66]))
    assert [few.joined(torch.tensor([i]))[0].tolist() for i in range(3)] == [[0, 1], [], [0]]
    assert grams.among(torch.tensor([], dtype=torch.int64)).lengths_N.tolist() == [0, 0, 0]


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────


def test_buckets_hold_every_row_once_and_little_padding() -> None:
    lengths_N = np.random.default_rng(0).geometric(0.05, 3000)
    drawn = texts.buckets(lengths_N, 32)
    batches = drawn(np.random.default_rng(1), 1)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(3000))
    assert {len(b) for b in batches} <= set(range(30, 35))
    padded = sum(len(b) * lengths_N[b].max() for b in batches)
    at_random = sum(len(b) * lengths_N[b].max() for b in np.array_split(np.arange(3000), len(batches)))
    assert padded < 1.2 * lengths_N.sum() < at_random / 2
    again, other = drawn(np.random.default_rng(1), 1), drawn(np.random.default_rng(2), 1)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other, strict=True))
    means = [lengths_N[b].mean() for b in batches]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.3, "an epoch does not go from short to long"


@pytest.mark.parametrize("rows", [1, 2, 31, 33])
def test_few_rows_make_batches_too(rows: int) -> None:
    batches = texts.buckets(np.arange(rows) + 1, 32)(np.random.default_rng(0), 1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows)) and all(len(b) for b in batches)


def test_a_pass_goes_from_short_to_long() -> None:
    parts = list(texts.in_order(torch.tensor([3, 1, 2, 1]), 3))
    assert [p.tolist() for p in parts] == [[1, 3, 2], [0]]
    assert list(texts.in_order(torch.tensor([], dtype=torch.int64), 3)) == []


def test_long_texts_go_through_a_net_few_at_a_time() -> None:
    lengths_N = torch.tensor([texts.PADDED * 2, 5, texts.PADDED // 2, texts.PADDED // 2, 7, texts.PADDED // 2])
    parts = [p.tolist() for p in texts.in_order(lengths_N, 4)]
    assert parts == [[1, 4], [2, 3], [5], [0]]
