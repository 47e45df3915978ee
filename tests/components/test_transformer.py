"""What transformers must know beside the contract: what a token may see, and that writing is what was learnt."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import decoding, text_pairs
from components.attention import Sizes, Stack, View, sight, turns
from components.errors import ParamsError
from components.families.transformer import Net, Settings, Transformer, runs
from components.text_pairs import Pairs
from components.texts import END, PAD, START, UNKNOWN, Tokens

from .cases import Case, one_thread, rewritten  # noqa: F401

SMALL = {
    "source": "words",
    "target": "words",
    "width": 32,
    "heads": 2,
    "depth": 2,
    "wider": 2,
    "dropout": 0.1,
    "token_dropout": 0.05,
    "lr": 1e-2,
    "batch_rows": 16,
    "longest": 16,
    "average": 0.9,
    "beams": 3,
}
DRAWN = {
    **SMALL,
    "net": "decoder",
    "both": True,
    "source": "pieces",
    "target": "pieces",
    "tokens": 320,
    "temperature": 0.7,
}
HEART = {**SMALL, "dropout": 0.0, "token_dropout": 0.0, "label_smoothing": 0.0, "average": 0.0}
DATA = rewritten()
CASES = [
    Case("encoder-decoder", DATA, SMALL, HEART, reached=0.02),
    Case("decoder", DATA, DRAWN, {**HEART, "net": "decoder"}, reached=0.02),
]
NETS = ("encoder-decoder", "decoder")
each_net = pytest.mark.parametrize("net", NETS)
each_reader = pytest.mark.parametrize(
    ("net", "more"), [(net, more) for net in NETS for more in ({}, {"grams": 97}, {"grams": 97, "order": 2})]
)
APART = {"source": "characters", "target": "words"}  # which a decoder cannot have
SOURCES = [[5, 6, 7], [8], [5, 9, 4, 6, 10, 11, 12], [6, 6]]
TARGETS = [[5, 4, END], [6, 7, 8, 9, END], [END], [10, 10, 4, END]]


def begun(net: str, **changes: Any) -> Any:
    """A net that has learnt nothing, in evaluation mode."""
    torch.manual_seed(3)
    settings = Settings(**{**HEART, "net": net, **changes})
    net_ = Net(DATA.spec, text_pairs.vocabularies(DATA, settings), settings).eval()
    if net_.grams is not None:
        torch.nn.init.normal_(net_.grams.weight, std=0.3)  # it begins as if there were none
    return net_


def logits(net: Any, sources: list[list[int]], targets: list[list[int]]) -> list[torch.Tensor]:
    """logits_TV of each row, taken together."""
    pairs = Pairs(Tokens.of(sources), Tokens.of(targets))
    logits_BTV, ids_BT = net.logits(pairs, torch.arange(len(pairs)))
    assert unpadded(ids_BT) == targets
    return [row_TV[: len(ids)] for row_TV, ids in zip(logits_BTV, targets, strict=True)]


def unpadded(ids_BT: torch.Tensor) -> list[list[int]]:
    return [[token for token in row if token != PAD] for row in ids_BT.tolist()]


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


# ── what a token sees ───────────────────────────────────────────────────────────────────────────────────


@each_reader
def test_a_row_is_what_it_is_alone_whatever_it_is_padded_to(net: str, more: dict[str, Any]) -> None:
    made = begun(net, **more)
    together = logits(made, SOURCES, TARGETS)
    for source, target, row_TV in zip(SOURCES, TARGETS, together, strict=True):
        assert near(row_TV, logits(made, [source], [target])[0])


@each_reader
def test_a_token_sees_all_of_the_source_and_what_was_written_before_it_alone(net: str, more: dict[str, Any]) -> None:
    made = begun(net, **more)
    before = logits(made, SOURCES, TARGETS)[1]
    later = logits(made, SOURCES, [TARGETS[0], [6, 7, 5, 9, END], *TARGETS[2:]])[1]
    assert near(later[:3], before[:3])
    assert not near(later[3:4], before[3:4]) and not near(later[4:], before[4:])
    for at in range(3):
        other = [list(source) for source in SOURCES]
        other[0][at] = 13
        changed, same = logits(made, other, TARGETS), logits(made, SOURCES, TARGETS)
        assert all(not near(changed[0][t : t + 1], same[0][t : t + 1]) for t in range(3))
        assert near(changed[1], same[1]), "nor what other rows are"


@each_net
def test_it_reads_tokens_in_their_order(net: str) -> None:
    made = begun(net)
    there, back = logits(made, [[5, 6, 7], [7, 6, 5]], [[4, 5, END]] * 2)
    assert not near(there, back)
    turned = logits(made, [[5, 6, 7]] * 2, [[4, 5, 6, END], [5, 4, 6, END]])
    assert not near(turned[0][2:], turned[1][2:])


def test_attention_knows_how_far_apart_tokens_are_not_where_they_stand() -> None:
    sizes = Sizes(width=16, heads=2, depth=2, wider=2, dropout=0.0)
    torch.manual_seed(0)
    stack, x_BTD = Stack(sizes, reads=True).eval(), torch.randn(2, 6, 16)
    source_BSD = torch.randn(2, 4, 16)

    def made(by: int) -> torch.Tensor:
        turn = turns(torch.arange(6)[None] + by, sizes)
        kept = stack.remembered(source_BSD, turn[:, :4])
        out_BTD: torch.Tensor = stack(x_BTD, View(turn, causal=True), kept)[0]
        return out_BTD

    assert torch.allclose(made(0), made(700), atol=1e-4)


def test_attention_is_what_the_paper_says() -> None:
    """One head, by hand: softmax(QKᵀ / √d) V of normalised inputs, at place 0 so that nothing is turned."""
    sizes = Sizes(width=4, heads=1, depth=1, wider=1, dropout=0.0)
    torch.manual_seed(0)
    layer = Stack(sizes, reads=False).layers[0]
    x_BTD = torch.randn(1, 3, 4)
    there_BT = torch.tensor([[True, True, False]])
    view = View(turns(torch.zeros(1, 3), sizes), own=sight(there_BT))
    normal = torch.nn.functional.layer_norm(x_BTD, (4,))
    q, k, v = (normal @ part.T for part in layer.qkv.weight.split(4))
    weight = (q @ k.transpose(1, 2) / 2)[:, :, :2].softmax(2)
    after = x_BTD + weight @ v[:, :2] @ layer.own.weight.T
    inner = (torch.nn.functional.layer_norm(after, (4,)) @ layer.wide.weight.T + layer.wide.bias).clamp(min=0)
    expected = after + inner @ layer.narrow.weight.T + layer.narrow.bias
    assert torch.allclose(layer(x_BTD, view, None, None)[0], expected, atol=1e-5)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────


@each_reader
@torch.inference_mode()
def test_step_by_step_it_says_what_it_was_taught_to_say(net: str, more: dict[str, Any]) -> None:
    """Rows of unlike length together; the cache is what the whole sequence was."""
    made = begun(net, **more)
    wanted = logits(made, SOURCES, TARGETS)
    cache, last_H = made.begin(Tokens.of(SOURCES), torch.arange(4)), torch.full((4,), START)
    for at in range(5):
        logits_HV, cache = made.step(last_H, cache)
        for row, target in enumerate(TARGETS):
            if at < len(target):
                assert torch.allclose(logits_HV[row], wanted[row][at], atol=1e-5), (row, at)
        last_H = torch.tensor([target[at] if at < len(target) else PAD for target in TARGETS])


@each_reader
@torch.inference_mode()
def test_a_cache_is_kept_doubled_and_turned_about_by_its_rows(net: str, more: dict[str, Any]) -> None:
    made = begun(net, **more)
    _, cache = made.step(torch.full((4,), START), made.begin(Tokens.of(SOURCES), torch.arange(4)))
    _, cache = made.step(torch.tensor([5, 6, 7, 8]), cache)
    assert {len(values) for values in cache.values()} == {4}
    rows_H = torch.tensor([2, 0, 0, 3])
    taken = {name: values[rows_H] for name, values in cache.items()}
    last_H = torch.tensor([4, 9, 10, 11])
    after_HV, _ = made.step(last_H, taken)
    for at, row in enumerate(rows_H.tolist()):
        alone = logits(made, [SOURCES[row]], [[5 + row, int(last_H[at]), END]])[0]
        assert torch.allclose(after_HV[at], alone[2], atol=1e-5)


@each_reader
@torch.inference_mode()
def test_the_score_of_a_text_is_its_likelihood_however_many_beams_wrote_it(net: str, more: dict[str, Any]) -> None:
    """Only if beams and finished rows take their caches along."""
    made = begun(net, **more)
    for beams in (1, 4):
        found = decoding.beam(made, made.begin(Tokens.of(SOURCES), torch.arange(4)), beams, 6, 0.6)
        for source, text in zip(SOURCES, found, strict=True):
            target = [*text.ids, END]
            logits_TV = logits(made, [source], [target])[0]
            logits_TV[:, [PAD, UNKNOWN, START]] = -torch.inf
            log_T = logits_TV.log_softmax(1)[torch.arange(len(target)), target]
            assert text.score == pytest.approx(float(log_T.mean()), abs=1e-4)


@each_net
def test_it_writes_what_it_learnt_and_the_same_in_any_company(net: str) -> None:
    hyper = {**HEART, "net": net, "lr": 5e-3}
    *_, epoch = itertools.islice(Transformer().fit(DATA, hyper, 0), 12)
    made = Transformer().load(DATA.spec, hyper, epoch.state().served())
    test = DATA.splits["test"]
    written = Transformer().score(made, test.select(["text"]).combine_chunks().to_batches()[0])
    right = np.mean([a == b for a, b in zip(written["text"].to_pylist(), test["target"].to_pylist(), strict=True)])
    assert right > 0.5
    alone = Transformer().score(made, pa.record_batch({"text": test["text"].slice(3, 1).combine_chunks()}))
    assert alone["text"][0] == written["text"][3]
    assert alone["score"][0].as_py() == pytest.approx(written["score"][3].as_py(), abs=1e-4)


@each_net
def test_empty_missing_and_strange_texts_become_texts(net: str) -> None:
    batch = pa.record_batch({"text": pa.array(["", None, "…", "слово", "\n", "the red dog waits"])})
    made = begun(net)
    assert np.isfinite(Transformer().score(made, batch)["score"].to_numpy()).all()
    assert np.isfinite(Transformer().encode(made, batch)).all()


@each_net
@pytest.mark.parametrize("both", [False, True])
def test_it_says_how_many_tokens_it_learns_of_each_row(net: str, both: bool) -> None:
    made = begun(net, both=both)
    pairs = text_pairs.pairs(DATA.spec, DATA.splits["train"], made.known, made.settings)
    for training in (True, False):
        _, ids_BT = made.train(training).logits(pairs, torch.arange(9))
        same = (ids_BT != PAD).sum(1).equal(made.learnt(pairs)[:9])
        assert same or (both and net == "decoder" and not training), "only to learn are sources foretold"


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_of_tokens_that_differ_have_numbers_of_their_own() -> None:
    ids_BN = torch.tensor([[PAD, PAD, 5, 6, 7, 6, 7], [PAD, 7, 5, 6, 7, 7, 6]])
    pairs_BT, triples_BT = runs(ids_BN, 2)
    assert pairs_BT.shape == triples_BT.shape == (2, 5)
    assert pairs_BT[0, 2] == pairs_BT[0, 4] == pairs_BT[1, 2] and triples_BT[0, 2] == triples_BT[1, 2]
    assert len({*pairs_BT.flatten().tolist()}) == len({(0, 5), (5, 6), (6, 7), (7, 6), (7, 5), (7, 7)})
    assert len({*triples_BT.flatten().tolist()}) == 9


def test_grams_are_left_out_at_random_to_learn_and_weigh_more_for_it() -> None:
    net = begun("decoder", grams=97, gram_dropout=0.75)
    x_BTD = torch.ones(40, 50, 2)
    assert net._seen(x_BTD) is x_BTD
    seen_BTD = net.train()._seen(x_BTD)
    assert {*seen_BTD.flatten().tolist()} == {0.0, 4.0} and (seen_BTD[:, :, 0] == seen_BTD[:, :, 1]).all()
    assert float(seen_BTD.mean()) == pytest.approx(1.0, abs=0.15)


@each_net
def test_grams_begin_as_if_there_were_none_and_are_learnt(net: str) -> None:
    hyper = {**HEART, "net": net, "lr": 5e-3, "grams": 97}
    torch.manual_seed(3)
    known = text_pairs.vocabularies(DATA, Settings(**hyper))
    assert not Net(DATA.spec, known, Settings(**hyper)).grams.weight.any()
    epoch = next(Transformer().fit(DATA, hyper, 0))
    assert Transformer().load(DATA.spec, hyper, epoch.state().served()).grams.weight.any(1).all()


def test_one_table_of_embeddings_serves_all_that_is_of_one_vocabulary() -> None:
    def tables(net: Any) -> list[str]:
        return [
            name
            for name, weight in net.named_parameters()
            if len(weight) in {net.known.target.size, net.known.source.size}
        ]

    assert tables(begun("encoder-decoder")) == tables(begun("decoder")) == ["target.weight"]
    assert tables(begun("encoder-decoder", **APART)) == ["target.weight", "source.weight"]


def test_hidden_tokens_are_drawn_anew_for_each_step_and_only_to_learn() -> None:
    net = begun("encoder-decoder", token_dropout=0.5)
    assert near(logits(net, SOURCES, TARGETS)[1], logits(net, SOURCES, TARGETS)[1])
    net.train()
    assert not near(logits(net, SOURCES, TARGETS)[1], logits(net, SOURCES, TARGETS)[1])


@each_net
def test_all_is_hidden_but_where_the_target_begins(net: str) -> None:
    made = begun(net, token_dropout=1.0)
    unknown = [[UNKNOWN] * len(source) for source in SOURCES], [[UNKNOWN] * (len(ids) - 1) + [END] for ids in TARGETS]
    shown = logits(made, *unknown)
    hidden = logits(made.train(), SOURCES, TARGETS)
    assert all(near(a, b) for a, b in zip(shown, hidden, strict=True))


def test_a_decoder_learns_from_targets_alone_or_from_both_and_is_measured_by_targets() -> None:
    pairs = Pairs(Tokens.of(SOURCES), Tokens.of(TARGETS))
    whole = [[*source[1:], START, *target] for source, target in zip(SOURCES, TARGETS, strict=True)]
    for both, learnt in ((False, TARGETS), (True, whole)):
        net = begun("decoder", both=both)
        assert unpadded(net.logits(pairs, torch.arange(4))[1]) == TARGETS
        logits_BTV, ids_BT = net.train().logits(pairs, torch.arange(4))
        assert unpadded(ids_BT) == learnt
        assert logits_BTV.shape[:2] == ids_BT.shape
    assert near(logits_BTV[1, 1:6], logits(begun("decoder"), SOURCES, TARGETS)[1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"net": "encoder"}, "setting 'net' got 'encoder', expected one of encoder-decoder, decoder"),
        ({"width": 100, "heads": 8}, "setting 'width' got 100, expected a multiple of 2 × 8 heads"),
        ({"net": "decoder", **APART}, r"'characters' and 'words', expected the same for both(.|\n)*one sequence"),
        ({"heads": 0}, "setting 'heads' got 0, expected 1 or more"),
        ({"source": "letters"}, "setting 'source' got 'letters', expected one of"),
    ],
)
def test_settings_that_make_no_net_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        Settings(**wrong)
