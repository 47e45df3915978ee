"""Writing token by token, held to an enumeration of everything that could be written."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from components import decoding
from components.decoding import Cache, Text
from components.texts import END, PAD, START, UNKNOWN

V, MOST, ROWS = 7, 3, 6
WORDS = (4, 5, 6)  # all that can be written beside END


class Table:
    """What comes next hangs on the row, the place and the last token: logits_V in a table. Counts its steps."""

    def __init__(self, seed: int = 0, places: int = MOST + 1) -> None:
        self.logits = 2 * torch.randn(ROWS, places, V, V, generator=torch.Generator().manual_seed(seed))
        self.rows_seen: list[int] = []

    def begin(self, *rows: int) -> Cache:
        return {"row": torch.tensor(rows), "at": torch.zeros(len(rows), dtype=torch.long)}

    def step(self, last_H: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]:
        self.rows_seen.append(len(last_H))
        return self.logits[cache["row"], cache["at"], last_H], {**cache, "at": cache["at"] + 1}

    def log(self, row: int, ids: tuple[int, ...], ends: bool = True) -> float:
        """The log-probability of a text, or of all that begin so: never a special token."""
        total = 0.0
        for at, (last, token) in enumerate(itertools.pairwise((START, *ids, *([END] if ends else [])))):
            logits_V = self.logits[row, at, last].double()
            total += float(logits_V[token] - logits_V[[END, *WORDS]].logsumexp(0))
        return total


def texts(lengths: range) -> list[tuple[int, ...]]:
    return [ids for length in lengths for ids in itertools.product(WORDS, repeat=length)]


def worth(total: float, tokens: int, penalty: float) -> float:
    return total / ((5 + tokens) / 6) ** penalty


def best(table: Table, row: int, penalty: float) -> tuple[int, ...]:
    """The best text of those with at most as many tokens as when one beats everything that is still open."""
    found: tuple[float, tuple[int, ...]] = (-math.inf, ())
    for length in range(MOST + 1):
        ended = [(worth(table.log(row, ids), length + 1, penalty), ids) for ids in texts(range(length, length + 1))]
        found = max(found, *ended)
        longer = texts(range(length + 1, length + 2))
        if found[0] >= max(worth(table.log(row, ids, False), length + 1, penalty) for ids in longer):
            break
    return found[1]


# ── beam search ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_with_room_for_all_hypotheses_it_finds_the_best_text_of_all(penalty: float, seed: int) -> None:
    table = Table(seed)
    found = decoding.beam(table, table.begin(*range(ROWS)), 200, MOST, penalty)
    assert [tuple(text.ids) for text in found] == [best(table, row, penalty) for row in range(ROWS)]
    if not penalty:  # what is open can only become less likely: nothing was left undone too early
        likeliest = [max(texts(range(MOST + 1)), key=lambda ids: table.log(row, ids)) for row in range(ROWS)]
        assert [tuple(text.ids) for text in found] == likeliest


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_more_beams_never_write_specials_nor_more_than_the_most(beams: int) -> None:
    for seed in range(10):
        table = Table(seed)
        for text in decoding.beam(table, table.begin(*range(ROWS)), beams, MOST, 0.6):
            assert len(text.ids) <= MOST and {*text.ids} <= {*WORDS}


def test_one_beam_is_greedy() -> None:
    table = Table(3)
    for row, text in enumerate(decoding.beam(table, table.begin(*range(ROWS)), 1, MOST, 0.6)):
        ids: tuple[int, ...] = ()
        while len(ids) < MOST:
            token = max([END, *WORDS], key=lambda t: float(table.logits[row, len(ids), (START, *ids)[-1], t]))
            if token == END:
                break
            ids = (*ids, token)
        assert tuple(text.ids) == ids


def test_few_beams_find_what_greed_misses() -> None:
    """The likeliest first token leads nowhere."""
    table = Table()
    table.logits[0] = -9.0
    table.logits[0, 0, START, 4], table.logits[0, 0, START, 5] = 1.0, 0.9
    table.logits[0, 1, 4, [4, 5, 6, END]] = 0.0
    table.logits[0, 1, 5, END] = 9.0
    assert [decoding.beam(table, table.begin(0), beams, MOST, 0.0)[0].ids[0] for beams in (1, 2)] == [4, 5]


def test_going_round_in_circles_until_it_is_cut_off_is_not_the_surest_text() -> None:
    table = Table()
    table.logits[0] = -9.0
    table.logits[0, 0, START, 4], table.logits[0, 0, START, 5] = 2.0, 1.0
    table.logits[0, :, 4, 4], table.logits[0, 1, 5, END] = 9.0, 3.0
    assert decoding.beam(table, table.begin(0), 3, MOST, 0.6)[0].ids == [5]


def test_a_growing_length_penalty_prefers_longer_texts() -> None:
    lengths = []
    for penalty in (0.0, 0.5, 1.0, 2.0):
        tables = [Table(seed) for seed in range(12)]
        found = [t for table in tables for t in decoding.beam(table, table.begin(*range(ROWS)), 20, MOST, penalty)]
        lengths.append(sum(len(text.ids) for text in found))
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


@pytest.mark.parametrize("beams", [1, 4])
def test_the_score_is_the_log_probability_by_token(beams: int) -> None:
    table = Table(1)
    for row, text in enumerate(decoding.beam(table, table.begin(*range(ROWS)), beams, MOST, 0.6)):
        assert text.score == pytest.approx(table.log(row, tuple(text.ids)) / (len(text.ids) + 1), abs=1e-5)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_row_gets_the_same_text_in_any_company_and_is_left_behind_when_done(beams: int) -> None:
    table = Table(2)
    together = decoding.beam(table, table.begin(*range(ROWS)), beams, MOST, 0.6)
    seen = table.rows_seen
    assert seen[0] == ROWS * beams and seen == sorted(seen, reverse=True) and seen[-1] < seen[0]
    for row in range(ROWS):
        assert decoding.beam(table, table.begin(row), beams, MOST, 0.6) == [together[row]]


# ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────


def drawn(table: Table, count: int, **cut: float) -> list[Text]:
    """`count` texts of row 0."""
    uniform_BT = torch.from_numpy(np.random.default_rng(0).random((count, MOST), np.float32))
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **cut}
    return decoding.sample(table, table.begin(*[0] * count), uniform_BT, **settings)  # type: ignore[arg-type]


def test_texts_are_drawn_as_often_as_they_are_likely() -> None:
    table, count = Table(), 8_000
    found = [tuple(text.ids) for text in drawn(table, count)]
    for ids in texts(range(MOST + 1)):
        likely = math.exp(table.log(0, ids, ends=len(ids) < MOST))  # after MOST nothing but END is drawn
        assert found.count(ids) / count == pytest.approx(
            likely, abs=4 * math.sqrt(likely * (1 - likely) / count) + 1e-4
        )


def test_a_low_temperature_sharpens_and_a_high_one_levels() -> None:
    table = Table()
    likely = torch.tensor([math.exp(table.log(0, (token,), False)) for token in WORDS] + [math.exp(table.log(0, ()))])
    for temperature in (0.5, 3.0):
        first = [(*text.ids, END)[0] for text in drawn(table, 8_000, temperature=temperature)]
        share = likely ** (1 / temperature) / (likely ** (1 / temperature)).sum()
        assert [first.count(token) / 8_000 for token in (*WORDS, END)] == pytest.approx(share.tolist(), abs=0.025)


def next_tokens(table: Table, row: int = 0) -> dict[int, float]:
    """What may stand first, the likeliest first, with its probability."""
    likely = {token: math.exp(table.log(row, (token,), False)) for token in WORDS} | {END: math.exp(table.log(row, ()))}
    return dict(sorted(likely.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_only_the_top_k_are_drawn(top_k: int) -> None:
    table = Table(4)
    kept = list(next_tokens(table).items())[:top_k]
    first = [(*text.ids, END)[0] for text in drawn(table, 5_000, top_k=top_k)]
    assert {*first} == {token for token, _ in kept}
    whole = sum(share for _, share in kept)
    assert [first.count(token) / 5_000 for token, _ in kept] == pytest.approx([s / whole for _, s in kept], abs=0.03)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_only_the_fewest_that_hold_top_p_are_drawn(count: int) -> None:
    table = Table(4)
    kept = list(next_tokens(table).items())[:count]
    for less in (0.999, sum(share for _, share in kept[:-1]) / sum(share for _, share in kept) + 0.001):
        first = [(*text.ids, END)[0] for text in drawn(table, 5_000, top_p=less * sum(share for _, share in kept))]
        assert {*first} == {token for token, _ in kept}


def test_no_top_p_at_all_leaves_the_likeliest() -> None:
    table = Table(4)
    greedy = decoding.beam(table, table.begin(0), 1, MOST, 0.0)[0].ids
    assert all(text.ids == greedy for text in drawn(table, 50, top_p=0.0))


def test_drawn_scores_are_the_nets_own_whatever_was_cut() -> None:
    table = Table(1)
    for text in drawn(table, 200, temperature=2.0, top_k=2, top_p=0.9):
        assert text.score == pytest.approx(table.log(0, tuple(text.ids)) / (len(text.ids) + 1), abs=1e-5)


def test_a_text_is_drawn_by_its_source_and_the_seed_alone() -> None:
    sources, table = ["b", "a", "longer text", "", "ü", "b"], Table(5)
    uniform_BT = decoding.uniforms(sources, 3, MOST)
    assert uniform_BT.dtype == torch.float32 and ((uniform_BT >= 0) & (uniform_BT < 1)).all()
    assert uniform_BT[0].equal(uniform_BT[5]) and len({tuple(row) for row in uniform_BT.tolist()}) == 5
    assert not uniform_BT.equal(decoding.uniforms(sources, 4, MOST))
    assert decoding.uniforms([], 3, MOST).shape == (0, MOST)
    together = decoding.sample(table, table.begin(*range(ROWS)), uniform_BT, 1.0, 0, 0.9)
    for row in range(ROWS):
        alone = decoding.sample(table, table.begin(row), decoding.uniforms([sources[row]], 3, MOST), 1.0, 0, 0.9)
        assert alone == [together[row]]


def test_special_tokens_are_never_written_however_likely() -> None:
    table = Table()
    table.logits[:, :, :, [PAD, UNKNOWN, START]] = 50.0
    found = [*decoding.beam(table, table.begin(*range(ROWS)), 2, MOST, 0.6), *drawn(table, 500)]
    assert {token for text in found for token in text.ids} <= {*WORDS}
    assert all(math.isfinite(text.score) for text in found)


def test_what_never_ends_is_ended() -> None:
    table = Table()
    table.logits[:, :, :, END] = -50.0
    found = [*decoding.beam(table, table.begin(*range(ROWS)), 2, MOST, 0.6), *drawn(table, 100)]
    assert {len(text.ids) for text in found} == {MOST}
