"""The words that data, families and whoever drives them share: Spec, Data, Domain, State, Epoch, Family.

A family learns one epoch at a time: `fit` is a generator that yields what it learnt, and the driver decides
what to do with it (report, checkpoint, stop). So a family knows nothing of Ray, MLflow, Prefect or the disk.
This module travels inside every registered model: it imports torch, numpy and pyarrow at most.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

Json: TypeAlias = Any  # None, bool, int, float, str, or lists and string-keyed dicts of these
Hyper: TypeAlias = Mapping[str, Json]  # one configuration: setting name → plain value
Metrics: TypeAlias = dict[str, float]  # "split/metric" → value
Codes: TypeAlias = NDArray[np.float32]  # what a net makes of samples: B × D
Outcomes: TypeAlias = Mapping[str, NDArray[Any]]  # what came of samples or episodes: the first axis of each array
Learning: TypeAlias = Literal["supervised", "unsupervised", "reinforcement"]
Task: TypeAlias = Literal[
    "classification", "regression", "anomaly", "control", "text2text", "representation", "generation"
]
Kind: TypeAlias = Literal["number", "category", "date", "tensor", "text"]

SPLITS = ("train", "val", "test")
SPLIT, ROW = "split", "row"  # the split's column; the name that a row's number goes by where there is no id

# Seeds of the episodes that measure a policy, one each, where a dataset says no others; training's begin above them.
EVALUATION = {"train": range(50), "val": range(1_000_000, 1_000_050), "test": range(2_000_000, 2_000_100)}
TRAINING_SEEDS = 2**24


# ── data ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Column:
    """One input column. A tensor column has the numpy name of its element type and its shape per row; the `dtype`
    of a date column is how its text is written, as strptime knows it, where that is not ISO 8601. `longest`: characters
    that a text to be scored may have at most; then it must have one at least. 0: any text will do, and none.

    `parts`: the columns of numbers that a tensor is read from where a file does not hold it as one. As many as it has
    elements: those of a wide table, in the order of the elements. As many as it has channels (the first side of its
    shape): those of a file that is one sample, with a row for each step.
    """

    name: str
    kind: Kind
    dtype: str = ""
    shape: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()
    longest: int = 0

    @classmethod
    def from_json(cls, value: Json) -> Column:
        return cls(**{**value, "shape": tuple(value["shape"]), "parts": tuple(value.get("parts", ()))})

    @property
    def is_wide(self) -> bool:
        """Whether a table holds each element in a column of its own."""
        return 0 < len(self.parts) == math.prod(self.shape)

    @property
    def is_file(self) -> bool:
        """Whether a file holds one sample, with a column for each channel."""
        return bool(self.parts) and not self.is_wide


@dataclass(frozen=True)
class Spec:
    """What a family may know of the data before it sees a row.

    `columns` are the inputs in order, without id, target and split. `classes` are the target's values as
    text, sorted, for classification and anomaly detection. `environment` is a gymnasium id, for control, with the
    settings it is made with and the wrappers around it, the innermost first, as "package.module:Class"; `evaluation`
    has the seeds of the episodes that measure a policy on each split, in order, without a gap. `user` and
    `item` are the inputs that say who rated what, where the target is a rating. For text2text `columns` is one text
    and the target is the text that it becomes. Representation and generation learn from the inputs alone; a target, if
    there is one, is for reports.
    """

    dataset: str
    task: Task
    columns: tuple[Column, ...]
    target: str | None = None
    classes: tuple[str, ...] = ()
    id: str | None = None
    environment: str | None = None
    user: str | None = None
    item: str | None = None
    environment_settings: Mapping[str, Json] = field(default_factory=dict, hash=False)
    environment_wrappers: tuple[str, ...] = ()
    evaluation: Mapping[str, range] = field(default_factory=EVALUATION.copy, hash=False)

    @property
    def packages(self) -> frozenset[str]:
        """Top-level packages that making the environment imports by name: gymnasium's own are there in any case."""
        named = (path.partition(":") for path in (self.environment or "", *self.environment_wrappers))
        return frozenset(module.partition(".")[0] for module, colon, _ in named if colon) - {"gymnasium"}

    def to_json(self) -> Json:
        made = dataclasses.asdict(self)
        made["evaluation"] = {
            split: {"episodes": len(seeds), "first_seed": seeds.start}
            for split, seeds in self.evaluation.items()
            if seeds != EVALUATION[split]
        }
        for later in ("environment_settings", "environment_wrappers", "evaluation"):  # as below
            if not made[later]:
                del made[later]
        for column in made["columns"]:
            for later in ("longest", "parts"):  # as it was before there were these: run keys stay, older code reads it
                if not column[later]:
                    del column[later]
        return made

    @classmethod
    def from_json(cls, value: Json) -> Spec:
        columns = tuple(Column.from_json(c) for c in value["columns"])
        lists = {name: tuple(value.get(name, ())) for name in ("classes", "environment_wrappers")}
        told = value.get("evaluation", {})
        seeds = {split: range(of["first_seed"], of["first_seed"] + of["episodes"]) for split, of in told.items()}
        return cls(**{**value, **lists, "columns": columns, "evaluation": EVALUATION | seeds})


@dataclass(frozen=True)
class Data:
    """A dataset's rows by split (train, val, test): Arrow tables with the columns of the spec, the id and
    the target. Tensor columns are `pa.fixed_shape_tensor`."""

    spec: Spec
    splits: Mapping[str, pa.Table]


# ── search ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Choice:
    """One of `values`. `mutable`: may change while a trial runs (population based training)."""

    values: tuple[Json, ...]
    mutable: bool = False


@dataclass(frozen=True)
class Uniform:
    """A float in [low, high], evenly or evenly in its logarithm."""

    low: float
    high: float
    log: bool = False
    mutable: bool = False


@dataclass(frozen=True)
class Integer:
    """An integer in [low, high], both included."""

    low: int
    high: int
    log: bool = False
    mutable: bool = False


Domain: TypeAlias = Choice | Uniform | Integer


@dataclass(frozen=True)
class Objective:
    """What trials are ranked by: `metric` without its split ("accuracy"). Sweeps read val/, the gate test/."""

    metric: str
    mode: Literal["max", "min"]

    def better(self, a: float, b: float) -> bool:
        """Whether `a` beats `b`; NaN beats nothing and loses to everything else."""
        if math.isnan(a) or math.isnan(b):
            return not math.isnan(a)
        return a > b if self.mode == "max" else a < b

    def key(self, value: float) -> float:
        """For sorting, best first; NaN last."""
        if math.isnan(value):
            return float("inf")
        return -value if self.mode == "max" else value


# ── learning ────────────────────────────────────────────────────────────────────────────────────────────

MODEL = "model/"


@dataclass(frozen=True)
class State:
    """Everything that going on bit for bit needs: named tensors and JSON scalars.

    Names are paths. "model/…" is what is served: the weights and buffers of the best epoch so far, and under
    scalars["model"] what the net needs beside them (vocabulary, means, threshold). The rest ("net/…" for the
    weights being trained, "optimizer/…", "rng/…", "replay/…") serves training alone.
    """

    tensors: Mapping[str, torch.Tensor]
    scalars: Mapping[str, Json] = field(default_factory=dict)

    def served(self) -> State:
        """The part that scoring needs."""
        tensors = {k: v for k, v in self.tensors.items() if k.startswith(MODEL)}
        return State(tensors, {"model": self.scalars.get("model", {})})


@dataclass(frozen=True)
class Epoch:
    """What one epoch taught. `number` counts from 1. `state()` clones, so call it only to keep the state, and
    before the generator is asked for the next epoch."""

    number: int
    metrics: Metrics
    state: Callable[[], State]


Net = TypeVar("Net")


class Family(Protocol[Net]):
    """One kind of deep model and its own way of learning. Stateless: one instance serves every trial.

    learning     how it learns
    tasks        the tasks it can do, the preferred one first
    kinds        the kinds of input columns that it can take: data with others is refused before anything starts
    actions      only if it acts: the kinds of recorded actions that it learns, number (one of a few) or tensor
    Settings     a frozen dataclass of every setting with its default; `Hyper` holds some of its fields
    """

    learning: ClassVar[Learning]
    tasks: ClassVar[tuple[Task, ...]]
    kinds: ClassVar[tuple[Kind, ...]]
    Settings: ClassVar[type[Any]]

    def objective(self, spec: Spec) -> Objective: ...

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:
        """Domains of some settings: plain values, tuning/ translates them."""

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None) -> Iterator[Epoch]:
        """Learn for ever, one epoch an item, from scratch or from `state`. The driver stops asking.

        Same data, hyper, seed: same epochs, bit for bit, wherever a state was saved and loaded between.
        Metrics hold val/<objective> and train/loss at least. Seeds torch's global generator itself.
        """

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        """The net to serve, in evaluation mode, from `state.served()`."""

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """What came of each sample of a split, in the order of its rows, or of each of its episodes, in the order of
        their seeds: all that `measure` needs. Two nets are compared sample by sample."""

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        """Metrics of `judge`'s outcomes, or of some of them, named split/metric; the objective among them."""

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        """The objective (split/metric) of the trivial rival on the same rows; a champion must beat it. `hyper` holds
        the fixed settings at least: they may say what the task is."""

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Input columns in, output columns out, row for row, with no state between batches."""

    def outputs(self, spec: Spec) -> pa.Schema:
        """The columns that `score` returns."""

    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """What the net makes of each row before its last layer: codes_BD, finite for finite inputs, row for row.

        D is the net's own, the same for every batch. Rows that the net takes for alike have codes that are near each
        other, so what is unlike the training rows shows here where it does not in single pixels.
        """


@runtime_checkable
class Generative(Family[Net], Protocol[Net]):
    """A family that can also make rows that nobody has seen."""

    def sample(self, net: Net, count: int, seed: int) -> pa.RecordBatch:
        """So many new rows of the spec's input columns, as the dataset has them (types, shapes, range of values). They
        depend on net, count and seed alone: the global generators are not touched."""


@runtime_checkable
class Latent(Generative[Net], Protocol[Net]):
    """A generative family whose rows come from codes such as `encode` gives, so that one can walk from row to row."""

    def decode(self, net: Net, codes: Codes) -> pa.RecordBatch:
        """The row of the spec's input columns that each code stands for, in the dataset's types and shapes."""
