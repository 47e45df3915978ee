"""What can be said of each text in a few numbers, and of a text without its case, signs and spaces. No torch, no
tokenizer.

characters  how many, spaces included
words       how many runs of letters and digits
non_ascii   share of the characters that are not ASCII
damaged     1 where it was decoded wrongly, or is not text: U+FFFD; a control character that is no line break or tab; or
            mojibake, which is UTF-8 that was read as Latin-1 or Windows-1252
foreign     1 where more than half of the letters are of a script that the training texts hardly use

A letter's script is the first word of its Unicode name (LATIN, CYRILLIC, CJK, …). So a language of the same script is
not told apart: what is foreign in words shows as unknown words.

Legend: N texts, C characters of all texts together.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

COMMON = 0.01  # a script with this share of the training letters is one of theirs
# The first bytes of UTF-8 sequences of two and three bytes, read as Latin-1 or Windows-1252, with a second one behind.
_MOJIBAKE = re.compile(r"[ÂÃÐÑÎÏ][\u0080-\u00BF€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€[\u0080-\u00BF™œ\u009d“”˜¦]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_WORD = re.compile(r"\w+")
_SIGNS = re.compile(r"[\W_]+")


def told(texts: Sequence[str | None], known: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """Each number of the legend for N texts, NaN where there is none. `known`: the scripts of the training texts."""
    code_C, starts, lengths = _characters(texts)
    foreign, alphabetic = _sums(_foreign(code_C, known), starts, lengths), _sums(_letters(code_C), starts, lengths)
    found = {
        "characters": lengths.astype(np.float64),
        "words": np.array([len(_WORD.findall(text or "")) for text in texts], np.float64),
        "non_ascii": _sums(code_C > 127, starts, lengths) / np.maximum(lengths, 1),
        "damaged": np.array([_is_damaged(text or "") for text in texts], np.float64),
        "foreign": (foreign * 2 > alphabetic).astype(np.float64),
    }
    missing = np.array([text is None for text in texts], bool)
    return {name: np.where(missing, np.nan, values) for name, values in found.items()}


def scripts(texts: Sequence[str | None]) -> list[str]:
    """The scripts that a hundredth of the letters or more are written in, sorted."""
    code_C, _, _ = _characters(texts)
    counts = np.bincount(code_C[_letters(code_C)])
    seen: dict[str, int] = {}
    for code in np.flatnonzero(counts).tolist():
        seen[_script(code)] = seen.get(_script(code), 0) + int(counts[code])
    return sorted(name for name, count in seen.items() if count >= COMMON * counts.sum())


def words(texts: Sequence[str | None]) -> dict[str, int]:
    """Each word in lower case, and how often it is there."""
    seen: dict[str, int] = {}
    for text in texts:
        for word in _WORD.findall((text or "").lower()):
            seen[word] = seen.get(word, 0) + 1
    return seen


def unknown(texts: Sequence[str | None], known: Collection[str]) -> float:
    """The share of all words of these texts that are not among `known`; 0 where there is no word."""
    seen = words(texts)
    return sum(n for word, n in seen.items() if word not in known) / max(sum(seen.values()), 1)


def unknown_each(texts: Sequence[str | None], known: Collection[str]) -> NDArray[np.float64]:
    """The same of each text; NaN where there is none."""
    return np.array([np.nan if text is None else unknown([text], known) for text in texts], np.float64)


def bare(texts: Sequence[str | None]) -> list[str | None]:
    """Each text without case, signs and spaces, spelt one way (NFKC): what differs in those alone is nearly the same. A
    text of nothing else stays as it is."""
    return [None if t is None else _SIGNS.sub("", unicodedata.normalize("NFKC", t).casefold()) or t for t in texts]


def _characters(texts: Sequence[str | None]) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """The characters of all texts together, where each text starts, and how long it is."""
    lengths = np.array([len(text or "") for text in texts], np.int64)
    joined = "".join(text or "" for text in texts).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(joined, np.uint32), np.cumsum(lengths) - lengths, lengths


def _sums(mark_C: NDArray[np.bool_], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of each text's characters are marked."""
    before = np.concatenate([[0], np.cumsum(mark_C)])
    sums: NDArray[np.int64] = before[starts + lengths] - before[starts]
    return sums


def _letters(code_C: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return _marked(code_C, lambda code: chr(code).isalpha())


def _foreign(code_C: NDArray[np.uint32], known: Collection[str]) -> NDArray[np.bool_]:
    return _marked(code_C, lambda code: chr(code).isalpha() and _script(code) not in known)


def _marked(code_C: NDArray[np.uint32], is_so: Callable[[int], bool]) -> NDArray[np.bool_]:
    """Each character by what is so of it, asked once of each different one. Nothing is sorted: texts are long."""
    counts = np.bincount(code_C)
    marks = np.zeros(len(counts), bool)
    for code in np.flatnonzero(counts).tolist():
        marks[code] = is_so(code)
    found: NDArray[np.bool_] = marks[code_C]
    return found


@functools.cache
def _script(code: int) -> str:
    return unicodedata.name(chr(code), "UNNAMED").partition(" ")[0].partition("-")[0]


def _is_damaged(text: str) -> bool:
    return bool(_CONTROL.search(text) or (not text.isascii() and _MOJIBAKE.search(text)))
