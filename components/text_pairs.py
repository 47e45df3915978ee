"""Texts that become texts, as families that write read them: settings, vocabularies of both sides, and pairs as tokens.
One vocabulary serves both sides if both are cut alike.

Legend: N rows of a split, T tokens, one row's after the other's.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch

from . import texts
from .contract import Data, Json, Spec
from .errors import BadInput, DataError, ParamsError
from .settings import one_of
from .tables import Rows, column
from .texts import END, Tokens, Vocabulary

VOCABULARIES = {"characters": texts.characters, "words": texts.words, "pieces": texts.pieces}
ENDS = ("beginning", "end")
Ranges: TypeAlias = tuple[tuple[str, float, float], ...]  # of settings: name, least, most
RANGES: Ranges = (
    ("beams", 1, 64),
    ("longest", 1, 4096),
    ("temperature", 0.0, 100.0),
    ("top_p", 0.0, 1.0),
    *((name, 1, math.inf) for name in ("judged", "tokens", "batch_rows")),
    *((name, 0, math.inf) for name in ("longest_source", "top_k", "draw", "epoch_rows")),
    *((name, 0, math.inf) for name in ("warmup", "horizon", "clip", "weight_decay")),
    ("label_smoothing", 0.0, 1.0),
    ("average", 0.0, 0.999999),
)
Made = TypeVar("Made")
_MADE: dict[int, dict[str, tuple[Hashable, Any]]] = {}  # by the identity of a Data


@dataclass(frozen=True)
class Settings:
    """Settings of every family that writes; a family's own come beside them.

    `ranges` is what each may be: a family adds those of its own.

    source, target   how texts are cut: characters, words, or pieces of words (byte pair encoding)
    tokens           of a vocabulary at most
    longest          tokens of a source that are read, and of a target that are learnt or written
    longest_source   tokens of a source that are read, if that is less; 0: `longest`
    read             of a longer source its "beginning" or its "end"
    warmup, horizon  epochs in which the learning rate rises, and after which it has fallen along a cosine; 0: it stays
    average          decay of the weights' running average
    epoch_rows       rows of an epoch, the next of an order that is drawn anew when too few are left; 0: all
    beams            hypotheses of the beam search; 1: greedy
    length_penalty   power that a hypothesis's length is raised to (decoding.beam)
    temperature      0: beam search; above: texts are drawn (decoding.sample) from the `top_k` likeliest tokens (0: all)
                     that hold `top_p` of the probability, by `draw` and the source alone
    judged           texts of a split that are written to be measured, evenly spread; the loss is measured on all rows
    """

    ranges: ClassVar[Ranges] = RANGES

    source: str = "pieces"
    target: str = "pieces"
    tokens: int = 4000
    longest: int = 128
    longest_source: int = 0
    read: str = "beginning"
    lr: float = 2e-3
    weight_decay: float = 0.01
    batch_rows: int = 64
    clip: float = 1.0
    label_smoothing: float = 0.1
    warmup: float = 0.2
    horizon: int = 0
    average: float = 0.99
    epoch_rows: int = 0
    beams: int = 4
    length_penalty: float = 0.6
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    draw: int = 0
    judged: int = 1000

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            one_of(self, name, VOCABULARIES)
        one_of(self, "read", ENDS)
        for name, low, high in self.ranges:
            if not low <= getattr(self, name) <= high:
                expected = f"{low} or more" if high == math.inf else f"{low} to {high}"
                raise ParamsError(f"setting {name!r} got {getattr(self, name)}, expected {expected}")


@dataclass(frozen=True)
class Vocabularies:
    """Of sources and of targets; one and the same if both are cut alike."""

    source: Vocabulary
    target: Vocabulary

    @property
    def shared(self) -> bool:
        return self.source is self.target

    def to_json(self) -> Json:
        return {"target": self.target.to_json()} | ({} if self.shared else {"source": self.source.to_json()})

    @classmethod
    def from_json(cls, value: Json) -> Vocabularies:
        target = Vocabulary.from_json(value["target"])
        source = Vocabulary.from_json(value["source"]) if "source" in value else target
        return cls(source, target)


@dataclass(frozen=True)
class Pairs:
    """Sources as they are read, and targets, each with END after it."""

    source: Tokens
    target: Tokens

    def __len__(self) -> int:
        return len(self.source)


def vocabularies(data: Data, settings: Settings) -> Vocabularies:
    """Learnt from the training rows. What is written must be what was wanted, so nothing is put into lower case."""
    return _once(data, "vocabularies", _cut(settings), lambda: _vocabularies(data, settings))


def _cut(settings: Settings) -> tuple[Hashable, ...]:
    """What decides on the vocabularies of some texts."""
    return settings.source, settings.target, settings.tokens, settings.longest


def _vocabularies(data: Data, settings: Settings) -> Vocabularies:
    read, wanted = texts_of(data.spec, data.splits["train"])

    def made(kind: str, of: Sequence[str]) -> Vocabulary:
        return VOCABULARIES[kind](of, settings.tokens, 1, settings.longest, lower=False)

    if settings.source == settings.target:
        both = made(settings.target, [*read, *wanted])
        return Vocabularies(both, both)
    return Vocabularies(made(settings.source, read), made(settings.target, wanted))


def sources(read: Sequence[str], known: Vocabularies, settings: Settings) -> Tokens:
    """Sources as they are read."""
    return known.source.encode(read, settings.longest_source, settings.read == "end")


def pairs(spec: Spec, rows: Rows, known: Vocabularies, settings: Settings) -> Pairs:
    """The rows as tokens. Raises DataError if a target is missing or empty."""
    read, wanted = texts_of(spec, rows)
    target = known.target.encode(wanted)
    parts = torch.split(target.ids_T, target.lengths_N.tolist())
    return Pairs(sources(read, known, settings), Tokens.of([[*part.tolist(), END] for part in parts]))


def train_and_val(data: Data, known: Vocabularies, settings: Settings) -> tuple[Pairs, Pairs]:
    """The train and the val rows, with the `vocabularies` of this data and these settings."""

    def made() -> tuple[Pairs, Pairs]:
        train, val = (pairs(data.spec, data.splits[name], known, settings) for name in ("train", "val"))
        return train, val

    return _once(data, "pairs", (*_cut(settings), settings.longest_source, settings.read), made)


def _once(data: Data, what: str, asked: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` makes of this very Data, or the last that it made if the same was asked: a process of a sweep begins
    one trial after another with the same texts."""
    if id(data) not in _MADE:
        _MADE[id(data)] = {}
        weakref.finalize(data, _MADE.pop, id(data), None)
    kept = _MADE[id(data)]
    if what not in kept or kept[what][0] != asked:
        kept[what] = asked, make()
    made: Made = kept[what][1]
    return made


def texts_of(spec: Spec, rows: Rows) -> tuple[list[str], list[str]]:
    """Sources and targets."""
    assert spec.target is not None  # the task has one
    values = column(rows, spec.target)
    if values.type not in texts.TEXT:
        raise BadInput(f"column {spec.target!r} is {values.type}, expected text")
    wanted = values.to_pylist()
    for at, text in enumerate(wanted):
        if not text:
            raise DataError(
                f"target {spec.target!r} has rows without a text", where=spec.dataset, why=f"row {at} is one"
            )
    return texts.read(spec, rows), wanted
