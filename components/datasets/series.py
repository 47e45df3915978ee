"""A user's own series: `series: PATTERN` or `series: files` beside `table: PATH` in params.yaml.

    datasets:
      gestures: {table: gestures.csv, target: gesture, series: "t*"}
      machines: {table: recordings, series: files}

gestures.csv has a row for each series and a column for each step; "*" means every column of numbers that is not named
otherwise. recordings/CLASS/NAME.csv is one series each: its rows are steps, its columns are channels. Both become a
table with one tensor column, `series`, float32 [channels, steps].
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from .. import intake
from ..contract import SPLIT, Column, Spec
from ..errors import DataError
from ..intake import csvs
from ..params import DatasetBlock
from . import inference
from .sources import Source

SERIES, FILES, EVERY = "series", "files", "*"
ID, CLASS = "id", "class"  # of a folder of series


def target(block: DatasetBlock) -> str | None:
    """The column to predict: the folders' names where series are files."""
    return block.target or (CLASS if block.series == FILES else None)


# ── a column for each step ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Wide(Source):
    """A table of which some columns are the steps of a series. `names` are those of `table`, and `series`."""

    table: Source
    pattern: str
    named: frozenset[str]

    @cached_property
    def _raw_table(self) -> pa.Table:
        return self.table.raw()

    @cached_property
    def _series(self) -> Column:
        raw = self._raw_table
        if self.pattern == EVERY:
            found = [name for name in raw.column_names if _is_number(raw[name])]
            skip = {*self.named, inference.find_id(raw, inference.readings(raw, raw.column_names), self.named)}
            parts = [name for name in found if name not in skip and not inference.is_row_number(name)]
        else:
            parts = [n for n in raw.column_names if fnmatch.fnmatchcase(n, self.pattern) and n not in self.named]
        text = [name for name in parts if not _is_number(raw[name])]
        if text:
            raise self._fault(f"{intake.listed(text)} hold no numbers", "narrow the pattern, or mend the values")
        if len(parts) < 2:
            raise self._fault(f"{len(parts)} columns of numbers match", "give a pattern that two match at least")
        return Column(SERIES, "tensor", "float32", (1, len(parts)), ordered(parts))

    def raw(self) -> pa.Table:
        """The rows with the series as one column, NaN where a step is missing."""
        raw, parts = self._raw_table, self._series.parts
        steps_NT = np.stack([raw[part].cast(pa.float64(), safe=False).to_numpy() for part in parts], axis=1)
        rest = raw.drop(list(parts))
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(steps_NT[:, None], np.float32))
        return rest.append_column(SERIES, tensors)

    def assembled(self) -> dict[str, Column]:
        return {SERIES: self._series}

    def _fault(self, what: str, fix: str) -> DataError:
        return DataError(f"`series: {self.pattern!r}`: {what}", where=str(self.path), fix=fix)


def wide(source: Source, block: DatasetBlock) -> Wide:
    """Raises DataError if the table has a column of the series' own name."""
    if SERIES in source.names:
        fix = "rename it: the column that the steps are put together in is called so"
        raise DataError(f"a column {SERIES!r} is there already", where=str(source.path), fix=fix)
    named = frozenset(n for n in (block.target, block.id, SPLIT, *block.ignore) if n)
    return Wide(source.path, source.files, (*source.names, SERIES), source, str(block.series), named)


def ordered(parts: Sequence[str]) -> tuple[str, ...]:
    """As the file has them; by their number where the names differ in one number alone (t1, t2, t10)."""
    split = [re.fullmatch(r"(\D*)(\d+)(\D*)", part) for part in parts]
    if all(split) and len({(found[1], found[3]) for found in split if found}) == 1:
        return tuple(sorted(parts, key=lambda part: int(re.sub(r"\D", "", part))))
    return tuple(parts)


def _is_number(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


# ── a file for each series ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Recordings(Source):
    """A folder of series. `ids` and `classes` are those of `files`."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    series: Column
    target: str

    def raw(self) -> pa.Table:
        return self.typed([self.series, Column(self.target, "category")], ID)

    def typed(self, wanted: Sequence[Column], id: str | None) -> pa.Table:
        """Raises BadInput that names the first file whose series is of another length or has a gap."""
        column = next((c for c in wanted if c.name == SERIES), self.series)
        spec = intake.Wanted(Spec("", "regression", (column,)), ignore_extra=True)
        batches = [piece.inputs for file in self.files for piece in intake.open_file(file, spec).batches(1)]
        table = pa.Table.from_batches(batches).append_column(self.target, pa.array(self.classes, pa.string()))
        table = table.select([c.name for c in wanted])
        return table.append_column(id, pa.array(self.ids, pa.string())) if id else table

    def assembled(self) -> dict[str, Column]:
        return {SERIES: self.series}


def recordings(path: Path, block: DatasetBlock) -> Recordings:
    """Look at a folder's files: their names and heads, and the length of the first.

    Raises DataError if one lies outside a class's folder or has other channels than the first.
    """
    found = intake.files(path)
    for name, file in found.items():
        if not path.is_dir() or len(Path(name).parts) != 2 or file.suffix.lower() not in intake.CSV:
            where, fix = str(file), "lay the files out as FOLDER/CLASS/NAME.csv, and name FOLDER as the table"
            raise DataError("not one series in the folder of its class", where=where, fix=fix)
    first, *rest = found.values()
    channels = _channels(first, block.ignore)
    for file in rest:
        if set(_channels(file, block.ignore)) != set(channels):
            why = f"channels are {intake.listed(_channels(file, block.ignore))}; {first} has {intake.listed(channels)}"
            raise DataError("other channels than the first file", where=str(file), why=why, fix="name them alike")
    steps = len(intake.singles.values(first, channels)) // len(channels)
    if steps < 2:
        raise DataError(f"a series of {steps} steps", where=str(first), fix="give a line for each step, two at least")
    series = Column(SERIES, "tensor", "float32", (len(channels), steps), channels)
    names = [Path(name).with_suffix("") for name in found]
    unique = len({name.name for name in names}) == len(names)
    ids = tuple(name.name if unique else name.as_posix() for name in names)
    classes = tuple(name.parts[0] for name in names)
    label = str(target(block))
    return Recordings(path, tuple(found.values()), (ID, SERIES, label), ids, classes, series, label)


def _channels(file: Path, ignore: Sequence[str]) -> tuple[str, ...]:
    names, _ = csvs.header(file)
    if all(re.fullmatch(r"[-+.\d\seE]+", name) for name in names):
        raise DataError("no line of column names", where=str(file), why=f"it begins with {names[:5]}", fix="add one")
    channels = tuple(name for name in names if name not in ignore)
    if not channels or len(set(channels)) < len(channels):
        raise DataError(f"columns are {intake.listed(names)}", where=str(file), fix="name a column for each channel")
    return channels
