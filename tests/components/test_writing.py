"""What families that write share: vocabularies, pairs, epochs of some rows, and what is written for and measured."""

from __future__ import annotations

import dataclasses
import gc
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from components import text_pairs, wording, writing
from components.contract import SPLITS, Column, Data, Objective, Spec
from components.decoding import Cache
from components.errors import BadInput, DataError, ParamsError
from components.text_pairs import Pairs, Settings, Vocabularies
from components.texts import END, PAD, SPECIALS, UNKNOWN, Tokens

from .cases import one_thread, rewritten  # noqa: F401

WORDS = Settings(source="words", target="words", longest=8, beams=1, average=0.0)
SPELT = Settings(source="characters", target="words", longest=12, beams=1)
SOUNDS = {
    "spelling": ["read", "a", "read", "tea", "a", "read"],
    "sound": ["R IY D", "AH", "R EH D", "T IY", "EY", "R IY D"],
}


def said(rows: dict[str, Any] | None = None, **others: dict[str, Any]) -> Data:
    """The same rows in every split that is not given its own."""
    tables = {name: pa.table(others.get(name, rows or SOUNDS)) for name in SPLITS}
    return Data(Spec("said", "text2text", (Column("spelling", "text"),), "sound"), tables)


class Parrot(nn.Module):
    """Says the same next token whatever comes before it, by `logits_V`, or the tokens of its source, one by one, where
    both sides have one vocabulary. Counts what it is asked."""

    def __init__(self, data: Data, settings: Settings, copies: bool = False) -> None:
        super().__init__()
        self.spec, self.settings, self.known = data.spec, settings, text_pairs.vocabularies(data, settings)
        self.logits_V = nn.Parameter(torch.zeros(self.known.target.size))
        self.copies, self.asked = copies, 0

    def logits(self, pairs: Pairs, rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids_BT, _ = pairs.target.padded(rows_B)
        return self.logits_V.expand(*ids_BT.shape, -1), ids_BT

    def learnt(self, pairs: Pairs) -> torch.Tensor:
        return pairs.target.lengths_N

    def begin(self, source: Tokens, rows_B: torch.Tensor) -> Cache:
        self.asked += len(rows_B)
        ids_BS, lengths_B = source.padded(rows_B)
        return {"ids": nn.functional.pad(ids_BS, (0, 1)).scatter(1, lengths_B[:, None], END), "at": lengths_B * 0}

    def step(self, last_H: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]:
        logits_HV = self.logits_V.expand(len(last_H), -1).clone()
        if self.copies:
            logits_HV = 50.0 * nn.functional.one_hot(
                cache["ids"].gather(1, cache["at"][:, None])[:, 0], self.known.target.size
            )
        return logits_HV, {**cache, "at": cache["at"] + 1}


# ── vocabularies and pairs ──────────────────────────────────────────────────────────────────────────────


def test_sides_that_are_cut_alike_share_a_vocabulary_of_both() -> None:
    known = text_pairs.vocabularies(rewritten(), WORDS)
    held = known.target.tokenizer.get_vocab()
    assert known.shared and {"boat", "bateau"} <= held.keys()
    again = Vocabularies.from_json(known.to_json())
    assert again.shared and again.target.tokenizer.get_vocab() == held
    assert again.to_json() == known.to_json()


def test_sides_that_are_cut_otherwise_have_one_each() -> None:
    known = text_pairs.vocabularies(said(), SPELT)
    assert not known.shared
    assert known.source.tokenizer.get_vocab().keys() - {*SPECIALS} == {*"readt"}
    assert known.target.tokenizer.get_vocab().keys() - {*SPECIALS} == {"R", "IY", "D", "AH", "EH", "T", "EY"}
    again = Vocabularies.from_json(known.to_json())
    assert not again.shared and again.to_json() == known.to_json()


def test_vocabularies_are_of_the_training_rows_and_keep_capitals() -> None:
    other = {"spelling": ["zzz"], "sound": ["ZED"]}
    for settings in (SPELT, WORDS, Settings(tokens=300)):
        known = text_pairs.vocabularies(said(val=other, test=other), settings)
        held = "".join(known.target.tokenizer.get_vocab())
        assert "R" in held and "ZED" not in held
    assert known.target.decode(known.target.encode(["Read, ReAd"]).ids_T.tolist()).strip() == "Read, ReAd"


def test_pairs_are_tokens_and_each_target_ends() -> None:
    data = said()
    known = text_pairs.vocabularies(data, SPELT)
    pairs = text_pairs.pairs(data.spec, data.splits["train"], known, SPELT)
    ids_BT, lengths_B = pairs.target.padded(torch.arange(6))
    assert len(pairs) == 6 and lengths_B.tolist() == [4, 2, 4, 3, 2, 4]
    assert all(int(ids_T[length - 1]) == END for ids_T, length in zip(ids_BT, lengths_B, strict=True))
    assert known.target.decode(ids_BT[2].tolist()) == "R EH D" and (ids_BT[1, 2:] == PAD).all()
    assert known.source.decode(pairs.source.padded(torch.tensor([3]))[0][0].tolist()) == "tea"


def test_what_stands_beyond_the_longest_is_neither_read_nor_learnt() -> None:
    data = said({"spelling": ["abcdef", "ab"], "sound": ["A B C D E F", "A B"]})
    settings = Settings(source="characters", target="words", longest=3)
    pairs = text_pairs.pairs(data.spec, data.splits["val"], text_pairs.vocabularies(data, settings), settings)
    assert pairs.source.lengths_N.tolist() == [3, 2] and pairs.target.lengths_N.tolist() == [4, 3]
    assert (pairs.target.ids_T[pairs.target.starts_N + pairs.target.lengths_N - 1] == END).all()


@pytest.mark.parametrize(
    ("more", "read"), [({"read": "end"}, ["cdef", "ab"]), ({"longest_source": 2, "read": "end"}, ["ef", "ab"])]
)
def test_of_a_long_source_the_end_is_read_if_asked_and_less_than_is_written(
    more: dict[str, Any], read: list[str]
) -> None:
    data = said({"spelling": ["abcdef", "ab"], "sound": ["A B C D E F", "A B"]})
    settings = Settings(source="characters", target="words", longest=4, **more)
    known = text_pairs.vocabularies(data, settings)
    pairs = text_pairs.pairs(data.spec, data.splits["val"], known, settings)
    assert [known.source.decode(pairs.source.padded(torch.tensor([at]))[0][0].tolist()) for at in (0, 1)] == read
    assert known.target.decode(pairs.target.padded(torch.tensor([0]))[0][0].tolist()) == "A B C D"


def test_empty_sources_are_read_as_unknown_and_missing_targets_are_refused() -> None:
    data = said({"spelling": ["", None, "a"], "sound": ["A", "A", "A"]})
    pairs = text_pairs.pairs(data.spec, data.splits["train"], text_pairs.vocabularies(data, SPELT), SPELT)
    assert pairs.source.ids_T[:2].tolist() == [UNKNOWN, UNKNOWN]
    for wrong in ("", None):
        rows = said({"spelling": ["a", "b"], "sound": ["A", wrong]})
        with pytest.raises(DataError, match=r"target 'sound' has rows without a text(.|\n)*row 1 is one"):
            text_pairs.vocabularies(rows, SPELT)
    with pytest.raises(BadInput, match="column 'sound' is int64, expected text"):
        text_pairs.vocabularies(said({"spelling": ["a"], "sound": [1]}), SPELT)


def test_what_is_read_of_a_dataset_is_read_once_and_forgotten_with_it() -> None:
    data, settings = rewritten(), Settings(source="words", target="words", longest_source=3)
    known = text_pairs.vocabularies(data, settings)
    assert text_pairs.vocabularies(data, dataclasses.replace(settings, lr=1.0)) is known
    first, again = (lesson(data, longest_source=3) for _ in range(2))
    assert first.net.known is again.net.known and first.weight_N is not None
    other = lesson(data, longest_source=0, tokens=8)
    assert other.net.known is not known and other.net.known.target.size == 8
    assert text_pairs.vocabularies(rewritten(), settings) is not known, "other data, if the same rows"
    place = id(data)
    assert place in text_pairs._MADE
    del data, first, again, other
    gc.collect()
    assert place not in text_pairs._MADE


# ── the lesson ──────────────────────────────────────────────────────────────────────────────────────────


def lesson(data: Data, **changes: Any) -> Any:
    settings = Settings(**{"source": "words", "target": "words", "batch_rows": 16, **changes})
    return writing.lesson(Parrot(data, settings), data, settings, Objective("loss", "min"))


def test_in_epochs_of_some_rows_every_row_has_its_turn() -> None:
    made = lesson(rewritten(), epoch_rows=54)
    draw = made.batches(16)
    rows = [np.concatenate(draw(np.random.default_rng(epoch), epoch)) for epoch in range(1, 9)]
    assert made.rows == 54 and all(len(some) == 54 for some in rows)
    for turn in (rows[:4], rows[4:]):
        assert sorted(np.concatenate(turn).tolist()) == list(range(216))
    assert {*rows[0].tolist()} != {*rows[4].tolist()}, "each turn in an order of its own"
    again, other = (np.concatenate(draw(np.random.default_rng(seed), 1)) for seed in (1, 2))
    assert (rows[0] == again).all() and (again != other).any() and {*again.tolist()} == {*other.tolist()}
    assert [len(some) for some in draw(np.random.default_rng(0), 1)] == [18] * 3


@pytest.mark.parametrize("epoch_rows", [0, 216, 10_000])
def test_else_an_epoch_is_every_row_once(epoch_rows: int) -> None:
    made = lesson(rewritten(), epoch_rows=epoch_rows)
    rows = np.concatenate(made.batches(16)(np.random.default_rng(0), 1))
    assert made.rows == 216 and sorted(rows.tolist()) == list(range(216))


def test_batches_hold_rows_of_like_length() -> None:
    made, data = lesson(rewritten()), rewritten()
    pairs = text_pairs.pairs(data.spec, data.splits["train"], made.net.known, made.net.settings)
    lengths_N = (pairs.source.lengths_N + pairs.target.lengths_N).numpy()
    spans = [np.ptp(lengths_N[rows]) for rows in made.batches(16)(np.random.default_rng(0), 1)]
    assert np.mean(spans) < 0.5 * np.ptp(lengths_N)


def test_the_rate_rises_falls_and_stays_low() -> None:
    factor = lesson(rewritten(), warmup=2.0, horizon=10).schedule
    at = [factor(epochs) for epochs in (0.0, 0.5, 1.0, 1.9, 5.0, 8.0, 10.0, 30.0)]
    assert 0 < at[0] < 0.01 and at[0] < at[1] < at[2] < at[3] and at[3] > at[4] > at[5] > at[6]
    assert at[6] == at[7] == pytest.approx(0.02)
    flat = lesson(rewritten(), warmup=0.5, horizon=0).schedule
    assert flat(0.25) == pytest.approx(0.52) and flat(0.5) == flat(100.0) == 1.0
    assert lesson(rewritten(), warmup=0.0, horizon=0).schedule(0.0) == 1.0


def test_the_loss_is_of_each_token_and_of_no_padding() -> None:
    made = lesson(rewritten(), label_smoothing=0.0)
    with torch.no_grad():
        made.net.logits_V[END] = 3.0
    pairs = text_pairs.pairs(made.net.spec, rewritten().splits["train"], made.net.known, made.net.settings)
    rows_B = torch.arange(20)
    log_V = made.net.logits_V.detach().log_softmax(0)
    tokens = torch.cat([pairs.target.padded(rows_B[at : at + 1])[0][0] for at in range(20)])
    assert float(made.loss(rows_B).detach()) == pytest.approx(float(-log_V[tokens].mean()), rel=1e-5)


def test_parts_of_a_batch_count_by_their_tokens() -> None:
    """So a batch that is learnt in parts is learnt as if it were whole."""
    made, rows = lesson(rewritten(), label_smoothing=0.0), np.arange(31)
    with torch.no_grad():
        made.net.logits_V[END] = 3.0
        parts = np.split(rows, [4])
        found = sum(float(made.loss(torch.from_numpy(part))) * made.weight(part) for part in parts)
    assert found / made.weight(rows) == pytest.approx(float(made.loss(torch.from_numpy(rows)).detach()), rel=1e-5)
    assert made.weight(parts[0]) / made.weight(rows) != pytest.approx(4 / 31, rel=1e-3)


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_source_that_is_there_twice_is_written_for_once_and_right_by_any_of_its_targets() -> None:
    data = said({"spelling": ["R EH D", "AH", "R EH D", "X", "AH"], "sound": ["R IY D", "AH", "R EH D", "Y", "EY"]})
    net = Parrot(data, WORDS, copies=True)
    outcomes = writing.judge(net, data, "test")
    assert net.asked == 3
    assert outcomes["compared"].tolist() == [1, 1, 0, 1, 0] and outcomes["wrong"].tolist() == [0, 0, 0, 1, 0]
    figures = writing.told(outcomes, "test")
    assert figures["test/sequence_error_rate"] == pytest.approx(1 / 3)
    assert figures["test/token_error_rate"] == pytest.approx(1 / 5)


@pytest.mark.parametrize("judged", [1, 7, 72, 1000])
def test_of_many_sources_some_are_written_for_evenly_spread(judged: int) -> None:
    data = rewritten()
    chosen, read, references = writing.asked(data, "test", judged)
    assert len(chosen) == len(read) == len(references) == min(judged, 72) == len({*chosen})
    assert [data.splits["test"]["text"][at].as_py() for at in chosen] == read
    assert [[data.splits["test"]["target"][at].as_py()] for at in chosen] == references
    assert judged == 1 or (chosen[0] == 0 and chosen[-1] == 71 and np.ptp(np.diff(chosen)) <= 1)


def test_the_likelihood_is_of_all_rows_whichever_were_written_for() -> None:
    data = rewritten()
    net = Parrot(data, Settings(source="words", target="words", judged=5, beams=1, longest=4))
    with torch.no_grad():
        net.logits_V.copy_(torch.randn(net.known.target.size, generator=torch.Generator().manual_seed(0)))
    outcomes = writing.judge(net, data, "val")
    pairs = text_pairs.pairs(data.spec, data.splits["val"], net.known, net.settings)
    log_V = net.logits_V.detach().double().log_softmax(0)
    for at in range(0, 72, 9):
        ids_T = pairs.target.padded(torch.tensor([at]))[0][0]
        assert outcomes["nats"][at] == pytest.approx(float(-log_V[ids_T].sum()), rel=1e-5)
        assert outcomes["tokens"][at] == len(ids_T)
        assert outcomes["hits"][at] == int((ids_T == log_V.argmax()).sum())
    figures = writing.told(outcomes, "val")
    assert figures["val/loss"] == pytest.approx(outcomes["nats"].sum() / outcomes["tokens"].sum())
    assert figures["val/perplexity"] == pytest.approx(math.exp(figures["val/loss"]))
    assert outcomes["compared"].sum() == 5


def test_the_trivial_writer_knows_how_common_tokens_are_and_copies() -> None:
    """By hand: END 3 of 8 tokens, R and D 2 each, E 1, each once more than it is there, of V = 4 + 3."""
    train = {"spelling": ["R D", "D", "R E"], "sound": ["R D", "D", "R E"]}
    test = {"spelling": ["R", "E D", "Q"], "sound": ["R", "D D", "R"]}
    data = said(train, test=test)
    found = writing.baseline(data, "test", WORDS)
    share = {token: count / (8 + 7) for token, count in {"end": 4, "R": 3, "D": 3}.items()}
    nats = -sum(math.log(share[t]) for t in ("R", "end", "D", "D", "end", "R", "end"))
    assert found["test/loss"] == pytest.approx(nats / 7)
    assert found["test/accuracy"] == pytest.approx(3 / 7), "END is the commonest"
    assert found["test/sequence_error_rate"] == pytest.approx(2 / 3)
    assert found["test/token_error_rate"] == pytest.approx(2 / 4)
    assert {name.partition("/")[2] for name in found} > {"bleu", "chrf", *wording.ROUGE}


def test_the_trivial_writer_is_measured_as_a_net_is() -> None:
    data = rewritten()
    net = Parrot(data, WORDS, copies=True)
    mine = writing.told(writing.judge(net, data, "test"), "test")
    theirs = writing.baseline(data, "test", WORDS)
    assert mine.keys() == theirs.keys()
    alike = ("test/sequence_error_rate", "test/bleu", "test/chrf", "test/rougeL", "test/token_error_rate")
    assert [mine[name] for name in alike] == pytest.approx([theirs[name] for name in alike])


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_texts_come_back_in_the_order_of_their_rows() -> None:
    data = rewritten()
    net = Parrot(data, WORDS, copies=True)
    read = data.splits["test"]["text"].to_pylist()
    asked = [*read, read[3], read[0]]
    scored = writing.score(net, pa.record_batch({"text": asked}))
    assert scored.schema == writing.OUTPUTS and scored.column("text").to_pylist() == asked
    assert net.asked == len(read)
    assert writing.score(net, pa.record_batch({"text": pa.array([], pa.string())})).num_rows == 0


def test_above_temperature_0_texts_are_drawn_by_the_source_and_the_setting_draw() -> None:
    data = rewritten()

    def drawn(read: list[str], **changes: Any) -> list[str]:
        net = Parrot(
            data, Settings(**{"source": "words", "target": "words", "longest": 6, "temperature": 1.0, **changes})
        )
        return [text for text, _ in writing.written(net, read)]

    read = data.splits["test"]["text"].to_pylist()[:20]
    whole = drawn(read)
    assert len({*whole}) > 10 and whole == drawn(read)
    assert drawn(read[7:8]) == whole[7:8] and drawn(read[::-1]) == whole[::-1]
    assert drawn(read, draw=1) != whole
    assert len({*drawn(read, top_k=1)}) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"source": "letters"}, "setting 'source' got 'letters', expected one of characters, words, pieces"),
        ({"target": "w"}, "setting 'target' got 'w'"),
        ({"beams": 0}, "setting 'beams' got 0, expected 1 to 64"),
        ({"longest": 0}, "setting 'longest' got 0"),
        ({"top_p": 1.5}, "setting 'top_p' got 1.5"),
        ({"temperature": -0.1}, "setting 'temperature' got -0.1"),
        ({"top_k": -1}, "setting 'top_k' got -1, expected 0 or more"),
        ({"draw": -1}, "setting 'draw' got -1, expected 0 or more"),
        ({"judged": 0}, "setting 'judged' got 0, expected 1 or more"),
        ({"batch_rows": 0}, "setting 'batch_rows' got 0, expected 1 or more"),
        ({"average": 1.0}, "setting 'average' got 1.0, expected 0.0 to 0.999999"),
        ({"read": "middle"}, "setting 'read' got 'middle', expected one of beginning, end"),
        ({"epoch_rows": -5}, "setting 'epoch_rows' got -5, expected 0 or more"),
        ({"warmup": -1.0}, r"setting 'warmup' got -1.0, expected 0 or more"),
        ({"horizon": -1}, "setting 'horizon' got -1, expected 0 or more"),
    ],
)
def test_settings_beyond_reason_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        Settings(**wrong)
