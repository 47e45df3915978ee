"""All that is known of finished work: the records of this project, MLflow's runs and the registry's versions.

Any of the three may be missing: another machine's training is known to MLflow alone, a run that was deleted there to
the records alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..errors import RegistryError
from ..registry import catalogue
from ..registry.catalogue import Listed
from ..registry.versions import CHAMPION, split
from ..tracking import past
from ..tracking.past import Past
from ..workspace import Workspace
from . import SCORING, Record, read


@dataclass(frozen=True)
class Training:
    """One train stage: its record, its run, or both; where neither is left, what a version's tags say of it."""

    workspace: Workspace
    pipeline: str
    key: str
    work: Record | None = None
    run: Past | None = None
    said: dict[str, str] = field(default_factory=dict)

    @cached_property
    def told(self) -> Record:
        """What its receipt says: on record here, or among the files of its run; else empty."""
        if self.work:
            return self.work
        found = past.receipt(self.workspace, self.run.run_id) if self.run else {}
        parts = {name: found.get(name) or {} for name in ("inputs", "outputs", "facts")}
        return Record(self.pipeline, "train", self.key, **parts)

    @property
    def tags(self) -> dict[str, str]:
        return self.run.tags if self.run else self.said

    @property
    def data_md5(self) -> str:
        return self.tags.get("data_md5") or str(self.told.inputs.get("data", ""))

    @property
    def dataset(self) -> str:
        return self.tags.get("dataset") or str(self.told.inputs.get("spec", {}).get("dataset", ""))

    @property
    def run_id(self) -> str:
        if self.run:
            return self.run.run_id
        return self.tags.get("run_id") or str(self.told.facts.get("run_id", ""))

    @property
    def flow_run(self) -> str:
        return self.tags.get("flow_run") or str(self.told.facts.get("flow_run", ""))


@dataclass(frozen=True)
class Version:
    """A version of a model: in the registry, or only on record here as once registered. `tags` are its own, as far
    as they are known."""

    pipeline: str
    number: int
    tags: dict[str, str]
    listed: Listed | None = None

    @property
    def name(self) -> str:
        return f"{self.pipeline}/{self.number}"

    @property
    def key(self) -> str:
        return self.tags.get("run_key", "")

    @property
    def champion(self) -> bool:
        return self.listed is not None and self.listed.champion


@dataclass(frozen=True)
class Known:
    """Everything, in one reading."""

    workspace: Workspace
    records: list[Record]
    trainings: list[Training]
    versions: list[Version]
    flow_runs: dict[str, list[Record]] = field(default_factory=dict)

    def training(self, pipeline: str, key: str) -> Training | None:
        return next((t for t in self.trainings if (t.pipeline, t.key) == (pipeline, key)), None)

    def training_of(self, version: Version) -> Training | None:
        """The training that left a version's weights: the same run key on another processor may leave others."""
        found, weights = self.training(version.pipeline, version.key), version.tags.get("weights_sha256")
        if found is None or found.work is None or found.work.facts.get("weights_sha256") == weights:
            return found
        same = ("train", version.pipeline, version.key)
        works = (work for work in self.records if (work.stage, work.pipeline, work.key) == same)
        fits = next((work for work in works if work.facts.get("weights_sha256") == weights), None)
        return replace(found, work=fits)

    def versions_of(self, training: Training) -> list[Version]:
        return [v for v in self.versions if (v.pipeline, v.key) == (training.pipeline, training.key)]

    def scorings(self) -> Iterator[Record]:
        """Records that left scores: a stage's, or those of a table that a person named."""
        made = (work for work in self.records if work.stage in ("score", SCORING) and run_key(work))
        return iter({(work.stage, work.pipeline, work.key, *work.outputs): work for work in made}.values())

    def scorings_of(self, version: Version) -> list[Record]:
        """What was scored with a version. A pipeline's version and run key stand in its scores."""
        wanted = (version.pipeline, str(version.number), version.key)
        return [work for work in self.scorings() if (work.pipeline, model_version(work), run_key(work)) == wanted]

    def version(self, name: str) -> Version:
        """The version of a name, as `registry.versions.find` takes it, by its tags alone: no file is fetched.

        Raises ParamsError if it is no such name, RegistryError if there is no such version.
        """
        pipeline, number = split(name)
        own = [version for version in self.versions if version.pipeline == pipeline]
        wanted = [version for version in own if (version.champion if number is None else version.number == number)]
        if wanted:
            return wanted[0]
        there = ", ".join(dict.fromkeys(version.name for version in own)) or "none"
        what = f"pipeline {pipeline!r} has no {CHAMPION}" if number is None else f"there is no version {name}"
        raise RegistryError(what, fix=f"name one of these: {there}")

    def registered(self, pipeline: str) -> bool:
        return any(version.pipeline == pipeline for version in self.versions)


def model_version(work: Record) -> str:
    champion = work.inputs.get("champion") or {}
    return str(work.facts.get("model_version") or champion.get("version", ""))


def run_key(work: Record) -> str:
    return str(work.facts.get("run_key", ""))


def gather(workspace: Workspace) -> Known:
    """Read everything. Raises Unreachable if MLflow does not answer: half an answer would pass for a whole one."""
    records = _whose(read(workspace))
    runs, listed = past.sweeps(workspace), catalogue.versions(workspace)
    flow_runs: dict[str, list[Record]] = {}
    for work in records:
        if work.facts.get("flow_run"):
            flow_runs.setdefault(work.facts["flow_run"], []).append(work)
    trainings = _trainings(workspace, records, runs, listed)
    return Known(workspace, records, trainings, _versions(records, listed), flow_runs)


def _whose(records: list[Record]) -> list[Record]:
    """The same; scores whose record is too old to name the training of the model get it from the registration."""
    keys = {
        (work.pipeline, work.facts.get("version")): work.inputs["train"] for work in records if work.stage == "register"
    }
    return [_with_key(work, keys.get((work.pipeline, model_version(work)), "")) for work in records]


def _with_key(work: Record, key: str) -> Record:
    if work.stage != "score" or run_key(work) or not key:
        return work
    return replace(work, facts=work.facts | {"run_key": key})


def _trainings(
    workspace: Workspace, records: Iterable[Record], runs: Iterable[Past], listed: Iterable[Listed]
) -> list[Training]:
    works = {(work.pipeline, work.key): work for work in records if work.stage == "train"}
    tracked = {(run.tags.get("pipeline", ""), run.tags.get("run_key", "")): run for run in runs}
    said = {(version.pipeline, version.tags.get("run_key", "")): version.tags for version in listed}
    return [
        Training(workspace, *name, works.get(name), tracked.get(name), said.get(name, {}))
        for name in {**tracked, **works, **said}
    ]


def _versions(records: Iterable[Record], listed: Iterable[Listed]) -> list[Version]:
    found = {(v.pipeline, v.version, v.tags["run_key"]): Version(v.pipeline, v.version, v.tags, v) for v in listed}
    for work in records:
        if work.stage == "register" and "version" in work.facts:
            tags = {"run_key": work.inputs["train"], "weights_sha256": work.inputs["weights"]}
            name = (work.pipeline, int(work.facts["version"]))
            found.setdefault((*name, tags["run_key"]), Version(*name, tags))
    return sorted(found.values(), key=lambda version: (version.pipeline, version.number, version.listed is None))
