"""From Arrow columns to tensors and back, vectorised: what families on rows have in common.

Legend: N rows, F features, C category columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from .contract import Column, Json, Spec
from .errors import BadInput, DataError

Rows: TypeAlias = pa.Table | pa.RecordBatch

UNKNOWN, MISSING, FIRST = 0, 1, 2  # codes of a category column; the vocabulary's values follow
RARE, MOST = 3, 10_000  # a value seen less often is unknown; values that a vocabulary holds at most
DAY_US = 86_400_000_000


# ── columns ─────────────────────────────────────────────────────────────────────────────────────────────


def column(rows: Rows, name: str) -> pa.Array:
    """One column as one array. Raises BadInput if there is none of this name."""
    if name not in rows.schema.names:
        raise BadInput(f"no column {name!r}", why=f"columns are {', '.join(rows.schema.names)}")
    found = rows.column(name)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def cast(rows: Rows, name: str, kind: pa.DataType, what: str, safe: bool = True) -> pa.Array:
    """A column as another type. Raises BadInput if a value does not become one."""
    values = column(rows, name)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        return pc.cast(values, kind, safe=safe)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(
            f"column {name!r} is {values.type}, and does not read as {what}",
            why=str(error).splitlines()[0],
            fix=f"give {name!r} as {what}",
        ) from error


def numbers(rows: Rows, name: str) -> NDArray[Any]:
    """A column of numbers, or of what reads as numbers; missing values are NaN. Copies as little as it can."""
    values = column(rows, name)
    floating = pa.types.is_float32(values.type) or pa.types.is_float64(values.type)
    plain = floating or (pa.types.is_integer(values.type) and not values.null_count)
    if not plain:
        values = cast(rows, name, pa.float64(), "a number", safe=False)
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return found


def microseconds(rows: Rows, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A column of dates, times or ISO text as microseconds since 1970, and where it is missing."""
    zone = "UTC" if pa.types.is_timestamp(column(rows, name).type) and column(rows, name).type.tz else None
    try:
        values = cast(rows, name, pa.timestamp("us", zone), "a date", safe=False)
    except BadInput:  # text with an offset reads only as a time of a zone
        values = cast(rows, name, pa.timestamp("us", "UTC"), "a date", safe=False)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    return values.cast(pa.int64()).fill_null(0).to_numpy(), missing


def text(rows: Rows, name: str) -> pa.Array:
    """A column as text: 3, 3.0 and "3" are the same category."""
    return cast(rows, name, pa.string(), "a category")


def tensors(rows: Rows, spec: Column) -> torch.Tensor:
    """A tensor column (fixed-shape tensors, or lists of the right length): N × shape, in the column's dtype."""
    values = column(rows, spec.name)
    storage = values.storage if isinstance(values.type, pa.BaseExtensionType) else values
    size = math.prod(spec.shape)
    if storage.null_count:
        raise BadInput(f"column {spec.name!r} has {storage.null_count} rows without a tensor")
    flat = storage.flatten() if hasattr(storage, "flatten") else pa.array([])
    lists = pa.types.is_list(storage.type) or pa.types.is_large_list(storage.type)
    if (lists and pc.any(pc.not_equal(pc.list_value_length(storage), size)).as_py()) or len(flat) != size * len(rows):
        raise BadInput(
            f"column {spec.name!r} is {values.type}, expected tensors of shape {'×'.join(map(str, spec.shape))}"
        )
    try:
        flat = pc.cast(flat, pa.from_numpy_dtype(np.dtype(spec.dtype)))
    except pa.ArrowInvalid as error:
        raise BadInput(f"column {spec.name!r} does not fit {spec.dtype}", why=str(error)) from error
    found = flat.to_numpy(zero_copy_only=False)
    if not found.flags.writeable:
        found = found.copy()  # torch has no read-only tensors
    return torch.from_numpy(found).reshape(len(rows), *spec.shape)


def labels(rows: Rows, target: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """The target as class numbers. Raises DataError if a row's class is missing or not one of `classes`."""
    values = text(rows, target)
    found = pc.index_in(values, value_set=pa.array(classes, pa.string()))
    if found.null_count:
        stranger = values.filter(found.is_null())[0].as_py()
        raise DataError(
            f"target {target!r} has {found.null_count} rows of no known class",
            why=f"the first holds {stranger!r}; classes are {', '.join(classes)}",
        )
    numbered: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return numbered


def truth(spec: Spec, rows: Rows, split: str) -> NDArray[Any]:
    """The target of a split's rows: class numbers, or numbers as float64. Raises DataError if one is missing."""
    assert spec.target is not None  # a supervised task has one
    if spec.classes:
        return labels(rows, spec.target, spec.classes)
    truth_N = numbers(rows, spec.target).astype(np.float64)
    if not np.isfinite(truth_N).all():
        raise DataError(f"target {spec.target!r} has rows without a finite number", where=f"{spec.dataset}, {split}")
    return truth_N


def class_columns(classes: Sequence[str]) -> pa.Schema:
    """What a classifier scores: the likeliest class, and each class's probability."""
    return pa.schema([("class", pa.string()), *((f"probability_{name}", pa.float32()) for name in classes)])


def classified(probability_NK: torch.Tensor, classes: Sequence[str]) -> pa.RecordBatch:
    """The columns of `class_columns` for probabilities on the CPU."""
    chosen = pa.array(probability_NK.argmax(1).numpy().astype(np.int32))
    names = pa.DictionaryArray.from_arrays(chosen, pa.array(classes, pa.string())).dictionary_decode()
    columns = [pa.array(column_N) for column_N in probability_NK.T.contiguous().numpy()]
    return pa.record_batch([names, *columns], schema=class_columns(classes))


# ── features ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Scale:
    """A column of numbers, or a date's trend in days: (value - shift) * factor is about 1 for a usual deviation."""

    name: str
    shift: float
    factor: float
    missing: bool  # seen in the training rows: gets an indicator of its own


@dataclass(frozen=True)
class Calendar(Scale):
    """A column of dates: beside its trend, the day of the week and the month, and the hour if `hours`, as angles."""

    hours: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """A column of categories; any value not among `values` is unknown."""

    name: str
    values: tuple[str, ...]
    missing: bool

    @property
    def codes(self) -> int:
        return FIRST + len(self.values)


@dataclass(frozen=True)
class Flat:
    """A column of tensors: all elements by one shift and factor, since they share a unit."""

    column: Column
    shift: float
    factor: float

    @property
    def elements(self) -> int:
        return math.prod(self.column.shape)


@dataclass(frozen=True)
class Encoder:
    """Turns rows into features as the training rows taught it.

    Numbers are scaled by median and quartiles and then squashed smoothly to ±3, so that outliers keep their
    order without ruling the net; missing ones become the median (Holzmüller et al. 2024, "Better by default").
    Tensors are flattened and standardised.
    """

    scales: tuple[Scale, ...] = ()
    calendars: tuple[Calendar, ...] = ()
    vocabularies: tuple[Vocabulary, ...] = ()
    flats: tuple[Flat, ...] = ()
    features: int = field(init=False, default=0)
    """Width of x_NF."""

    def __post_init__(self) -> None:
        trends = [*self.scales, *self.calendars]
        angles = sum(6 if c.hours else 4 for c in self.calendars)
        plain = len(trends) + sum(t.missing for t in trends) + angles
        object.__setattr__(self, "features", plain + sum(flat.elements for flat in self.flats))

    def to_json(self) -> Json:
        def plain(things: Sequence[Any]) -> Json:
            return [{**vars(thing)} for thing in things]

        vocabularies = [{**vars(v), "values": list(v.values)} for v in self.vocabularies]
        tables = {"scales": plain(self.scales), "calendars": plain(self.calendars), "vocabularies": vocabularies}
        flats = [{**vars(flat), "column": dataclasses.asdict(flat.column)} for flat in self.flats]
        return tables | ({"flats": flats} if flats else {})

    @classmethod
    def from_json(cls, value: Json) -> Encoder:
        return cls(
            tuple(Scale(**v) for v in value["scales"]),
            tuple(Calendar(**v) for v in value["calendars"]),
            tuple(Vocabulary(**{**v, "values": tuple(v["values"])}) for v in value["vocabularies"]),
            tuple(Flat(**{**v, "column": Column.from_json(v["column"])}) for v in value.get("flats", ())),
        )

    def __call__(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Features x_NF (float32) and category codes c_NC (int64)."""
        count, trends = len(rows), len(self.scales) + len(self.calendars)
        x_FN = torch.empty((self.features, count))
        x = x_FN.numpy()
        extra = iter(range(trends, self.features))
        with np.errstate(over="ignore", invalid="ignore"):
            for at, scale in enumerate(self.scales):
                _scaled(numbers(rows, scale.name), scale, x, at, extra)
            for at, calendar in enumerate(self.calendars, len(self.scales)):
                time_us, missing = microseconds(rows, calendar.name)
                _scaled(np.where(missing, np.nan, time_us / DAY_US), calendar, x, at, extra)
                for angle in _angles(time_us, calendar.hours):
                    x[next(extra)] = np.where(missing, 0, angle)
        _squash(x_FN[:trends])
        start = self.features
        for flat in reversed(self.flats):
            start -= flat.elements
            x_FN[start : start + flat.elements] = _standardised(rows, flat)
        c_NC = torch.empty((count, len(self.vocabularies)), dtype=torch.int64)
        for at, vocabulary in enumerate(self.vocabularies):
            c_NC[:, at] = torch.from_numpy(_codes(text(rows, vocabulary.name), vocabulary))
        return x_FN.T, c_NC


def fit_encoder(rows: Rows, columns: Sequence[Column]) -> Encoder:
    """Learn scales and vocabularies from the training rows."""
    scales, calendars, vocabularies, flats = [], [], [], []
    for spec in columns:
        if spec.kind == "number":
            scales.append(_fit_scale(spec.name, numbers(rows, spec.name)))
        elif spec.kind == "date":
            time_us, missing = microseconds(rows, spec.name)
            trend = _fit_scale(spec.name, np.where(missing, np.nan, time_us / DAY_US))
            calendars.append(Calendar(**vars(trend), hours=bool((time_us % DAY_US).any())))
        elif spec.kind == "category":
            vocabularies.append(_fit_vocabulary(spec.name, text(rows, spec.name)))
        else:
            flats.append(_fit_flat(spec, tensors(rows, spec)))
    return Encoder(tuple(scales), tuple(calendars), tuple(vocabularies), tuple(flats))


def _fit_flat(column: Column, values: torch.Tensor) -> Flat:
    finite = values.double()[values.isfinite()]
    deviation = float(finite.std(correction=0)) if len(finite) else 0.0
    return Flat(column, float(finite.mean()) if len(finite) else 0.0, 1 / deviation if deviation > 0 else 0.0)


def _standardised(rows: Rows, flat: Flat) -> torch.Tensor:
    """x_EN of the elements E of each tensor. Raises BadInput if one is not finite."""
    values = tensors(rows, flat.column).flatten(1).float()
    if not values.isfinite().all():
        raise BadInput(f"column {flat.column.name!r} holds tensors with elements that are not finite")
    return ((values - flat.shift) * flat.factor).clamp_(-10, 10).T  # further out, numbers say no more


def _fit_scale(name: str, values: NDArray[Any]) -> Scale:
    missing = bool(np.isnan(values).any())
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return Scale(name, 0.0, 0.0, missing)
    low, quarter, half, three_quarters, high = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
    # A normal deviate has quartiles at ±0.674; a column that is mostly one value has its range instead.
    width = (three_quarters - quarter) / 1.349 or (high - low) / 2
    factor = 1 / width if width > 0 else 0.0
    return Scale(name, float(half), float(factor) if math.isfinite(factor) else 0.0, missing)


def _fit_vocabulary(name: str, values: pa.Array) -> Vocabulary:
    counts = pc.value_counts(values.drop_null())
    pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
    common = sorted((-count, value) for value, count in pairs if count >= RARE)[:MOST]
    return Vocabulary(name, tuple(sorted(value for _, value in common)), values.null_count > 0)


def _scaled(values: NDArray[Any], scale: Scale, x_FN: NDArray[np.float32], at: int, extra: Iterator[int]) -> None:
    np.multiply(np.subtract(values, scale.shift), scale.factor, out=x_FN[at], casting="same_kind")
    if scale.missing:
        x_FN[next(extra)] = np.isnan(values)


def _squash(x_FN: torch.Tensor) -> None:
    """x / √(1 + (x/3)²) in place; NaN becomes 0."""
    x_FN.clamp_(-1e9, 1e9).nan_to_num_(nan=0.0)
    x_FN.mul_((x_FN * x_FN).mul_(1 / 9).add_(1).rsqrt_())


def _angles(time_us: NDArray[np.int64], hours: bool) -> Iterator[NDArray[np.float64]]:
    days = time_us // DAY_US
    months = time_us.view("datetime64[us]").astype("datetime64[M]").astype(np.int64)
    turns = [(days + 3) % 7 / 7, months % 12 / 12]  # 1970 began on a Thursday; weeks begin on Monday here
    turns += [time_us % DAY_US / DAY_US] if hours else []
    for turn in turns:
        yield np.sin(2 * np.pi * turn)
        yield np.cos(2 * np.pi * turn)


def _codes(values: pa.Array, vocabulary: Vocabulary) -> NDArray[np.int64]:
    found = pc.index_in(values, value_set=pa.array(vocabulary.values, pa.string()), skip_nulls=True)
    codes: NDArray[np.int64] = pc.fill_null(pc.add(found, FIRST), UNKNOWN).to_numpy().astype(np.int64)
    if vocabulary.missing and values.null_count:
        codes[values.is_null().to_numpy(zero_copy_only=False)] = MISSING
    return codes
