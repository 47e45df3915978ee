"""A column that somebody gives for scoring: whether it can be what the model's spec wants, and making it so.

Numbers reach the model as float64 or float32, categories and texts as text, dates as timestamp[us], tensors as
`pa.fixed_shape_tensor` of the spec's element type and shape. A tensor that a file holds in parts (`Column.parts`) is
put together first, as a list of what the parts hold; it has no gaps.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract import Column
from ..errors import BadInput

# How a missing value is spelt in text.
MISSING = ("", "NA", "N/A", "n/a", "<NA>", "#N/A", "null", "NULL", "None", "NaN", "nan", "?")
_MOMENT = pa.timestamp("us")
ARROW = {"number": pa.float64(), "category": pa.string(), "date": _MOMENT}  # of a column of which no value is there
_OFFSET = r":\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)$"  # from UTC, after a time
_SHOWN = 60  # characters of a value that an error shows


# ── types ───────────────────────────────────────────────────────────────────────────────────────────────


def type_fault(column: Column, given: pa.DataType) -> str:
    """Why no value of this type could ever fit the column; empty if some could."""
    if column.kind == "tensor":
        fits = _may_be_tensor(column, given)
    else:
        plain = given.value_type if pa.types.is_dictionary(given) else given
        fits = pa.types.is_null(plain) or is_text(plain) or _has_kind(column, plain)
    return "" if fits else f"{column.name!r} is {given}, expected {_expected(column)}"


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _has_kind(column: Column, given: pa.DataType) -> bool:
    if column.kind == "date":
        return bool(pa.types.is_date(given) or pa.types.is_timestamp(given))
    if column.kind == "text":
        return False
    number = pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_boolean(given)
    return bool(number or pa.types.is_decimal(given))


def _may_be_tensor(column: Column, given: pa.DataType) -> bool:
    if isinstance(given, pa.FixedShapeTensorType):
        # A permuted tensor would need its elements moved: rare enough to be refused.
        straight = given.permutation is None or list(given.permutation) == sorted(given.permutation)
        element, fits = given.value_type, tuple(given.shape) == column.shape and straight
    elif pa.types.is_fixed_size_list(given):
        element, fits = given.value_type, given.list_size == math.prod(column.shape)
    elif pa.types.is_list(given) or pa.types.is_large_list(given):
        element, fits = given.value_type, True
    else:
        return False
    return fits and bool(pa.types.is_integer(element) or pa.types.is_floating(element))


def _expected(column: Column) -> str:
    if column.kind == "tensor":
        return f"{column.dtype} tensors of shape {'×'.join(map(str, column.shape))}"
    if column.kind == "text" and column.longest:
        return f"a text of 1 to {column.longest:,} characters"
    return f"a {column.kind}"


# ── tensors in parts ────────────────────────────────────────────────────────────────────────────────────


def cells(column: Column) -> tuple[Column, ...]:
    """What a file holds of a column: the column itself, or each of its parts."""
    return tuple(Column(part, "number", column.dtype) for part in column.parts) or (column,)


def given(batch: pa.RecordBatch, column: Column) -> pa.Array:
    """A column of a batch as it is; one that the batch holds in parts as lists of what they hold."""
    if not column.is_wide or column.name in batch.schema.names:
        return batch.column(column.name)
    parts = [_decoded(batch.column(part)) for part in column.parts]
    kind = pa.string() if any(is_text(part.type) for part in parts) else pa.float64()
    flat = pa.concat_arrays([part.cast(kind, safe=False) for part in parts])
    order_NP = np.arange(len(flat)).reshape(len(parts), batch.num_rows).T
    return pa.FixedSizeListArray.from_arrays(flat.take(pa.array(order_NP.ravel())), len(parts))


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _flaw(column: Column, got: list[object]) -> str:
    """What is wrong with a tensor that came in parts: its length, or the first element that is no number."""
    size, (channels, *_) = math.prod(column.shape), column.shape
    if len(got) != size:
        return f"got {len(got) // channels} steps, expected {size // channels}"
    numbers = [_number(value) for value in got]
    at = next((i for i, number in enumerate(numbers) if number is None or math.isnan(number)), 0)
    steps = size // len(column.parts)
    place = repr(column.parts[at // steps]) + (f", step {at % steps}" if column.is_file else "")
    wrong = shown(got[at]) if numbers[at] is None else "nothing"
    return f"got {wrong} in {place}, expected a number: a series has no gaps"


def _number(value: object) -> float | None:
    """None for a word; NaN for a missing value."""
    if value is None or (isinstance(value, str) and value.strip() in MISSING):
        return math.nan
    try:
        return float(str(value))
    except ValueError:
        return None


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────


def fit(array: pa.Array, column: Column, file: Path, first_row: int) -> pa.Array:
    """The column as the model wants it; `first_row` is the number of the array's first row in its file.

    Raises BadInput that names the first value that does not fit, and its row.
    """
    try:
        return cast(array, column)
    except pa.ArrowInvalid:
        at = _first_unfit(array, column)
        raise unfit(file, column, first_row + at, plain(array, at)) from None


def unfit(file: Path, column: Column, row: int, got: object) -> BadInput:
    whole = column.kind in ("tensor", "text") or (column.kind == "number" and column.dtype)  # or a part of a tensor
    return BadInput(
        f"column {column.name!r}, row {row}: {reason(column, got)}",
        where=str(file),
        why="rows are counted from 0; it is the first that does not fit",
        fix="correct the value" if whole else "correct the value, or leave it empty if it is missing",
    )


def reason(column: Column, got: object) -> str:
    if column.kind == "text" and isinstance(got, str) and column.longest and len(got.strip()) > column.longest:
        return f"got {len(got.strip()):,} characters, {shown(got)}, expected {_expected(column)}"
    if column.parts and isinstance(got, list):
        return _flaw(column, got)
    return f"got {shown(got)}, expected {_expected(column)}"


def shown(got: object) -> str:
    text = "nothing" if got is None else repr(got)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def all_unfit(array: pa.Array, column: Column) -> list[int]:
    """The index of every value that does not fit. Text is looked at once for each different value."""
    array = _decoded(array)
    if not is_text(array.type):
        return _unfit_among(array, column)
    if column.kind == "text":  # hardly one is there twice, and an empty one may be at fault
        return pc.indices_nonzero(_unfit_texts(_spelt(array), column)).to_pylist()  # type: ignore[no-any-return]
    coded = pc.dictionary_encode(array.cast(pa.string()))
    bad = pa.array(_unfit_among(coded.dictionary, column), pa.int32())
    indices: list[int] = pc.indices_nonzero(pc.is_in(coded.indices, bad, skip_nulls=True)).to_pylist()
    return indices


def _unfit_among(array: pa.Array, column: Column) -> list[int]:
    """By halves: what casts whole holds none."""
    found, waiting = [], [(0, len(array))]
    while waiting:
        low, high = waiting.pop()
        try:
            cast(array.slice(low, high - low), column)
        except pa.ArrowInvalid:
            if high - low == 1:
                found.append(low)
            else:
                waiting += [((low + high) // 2, high), (low, (low + high) // 2)]
    return found


def _first_unfit(array: pa.Array, column: Column) -> int:
    """Index of the first value that does not cast, given that one does not."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            cast(array.slice(low, middle - low), column)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def plain(array: pa.Array, at: int) -> object:
    """A value as Python knows it; a tensor as a list."""
    return _storage(array)[at].as_py()


def unread(column: Column) -> pa.Array:
    """A column of no rows, as a file could hold it."""
    if column.kind != "tensor":
        return pa.array([], pa.string())
    return pa.array([], pa.list_(pa.from_numpy_dtype(column.dtype), math.prod(column.shape)))


def cast(array: pa.Array, column: Column) -> pa.Array:
    """The column as the model wants it. Raises pa.ArrowInvalid if a value does not fit."""
    if column.kind == "tensor":
        return _tensors(array, column)
    array = _decoded(array)
    if column.kind == "number":
        return _numbers(array)
    if column.kind == "text":
        return _texts(array, column)
    return _dates(array, column.dtype) if column.kind == "date" else _categories(array)


def _categories(array: pa.Array) -> pa.Array:
    """Text as Arrow spells values: true for True, 1 for 1.0. So a category is the same in a csv and in Parquet."""
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if not is_text(array.type):
        return array.cast(pa.string())
    coded = pc.dictionary_encode(array)
    values = _spelt(coded.dictionary)
    lower = pc.utf8_lower(values)
    values = pc.if_else(pc.is_in(lower, pa.array(["true", "false"])), lower, values)
    return pc.replace_substring_regex(values, r"^(-?\d+)\.0+$", r"\1").take(coded.indices)


def _numbers(array: pa.Array) -> pa.Array:
    if pa.types.is_float32(array.type) or pa.types.is_float64(array.type):
        return array
    if is_text(array.type):
        return _spelt(array).cast(pa.float64())
    return array.cast(pa.float64(), safe=False)  # whole numbers beyond 2⁵³ are rounded


def _texts(array: pa.Array, column: Column) -> pa.Array:
    if not (is_text(array.type) or pa.types.is_null(array.type)):
        raise pa.ArrowInvalid("no text")
    texts = _spelt(array)
    if pc.any(_unfit_texts(texts, column)).as_py():
        raise pa.ArrowInvalid("no text, or one that is too long")
    return texts


def _unfit_texts(texts: pa.Array, column: Column) -> pa.Array:
    """Whether each text is missing or too long for a column that is to be scored."""
    if not column.longest:
        return pa.array(np.zeros(len(texts), bool))
    return pc.fill_null(pc.greater(pc.utf8_length(texts), column.longest), True)


def _dates(array: pa.Array, form: str) -> pa.Array:
    """`form` is how text is written, as strptime knows it; empty for ISO 8601."""
    if not is_text(array.type):
        return array.cast(_MOMENT, safe=False)
    spelt = _spelt(array)
    if form:
        moments = pc.strptime(spelt, format=form, unit="us")
        if pc.any(pc.less(pc.year(moments), 1000)).as_py():
            raise pa.ArrowInvalid("a year of two digits, where four are meant")
        return moments
    zoned = pc.match_substring_regex(spelt, _OFFSET)
    local = pc.if_else(zoned, pa.scalar(None, pa.string()), spelt).cast(_MOMENT)
    if not pc.any(zoned).as_py():
        return local
    universal = pc.if_else(zoned, spelt, pa.scalar(None, pa.string())).cast(pa.timestamp("us", "UTC"))
    return pc.coalesce(local, universal.cast(_MOMENT))


def _spelt(array: pa.Array) -> pa.Array:
    """Text without the spaces around it, and nulls where it spells a missing value."""
    bare = pc.utf8_trim_whitespace(array.cast(pa.string()))
    return pc.if_else(pc.is_in(bare, pa.array(MISSING)), pa.scalar(None, pa.string()), bare)


def _tensors(array: pa.Array, column: Column) -> pa.Array:
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(column.dtype), column.shape)
    storage, size = _storage(array), math.prod(column.shape)
    if (
        not pa.types.is_fixed_size_list(storage.type)
        and pc.any(pc.not_equal(pc.list_value_length(storage), size)).as_py()
    ):
        raise pa.ArrowInvalid("a list of another length")
    values = storage.flatten()  # of these rows alone: a cast of lists would look at those outside a slice too
    values = _spelt(values) if is_text(values.type) else values
    if storage.null_count or values.null_count:
        raise pa.ArrowInvalid("a tensor has no missing values")
    if column.parts and pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
        raise pa.ArrowInvalid("of what is read in parts, NaN is a missing value")
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(values.cast(kind.value_type), size))


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array
