"""Texts that become other texts: the families that write, beside writers that learn nothing or look things up.

spelling-to-sound  the two families beside each other. The mark is the word error rate of Phonetisaurus that is quoted
                   for the CMU dictionary without stress, 33.9 %, on another split of it
translate-en-fr    the English text as it is; the French of the nearest English training text (translation memory); and
                   the longest training texts that a text is made of, each replaced by its French (phrase lookup)
summarize-docstrings  the first sentence of the body, and its first 12 words
chat               an interpolated Kneser–Ney 5-gram model of the very tokens that the pipeline's net reads and writes

A rival writes for the sources that the net writes for, and is measured beside the same references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import text_pairs, wording, writing
from components.contract import Data
from components.texts import PAD, START, Tokens

from .. import trained
from ..kneser_ney import KneserNey
from . import Figures, Row

ORDER = 5
LEAD = 12  # words
SEEDS = 2  # a training takes ten minutes
_SENTENCE = re.compile(r".*?[.!?](?=\s|$)")
_PART = re.compile(r"%\(\w+\)\w|%\w|\{[^{}]*\}|<[^<>]*>|\w+|[^\w\s]")

Write = Callable[[Sequence[str]], Sequence[str]]  # sources → what is written for each


def written(data: Data, pipeline: str, writers: dict[str, Write]) -> Figures:
    """What each writer reaches on the test sources that the pipeline's net writes for."""
    _, read, references = writing.asked(data, "test", trained.settings(pipeline).judged)
    found = {
        name: wording.figures(wording.compared(write(read), references), "test") for name, write in writers.items()
    }
    return {name: {key.removeprefix("test/"): value for key, value in each.items()} for name, each in found.items()}


# ── translation ─────────────────────────────────────────────────────────────────────────────────────────


def translators(data: Data, seed: int) -> Figures:  # noqa: ARG001
    known = taught(data)
    writers: dict[str, Write] = {
        "copy of the source": list,
        "translation memory": lambda read: nearest(known, read),
        "phrase lookup": lambda read: looked_up(known, read),
    }
    return written(data, "translate-en-fr", writers)


def taught(data: Data) -> dict[str, str]:
    """Training source → its target; of those that differ in case alone the first."""
    rows = data.splits["train"]
    pairs = zip(rows[data.spec.columns[0].name].to_pylist(), rows[data.spec.target or ""].to_pylist(), strict=True)
    known: dict[str, str] = {}
    for source, target in pairs:
        known.setdefault(source.lower(), target)
    return known


def nearest(known: dict[str, str], read: Sequence[str]) -> list[str]:
    """The target of the training source with the fewest characters to put in or take out, for the length of both."""
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    sources, targets = list(known), list(known.values())
    near = process.cdist([text.lower() for text in read], sources, scorer=Indel.normalized_similarity, dtype=np.float32)
    return [targets[at] for at in near.argmax(1).tolist()]


def looked_up(known: dict[str, str], read: Sequence[str]) -> list[str]:
    """From left to right, the longest training source that a text goes on with, by words, signs, placeholders and tags,
    is replaced by its target; a part that begins none stays. Within a text no capital is made but of abbreviations."""
    phrases = {tuple(_PART.findall(source)): target for source, target in known.items()}
    most = max(map(len, phrases))

    def translated(text: str) -> str:
        parts, made, at = list(_PART.finditer(text)), [], 0
        while at < len(parts):
            for size in range(min(most, len(parts) - at), 0, -1):
                target = phrases.get(tuple(part.group().lower() for part in parts[at : at + size]))
                if target is not None or size == 1:
                    break
            gap = text[parts[at - 1].end() : parts[at].start()] if at else text[: parts[0].start()]
            if target is None:
                target = parts[at].group()
            elif at and not target[1:2].isupper():
                target = target[:1].lower() + target[1:]
            made.append(gap + target)
            at += size
        return "".join(made)

    return [translated(text) for text in read]


# ── summaries ───────────────────────────────────────────────────────────────────────────────────────────


def leads(data: Data, seed: int) -> Figures:  # noqa: ARG001
    writers: dict[str, Write] = {
        "first sentence": lambda read: [first_sentence(text) for text in read],
        f"first {LEAD} words": lambda read: [" ".join(text.split()[:LEAD]) for text in read],
    }
    return written(data, "summarize-docstrings", writers)


def first_sentence(text: str) -> str:
    """Up to the first stop with a space behind it; a text without one is a sentence."""
    found = _SENTENCE.match(text)
    return found.group() if found else text


# ── replies ─────────────────────────────────────────────────────────────────────────────────────────────


def fivegram(data: Data, seed: int) -> Figures:  # noqa: ARG001
    """Perplexity of the test replies' tokens, the end of each included, after what was said before. The net may learn
    from what was said before as well, and so does the model: a conversation's first turn, where it is all that was
    said; every later one is some row's reply. Each counts once, as its discounts want it."""
    settings = trained.settings("chat")
    known = text_pairs.vocabularies(data, settings)
    rows = data.splits["train"]
    turns_N = np.array([text.count("\n") for text in rows[data.spec.columns[0].name].to_pylist()])
    train = events(text_pairs.pairs(data.spec, rows, known, settings), turns_N == 0)
    test = events(text_pairs.pairs(data.spec, data.splits["test"], known, settings))
    model = KneserNey.fitted(train, known.target.size)
    return {"Kneser–Ney 5-gram": {"perplexity": float(np.exp(-np.log(model.probabilities(test)).mean()))}}


def events(pairs: Any, too_N: NDArray[np.bool_] | None = None, order: int = ORDER) -> NDArray[np.int64]:
    """Each token of the targets, and of the sources of the rows `too_N`; and the `order` - 1 before it: the target's,
    START, and the source's."""

    def split(tokens: Tokens) -> list[NDArray[np.int64]]:
        return np.split(tokens.ids_T.numpy(), tokens.starts_N.numpy()[1:])

    found = []
    whole_N = np.zeros(len(pairs), bool) if too_N is None else too_N
    for source, target, whole in zip(split(pairs.source), split(pairs.target), whole_N.tolist(), strict=True):
        line = np.concatenate([np.full(order - 1, PAD), source, [START], target])
        seen = np.lib.stride_tricks.sliding_window_view(line, order)
        found += [seen[: len(source)], seen[-len(target) :]] if whole else [seen[-len(target) :]]
    return np.concatenate(found)


TRANSLATORS = ("copy of the source", "translation memory", "phrase lookup")
LEADS = ("first sentence", f"first {LEAD} words")
SOUNDS = ("spelling-to-sound", "spelling-to-sound-rnn")
ROWS = [
    *(
        Row(name, metric, "min", mark=mark, beside=(other,), seeds=SEEDS)
        for name, other in (SOUNDS, SOUNDS[::-1])
        for metric, mark in (("sequence_error_rate", 0.339), ("token_error_rate", None))
    ),
    *(Row("translate-en-fr", name, "max", translators, above=TRANSLATORS, seeds=SEEDS) for name in ("bleu", "chrf")),
    *(Row("summarize-docstrings", name, "max", leads, above=LEADS, seeds=SEEDS) for name in wording.ROUGE),
    Row("chat", "perplexity", "min", fivegram, above=("Kneser–Ney 5-gram",), seeds=SEEDS),
]
