"""Rivals of families that write: a language model of counts, and writers that look up or cut."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.kneser_ney import KneserNey
from benchmarks.rows import writing as rivals
from components import text_pairs
from components.contract import Column, Data, Spec
from components.texts import END, PAD, START

V = 6


def drawn(seed: int, count: int = 200, order: int = 3) -> np.ndarray:
    """Events of a small language in which a token hangs on the one before."""
    draw = np.random.default_rng(seed)
    line = [0]
    for _ in range(count + order - 1):
        line.append(int((line[-1] + draw.choice(4, p=[0.6, 0.2, 0.15, 0.05])) % (V - 1)))
    return np.lib.stride_tricks.sliding_window_view(np.array(line), order)


def nats(model: KneserNey, events: np.ndarray) -> float:
    return float(-np.log(model.probabilities(events)).mean())


def test_probabilities_of_all_tokens_add_up_to_one_after_any_context() -> None:
    model = KneserNey.fitted(drawn(0), V)
    assert all(0 < order.discount < 1 for order in model.orders[1:])
    for context in itertools.product(range(V), repeat=2):  # token 5 is never there
        events = np.array([[*context, token] for token in range(V)])
        assert model.probabilities(events).sum() == pytest.approx(1, abs=1e-12)
        assert (model.probabilities(events) > 0).all()


def test_a_hand_worked_example() -> None:
    # Pairs ab ab ac bc: after a stand b (twice) and c; b is there after one token, c after two.
    model = KneserNey.fitted(np.array([[0, 1], [0, 1], [0, 2], [1, 2]]), 4)
    low, high = model.orders
    assert low.discount == pytest.approx(1 / 3) and high.discount == pytest.approx(2 / 4)
    rest = (1 / 3) * 2 / 3 / 4  # of each of 4 tokens
    b, c = (1 - 1 / 3) / 3 + rest, (2 - 1 / 3) / 3 + rest
    after_a = [0.5 * 2 / 3 * rest, 1.5 / 3 + 0.5 * 2 / 3 * b, 0.5 / 3 + 0.5 * 2 / 3 * c, 0.5 * 2 / 3 * rest]
    assert model.probabilities(np.array([[0, token] for token in range(4)])) == pytest.approx(after_a)
    assert model.probabilities(np.array([[3, 2]])) == pytest.approx([c])


def test_the_numbers_are_nltks() -> None:
    lm = pytest.importorskip("nltk.lm")
    events = drawn(1, count=60)
    grams = [tuple(map(str, event[-n:])) for event in events for n in (1, 2, 3)]
    theirs = lm.KneserNeyInterpolated(3, discount=0.4)
    theirs.fit([grams], vocabulary_text=[str(token) for token in range(V)])
    ours = KneserNey.fitted(events, V, discounts=(0.0, 0.4, 0.4))
    wanted = [theirs.score(str(c), (str(a), str(b))) for a, b, c in events]
    assert ours.probabilities(events) == pytest.approx(wanted, rel=1e-9)
    new = np.array([[a, b, 1] for a in range(4) for b in range(4)])
    assert ours.probabilities(new) == pytest.approx([theirs.score("1", (str(a), str(b))) for a, b, _ in new], rel=1e-9)


def test_more_context_tells_more_where_there_is_more_to_tell() -> None:
    train, test = drawn(2, 4000), drawn(3, 1000)
    found = [nats(KneserNey.fitted(train[:, -n:], V), test[:, -n:]) for n in (1, 2)]
    entropy = -sum(p * math.log(p) for p in (0.6, 0.2, 0.15, 0.05))
    assert found[1] == pytest.approx(entropy, rel=0.03) and found[0] > 1.3 * entropy


# ── on data ─────────────────────────────────────────────────────────────────────────────────────────────


def data(train: dict[str, str], test: dict[str, str]) -> Data:
    spec = Spec("phrases", "text2text", (Column("said", "text", longest=100),), "meant", id=None)
    tables = [pa.table({"said": list(part), "meant": list(part.values())}) for part in (train, test)]
    return Data(spec, {"train": tables[0], "val": tables[1], "test": tables[1]})


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> text_pairs.Settings:
    made = text_pairs.Settings(source="words", target="words", judged=2)
    monkeypatch.setattr(rivals.trained, "settings", lambda _: made)
    return made


def test_events_are_tokens_of_targets_after_what_was_said(settings: text_pairs.Settings) -> None:
    given = data({"one two three": "four", "five": "six one"}, {"one": "two"})
    known = text_pairs.vocabularies(given, settings)
    number = {word: known.target.encode([word]).ids_T.item() for word in ("one", "two", "three", "four", "five", "six")}
    found = rivals.events(text_pairs.pairs(given.spec, given.splits["train"], known, settings))
    first = [number["two"], number["three"], START]
    second = [number["five"], START]
    assert found.tolist() == [
        [number["one"], *first, number["four"]],
        [*first, number["four"], END],
        [PAD, PAD, *second, number["six"]],
        [PAD, *second, number["six"], number["one"]],
        [*second, number["six"], number["one"], END],
    ]
    both = rivals.events(text_pairs.pairs(given.spec, given.splits["train"], known, settings), np.array([False, True]))
    assert both.tolist() == [*found[:2].tolist(), [PAD] * 4 + [number["five"]], *found[2:].tolist()]


def test_what_stands_only_before_replies_is_learnt_too(settings: text_pairs.Settings) -> None:
    known = {f"{name} says kelp": "dune" for name in ("anna", "ben", "carl")}
    heard = data(known, {"oh": "carl says kelp"})
    deaf = data({f"hello\n{said}": reply for said, reply in known.items()}, {"oh": "carl says kelp"})
    found, worse = (rivals.fivegram(each, 0)["Kneser–Ney 5-gram"]["perplexity"] for each in (heard, deaf))
    assert found < 0.7 * worse


def test_perplexity_is_that_of_the_test_targets(settings: text_pairs.Settings) -> None:
    train = {f"{way} say {word}": word for word in ("kelp", "dune", "reef") for way in ("do", "please", "now")}
    echoed = data(train, {"oh say kelp": "kelp", "oh say dune": "dune"})
    crossed = data(train, {"oh say kelp": "reef", "oh say dune": "reef"})
    found, worse = (rivals.fivegram(each, 0)["Kneser–Ney 5-gram"]["perplexity"] for each in (echoed, crossed))
    assert 1 < found < 1.5 and worse > 2 * found


def test_the_longest_phrase_is_taken_and_placeholders_stay() -> None:
    known = rivals.taught(
        data({"Edit": "Modifier", "edit": "edit", "Page": "Page", "Edit page": "Éditer", "URL": "URL"}, {"x": "y"})
    )
    read = ["Edit page %(page)s, edit {edit} URL", "Unknown <b>Page</b>.", "…"]
    assert rivals.looked_up(known, read) == ["Éditer %(page)s, modifier {edit} URL", "Unknown <b>page</b>.", "…"]
    assert rivals.nearest(known, ["edits", "Pages"]) == ["Modifier", "Page"]


def test_a_rival_writes_for_the_sources_that_the_net_writes_for(settings: text_pairs.Settings) -> None:
    tests = {"Open the old door": "Ouvre la porte", "Close": "Fermer", "Open": "Ouvrir", "Wait": "Wait"}
    given = data({"Close": "Fermer", "Open": "Ouvrir", "door": "porte"}, tests)
    found = rivals.translators(given, 0)
    assert set(found) == set(rivals.TRANSLATORS)
    assert found["copy of the source"]["sequence_error_rate"] == 0.5  # the first and the last of four
    assert {"bleu", "chrf"} <= set(found["phrase lookup"])


def test_summaries_that_cut() -> None:
    body = "It is e.g. this. Or that? " + "word " * 20
    assert rivals.first_sentence(body) == "It is e.g."
    assert rivals.first_sentence("It has v1.2 and no end") == "It has v1.2 and no end"
    given = data({"a b": "c"}, {body: "It is e.g.", "one " * 14: "one " * 12})
    found = rivals.leads(given, 0)
    assert found["first sentence"]["rouge2"] == pytest.approx(0.5 + 0.5 * 22 / 24)
    assert found["first 12 words"]["sequence_error_rate"] == 0.5
    assert {row.metric for row in rivals.ROWS if row.pipeline == "summarize-docstrings"} <= set(found["first sentence"])


def test_rows_show_what_they_must_be_above() -> None:
    empty = SimpleNamespace(**{"chat": ("Kneser–Ney 5-gram",), "translate-en-fr": rivals.TRANSLATORS})
    for row in rivals.ROWS:
        assert row.above == vars(empty).get(row.pipeline, row.above)
