"""`tidemill compare`: two versions, or two trainings, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..contract import Json
from ..errors import ParamsError
from ..receipts import canonical
from ..workspace import Workspace
from . import branches, known, trace
from .branches import plain
from .known import Known, Training, Version


@dataclass(frozen=True)
class Line:
    """One thing that two sides say. None: a side says nothing of it."""

    what: str
    a: Json
    b: Json

    @property
    def same(self) -> bool:
        return canonical(self.a) == canonical(self.b)


@dataclass(frozen=True)
class Comparison:
    """Differing lines first. `verdict` says in words whether the two are the same."""

    a: str
    b: str
    verdict: str
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, Json]:
        lines = [{"what": line.what, "a": line.a, "b": line.b, "same": line.same} for line in self.lines]
        same = all(line.same for line in self.lines)
        return {"a": self.a, "b": self.b, "same": same, "verdict": self.verdict, "lines": lines}


@dataclass(frozen=True)
class Side:
    """What one of the two names stands for."""

    name: str
    training: Training
    version: Version | None = None

    def decision(self) -> dict[str, Json]:
        """What the gate said; empty where it said nothing."""
        return self.version.listed.decision() if self.version and self.version.listed else {}


def compare(workspace: Workspace, a: str, b: str) -> Comparison:
    """Hold two versions (`digits/3`, `digits@champion`) or run keys against each other.

    Raises ParamsError if one of them is neither, RegistryError if there is no such version.
    """
    found = known.gather(workspace)
    one, other = _side(found, a), _side(found, b)
    told = [dict(_told(found, side)) for side in (one, other)]
    if one.decision() and other.decision():  # a run key has none
        told = [said | dict(_decided(side)) for said, side in zip(told, (one, other), strict=True)]
    names = dict.fromkeys([*told[0], *told[1]])
    lines = sorted((Line(name, told[0].get(name), told[1].get(name)) for name in names), key=lambda line: line.same)
    return Comparison(a, b, _verdict(one, other, lines), tuple(lines))


def _side(found: Known, name: str) -> Side:
    pipeline = name.partition("/")[0].partition("@")[0]
    if found.registered(pipeline):
        version = found.version(name)
        training = found.training_of(version)
        if training:
            return Side(name, training, version)
    keys = {t.key for t in found.trainings if len(name) >= trace.SHORTEST and t.key.startswith(name.lower())}
    if len(keys) == 1:
        return Side(name, next(t for t in found.trainings if t.key in keys))
    if keys:
        raise ParamsError(f"{name!r} may be several run keys", why="; ".join(sorted(keys)), fix="give more digits")
    raise ParamsError(
        f"{name!r} is no version and no run key of a training",
        fix="use PIPELINE/NUMBER, PIPELINE@champion, or a run key that `tidemill results` shows",
    )


def _told(found: Known, side: Side) -> Iterator[tuple[str, Json]]:
    """(name, value) of every line, nested values by their path."""
    training, version = side.training, side.version
    facts = training.told.facts
    yield "data.dataset", training.dataset
    yield "data.md5", training.data_md5
    _, *origins = branches.origins(found, training)
    for node in origins:
        yield from _flat(node.kind, {k: v for k, v in node.facts.items() if k != "still_in_results"})
    metrics = facts.get("metrics") or (training.run.metrics if training.run else {})
    yield from _flat("metrics", metrics)
    weights = facts.get("weights_sha256") or (version.tags.get("weights_sha256") if version else None)
    yield "model.weights_sha256", weights
    yield "model.run_key", training.key


def _decided(side: Side) -> Iterator[tuple[str, Json]]:
    decision = side.decision()
    for name, ends in decision["intervals"].items():
        yield f"interval.{name}", plain(ends)
    for name in ("promoted", "reason", "value", "champion_version", "champion_value", "difference", "interval"):
        yield f"gate.{name}", plain(decision[name])


def _flat(path: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for name, part in sorted(value.items()):
            yield from _flat(f"{path}.{name}", part)
    else:
        yield path, plain(value)


def _verdict(a: Side, b: Side, lines: list[Line]) -> str:
    differing = sum(not line.same for line in lines)
    weights = next(line for line in lines if line.what == "model.weights_sha256")
    if not differing:
        return f"{a.name} and {b.name} are the same in everything that is recorded"
    count = f"{differing} of {len(lines)} lines differ"
    if weights.same and weights.a:
        return f"{a.name} and {b.name} have the same weights, byte for byte; {count}"
    return f"{a.name} and {b.name} are not the same: {count}{_measured(a, b) or _measured(b, a)}"


def _measured(own: Side, rival: Side) -> str:
    """What the gate found, where it held one of the two against the other on the same test rows."""
    decision = own.decision()
    if not (decision and rival.version and decision["interval"] and own.training.pipeline == rival.training.pipeline):
        return ""
    if decision["champion_version"] != rival.version.number:
        return ""
    low, high = decision["interval"]
    gain = f"better by {decision['difference']:.4g}, interval {low:.4g} to {high:.4g}"
    luck = ", which may be luck" if low <= 0 <= high else ""
    return f"; on the same test rows the gate measured {own.name} against {rival.name}: {gain}{luck}"
