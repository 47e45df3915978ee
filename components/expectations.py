"""What a dataset promises: its columns, their roles, and the rules that validation holds them to.

A built-in dataset states its promises in code; for a user's table they are inferred once from the training
split and written to expectations/NAME.yaml, where the user edits them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from .contract import EVALUATION, TRAINING_SEEDS, Column, Json, Spec, Task
from .errors import DataError

LONGEST = 1_000_000  # characters of a text, where nothing is promised of its length
Role = Literal["input", "target", "id", "ignored"]
Split = Literal["train", "val", "test"]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnRule(Block):
    """`missing` is the highest share of missing values allowed. `min` and `max` bound numbers (and every
    element of a tensor), or dates as ISO text. `values` are all allowed values as text, sorted; for a
    classification target they are its classes. `dtype`, `shape` and `parts` are as in contract.Column.

    Of a text that is learnt from or, as a target, to be written: `longest` is the most characters that it may have;
    `damaged`, `foreign` and `unknown` are the highest shares of a split's texts that were decoded wrongly, of its texts
    mostly in a script that the column's training rows do not use, and of its words that these do not hold. Of a text
    that is read, `alike` is the highest share of a split's texts that are one of an earlier split but for a quarter of
    their words: 1, since some texts are so by nature ("delete page 3 now"), shows it and stops nothing."""

    role: Role = "input"
    kind: Literal["number", "category", "date", "text", "tensor"]
    missing: float = Field(default=0.0, ge=0, le=1)
    min: float | str | None = None
    max: float | str | None = None
    values: list[str] | None = None
    dtype: str = ""
    shape: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()
    longest: int | None = Field(default=None, ge=1)
    damaged: float = Field(default=0.0, ge=0, le=1)
    foreign: float = Field(default=0.0, ge=0, le=1)
    unknown: float = Field(default=1.0, ge=0, le=1)
    alike: float = Field(default=1.0, ge=0, le=1)

    @property
    def is_learnt_text(self) -> bool:
        """Whether it is a text that is read or written, not one that names a row or is left alone."""
        return self.kind == "text" and self.role in ("input", "target")


class Duplicates(Block):
    """Highest share of rows allowed to repeat another row's inputs and target: within a split, and across splits; and,
    `near`, across splits once their texts are without case, signs and spaces. Where the target is a text, `near` is of
    the inputs alone: one text may become several, all in one split."""

    within: float = Field(default=0.0, ge=0, le=1)
    across: float = Field(default=0.0, ge=0, le=1)
    near: float = Field(default=0.0, ge=0, le=1)


class Ratings(Block):
    """The target is what a user gave an item; both are input columns. `repeats` is the highest share of rows of a split
    whose pair an earlier row of it rated; no pair may be in two splits. `cold_users` and `cold_items` are the highest
    shares of rows of val and of test whose user or item no training row has."""

    user: str
    item: str
    repeats: float = Field(default=0.0, ge=0, le=1)
    cold_users: float = Field(default=1.0, ge=0, le=1)
    cold_items: float = Field(default=1.0, ge=0, le=1)


class Measured(Block):
    """Episodes that measure a policy on a split: the first is reset with `first_seed`, each other with the next."""

    episodes: int = Field(ge=1)
    first_seed: int = Field(ge=0)


def seeds(evaluation: Mapping[Split, Measured]) -> dict[str, range]:
    """Of each split; contract.EVALUATION's where nothing is said of it."""
    said = {split: range(of.first_seed, of.first_seed + of.episodes) for split, of in evaluation.items()}
    return EVALUATION | said


def clashes(seeds: Mapping[str, range]) -> Iterator[tuple[str, str]]:
    """Splits that are measured by what is learnt from or by what measures another one: (split, what is wrong)."""

    def shown(split: str) -> str:
        return f"{seeds[split][0]} to {seeds[split][-1]}"

    for split in seeds:
        if seeds[split][-1] >= TRAINING_SEEDS:
            yield split, f"got seeds {shown(split)}, expected all below {TRAINING_SEEDS}, where training's begin"
    for one, other in itertools.combinations(seeds, 2):
        if max(seeds[one][0], seeds[other][0]) <= min(seeds[one][-1], seeds[other][-1]):
            moved, stays = (one, other) if seeds[other] == EVALUATION.get(other) else (other, one)
            yield moved, f"got seeds {shown(moved)}, expected none of {stays}'s, {shown(stays)}"


class Expectations(Block):
    columns: dict[str, ColumnRule]
    # A gymnasium id, what gymnasium.make is told beside it (max_episode_steps, say, or what the environment itself
    # takes), and the wrappers around it, the innermost first, as "package.module:Class".
    environment: str | None = None
    environment_settings: dict[str, Json] = {}
    environment_wrappers: tuple[str, ...] = ()
    # What measures a policy, where it is not contract.EVALUATION.
    evaluation: dict[Split, Measured] = {}
    ratings: Ratings | None = None
    duplicates: Duplicates = Duplicates()
    # Lowest share of rows that the rarest class of the training split may have. 0: they may all be of one class, as
    # where anomalies are to be found and the training rows hold none.
    class_share: float = Field(default=0.01, ge=0, le=1)
    # Highest score on held-out rows that one column alone may reach in predicting the target.
    leakage: float = Field(default=0.999, gt=0, le=1)

    @model_serializer(mode="wrap")
    def _without_the_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Json]:
        """As it was before there was an evaluation: run keys stay."""
        made: dict[str, Json] = dump(self)
        if not self.evaluation:
            made.pop("evaluation", None)
        return made

    def column(self, role: Role) -> str | None:
        """The name of the column with this role, if there is one."""
        return next((name for name, rule in self.columns.items() if rule.role == role), None)

    def spec(self, dataset: str, task: Task) -> Spec:
        """What a family may know of the data. Raises DataError if an episode would measure two splits, or measure one
        and be learnt from."""
        for split, wrong in clashes(seeds(self.evaluation)):
            raise DataError(
                f"evaluation.{split}: {wrong}",
                where=dataset,
                why="a policy is measured on episodes that it neither learnt from nor was chosen by",
                fix="say fewer episodes or another first_seed in the dataset's evaluation",
            )
        columns = tuple(
            Column(
                name,
                rule.kind,
                rule.dtype,
                rule.shape,
                longest=(rule.longest or LONGEST) if rule.kind == "text" else 0,
                parts=rule.parts,
            )
            for name, rule in self.columns.items()
            if rule.role == "input"
        )
        target = self.column("target")
        classes = (self.columns[target].values or []) if target and task != "regression" else []
        return Spec(
            dataset,
            task,
            columns,
            target,
            tuple(classes),
            self.column("id"),
            self.environment,
            user=self.ratings.user if self.ratings else None,
            item=self.ratings.item if self.ratings else None,
            environment_settings=self.environment_settings,
            environment_wrappers=self.environment_wrappers,
            evaluation=seeds(self.evaluation),
        )

    def tasks(self) -> tuple[Task, ...]:
        """The tasks that this data can serve."""
        if self.environment:
            return ("control",)
        target = self.column("target")
        return (*(_tasks_of(self.columns[target]) if target else ()), *self._without_target())

    def _without_target(self) -> tuple[Task, ...]:
        """What can be learnt from the inputs alone."""
        kinds = [rule.kind for rule in self.columns.values() if rule.role == "input"]
        return ("representation", "generation") if kinds == ["tensor"] else ()


def _tasks_of(target: ColumnRule) -> tuple[Task, ...]:
    if target.kind == "text":
        return ("text2text",)
    return ("regression",) if target.values is None else ("classification", "anomaly")
