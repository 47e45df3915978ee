"""csv files as a stream of record batches, with columns of known types, and faults that name their row."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ..contract import Column
from ..errors import BadInput
from . import columns
from .pieces import Fault, Raw

_BLOCK_BYTES = 4 << 20
MANY = 1 << 20  # rows, for whoever reads a file at once
_HEADER_ROWS = 2  # Arrow calls the first row after the header row 2
_WHOLE = r"^(0|-?[1-9]\d{0,17})$"
# Dates are read as text: columns.fit knows more spellings of them than Arrow's csv reader.
Odd: TypeAlias = Callable[[Any], str]  # told of each line with another number of values: "skip" or "error"
_TYPES = {"number": pa.float64(), "category": pa.string(), "date": pa.string(), "text": pa.string()}


def header(file: Path) -> tuple[list[str], bool]:
    """The names in the first line, and whether no row follows. Raises BadInput if there is no such line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = (line for line in csv.reader(opened) if line)
            names, empty = next(lines, []), next(lines, None) is None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise _unreadable(file, str(error)) from error
    if not names:
        raise BadInput("an empty file", where=str(file), fix="give a csv with a line of column names, and rows")
    return names, empty


def id_type(file: Path, name: str) -> pa.DataType:
    """int64 if every value is a whole number in its plain spelling, else text: no id changes its spelling."""
    whole = True
    try:
        for block in _blocks(file, {name: pa.string()}, odd=lambda _: "skip"):  # whoever reads the rows tells of those
            whole = whole and pc.all(pc.match_substring_regex(block.column(0), _WHOLE), min_count=0).as_py()
    except (pa.ArrowException, OSError) as error:
        raise _fault(file, {name: pa.string()}, (), error) from error
    return pa.int64() if whole else pa.string()


def batches(file: Path, wanted: Sequence[Column], id_field: pa.Field | None, rows: int) -> Iterator[pa.RecordBatch]:
    """The wanted columns and the id, `rows` rows at a time. Raises BadInput at the first line that does not read."""
    types = _types(wanted, id_field)
    try:
        yield from _even(_blocks(file, types), rows)
    except (pa.ArrowException, OSError) as error:
        raise _fault(file, types, wanted, error) from error


def patient(file: Path, wanted: Sequence[Column], id_field: pa.Field | None, rows: int) -> Iterator[Raw]:
    """The same, with the lines that do not read as faults. From the first fault on numbers are left as text, for
    whoever looks at single values. Raises BadInput if the file as a whole does not read."""
    done, types = 0, _types(wanted, id_field)
    try:
        for batch in _even(_blocks(file, types), rows):
            yield Raw(batch, np.arange(done, done + batch.num_rows))
            done += batch.num_rows
        return
    except pa.ArrowInvalid:
        pass  # a value or a line: read again, line by line
    except (pa.ArrowException, OSError) as error:
        raise _fault(file, types, wanted, error) from error
    types |= {c.name: pa.string() for c in wanted}
    try:
        yield from _numbered(file, types, rows, done)
    except (pa.ArrowException, OSError) as error:
        raise _fault(file, types, wanted, error) from error


def _numbered(file: Path, types: Mapping[str, pa.DataType], rows: int, done: int) -> Iterator[Raw]:
    """From row `done` on, before which every line reads."""
    odd: deque[Fault] = deque()

    def skip(line: Any) -> str:
        why = f"expected {line.expected_columns} values in the line, got {line.actual_columns}"
        odd.append(Fault(line.number - _HEADER_ROWS, None, None, None, why, line.text))
        return "skip"

    seen, at = 0, done
    for batch in _even(_blocks(file, types, threads=False, odd=skip), rows):
        seen += batch.num_rows
        if seen <= done:
            continue
        numbers: list[int] = []
        faults: list[Fault] = []
        while len(numbers) < batch.num_rows:  # the lines that were skipped lie between the others
            if odd and odd[0].row == at:
                faults.append(odd.popleft())
            else:
                numbers.append(at)
            at += 1
        yield Raw(batch, np.array(numbers, np.int64), faults)
    if odd:
        nothing = pa.RecordBatch.from_pylist([], pa.schema(list(types.items())))
        yield Raw(nothing, np.zeros(0, np.int64), list(odd))


def _types(wanted: Sequence[Column], id_field: pa.Field | None) -> dict[str, pa.DataType]:
    return {c.name: _TYPES[c.kind] for c in wanted} | ({id_field.name: id_field.type} if id_field else {})


def _blocks(
    file: Path, types: Mapping[str, pa.DataType], threads: bool = True, odd: Odd | None = None
) -> Iterator[pa.RecordBatch]:
    convert = pa_csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=columns.MISSING, strings_can_be_null=True
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=odd)
    read = pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=threads)
    with pa_csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as opened:
        yield from opened


def _even(blocks: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows`."""
    held: list[pa.RecordBatch] = []
    missing = rows
    for block in blocks:
        start = 0
        while start < block.num_rows:
            held.append(block.slice(start, missing))
            start += held[-1].num_rows
            missing -= held[-1].num_rows
            if not missing:
                yield pa.concat_batches(held)
                held, missing = [], rows
    if held:
        yield pa.concat_batches(held)


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────


def _fault(file: Path, types: Mapping[str, pa.DataType], wanted: Sequence[Column], error: Exception) -> BadInput:
    """What is wrong, with its row: the file is read again on one thread, where Arrow counts rows."""
    why = str(error)
    try:
        for _ in _blocks(file, types, threads=False):
            pass
    except (pa.ArrowException, OSError) as counted:
        why = str(counted)
    found = re.search(r"column #(\d+): Row #(\d+): .*? invalid value '(.*)'$", why, re.DOTALL)
    if found:
        name = header(file)[0][int(found[1])]
        column = next((c for c in wanted if c.name == name), None)
        if column:
            return columns.unfit(file, column, int(found[2]) - _HEADER_ROWS, found[3])
    why = re.sub(r"Row #(\d+)", lambda row: f"row {int(row[1]) - _HEADER_ROWS}, counted from 0", why)
    return _unreadable(file, why.removeprefix("CSV parse error: "))


def _unreadable(file: Path, why: str) -> BadInput:
    coding = "utf" in why.lower()
    fix = "save it as UTF-8" if coding else "mend the line; a value with a comma or a line break stands in quotes"
    return BadInput("not readable as csv", where=str(file), why=why, fix=fix)
