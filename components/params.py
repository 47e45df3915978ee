"""The only reader of params.yaml: typed, validated, every fault at once with its line.

Lists under `tags`, a cron line under `schedule`; everything but `dataset` and `family` has a default.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from . import families, partitions
from .contract import Choice, Domain, Integer, Json, Task, Uniform
from .errors import ParamsError
from .expectations import Split
from .faults import fault, faults, shown, suggest, wanted
from .workspace import Workspace

# Names become folders, MLflow model names and DVC stage names: none of them may climb out of its folder.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetBlock(Block):
    """A table of your own (`table` and `target`, `text` to learn from free text), recorded episodes of an environment
    (`environment`), or a built-in or imported dataset (`source`)."""

    source: str | None = Field(
        None, description="Built-in dataset, or package.module of your own. Default: the block's name."
    )
    table: str | None = Field(None, description="Path of a csv or Parquet file, or of a folder of them.")
    target: str | None = Field(
        None, description="The column to predict. Beside `text` it may be free text too, which is then to be written."
    )
    text: str | None = Field(None, description="The column of free text to learn from; then it is the only input.")
    id: str | None = Field(None, description="The column that names a row. Default: inferred.")
    user: str | None = Field(None, description="The column that says who gave the rating that is the target.")
    item: str | None = Field(None, description="The column that says what was rated.")
    ignore: list[str] = Field([], description="Columns that are kept but never learnt from.")
    series: str | None = Field(
        None,
        description="Which columns of the table are the steps of a series: a pattern such as 't*', or '*' for all "
        "numbers not named otherwise. 'files': the table is a folder with a csv for each series, CLASS/NAME.csv.",
    )
    environment: str | None = Field(
        None, min_length=1, description="A gymnasium id, such as MountainCar-v0, or package.module:Id-v0."
    )
    environment_settings: dict[str, JsonValue] = Field(
        {}, description="What gymnasium.make is told beside the id, such as max_episode_steps."
    )
    environment_wrappers: list[str] = Field(
        [], description="What is put around it, the innermost first: package.module:Class, each made with it alone."
    )
    episodes: int | None = Field(None, ge=3, description="Episodes that are recorded, at random. Default: 100.")
    evaluation: dict[Split, Annotated[int, Field(ge=1, le=1_000_000)]] = Field(  # more would be other splits' episodes
        {}, description="Episodes that measure a policy: val's after each epoch. Default: train 50, val 50, test 100."
    )


class Range(Block):
    """A range to search. `integer` draws whole numbers; `log` draws evenly in the logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


class Search(Block):
    """Which configurations are tried, and for how long."""

    scheduler: Literal["halving", "asha", "pbt", "optuna"] = "halving"
    trials: int = Field(8, ge=1, description="Configurations drawn.")
    epochs: int = Field(20, ge=1, description="Epochs that the longest trial gets.")
    first_rung: int = Field(2, ge=1, description="Epochs before the first comparison.")
    reduction: int = Field(3, ge=2, description="At each rung one configuration in this many goes on.")
    space: dict[str, Range | list[Any]] = Field({}, description="Domains that replace the family's own.")
    seeds: int = Field(
        1,
        ge=1,
        description="Seeds that the best configuration is learnt with, the search's own among them: the others measure "
        "how much is luck, and never win.",
    )

    @field_validator("seeds")
    @classmethod
    def _learnt_by_one(cls, seeds: int, told: ValidationInfo) -> int:
        """Under population based training a winner's weights were taught by several trials' settings in turn, each
        picked by what its seed came to beside others: there is no configuration that could be learnt once more."""
        if seeds > 1 and told.data.get("scheduler") == "pbt":
            raise PydanticCustomError(
                "seeds_of_pbt",
                "1 with scheduler pbt: its winner had several configurations; take another scheduler",
            )
        return seeds

    def domains(self, own: Mapping[str, Domain], fixed: Mapping[str, Json]) -> dict[str, Domain]:
        """The family's domains, less the settings that are fixed, with the ranges of params.yaml in their place."""
        given: dict[str, Domain] = {}
        for name, value in self.space.items():
            mutable = getattr(own.get(name), "mutable", False)
            if isinstance(value, list):
                given[name] = Choice(tuple(value), mutable)
            elif value.integer:
                given[name] = Integer(int(value.low), int(value.high), value.log, mutable)
            else:
                given[name] = Uniform(value.low, value.high, value.log, mutable)
        return {name: d for name, d in sorted({**own, **given}.items()) if name not in fixed}


class Resources(Block):
    """What one trial gets. One CPU is one torch thread."""

    cpus: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0)


class Gate(Block):
    """When a new version becomes champion."""

    metric: str | None = Field(None, description="Metric on the test rows. Default: the family's objective.")
    mode: Literal["max", "min"] | None = Field(
        None, description="Whether more or less of the metric is better. Needed if it is not the objective."
    )
    margin: float = Field(0.0, ge=0, description="By how much the present champion must be beaten.")
    confidence: float = Field(
        0.95,
        ge=0.5,
        lt=1,
        description="Of the bootstrapped interval of the difference; its lower end decides.",
    )
    floors: dict[str, float] = Field(
        {}, description="By column: what the metric must reach on the test rows of each of its values."
    )
    slice_rows: int = Field(20, ge=1, description="A value in fewer test rows than this has no floor.")


class Drift(Block):
    """When rows to score count as unlike the training rows, and what happens then."""

    limit: float = Field(0.25, gt=0, description="Population stability index that a column may reach.")
    alpha: float = Field(
        0.01, gt=0, lt=1, description="Chance of a false alarm in a scoring, whatever the number of columns."
    )
    then: Literal["warn", "block", "train", "ignore"] = Field(
        "warn",
        description="warn: say so; block: deliver nothing; train: start the pipeline, once; ignore: do not compare.",
    )


class Scoring(Block):
    """How rows are scored, and what the score stage of a run reads."""

    input: str | None = Field(
        None,
        description="csv, Parquet, or a folder of them; with %Y, %m, %d, %H in it the latest of those partitions. "
        "Default: the dataset's test rows.",
    )
    batch_rows: int = Field(65536, ge=1)
    drift: Drift = Drift()
    quarantine: float = Field(
        0.1, ge=0, le=1, description="Largest share of rows that may not fit the model; 0: the first ends the scoring."
    )


class Pipeline(Block):
    """Dataset × family × search × gate × schedule."""

    dataset: Name
    family: str
    task: Task | None = Field(None, description="Default: the first task of the family that the data can serve.")
    settings: dict[str, Any] = Field({}, description="Settings of the family that are fixed, not searched.")
    search: Search = Search()
    resources: Resources = Resources()
    gate: Gate = Gate()
    scoring: Scoring = Scoring()
    checkpoint_every_s: float = Field(
        5.0, ge=0, description="Seconds between checkpoints inside a rung; 0: every epoch."
    )
    schedule: str | None = Field(None, description="A cron line in UTC, such as '0 6 * * *'.")
    tags: list[str] = []


class Retention(Block):
    """What `tidemill clean` may remove, and when. 0: as soon as nothing needs it; null: never. A champion, present or
    former, and a sweep that is not finished stay whatever stands here."""

    checkpoints_days: float | None = Field(7, ge=0, description="Days that a finished sweep's checkpoints stay.")
    runs_days: float | None = Field(90, ge=0, description="Days that an MLflow run stays that no kept version needs.")
    keep_versions: int | None = Field(5, ge=0, description="Newest versions of each pipeline whose files stay.")


class Params(Block):
    seed: int = 0
    storage: str = Field(".tidemill/sweeps", description="Folder or fsspec URL for checkpoints.")
    retention: Retention = Retention()
    datasets: dict[Name, DatasetBlock] = {}
    pipelines: dict[Name, Pipeline] = {}

    def pipeline(self, name: str) -> Pipeline:
        if name not in self.pipelines:
            raise ParamsError(
                f"no pipeline {name!r}",
                where="params.yaml: pipelines",
                fix=suggest(name, self.pipelines) or "add a block for it",
            )
        return self.pipelines[name]


def load(workspace: Workspace) -> Params:
    """Read and check params.yaml.

    Raises ParamsError with a line for each fault: `params.yaml:LINE key.path: got X, expected Y`.
    """
    file = workspace.params
    yaml = YAML(typ="rt")
    try:
        raw = yaml.load(file.read_text(encoding="utf-8")) or {}
    except MarkedYAMLError as error:
        line = (error.problem_mark.line + 1) if error.problem_mark else 1
        raise ParamsError(f"not YAML: {error.problem}", where=f"{file.name}:{line}", fix="mend the line") from error
    if not isinstance(raw, dict):
        raise ParamsError(f"got {shown(raw)}, expected keys such as datasets and pipelines", where=f"{file.name}:1")
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        found = faults(error, raw, file.name, Params)
    else:
        found = [fault(raw, file.name, loc, text) for loc, text in _cross_checks(params)]
        if not found:
            return params
    raise ParamsError("\n".join(line for _, line in sorted(set(found))))


def schema() -> str:
    """The JSON Schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=2) + "\n"


def _cross_checks(params: Params) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Faults that one block alone does not show."""
    for name, block in params.datasets.items():
        yield from _dataset_checks(name, block)
    for name, pipeline in params.pipelines.items():
        at = ("pipelines", name)
        if pipeline.dataset not in params.datasets:
            yield (*at, "dataset"), wanted(pipeline.dataset, params.datasets, "a name under datasets")
        if pipeline.schedule is not None and (reason := _cron_fault(pipeline.schedule)):
            yield (*at, "schedule"), f"got {pipeline.schedule!r}, expected a cron line such as '0 6 * * *' ({reason})"
        if pipeline.scoring.input and (reason := partitions.fault(pipeline.scoring.input)):
            yield (*at, "scoring", "input"), f"got {pipeline.scoring.input!r}: {reason}"
        yield from _family_checks(pipeline, at)


def _dataset_checks(name: str, block: DatasetBlock) -> Iterator[tuple[tuple[Any, ...], str]]:
    from .datasets import BUILT_IN  # here, since datasets read the types above

    at = ("datasets", name)
    if block.table and block.source:
        yield (*at, "source"), "got table and source, expected one of them"
    if block.text and not block.table:
        yield (*at, "text"), "got a text without a table, expected both"
    if block.text and block.text == block.target:
        yield (*at, "text"), f"got {block.text!r} for text and target, expected two columns"
    if block.series is not None and not block.table:
        yield (*at, "series"), "got a pattern without a table, expected `table: PATH` beside it"
    if block.series == "files" and block.id:
        yield (*at, "id"), f"got {block.id!r}, expected none: series are named by their files"
    if block.series == "":
        yield (*at, "series"), "got '', expected a pattern such as 't*', or files"
    if not (block.table or block.source or block.environment or name in BUILT_IN):
        known = f"`table: PATH`, `environment: ID` or one of {', '.join(BUILT_IN)}"
        yield at, f"got no table, no environment and no built-in dataset of this name, expected {known}"
    if (block.user is None) != (block.item is None):
        given, other = ("user", "item") if block.user else ("item", "user")
        yield (*at, given), f"got {given} without {other}, expected both: a rating is of an item by a user"
    if block.user and not block.table:
        yield (*at, "user"), "got user without table, expected a table: other datasets say it themselves"
    if block.source and "." not in block.source and block.source not in BUILT_IN:
        yield (*at, "source"), f"got {block.source!r}, expected one of {', '.join(BUILT_IN)}, or package.module"
    yield from _environment_checks(block, at)


def _environment_checks(block: DatasetBlock, at: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    of_rows = ("table", "source", "target", "id", "ignore")
    of_episodes = ("environment_settings", "environment_wrappers", "episodes", "evaluation")
    for key in of_rows if block.environment else ():
        if getattr(block, key):
            yield (*at, key), f"got {key} beside an environment, expected one of them"
    for key in of_episodes if not block.environment else ():
        if getattr(block, key):
            yield (*at, key), f"got {key} without an environment, expected `environment: ID` beside it"
    for number, path in enumerate(block.environment_wrappers):
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", path):
            yield (*at, "environment_wrappers", number), f"got {path!r}, expected package.module:Class"


def _family_checks(pipeline: Pipeline, at: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    try:
        family = families.family(pipeline.family)
    except ParamsError as error:
        yield (*at, "family"), f"got {pipeline.family!r}, expected a family: {error.why or error.fix}"
        return
    known = [f.name for f in dataclasses.fields(family.Settings)]
    for key in pipeline.settings:
        if key not in known:
            yield (*at, "settings", key), wanted(key, known, f"a setting of {pipeline.family}")
    for key in pipeline.search.space:
        if key not in known:
            yield (*at, "search", "space", key), wanted(key, known, f"a setting of {pipeline.family}")
    if pipeline.task and pipeline.task not in family.tasks:
        yield (*at, "task"), f"got {pipeline.task!r}, expected one of {', '.join(family.tasks)}"


def _cron_fault(line: str) -> str:
    from datetime import UTC, datetime

    from cronsim import CronSim, CronSimError

    try:
        CronSim(line, datetime.now(UTC))
    except CronSimError as error:
        return str(error)
    return ""
