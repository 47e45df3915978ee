"""What a model is given to score: csv and Parquet files as a stream of record batches that fit its spec.

A file's columns are checked when it is opened, its values when they are read. A tensor may come in parts
(`Column.parts`): a column for each element in a wide table, or a file for each row, with a column for each channel.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..contract import ROW, SPLIT, Column, Spec
from ..errors import BadInput
from . import columns, csvs, singles
from .pieces import Fault, Piece, Raw, sort_out

__all__ = ["Fault", "Piece", "Table", "Wanted", "files", "listed", "open_file"]

PARQUET, CSV = (".parquet", ".pq"), (".csv",)


@dataclass(frozen=True)
class Wanted:
    """What to read of each file: the spec's inputs, and the column that names a row.

    `id` None means the spec's own, where a file has it; `row` means none. Columns in `known` may be there and
    are not read; any other column is a fault unless `ignore_extra`. `aside`: a row that does not fit is handed on with
    its reason, instead of ending the reading. Of ratings the user alone must be there: what is known of users and items
    the model has from its training, and a user without an item asks for a list.
    """

    spec: Spec
    id: str | None = None
    known: Sequence[str] = ()
    ignore_extra: bool = False
    aside: bool = False


@dataclass(frozen=True)
class Table:
    """One file whose columns fit. `id` is the column that names its rows, if it has one; `aside` as in Wanted; `rows`
    is how many a Parquet file says it has, None for a csv. `cells` is what the file holds of the columns. Columns in
    `absent` need not be there and are not: every row's is missing."""

    file: Path
    columns: tuple[Column, ...]
    id: pa.Field | None
    empty: bool
    aside: bool = False
    rows: int | None = None
    cells: tuple[Column, ...] = ()
    absent: tuple[str, ...] = ()

    def batches(self, rows: int) -> Generator[Piece]:
        """At most `rows` rows at a time, in the file's order. Raises BadInput at the first unfit value, unless unfit
        rows go aside."""
        for raw in self._read(rows):
            inputs = self._fit(raw)
            if inputs is None:
                piece = sort_out(raw, self._present, self.id.name if self.id else None)
                yield replace(piece, inputs=self._whole(piece.inputs))
                continue
            ids = raw.batch.column(self.id.name) if self.id else pa.array(raw.rows_N)
            yield Piece(raw.batch.num_rows, raw.rows_N, ids, self._whole(inputs))

    @property
    def _present(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.name not in self.absent)

    def _whole(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """With the columns that are absent."""
        if not self.absent:
            return inputs
        every = [
            pa.nulls(inputs.num_rows, columns.ARROW[c.kind]) if c.name in self.absent else inputs.column(c.name)
            for c in self.columns
        ]
        return pa.RecordBatch.from_arrays(every, [c.name for c in self.columns])

    def _fit(self, raw: Raw) -> pa.RecordBatch | None:
        """All rows as the model wants them; None if some do not fit and go aside."""
        if raw.faults:
            return None
        first_row = int(raw.rows_N[0]) if len(raw.rows_N) else 0
        try:
            there = self._present
            fitted = [columns.fit(columns.given(raw.batch, c), c, self.file, first_row) for c in there]
        except BadInput:
            if not self.aside:
                raise
            return None
        return pa.RecordBatch.from_arrays(fitted, [c.name for c in self._present])

    def _read(self, rows: int) -> Iterator[Raw]:
        if any(c.is_file and c not in self.cells for c in self.columns):
            yield singles.read(self.file, self.columns[0], self.id, self.aside)
            return
        if not _is_parquet(self.file) and self.aside:
            yield from csvs.patient(self.file, self.cells, self.id, rows)
            return
        first_row = 0
        for batch in self._batches(rows):
            yield Raw(batch, np.arange(first_row, first_row + batch.num_rows))
            first_row += batch.num_rows

    def _batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        if not _is_parquet(self.file):
            yield from csvs.batches(self.file, self.cells, self.id, rows)
            return
        names = [c.name for c in self.cells] + ([self.id.name] if self.id else [])
        with _parquet(self.file) as opened:
            yield from opened.iter_batches(rows, columns=names)


def files(source: Path) -> dict[str, Path]:
    """Name → file: the source itself, or every csv and Parquet file below a folder, sorted by name.

    Files and folders whose names begin with `.` or `_` are left out. Raises BadInput if there is nothing to
    read, or a file of another kind.
    """
    if source.is_file():
        found = {source.name: source}
    elif source.is_dir():
        below = {p.relative_to(source): p for p in source.rglob("*") if p.is_file()}
        visible = {name.as_posix(): p for name, p in below.items() if not any(part[0] in "._" for part in name.parts)}
        found = dict(sorted(visible.items()))
    else:
        fix = "give a csv or Parquet file, or a folder of them"
        raise BadInput("no such file or folder", where=str(source), fix=fix)
    if not found:
        raise BadInput("an empty folder", where=str(source), fix="put csv or Parquet files in it, or give another")
    foreign = [name for name, file in found.items() if file.suffix.lower() not in PARQUET + CSV]
    if foreign:
        raise BadInput(
            f"neither csv nor Parquet by name: {listed(foreign)}",
            where=str(source),
            fix=f"use the endings {', '.join(CSV + PARQUET)}; names that begin with _ or . are passed over",
        )
    return found


def nothing(spec: Spec) -> pa.RecordBatch:
    """A batch of no rows, as `Table.batches` would have it."""
    inputs = [columns.cast(columns.unread(column), column) for column in spec.columns]
    return pa.RecordBatch.from_arrays(inputs, [column.name for column in spec.columns])


def open_file(file: Path, wanted: Wanted) -> Table:
    """Check a file's columns. Raises BadInput that names every column that is missing, unfit or too many."""
    inputs, rows = wanted.spec.columns, None
    name = wanted.id if wanted.id is not None else wanted.spec.id
    if _is_parquet(file):
        with _parquet(file) as opened:
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
        empty, names = rows == 0, schema.names
        absent = _absent(wanted.spec, names)
        cells = _cells([c for c in inputs if c.name not in absent], names)
        _check_names(names, wanted, cells, file)
        faults = [f for c in cells if (f := columns.type_fault(c, schema.field(c.name).type))]
        faults += [f"{c.name!r} is a tensor, or a csv for each row" for c in inputs if c.is_file and c not in cells]
        id_field = schema.field(name) if name in schema.names else None
    else:
        names, empty = csvs.header(file)
        absent, single = _absent(wanted.spec, names), any(c.is_file for c in inputs)
        cells = _cells([c for c in inputs if c.name not in absent])
        names = [*names, name] if single and name == wanted.spec.id and name else names  # the file's own name is one
        _check_names(names, wanted, cells, file)
        faults = [f"{c.name!r} is a tensor, which a csv cannot hold" for c in cells if c.kind == "tensor"]
        id_field = None
        if name is not None and name in names and not faults:
            id_field = pa.field(name, pa.string() if single else csvs.id_type(file, name))
    if faults:
        fix = "give a Parquet file whose columns are as the training data has them"
        raise BadInput("; ".join(faults), where=str(file), fix=fix)
    return Table(file, inputs, id_field, empty, wanted.aside, rows, cells, absent)


def _cells(inputs: Sequence[Column], names: Sequence[str] = ()) -> tuple[Column, ...]:
    """What a file with columns of these names holds of the inputs: a tensor as one, or in parts."""
    return tuple(cell for c in inputs for cell in ((c,) if c.name in names else columns.cells(c)))


def _absent(spec: Spec, names: Sequence[str]) -> tuple[str, ...]:
    """The inputs that need not be there and are not."""
    return tuple(c.name for c in spec.columns if spec.user not in (None, c.name) and c.name not in names)


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names in quotes; a long list is cut, and says how long it was."""
    shown = ", ".join(repr(n) for n in names[:most])
    return shown if len(names) <= most else f"{shown} … ({len(names)} in all)"


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in PARQUET


@contextlib.contextmanager
def _parquet(file: Path) -> Iterator[pq.ParquetFile]:
    """Column chunks come through small buffers, so that memory does not grow with the size of row groups."""
    try:
        with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            "not readable as Parquet",
            where=str(file),
            why=str(error).partition("\n")[0],
            fix="it is cut short, damaged or something else: write or copy it again",
        ) from error


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────


def _check_names(names: Sequence[str], wanted: Wanted, cells: Sequence[Column], file: Path) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise BadInput(f"columns that are there twice: {listed(twice)}", where=str(file), fix="rename one of each")
    inputs = [c.name for c in cells]
    roles = {wanted.spec.target, wanted.spec.id, wanted.id, SPLIT, *wanted.known}
    # pandas writes a table's index as a column of its own.
    extra = [n for n in names if n not in inputs and n not in roles and not re.fullmatch(r"__index_level_\d+__", n)]
    missing = [n for n in inputs if n not in names]
    if missing:
        close = {n: difflib.get_close_matches(n, extra, 1) for n in missing}
        hints = [f"is {match[0]!r} meant for {name!r}?" for name, match in close.items() if match]
        fix = " ".join([*hints[:3], "add the columns, or rename those that are meant"])
        if len(names) == 1 and (separator := re.search(r"[;\t|]", names[0])):
            fix = f"write it with commas between the columns, not {separator[0]!r}"
        raise BadInput(f"missing columns: {listed(missing)}", where=str(file), fix=fix)
    if wanted.id not in (None, ROW, *names):
        close_id = difflib.get_close_matches(str(wanted.id), names, 1)
        hint = f"did you mean {close_id[0]!r}? " if close_id else ""
        raise BadInput(
            f"no id column {wanted.id!r}", where=str(file), fix=f"{hint}name a column, or {ROW!r} for numbers"
        )
    if extra and not wanted.ignore_extra:
        fix = "drop them, or score with --ignore-extra"
        raise BadInput(f"columns that the model does not know: {listed(extra)}", where=str(file), fix=fix)
