"""Which texts are nearly a text of an earlier split: at most a quarter of their words differ.

Not every pair can be compared. MinHash (Broder 1997) draws a few of each text's pairs of neighbouring words, so that
two texts agree in a draw as often as they have pairs in common; draws stand together in bands, and texts with one whole
band in common are compared word by word (Leskovec, Rajaraman & Ullman 2014, "Mining of Massive Datasets", chapter 3).
One changed word of four is found 98 times in 100, one of eight always but for 3 times in 10^7; of long texts with a
quarter of their words changed, here and there, 85 in 100 are. Nothing hangs on chance: the same texts, the same answer.

A word is a run of letters and digits whatever their case, so a script without spaces has one word a sentence. Texts of
fewer than WORDS words are alike by nature and are left to letters.bare.

Legend: N texts, S pairs of neighbouring words of all texts together, Q texts to compare.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..datasets.splits import mix

WORDS, DIFFER = 4, 0.25
BANDS, DRAWS = 50, 3
COMPARED = 4  # texts of a band that a text is compared with at most: else many of one kind would take for ever
_WORD = re.compile(r"\w+")


def earlier(texts: Sequence[str | None], split_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each text the number of one of an earlier split that is alike; -1 where there is none. Texts stand in the
    order of their splits."""
    found_N = np.full(len(texts), -1, np.int64)
    spelt = _spelt(texts)
    long = np.flatnonzero([len(words) >= WORDS for words in spelt])
    if not len(long):
        return found_N
    spelt_L = np.array([spelt[n] for n in long], object)
    split_L, found_L = split_N[long], np.full(len(long), -1, np.int64)
    shingle_S, start_L = _shingles(spelt_L)
    odd = np.random.default_rng(0).integers(0, 2**63, (BANDS, DRAWS), np.uint64) * np.uint64(2) + np.uint64(1)
    for factors in odd:
        band_L = np.zeros(len(long), np.uint64)
        for factor in factors:
            band_L = mix(band_L ^ np.minimum.reduceat(shingle_S * factor, start_L))
        _compare(spelt_L, band_L, split_L, found_L)
    found_N[long] = np.where(found_L < 0, -1, long[found_L])
    return found_N


def _spelt(texts: Sequence[str | None]) -> list[str]:
    """Each text with a character for each word, the same for the same word: what compares characters compares words."""
    codes: dict[str, str] = {}
    return [
        "".join(
            codes.setdefault(word, chr(1 + len(codes) % 0x10FFFF))  # 0 is the end of a text
            for word in _WORD.findall(unicodedata.normalize("NFKC", text or "").casefold())
        )
        for text in texts
    ]


def _shingles(spelt_L: NDArray[np.object_]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the pairs of neighbouring words, beginning and end among them, and where each text's start."""
    length_L = np.array([len(words) + 1 for words in spelt_L], np.int64)
    joined = "".join(f"{words}\0" for words in spelt_L).encode("utf-32-le", "surrogatepass")
    code_S = np.frombuffer(joined, np.uint32).astype(np.uint64)
    start_L = np.cumsum(length_L) - length_L
    before_S = np.roll(code_S, 1)  # of a text's first word: the end of the text before
    return mix(before_S << np.uint64(32) | code_S), start_L


def _compare(
    spelt_L: NDArray[np.object_], band_L: NDArray[np.uint64], split_L: NDArray[np.int64], found_L: NDArray[np.int64]
) -> None:
    """Note in `found_L` which texts with the same band are alike. The first of a band are of its earliest split."""
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    order_L = np.argsort(band_L, kind="stable")
    _, first, counts = np.unique(band_L[order_L], return_index=True, return_counts=True)
    head_L, count_L = np.repeat(first, counts), np.repeat(counts, counts)
    for place in range(min(COMPARED, int(counts.max()))):
        other_L = order_L[np.where(place < count_L, head_L + place, 0)]
        asked = (place < count_L) & (split_L[other_L] < split_L[order_L]) & (found_L[order_L] < 0)
        query_Q, other_Q = order_L[asked], other_L[asked]
        apart_Q = process.cpdist(
            spelt_L[query_Q].tolist(),
            spelt_L[other_Q].tolist(),
            scorer=Levenshtein.normalized_distance,
            score_cutoff=DIFFER,
        )
        near_Q = apart_Q <= DIFFER
        found_L[query_Q[near_Q]] = other_Q[near_Q]
