"""What recurrent nets that write must know beside the contract: padding, what is looked at, and that writing token by
token is what was learnt."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from components import decoding, text_pairs, writing
from components.contract import Data
from components.devices import device
from components.errors import ParamsError
from components.families.seq2seq import Net, Seq2seq, Settings
from components.text_pairs import Pairs
from components.texts import END, PAD, START, UNKNOWN

from .cases import Case, one_thread, rewritten  # noqa: F401

SMALL = {
    "source": "words",
    "target": "words",
    "embedding": 16,
    "width": 16,
    "attention": 16,
    "dropout": 0.1,
    "token_dropout": 0.05,
    "lr": 1e-2,
    "batch_rows": 16,
    "longest": 16,
    "average": 0.9,
    "beams": 3,
}
FED = {**SMALL, "cell": "lstm", "fed": True, "source": "characters", "longest": 40, "beams": 1}
DRAWN = {**SMALL, "depth": 2, "source": "pieces", "target": "pieces", "tokens": 320, "temperature": 0.7}
HEART = {**SMALL, "dropout": 0.0, "token_dropout": 0.0, "label_smoothing": 0.0, "average": 0.0, "batch_rows": 4}
LETTERS = {**HEART, "source": "pieces", "target": "pieces", "tokens": 320, "width": 32, "lr": 2e-2}
DATA = rewritten()
CASES = [
    Case("words", DATA, SMALL, HEART, reached=0.1),
    Case("fed", DATA, FED, {**HEART, "cell": "lstm", "fed": True}, reached=0.1),
    Case("pieces", DATA, DRAWN, LETTERS, 0.1),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def taught(hyper: dict[str, Any], epochs: int = 1, data: Data = DATA) -> Net:
    *_, epoch = itertools.islice(Seq2seq().fit(data, hyper, 0), epochs)
    return Seq2seq().load(data.spec, hyper, epoch.state().served())


def tokens(net: Net, split: str = "test") -> Pairs:
    return text_pairs.pairs(net.spec, DATA.splits[split], net.known, net.settings)


@pytest.fixture(scope="module")
def nets() -> dict[str, Net]:
    return {case.name: taught(dict(case.hyper)) for case in CASES}


@each_case
def test_padding_does_not_change_what_is_said_of_a_row(case: Case, nets: dict[str, Net]) -> None:
    net = nets[case.name]
    given = tokens(net)
    short, long = (int(at) for at in (given.source.lengths_N.argmin(), given.source.lengths_N.argmax()))
    assert given.source.lengths_N[short] < given.source.lengths_N[long]
    with torch.inference_mode():
        together_BTV, ids_BT = net.logits(given, torch.tensor([long, short]))
        alone_1TV, ids_1T = net.logits(given, torch.tensor([short]))
    assert ids_BT[1, : ids_1T.shape[1]].equal(ids_1T[0])
    torch.testing.assert_close(together_BTV[1, : ids_1T.shape[1]], alone_1TV[0], rtol=1e-4, atol=1e-5)


@each_case
def test_it_looks_at_the_whole_source_and_never_at_padding(case: Case, nets: dict[str, Net]) -> None:
    net = nets[case.name]
    source = tokens(net).source
    rows_B = torch.arange(40)
    ids_BS, _ = source.padded(rows_B)
    assert (ids_BS == PAD).any()
    with torch.inference_mode():
        cache = net.begin(source, rows_B)
        weights_BTS = net.weights(torch.randn(40, 3, 2 * net.settings.width, device=device()), cache).cpu()
    there_BTS = (ids_BS != PAD)[:, None].expand_as(weights_BTS)
    assert (weights_BTS[~there_BTS] == 0).all() and (weights_BTS[there_BTS] > 0).all()
    torch.testing.assert_close(weights_BTS.sum(2), torch.ones(40, 3))


@each_case
def test_token_by_token_it_says_what_it_says_of_a_whole_target(case: Case, nets: dict[str, Net]) -> None:
    net, rows_B = nets[case.name], torch.arange(20)
    given = tokens(net)
    with torch.inference_mode():
        logits_BTV, ids_BT = net.logits(given, rows_B)
        last_BT = functional.pad(ids_BT[:, :-1], (1, 0), value=START)
        cache, made = net.begin(given.source, rows_B), []
        for last_B in last_BT.T:
            logits_BV, cache = net.step(last_B, cache)
            made.append(logits_BV)
    there_BT = ids_BT != PAD
    torch.testing.assert_close(torch.stack(made, 1)[there_BT], logits_BTV[there_BT], rtol=1e-4, atol=1e-5)


@each_case
def test_what_comes_later_in_a_target_does_not_show(case: Case, nets: dict[str, Net]) -> None:
    net, rows_B = nets[case.name], torch.arange(8)
    given = tokens(net)
    ids_T = given.target.ids_T.clone()
    ids_T[given.target.starts_N + 2] = len(writing.texts.SPECIALS)  # the third token of each
    other = Pairs(given.source, type(given.target)(ids_T, given.target.starts_N, given.target.lengths_N))
    with torch.inference_mode():
        one_BTV, another_BTV = (net.logits(pairs, rows_B)[0] for pairs in (given, other))
    assert one_BTV[:, :3].equal(another_BTV[:, :3]) and not one_BTV[:, 3].equal(another_BTV[:, 3])


@each_case
def test_one_beam_is_the_likeliest_token_at_each_step(case: Case, nets: dict[str, Net]) -> None:
    net, most = nets[case.name], 6
    source = tokens(net).source
    with torch.inference_mode():
        found = decoding.beam(net, net.begin(source, torch.arange(12)), 1, most, 0.6)
        for row in range(12):
            cache, said = net.begin(source, torch.tensor([row])), [START]
            while len(said) <= most and said[-1] != END:
                logits_1V, cache = net.step(torch.tensor(said[-1:]), cache)
                logits_1V[:, [PAD, UNKNOWN, START]] = -torch.inf
                said.append(int(logits_1V.argmax()))
            assert found[row].ids == [token for token in said[1:] if token != END]


def test_end_ends_a_text() -> None:
    """All targets have three words, however long the source: so has every text, learnt well enough."""
    net = taught(
        {**HEART, "batch_rows": 16}, 12, Data(DATA.spec, {name: thirds(rows) for name, rows in DATA.splits.items()})
    )
    written = writing.written(net, DATA.splits["test"]["text"].to_pylist())
    assert {len(text.split()) for text, _ in written} == {3}


def thirds(rows: pa.Table) -> pa.Table:
    made = [" ".join((text.split() * 3)[:3]) for text in rows["text"].to_pylist()]
    return rows.set_column(rows.schema.get_field_index("target"), "target", pa.array(made))


@pytest.mark.parametrize("fed", [False, True])
def test_it_learns_what_becomes_of_words_and_where_they_stand(fed: bool) -> None:
    hyper = {**SMALL, "fed": fed, "width": 24, "judged": 72}
    net = taught(hyper, 15)
    figures = writing.told(writing.judge(net, DATA, "test"), "test")
    assert figures["test/sequence_error_rate"] < 0.1
    assert writing.baseline(DATA, "test", Settings(**hyper))["test/sequence_error_rate"] == 1.0


def test_hidden_tokens_are_hidden_while_it_learns_alone() -> None:
    hyper = {**HEART, "token_dropout": 0.9}
    net, rows_B = taught(hyper), torch.arange(5)
    given = tokens(net)
    with torch.inference_mode():
        once, again = (net.logits(given, rows_B)[0] for _ in range(2))
        assert once.equal(again)
        net.train()
        assert not net.logits(given, rows_B)[0].equal(once)


def test_codes_are_the_mean_over_a_source_without_its_padding() -> None:
    net = taught(SMALL)
    texts = DATA.splits["test"]["text"].to_pylist()[:9]
    codes_ND = Seq2seq().encode(net, pa.record_batch({"text": texts}))
    for text, code_D in zip(texts, codes_ND, strict=True):
        with torch.inference_mode():
            memory = net.begin(net.known.source.encode([text]), torch.tensor([0]))["memory"]
        np.testing.assert_allclose(code_D, memory[0].mean(0).cpu().numpy(), rtol=1e-4, atol=1e-6)


def test_empty_missing_and_strange_texts_get_a_text() -> None:
    batch = pa.record_batch({"text": pa.array(["", None, "…", "слово", "\n", "a dog waits"])})
    made = Seq2seq().score(taught(SMALL), batch)
    assert np.isfinite(made.column("score").to_numpy()).all() and made.column("text").null_count == 0


def test_a_cell_that_is_none_is_refused() -> None:
    with pytest.raises(ParamsError, match="setting 'cell' got 'lst', expected one of gru, lstm"):
        Settings(cell="lst")
