"""How near written texts are to those that were wanted, in sums over rows, so that figures of any rows are their sums'.

A source that several rows have was written once and is measured once, beside the targets of all those rows: they are
references. BLEU and chrF are sacrebleu's (Post 2018), of a whole corpus; ROUGE is Google's (Lin 2004), without
stemming, the mean of F1 over the sources; edits are Levenshtein's, of words.

Legend: N rows, S statistics of a metric.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import Metrics, Outcomes

ROUGE = ("rouge1", "rouge2", "rougeL")


def compared(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, NDArray[Any]]:
    """What `figures` needs of each source: its written text beside all its references, of which there is one at least.

    compared  1 for each
    wrong     1 if the text is none of the references, word for word
    edits     words to be changed, put in or taken out to make the nearest reference of it; and `words` of that
    bleu, chrf, rouge    N × S
    """
    said = [text.split() for text in written]
    wanted = [[text.split() for text in each] for each in references]
    nearest = [_nearest(words, each) for words, each in zip(said, wanted, strict=True)]
    return {
        "compared": np.ones(len(said)),
        "wrong": np.array([float(words not in each) for words, each in zip(said, wanted, strict=True)]),
        "edits": np.array([float(edits) for edits, _ in nearest]),
        "words": np.array([float(words) for _, words in nearest]),
        "rouge": _rouge(written, references),
    } | {name: _statistics(metric, written, references) for name, metric in _corpus_metrics().items()}


def spread(found: Mapping[str, NDArray[Any]], rows: Sequence[int], count: int) -> dict[str, NDArray[Any]]:
    """The outcomes of `count` rows, of which those numbered `rows` were compared; 0 for all others."""
    made = {}
    for name, values in found.items():
        made[name] = np.zeros((count, *values.shape[1:]))
        made[name][np.asarray(rows, np.int64)] = values
    return made


def figures(outcomes: Outcomes, split: str) -> Metrics:
    """Of rows that were compared: split/sequence_error_rate (share of sources whose text is none of their references:
    the word error rate where a source is a word), split/token_error_rate (edits a word), split/bleu and split/chrf
    (0 to 100), split/rouge1, rouge2, rougeL (0 to 1). Nothing if none was."""
    total = {name: values.sum(0) for name, values in outcomes.items()}
    count = float(total["compared"])
    if not count:
        return {}
    made = {
        "sequence_error_rate": float(total["wrong"]) / count,
        "token_error_rate": float(total["edits"]) / max(float(total["words"]), 1.0),
    }
    made |= {name: float(value) / count for name, value in zip(ROUGE, total["rouge"], strict=True)}
    for name, metric in _corpus_metrics().items():
        made[name] = float(metric._compute_score_from_stats([int(s) for s in total[name]]).score)
    return {f"{split}/{name}": value for name, value in made.items()}


def signatures() -> dict[str, str]:
    """How BLEU and chrF were computed when texts were last compared, in sacrebleu's words: to stand beside a figure."""
    return {name: str(metric.get_signature()) for name, metric in _corpus_metrics().items()}


@cache
def _corpus_metrics() -> dict[str, Any]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU(force=True), "chrf": CHRF()}


def _statistics(metric: Any, written: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """N × S. sacrebleu wants the first reference of every row, then the second of every row, and so on."""
    most = max((len(each) for each in references), default=1)
    streams = [[each[at] if at < len(each) else None for each in references] for at in range(most)]
    return np.array(metric._extract_corpus_statistics(list(written), streams), np.float64)


def _nearest(words: list[str], references: list[list[str]]) -> tuple[int, int]:
    """Edits to the nearest reference, and its length."""
    from rapidfuzz.distance import Levenshtein

    return min((Levenshtein.distance(words, wanted), len(wanted)) for wanted in references)


class _Words:
    """rouge-score's own words, letters and digits in lower case, but of any script."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


def _rouge(written: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """N × 3: F1 of single words, of pairs, and of the longest common subsequence, each of the best reference."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), tokenizer=_Words())
    found = [scorer.score_multi(each, text) for text, each in zip(written, references, strict=True)]
    return np.array([[score[name].fmeasure for name in ROUGE] for score in found]).reshape(len(found), len(ROUGE))
