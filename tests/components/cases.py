"""What the contract test asks of a family: its cases, stated in the family's own test file as `CASES`."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch

from components import families
from components.contract import SPLITS, Column, Data, Epoch, Hyper, Metrics, Spec, State, Task


@dataclass(frozen=True)
class Case:
    """One thing that a family must be able to learn.

    data       a small dataset with all splits on which it beats its baseline after `epochs` epochs
    hyper      small and quick, with everything random (dropout, augmentation) switched on
    heart      settings with which it learns a batch by heart: nothing that regularises
    batch      that batch, the same rows in every split; left out: the first 16 training rows
    reached    val/<objective> that it then has within `heart_epochs` epochs
    """

    name: str
    data: Data
    hyper: Hyper
    heart: Hyper
    reached: float
    epochs: int = 5
    heart_epochs: int = 100
    batch: Data | None = None

    @property
    def by_heart(self) -> Data:
        few = self.data.splits["train"].slice(0, 16)
        return self.batch or Data(self.data.spec, dict.fromkeys(SPLITS, few))


def evaluate(family: Any, net: Any, data: Data, split: str) -> Metrics:
    """What a net reaches on a split."""
    metrics: Metrics = family.measure(data.spec, family.judge(net, data, split), split)
    return metrics


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As a trial has it: bits may change with the number of threads, and two threads crawl on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cases(family: str) -> list[Case]:
    found: list[Case] = importlib.import_module(f"tests.components.test_{family}").CASES
    return found


def learnt(family: str, data: Data, hyper: Hyper, epochs: int, seed: int = 1, state: State | None = None) -> list[Any]:
    """(epoch, state) of so many epochs."""
    learning = families.family(family).fit(data, hyper, seed, state)
    return [(epoch, epoch.state()) for epoch in itertools.islice(learning, epochs)]


def last(family: str, case: Case, **changes: Any) -> tuple[Epoch, State]:
    kept: tuple[Epoch, State] = learnt(family, case.data, case.hyper, **{"epochs": case.epochs, **changes})[-1]
    return kept


def bytes_of(state: State) -> bytes:
    """A state as it is stored: what differs here is different work."""
    return safetensors.torch.save(dict(state.tensors)) + json.dumps(state.scalars, sort_keys=True).encode()


def stored(state: State) -> State:
    """There and back again."""
    tensors = safetensors.torch.load(safetensors.torch.save(dict(state.tensors)))
    return State(tensors, json.loads(json.dumps(dict(state.scalars), allow_nan=False)))


def fingerprints(names: Sequence[str]) -> dict[str, str]:
    """Of what each case has learnt after two epochs."""
    torch.set_num_threads(1)
    found = {}
    for name in names:
        for case in cases(name):
            found[f"{name}-{case.name}"] = digest(last(name, case, epochs=2)[1])
    return found


def digest(state: State) -> str:
    return hashlib.sha256(bytes_of(state)).hexdigest()


# ── data that may serve several families ────────────────────────────────────────────────────────────────


def table(task: Task, rows: int = 360) -> Data:
    """A mixed table: numbers (one with gaps), categories (one with gaps), a flag and a date, all of which matter."""
    draw = np.random.default_rng(5)
    size, weight = draw.normal(3, 2, rows), draw.lognormal(0, 1, rows)
    colour, day = draw.choice(["red", "green", "blue"], rows), draw.integers(0, 700, rows)
    flag = draw.random(rows) < 0.5
    truth = size - 2 * np.log(weight) + np.where(colour == "red", 3, 0) + day / 200 + flag
    gaps = draw.random((2, rows)) < 0.05
    columns = {
        "id": pa.array(np.arange(rows)),
        "size": pa.array(size, mask=gaps[0]),
        "weight": pa.array(weight.astype(np.float32)),
        "colour": pa.array(colour, pa.string(), mask=gaps[1]),
        "flag": pa.array(flag),
        "day": pa.array(day.astype("datetime64[D]")).cast(pa.timestamp("us")),
    }
    kinds = {"size": "number", "weight": "number", "colour": "category", "flag": "category", "day": "date"}
    inputs = tuple(Column(name, kind) for name, kind in kinds.items())  # type: ignore[arg-type]
    if task == "regression":
        columns["target"], classes = pa.array(truth * 10 + 500), ()
    else:
        columns["target"], classes = pa.array(np.where(truth > np.median(truth), "high", "low")), ("high", "low")
    spec = Spec("mixed", task, inputs, "target", classes, "id")
    return parted(spec, pa.table(columns))


def images(task: Task, rows: int = 360) -> Data:
    """12×12 images of a noisy bar: lying, standing or slanting."""
    draw = np.random.default_rng(6)
    kind, at = draw.integers(0, 3, rows), draw.integers(2, 10, rows)
    pixels = draw.integers(0, 60, (rows, 1, 12, 12)).astype(np.uint8)
    for i in range(rows):
        if kind[i] == 0:
            pixels[i, 0, at[i], 1:11] = 250
        elif kind[i] == 1:
            pixels[i, 0, 1:11, at[i]] = 250
        else:
            pixels[i, 0, np.arange(1, 11), np.arange(1, 11)] = 250
    names = ("flat", "steep", "upright")
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    target = pa.array(np.array(["flat", "upright", "steep"])[kind])
    inputs = (Column("image", "tensor", "uint8", (1, 12, 12)),)
    spec = Spec("bars", task, inputs, "target", names, "id")
    return parted(spec, pa.table({"id": pa.array(np.arange(rows)), "image": column, "target": target}))


def reviews(task: Task, rows: int = 360) -> Data:
    """Short texts of many lengths: how good it is hangs on single words, and on whether "not" stands before them."""
    draw = np.random.default_rng(8)
    value = {"awful": -2, "dull": -1, "plain": 0, "nice": 1, "superb": 2}
    filler = ["the", "film", "was", "a", "long", "story", "about", "people", "who", "talk", "and", "walk", "in", "town"]
    texts, scores = [], []
    for _ in range(rows):
        score, words = 0.0, []
        for word in draw.choice(list(value), draw.integers(1, 4)):
            turned = draw.random() < 0.3
            score += value[str(word)] * (-1 if turned else 1)
            words += [*draw.choice(filler, draw.integers(0, 6)).tolist(), *(["not"] if turned else []), str(word)]
        texts.append(" ".join(words).capitalize() + draw.choice([".", "!", ""]))
        scores.append(score)
    score_N = np.array(scores)
    columns = {"id": pa.array(np.arange(rows)), "text": pa.array(texts)}
    if task == "regression":
        columns["target"], classes = pa.array(score_N * 10 + 50), ()
    else:
        columns["target"], classes = pa.array(np.where(score_N > 0, "good", "poor")), ("good", "poor")
    spec = Spec("reviews", task, (Column("text", "text", longest=400),), "target", classes, "id")
    return parted(spec, pa.table(columns))


# English to French, word by word; a colour goes behind what it colours.
WORDS = {
    "article": {"a": "un", "the": "le", "my": "mon"},
    "colour": {"red": "rouge", "green": "vert", "white": "blanc", "yellow": "jaune"},
    "thing": {"boat": "bateau", "dog": "chien", "cat": "chat", "bird": "merle", "bread": "pain", "garden": "jardin"},
    "verb": {"waits": "attend", "sleeps": "dort", "comes": "vient", "stays": "reste"},
    "when": {"today": "aujourd'hui", "often": "souvent", "alone": "seul", "here": "ici"},
}


def rewritten(rows: int = 360) -> Data:
    """Sentences of three to five words and what they become: other words, and two of them change places. No source is
    there twice."""
    draw = np.random.default_rng(9)
    made: dict[str, str] = {}
    while len(made) < rows:
        word = {part: str(draw.choice(list(found))) for part, found in WORDS.items()}
        parts = {"colour": draw.random() < 0.6, "when": draw.random() < 0.6}
        source, target = (
            [part for part in order if parts.get(part, True)]
            for order in (WORDS, ("article", "thing", "colour", "verb", "when"))
        )
        made[" ".join(word[part] for part in source)] = " ".join(WORDS[part][word[part]] for part in target)
    columns = {"id": pa.array(np.arange(rows)), "text": pa.array(list(made)), "target": pa.array(list(made.values()))}
    spec = Spec("rewritten", "text2text", (Column("text", "text", longest=400),), "target", (), "id")
    return parted(spec, pa.table(columns))


def waves(task: Task, rows: int = 240) -> Data:
    """Two channels of 24 noisy steps: a fast, a slow or a growing wave in the first, wherever it begins; the second
    says nothing."""
    draw = np.random.default_rng(7)
    kind, start = draw.integers(0, 3, rows), draw.random(rows)
    time_T = np.linspace(0, 1, 24)
    turns = np.where(kind == 0, 4, 2)[:, None] * time_T + start[:, None]
    height = np.where((kind == 2)[:, None], 3 * time_T**2, 1.0)
    values = draw.normal(0, 0.2, (rows, 2, 24))
    values[:, 0] += height * np.sin(2 * np.pi * turns)
    names = ("fast", "growing", "slow")
    target = pa.array(np.array(["fast", "slow", "growing"])[kind])
    inputs = (Column("series", "tensor", "float32", (2, 24)),)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(values.astype(np.float32) * 5 + 100)
    spec = Spec("waves", task, inputs, "target", names, "id")
    return parted(spec, pa.table({"id": pa.array(np.arange(rows)), "series": column, "target": target}))


def parted(spec: Spec, rows: pa.Table) -> Data:
    """Train, val and test: 60, 20 and 20 of a hundred."""
    first, second = int(len(rows) * 0.6), int(len(rows) * 0.8)
    parts = (rows.slice(0, first), rows.slice(first, second - first), rows.slice(second))
    return Data(spec, dict(zip(SPLITS, parts, strict=True)))
