"""Figures of written texts, held to what the packages say of the same corpus."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from components import wording

WRITTEN = [
    "the red boat waits here",
    "a dog often comes home",
    "",
    "it rains , and rains , and rains",
    "K AE T S",
    "Le chat dort aujourd'hui.",
    "nothing of this is right",
    "the cat sat on the mat",
]
REFERENCES = [
    ["the red boat waits here"],
    ["a dog comes home", "my dog often comes", "often a dog comes home"],
    ["something"],
    ["it rains and rains", "it rains , and it pours , and it rains"],
    ["K AE T"],
    ["Le chat dort souvent.", "Le chat dort, aujourd'hui."],
    ["quite another text"],
    ["the cat is on the mat today"],
]
SOME = [7, 1, 1, 5, 0]


def figures(written: list[str], references: list[list[str]]) -> dict[str, float]:
    found = wording.compared(written, references)
    return {name.partition("/")[2]: value for name, value in wording.figures(found, "test").items()}


def taken(values: list[Any], rows: list[int]) -> list[Any]:
    return [values[at] for at in rows]


@pytest.mark.parametrize("rows", [list(range(8)), SOME, [0, 4, 6]])
def test_bleu_and_chrf_of_rows_are_sacrebleus_of_that_corpus(rows: list[int]) -> None:
    written, references = taken(WRITTEN, rows), taken(REFERENCES, rows)
    most = max(len(each) for each in references)
    streams = [[each[at] if at < len(each) else None for each in references] for at in range(most)]
    mine = figures(written, references)
    assert mine["bleu"] == pytest.approx(BLEU(force=True).corpus_score(written, streams).score)
    assert mine["chrf"] == pytest.approx(CHRF().corpus_score(written, streams).score)


def test_rouge_knows_words_of_any_script() -> None:
    same = figures(["Сводка дня", "été"], [["сводка дня"], ["Été"]])
    assert same["rouge1"] == same["rougeL"] == 1
    assert figures(["Сводка"], [["другое"]])["rouge1"] == 0


def test_rouge_is_the_mean_of_the_best_references_f1() -> None:
    mine, scorer = figures(WRITTEN, REFERENCES), RougeScorer(wording.ROUGE)
    for name in wording.ROUGE:
        best = [
            max(scorer.score(reference, text)[name].fmeasure for reference in each)
            for text, each in zip(WRITTEN, REFERENCES, strict=True)
        ]
        assert mine[name] == pytest.approx(np.mean(best))


def test_a_text_is_right_if_it_is_any_of_its_references() -> None:
    right = figures(["R IY D", "R EH D", "R  EH D ", "R AY D"], [["R IY D", "R EH D"]] * 4)
    assert right["sequence_error_rate"] == 0.25
    assert right["token_error_rate"] == 1 / 12
    assert figures(["R IY D"], [["R IY"]])["sequence_error_rate"] == 1.0


def test_edits_are_to_the_nearest_reference_over_its_length() -> None:
    edits = words = 0
    for text, each in zip(WRITTEN, REFERENCES, strict=True):
        nearest = min(each, key=lambda r: (Levenshtein.distance(text.split(), r.split()), len(r.split())))
        edits += Levenshtein.distance(text.split(), nearest.split())
        words += len(nearest.split())
    assert figures(WRITTEN, REFERENCES)["token_error_rate"] == pytest.approx(edits / words)


def test_the_best_is_the_best_and_the_worst_the_worst() -> None:
    same = [["one two three four five"], ["six seven eight nine ten"]]
    best = figures([each[0] for each in same], same)
    assert best == pytest.approx(
        {
            "sequence_error_rate": 0,
            "token_error_rate": 0,
            "rouge1": 1,
            "rouge2": 1,
            "rougeL": 1,
            "bleu": 100,
            "chrf": 100,
        }
    )
    worst = figures(["", "QQ"], same)
    assert worst["sequence_error_rate"] == 1 and worst["token_error_rate"] == 1
    assert worst["rougeL"] == 0 and worst["bleu"] == 0 and worst["chrf"] == 0


def test_a_second_reference_can_only_help() -> None:
    one, two = figures(WRITTEN, [each[:1] for each in REFERENCES]), figures(WRITTEN, REFERENCES)
    assert two["sequence_error_rate"] <= one["sequence_error_rate"]
    assert all(two[name] > one[name] for name in ("bleu", "chrf", "rouge1", "rouge2", "rougeL"))


def test_figures_of_rows_drawn_anew_are_those_of_the_drawn_texts() -> None:
    """As the gate's bootstrap draws them, one row twice; rows that were not compared count for nothing."""
    rows = [3, 4, 6, 8, 9, 10, 12, 13]
    whole = wording.spread(wording.compared(WRITTEN, REFERENCES), rows, 15)
    assert all(len(values) == 15 and values.dtype == np.float64 for values in whole.values())
    assert whole["compared"].nonzero()[0].tolist() == rows
    assert wording.figures(whole, "val") == {f"val/{k}": v for k, v in figures(WRITTEN, REFERENCES).items()}
    drawn = np.array([rows[at] for at in SOME] + [0, 1, 14])
    some = {name: values[drawn] for name, values in whole.items()}
    assert wording.figures(some, "test") == pytest.approx(
        {f"test/{k}": v for k, v in figures(taken(WRITTEN, SOME), taken(REFERENCES, SOME)).items()}
    )


def test_where_nothing_was_compared_there_are_no_figures() -> None:
    whole = wording.spread(wording.compared(WRITTEN, REFERENCES), [3, 4, 6, 8, 9, 10, 12, 13], 15)
    none: dict[str, NDArray[Any]] = {name: values[:3] for name, values in whole.items()}
    assert wording.figures(none, "test") == {}
    assert wording.figures(wording.spread(wording.compared([], []), [], 4), "test") == {}


def test_a_signature_says_how_a_score_was_computed() -> None:
    figures(WRITTEN, REFERENCES)
    found = wording.signatures()
    assert "tok:13a" in found["bleu"] and "nc:6" in found["chrf"] and all("version:" in s for s in found.values())
