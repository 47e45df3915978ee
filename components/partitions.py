"""Tables that come in by the clock: a path with strftime codes names one a year, month, day or hour.

`incoming/%Y-%m-%d.csv` is a file a day, `incoming/%Y/%m/%d/%H/` a folder an hour. Names are read back as times, so what
there is and which is the latest is said by the names alone, not by the clock. All times are UTC.
"""

from __future__ import annotations

import calendar
import glob
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from .errors import BadInput, ParamsError

Step = Literal["year", "month", "day", "hour"]
_CODES: dict[str, Step] = {"%Y": "year", "%m": "month", "%d": "day", "%H": "hour"}
_NAMES: dict[Step, str] = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
_STEPS: tuple[Step, ...] = ("year", "month", "day", "hour")
_TOKEN = re.compile(r"(%[A-Za-z%])")
_BOUND = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d)(?::00)?)?)?)?")
WRITE = "write %Y, %m, %d and %H where the path differs by year, month, day and hour, as in incoming/%Y-%m-%d.csv"


@dataclass(frozen=True)
class Partition:
    """One step's table. `name` is its time as text, such as 2026-01-31 or 2026-01-31T05."""

    name: str
    path: Path


@dataclass(frozen=True)
class Layout:
    """Where a pipeline's partitions lie. `pattern` is the path as params.yaml has it."""

    root: Path
    pattern: str
    step: Step

    def at(self, start: datetime) -> Partition:
        return Partition(start.strftime(_NAMES[self.step]), self.root / _put(self.pattern, start.strftime, str))

    def existing(self) -> dict[datetime, Partition]:
        """Start of each partition that there is → the partition, in order. An empty folder is none."""
        shape = _expression(self.pattern)
        found: dict[datetime, Partition] = {}
        for name in glob.iglob(_wildcard(self.pattern), root_dir=self.root):  # noqa: PTH207 – it takes absolute ones too
            match = shape.fullmatch(name)
            start = _moment(match) if match else None
            if start and self.there(self.at(start)):
                found[start] = self.at(start)
        return dict(sorted(found.items()))

    def there(self, partition: Partition) -> bool:
        if partition.path.is_dir():
            return any(partition.path.iterdir())
        return partition.path.is_file() and not self.pattern.endswith("/")

    def span(self, first: str, last: str, now: datetime | None = None) -> list[Partition]:
        """Every partition from one bound to the other, both included, whether it is there or not.

        A bound may be coarser than the step: the first or last of what it names is meant. Raises ParamsError.
        """
        start, end = self._bound(first, "--from", last=False), self._bound(last, "--to", last=True)
        if start > end:
            raise ParamsError(f"--from {first} is later than --to {last}", fix="give the earlier one to --from")
        if end > (now or datetime.now(UTC)):
            raise ParamsError(f"--to {last} lies in the future", fix="give a time that has begun, in UTC")
        return [self.at(moment) for moment in _moments(start, end, self.step)]

    def _bound(self, text: str, option: str, last: bool) -> datetime:
        """The first or last step of what `text` names."""
        sample = datetime(2026, 1, 31, 5).strftime(_NAMES[self.step])
        match = _BOUND.fullmatch(text.strip())
        parts = [int(part) for part in match.groups() if part] if match else []
        if not parts or len(parts) > _STEPS.index(self.step) + 1:
            raise ParamsError(f"{option}: got {text!r}, expected the {self.step} of a partition, such as {sample}")
        try:
            if len(parts) < 2:
                parts.append(12 if last else 1)
            if len(parts) < 3:
                parts.append(calendar.monthrange(parts[0], parts[1])[1] if last else 1)
            hour = parts[3] if len(parts) > 3 else 23 if last else 0
            return _floor(datetime(parts[0], parts[1], parts[2], hour, tzinfo=UTC), self.step)
        except ValueError as error:
            raise ParamsError(f"{option}: {text!r} is no date: {error}", fix=f"give one such as {sample}") from None


def fault(pattern: str) -> str:
    """What is wrong with the codes of a path; "" if nothing is, or if it has none."""
    codes = {code for code in _TOKEN.findall(pattern) if code != "%%"}
    if strange := sorted(codes - set(_CODES)):
        return f"{strange[0]} is no code of a partition; {WRITE}, and %% for a percent sign"
    steps = [_STEPS.index(_CODES[code]) for code in codes]
    lacking = [code for code, step in _CODES.items() if steps and _STEPS.index(step) < max(steps) and code not in codes]
    return f"{' and '.join(lacking)} must stand there too, or the time is not known" if lacking else ""


def layout(root: Path, pattern: str | None) -> Layout | None:
    """How a path's partitions lie; None if it has no codes."""
    steps = [_STEPS.index(_CODES[code]) for code in _TOKEN.findall(pattern or "") if code in _CODES]
    return Layout(root, pattern or "", _STEPS[max(steps)]) if steps else None


def require(root: Path, name: str, pattern: str | None) -> Layout:
    """The same. Raises ParamsError, which says what to write, if a pipeline's scoring input has no codes."""
    found = layout(root, pattern)
    if found is None:
        where = f"params.yaml pipelines.{name}.scoring.input"
        raise ParamsError(f"got {pattern!r}, which names no partitions", where=where, fix=WRITE)
    return found


def latest(root: Path, name: str, pattern: str) -> Path:
    """What a run scores: the path itself, or the latest partition that there is. Raises ParamsError if that is none."""
    found = layout(root, pattern)
    if found:
        there = list(found.existing().values())
        if there:
            return there[-1].path
    elif (root / pattern).exists():
        return root / pattern
    raise ParamsError(
        f"got {pattern!r}, expected {'at least one partition' if found else 'a file or folder that exists'}",
        where=f"params.yaml pipelines.{name}.scoring.input",
    )


def present(wanted: list[Partition], layout: Layout) -> tuple[list[Partition], list[Partition]]:
    """Those that are there, and those that are absent. Raises BadInput if all are absent."""
    there = {partition: layout.there(partition) for partition in wanted}
    if not any(there.values()):
        span = f"{wanted[0].name} … {wanted[-1].name}"
        raise BadInput(f"no partition is there of {span}", where=layout.pattern, fix="look at the path and the dates")
    return [one for one in wanted if there[one]], [one for one in wanted if not there[one]]


# ── times and names ─────────────────────────────────────────────────────────────────────────────────────


def _moments(start: datetime, end: datetime, step: Step) -> Iterator[datetime]:
    while start <= end:
        yield start
        if step in ("day", "hour"):
            start += timedelta(days=1) if step == "day" else timedelta(hours=1)
        else:
            months = start.year * 12 + start.month - 1 + (12 if step == "year" else 1)
            start = start.replace(year=months // 12, month=months % 12 + 1)


def _floor(moment: datetime, step: Step) -> datetime:
    finer = _STEPS[_STEPS.index(step) + 1 :]
    return moment.replace(**{name: 0 if name == "hour" else 1 for name in finer})  # type: ignore[arg-type]


def _moment(match: re.Match[str]) -> datetime | None:
    """The time that a name tells; None if there is no such day."""
    told = {step: int(text) for step, text in match.groupdict().items()}
    try:
        return datetime(told["year"], told.get("month", 1), told.get("day", 1), told.get("hour", 0), tzinfo=UTC)
    except ValueError:
        return None


def _wildcard(pattern: str) -> str:
    return _put(pattern, lambda code: "[0-9]" * (4 if code == "%Y" else 2), glob.escape)


def _expression(pattern: str) -> re.Pattern[str]:
    seen: set[str] = set()

    def group(code: str) -> str:
        if code in seen:
            return f"(?P={_CODES[code]})"
        seen.add(code)
        return rf"(?P<{_CODES[code]}>\d{{{4 if code == '%Y' else 2}}})"

    return re.compile(_put(pattern, group, re.escape))


def _put(pattern: str, code: Callable[[str], str], literal: Callable[[str], str]) -> str:
    """The pattern with its codes and what stands between them put in other words."""
    pieces = _TOKEN.split(pattern)
    return "".join(code(one) if one in _CODES else literal("%" if one == "%%" else one) for one in pieces)
