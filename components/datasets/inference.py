"""What a table's columns are.

How a column can be read is a matter of all rows; everything else is learnt from the training rows alone.

number     numbers that are nothing of the following
category   true and false; whole numbers with at most CODES values, each seen OFTEN; whole numbers named like an id;
           text with few values
date       dates and times in ISO 8601 or one of FORMS
text       a column that params.yaml names as `text`; it is then the only input. Beside it a target of too many values
           for classes, or of dates, is a text too
ignored    any other text; a column with one value, ids beside the first, numbers of rows that pandas wrote
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract import Column, Kind
from ..errors import BadInput, DataError
from ..expectations import Role
from ..intake import columns

CODES, OFTEN, FEW, MANY = 10, 20, 20, 1000
# The first form that reads every value is taken. Where month and day could be either, the month comes first.
_DAYS = "%m/%d/%Y %d/%m/%Y %m/%d/%y %d/%m/%y %d.%m.%Y %d.%m.%y %Y/%m/%d %Y.%m.%d %d-%m-%Y %m-%d-%Y %d-%b-%Y %d-%b-%y"
FORMS = tuple(
    day + time
    for day in (*_DAYS.split(), "%d %b %Y", "%b %d, %Y", "%b %d %Y")
    for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
)
# Of a target beside a text that is read.
WRITTEN = "if it is a text to be written: `kind: text`, without values, min and max"
_ID = re.compile(r"(?i:(^|[^a-z])(id|uuid|guid|identifier)$|^(key|index)$)|[a-z](Id|ID|UUID)$")
_PANDAS = re.compile(r"^$|^Unnamed: 0$|^__index_level_\d+__$")
_DATE = re.compile(r"\d{1,4}[-/. ]|[A-Za-z]{3} \d")  # how anything in FORMS, or in ISO 8601, begins
_NUMERIC = r"^\s*[-+]?\d[\d.,]*([eE][-+]?\d+)?\s*$"


@dataclass(frozen=True)
class Found:
    """What a column is. `kind` None is text that nobody asked for, and not learnt from. `dtype` is a date's form, or a
    tensor's element type. `remark` is for whoever reads the expectations."""

    kind: Kind | None
    role: Role = "input"
    dtype: str = ""
    shape: tuple[int, ...] = ()
    remark: str = ""
    parts: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """How the column is read."""
        return Column(name, self.kind or "category", self.dtype, self.shape, self.parts)


# ── what a column is ────────────────────────────────────────────────────────────────────────────────────


def readings(raw: pa.Table, skip: Collection[str] = ()) -> dict[str, Found]:
    """How each column reads, from all rows. A column of `skip` may read as nothing, and is then left out.

    Raises DataError that names every column without a value, or of a type that nothing here reads.
    """
    found = {name: _reading(name, raw[name]) for name in raw.column_names}
    empty = [name for name in raw.column_names if name not in skip and not len(present(raw[name]))]
    foreign = [name for name, reading in found.items() if reading is None and name not in skip]
    if empty:
        raise _unusable(f"no value in column {_listed(empty)}", empty)
    if foreign:
        raise _unusable(f"column {_listed(foreign)} is {raw[foreign[0]].type}, which no family reads", foreign)
    return {name: reading for name, reading in found.items() if reading and len(present(raw[name]))}


def find_id(raw: pa.Table, found: dict[str, Found], skip: Collection[str]) -> str | None:
    """The column that names rows: text or whole numbers, a value for each row, named like an id; or else text
    without spaces that is different in each row."""
    unique = [
        name
        for name, reading in found.items()
        if name not in skip and not _PANDAS.search(name) and _names_rows(raw[name], reading)
    ]
    named = [name for name in unique if _ID.search(name)]
    codes = [n for n in unique if found[n].kind is None and not pc.any(pc.match_substring(raw[n], " ")).as_py()]
    return next(iter(named or codes), None) if raw.num_rows > 1 else None


def kinds(train: pa.Table, found: dict[str, Found]) -> dict[str, Found]:
    """What each column is, given how it reads, from the training rows."""
    return {name: _kind(name, train[name], reading) for name, reading in found.items()}


def target(column: pa.ChunkedArray, reading: Found, where: str, of_text: bool = False) -> Found:
    """The target as classes (category), as a number or, `of_text` if it comes of a text, as a text. Raises DataError if
    it can be none of them."""
    distinct, rows = pc.count_distinct(column).as_py(), len(column)
    if distinct < 2:
        raise DataError(
            f"target has one value only, {column[0].as_py()!r}", where=where, fix="give rows of another class as well"
        )
    if reading.kind == "number":
        codes = _whole(column) and distinct <= CODES and rows >= 5 * distinct
        return replace(reading, role="target", kind="category" if codes else "number", remark=WRITTEN * of_text)
    many = distinct > max(FEW, rows / 10)
    if of_text and (reading.kind == "date" or (reading.kind is None and many)):
        return Found("text", "target", remark=_oddity(column) if columns.is_text(column.type) else "")
    if reading.kind in ("date", "tensor"):
        raise DataError(f"target is a {reading.kind}", where=where, fix="name a column of numbers or classes")
    if many:
        raise DataError(
            f"target has {distinct} different values in {rows} rows",
            where=where,
            why="neither numbers nor classes",
            fix="name a column of numbers or classes; or, if texts are to be written, the text that they come of: "
            "`text: COLUMN`",
        )
    return replace(reading, role="target", kind="category", remark=WRITTEN * (of_text and reading.kind is None))


def text(column: pa.ChunkedArray, reading: Found, where: str, of: Found) -> Found:
    """The column of text to learn from. Raises DataError if it is something else; where the target `of` is a text, too,
    numbers and dates may be read as they are written."""
    spelt = of.kind == "text" and reading.kind in ("number", "date")
    if not spelt and (not columns.is_text(column.type) or reading.kind is not None):
        what = f"a {reading.kind}" if reading.kind else str(column.type)
        raise DataError(f"the text column is {what}", where=where, fix="name a column of free text")
    return Found("text", remark=reading.remark)


def check_complete(target: pa.ChunkedArray, name: str, path: Path) -> None:
    """Raise DataError that names the rows without a target, if there are any."""
    absent = missing(target)
    count = pc.sum(absent).as_py()
    if count:
        first = pc.indices_nonzero(absent)[:5].to_pylist()
        raise DataError(
            f"target {name!r} is missing in {count} rows: {', '.join(map(str, first))}{' …' * (count > 5)}",
            where=str(path),
            why="rows are counted from 0; an empty one is missing, and one that says so, such as NA or null",
            fix="leave out the rows without a target: they can be scored, not learnt from",
        )


def check_order(raw: pa.Table, text: str, target: str, path: Path) -> None:
    """Raise DataError if the text that is read looks like the classes of the text that is to be written."""
    read, written = (pc.count_distinct(raw[name]).as_py() for name in (text, target))
    if read <= FEW and 2 * read <= written:
        raise DataError(
            f"text {text!r} has {read} different values, target {target!r} has {written}",
            where=str(path),
            why="the two look swapped: what is read is few classes, what is to be written are texts",
            fix=f"`text: {target}` and `target: {text}`, or name another text",
        )


def is_row_number(name: str) -> bool:
    """Whether pandas gives such a name to numbers of rows."""
    return bool(_PANDAS.search(name))


def missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each value is missing, or text that says so."""
    if columns.is_text(column.type):
        return pc.is_in(pc.utf8_trim_whitespace(column), pa.array([*columns.MISSING, None], pa.string()))
    return pc.is_null(column, nan_is_null=True)


def present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values that are there."""
    return column.filter(pc.invert(missing(column)))


def _reading(name: str, column: pa.ChunkedArray) -> Found | None:
    kind, types = column.type, pa.types
    if columns.is_text(kind):
        return _text_reading(name, column)
    if isinstance(kind, pa.FixedShapeTensorType):
        return Found("tensor", dtype=np.dtype(kind.value_type.to_pandas_dtype()).name, shape=tuple(kind.shape))
    plain: dict[Kind | None, bool] = {
        "date": types.is_date(kind) or types.is_timestamp(kind),
        "number": types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind),
        "category": types.is_boolean(kind),
        None: types.is_time(kind) or types.is_null(kind),  # of a csv: what Arrow takes for times is read as text
    }
    return next((Found(which) for which, fits in plain.items() if fits), None)


def _text_reading(name: str, column: pa.ChunkedArray) -> Found:
    values = present(column)
    if not len(values) or not _DATE.match(values[0].as_py()):
        return Found(None)
    form = next((form for form in ("", *FORMS) if _reads(values, Column(name, "date", form))), None)
    if form is None:
        return Found(None)
    other = form.replace("%m/%d", "%d/%m")
    either = form != other and _reads(values, Column(name, "date", other))
    return Found("date", dtype=form, remark=f"or {other!r}? no day is above 12" if either else "")


def _reads(values: pa.ChunkedArray, wanted: Column) -> bool:
    """Whether every value reads so. The first is asked first, since most forms fail at once."""
    try:
        for count in (1, 20, len(values)):
            columns.fit(values.slice(0, count).combine_chunks(), wanted, Path(), 0)
    except BadInput:
        return False
    return True


def _names_rows(column: pa.ChunkedArray, reading: Found) -> bool:
    plain = reading.kind is None or pa.types.is_integer(column.type)
    if not plain or column.null_count:
        return False
    return all(pc.count_distinct(part).as_py() == len(part) for part in (column.slice(0, MANY), column))


def _kind(name: str, column: pa.ChunkedArray, reading: Found) -> Found:
    if _PANDAS.search(name):
        return replace(reading, role="ignored", remark="numbers of rows, as pandas writes them")
    if reading.kind == "tensor":
        return reading
    values = present(column)
    distinct = _distinct(values)
    if not distinct or (distinct == 1 and len(values) == len(column)):
        only = f"always {values[0].as_py()!r}" if distinct else "empty"
        return replace(reading, role="ignored", remark=f"{only} in the training rows")
    if reading.kind == "number" and _whole(values):
        return _whole_numbers(name, values, distinct, reading)
    return _text(values, distinct, reading) if reading.kind is None else reading


def _whole_numbers(name: str, values: pa.ChunkedArray, distinct: int, reading: Found) -> Found:
    """Codes or counts: a number named like an id is never a count."""
    if _ID.search(name):
        few = distinct <= MANY and distinct <= len(values) / 4
        return replace(reading, kind="category") if few else replace(reading, role="ignored", remark="ids")
    if distinct <= CODES and min(pc.value_counts(values).field("counts").to_pylist()) >= OFTEN:
        return replace(reading, kind="category")
    return reading


def _text(values: pa.ChunkedArray, distinct: int, reading: Found) -> Found:
    few = distinct < len(values) and (distinct <= FEW or (distinct <= MANY and distinct <= len(values) / 4))
    role: Role = "input" if few else "ignored"
    if not columns.is_text(values.type):
        return replace(reading, kind="category" if few else None, role=role)
    remark = "" if few else "free text: kept, not learnt from; to learn from it alone: `text: COLUMN` in params.yaml"
    return replace(reading, kind="category" if few else None, role=role, remark=_oddity(values) or remark)


def _oddity(values: pa.ChunkedArray) -> str:
    """What is to be said of texts that look like numbers."""
    numeric = pc.match_substring_regex(values, _NUMERIC)
    if pc.mean(numeric.cast(pa.int8())).as_py() < 0.9:
        return ""
    odd = values.filter(pc.invert(numeric))
    return f"nearly all are numbers, but not {odd[0].as_py()!r}" if len(odd) else "numbers, written as text"


def _distinct(values: pa.ChunkedArray) -> int:
    """How many different values there are; any number above MANY stands for more."""
    first = pc.count_distinct(values.slice(0, 10 * MANY)).as_py()
    return int(first if first > MANY else pc.count_distinct(values).as_py())


def _whole(column: pa.ChunkedArray) -> bool:
    if pa.types.is_integer(column.type):
        return True
    if not pa.types.is_floating(column.type):
        return False
    finite = column.filter(pc.is_finite(column))
    return len(finite) > 0 and bool(pc.all(pc.equal(pc.floor(finite), finite)).as_py())


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (f" … ({len(names)} in all)" if len(names) > 20 else "")


def _unusable(what: str, names: list[str]) -> DataError:
    ignore = f"ignore: [{', '.join(names)}]"
    return DataError(what, fix=f"leave it out of the table, or write `{ignore}` in the dataset's block")
