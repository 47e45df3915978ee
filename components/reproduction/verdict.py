"""What was recorded beside what came out: to the byte, or within a tolerance where the machine is another."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..contract import Json, Metrics
from ..errors import NotReproduced
from ..lineage.branches import plain
from .recorded import Recorded

# A figure may differ by this share of what was recorded, or by so much where it is near zero. Rounding that differs
# in the last bit grows as a net learns; beyond this another net was learnt.
SHARE, NEAR_ZERO = 0.02, 0.001
TOLERANCE = f"{SHARE:.0%} of the recorded figure, {NEAR_ZERO} near zero"
CURVE, WEIGHTS = "curve", "model.weights_sha256"
# Packages that compute while a net learns or is measured; the others cannot change its bits.
COMPUTING = ("gymnasium", "numpy", "pyarrow", "scikit-learn", "torch")


@dataclass(frozen=True)
class Made:
    """What the training gave this time. `curve` as in Recorded."""

    data_md5: str
    code: str
    curve: tuple[Metrics, ...]
    metrics: Metrics
    weights_sha256: str


@dataclass(frozen=True)
class Line:
    """One thing that was compared. `near`: the same, or figures within the tolerance."""

    what: str
    recorded: Json
    reproduced: Json
    same: bool
    near: bool


@dataclass(frozen=True)
class Verdict:
    """`expected` says why the bytes may differ here, and is empty on the same kind of machine. `differing_epoch` is
    the first whose metrics are not those recorded."""

    version: str
    commit: str
    expected: tuple[str, ...]
    differing_epoch: int | None
    lines: tuple[Line, ...]

    @property
    def to_the_byte(self) -> bool:
        return all(line.same for line in self.lines)

    @property
    def same(self) -> bool:
        """To the byte; or, where nothing better can be expected, in every figure within the tolerance."""
        return self.to_the_byte or (bool(self.expected) and all(x.near for x in self.lines if x.what != WEIGHTS))

    def sentence(self) -> str:
        if self.to_the_byte:
            return f"{self.version} is the same to the byte"
        if self.same:
            return f"{self.version} is the same within the tolerance ({TOLERANCE}), not to the byte"
        return f"{self.version} came out otherwise"

    def to_json(self) -> Json:
        own = {"version": self.version, "commit": self.commit, "same": self.same, "to_the_byte": self.to_the_byte}
        own |= {"tolerance": TOLERANCE if self.expected else None, "differences_expected": list(self.expected)}
        lines = [plain(dataclasses.asdict(line)) for line in self.lines]
        return own | {"first_differing_epoch": self.differing_epoch, "lines": lines}

    def to_rows(self) -> list[dict[str, Json]]:
        """As a table for people has it."""
        names = ("what", "recorded", "reproduced")
        said = {(True, True): "yes", (False, True): "nearly", (False, False): "no"}
        return [{n: getattr(x, n) for n in names} | {"same": said[x.same, x.near]} for x in self.lines]

    def require(self) -> None:
        """Raise NotReproduced unless it is the same."""
        if self.same:
            return
        differing = [x for x in self.lines if not (x.near or x.what == WEIGHTS if self.expected else x.same)]
        figures = [x for x in differing if x.what != CURVE]  # the epoch says it
        said = "; ".join(f"{x.what} was {x.recorded}, came out {x.reproduced}" for x in figures[:3])
        first = f"epoch {self.differing_epoch} is the first that differs; " if self.differing_epoch else ""
        raise NotReproduced(
            self.sentence(),
            where=f"commit {self.commit[:12]}",
            why=first + said,
            fix="look for what the training depends on and no record names, such as files or clocks that the family "
            f"reads; tidemill trace {self.version} shows what it was made from",
        )


def judge(recorded: Recorded, made: Made, expected: Sequence[str]) -> Verdict:
    """Hold the two against each other, what went in first."""
    learnt = enumerate(zip(recorded.curve, made.curve, strict=bool(recorded.curve)), 1)
    epoch = next((n for n, (a, b) in learnt if not all(line.same for line in _figures("", a, b))), None)
    lines = [
        _equal("data.md5", recorded.data_md5, made.data_md5),
        _equal("code.code_hash", recorded.inputs["code"], made.code),
        *_curve(recorded, made, epoch),
        *_figures("metrics.", recorded.metrics, made.metrics),
        _equal(WEIGHTS, recorded.weights_sha256, made.weights_sha256),
    ]
    return Verdict(recorded.version, recorded.commit, tuple(expected), epoch, tuple(lines))


def expected_differences(recorded: Recorded, now: dict[str, Json]) -> list[str]:
    """Why the bytes may come out otherwise here; `now` is `lineage.environment()`."""
    then = recorded.environment
    said = [
        f"{name} was {then[name]}, is {now[name]}"
        for name in ("processor", "device", "python")
        if name in then and then[name] != now[name]
    ]
    before = then.get("packages", {}) | recorded.inputs.get("versions", {})
    present = now["packages"]
    said += [
        f"{name} was {before[name]}, is {present.get(name, 'not installed')}"
        for name in COMPUTING
        if name in before and before[name] != present.get(name)
    ]
    if then.get("device", "cpu") != "cpu" or recorded.inputs["resources"]["gpus"]:
        said.append("it was trained on a GPU, whose sums have no fixed order")
    return said


def _curve(recorded: Recorded, made: Made, epoch: int | None) -> Iterator[Line]:
    """One line for the whole curve; the figures of the first epoch that differs, if one does."""
    if not recorded.curve:
        return
    pairs = list(zip(recorded.curve, made.curve, strict=True))
    near = all(line.near for a, b in pairs for line in _figures("", a, b))
    told = f"{len(pairs)} epochs"
    yield Line(CURVE, told, told if epoch is None else f"differs from epoch {epoch} on", epoch is None, near)
    if epoch is not None:
        yield from (line for line in _figures(f"epoch {epoch}: ", *pairs[epoch - 1]) if not line.same)


def _figures(title: str, a: Metrics, b: Metrics) -> list[Line]:
    return [_figure(title + name, a.get(name), b.get(name)) for name in sorted({*a, *b})]


def _figure(what: str, a: float | None, b: float | None) -> Line:
    if a is None or b is None:
        return Line(what, a, b, a is b, a is b)
    same = a == b or (math.isnan(a) and math.isnan(b))
    return Line(what, a, b, same, same or math.isclose(a, b, rel_tol=SHARE, abs_tol=NEAR_ZERO))


def _equal(what: str, a: Json, b: Json) -> Line:
    return Line(what, a, b, a == b, a == b)
