"""One row per sample: the plain table that validation looks at, whatever the samples are made of.

Numbers, categories and dates stand as they are. A tensor cannot be read value by value, so it is described: NAME holds
its content hash, and NAME.shape, NAME.dtype, NAME.min, NAME.max, NAME.nan (elements that are no number), NAME.constant
(how many channels of a series are of one value; of any other tensor 1 if all of it is) say the rest. Tensors are read
in blocks and never leave numpy. A text that is read or to be written stands as it is, and NAME.characters,
NAME.damaged, NAME.foreign are what letters.py says of it.

Beside the columns stand the split, the row (its id, or its number in its split) and its content (one hash of
inputs and target); where texts are read, also what nearly is its content: the same with bare texts, and without a
target that is a text itself, since one text may become several.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from .. import letters, tables
from ..contract import SPLIT, SPLITS, Data
from ..datasets import splits
from ..expectations import ColumnRule, Expectations
from ..intake.columns import is_text
from ..tensors import blocks, extent, is_series

ROW, CONTENT, NEARLY = "*row", "*content", "*nearly"  # no column of anybody's is called so


def held(expectations: Expectations) -> dict[str, ColumnRule]:
    """The columns that are held to their rules: inputs, id and target; every column of recorded episodes."""
    every = expectations.environment is not None
    rules = expectations.columns.items()
    return {n: r for n, r in rules if every or r.role in ("id", "target", "input")}


def summarise(data: Data, expectations: Expectations) -> pd.DataFrame:
    """One row per sample of every split, train first.

    A column that a split lacks is left out. One whose values are not of its rule's kind stays what it is, so
    that a rule on its type can tell.
    """
    present = {name: data.splits[name] for name in SPLITS if name in data.splits}
    rules = {
        name: rule
        for name, rule in held(expectations).items()
        if present and all(name in table.schema.names for table in present.values())
    }
    known = {n: _scripts(present, n) for n, r in rules.items() if r.is_learnt_text}
    parts = [_part(table, split, rules, known) for split, table in present.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({SPLIT: [], ROW: []})


def _scripts(present: Mapping[str, pa.Table], name: str) -> list[str]:
    """In which the training texts are written."""
    return letters.scripts(_texts(next(iter(present.values())), name) or [])


def _part(
    table: pa.Table, split: str, rules: Mapping[str, ColumnRule], scripts: Mapping[str, list[str]]
) -> pd.DataFrame:
    columns: dict[str, Any] = {SPLIT: pd.array([split] * table.num_rows, "str"), ROW: np.arange(table.num_rows)}
    content: dict[str, Any] = {}
    bare: dict[str, Any] = {}
    for name, rule in rules.items():
        values = table.column(name)
        if rule.kind == "tensor":
            described = _describe(values, rule.parts)
            columns |= {name + key: value for key, value in described.items()}
            values = pa.array(described[""], pa.string())
        else:
            columns[name] = _plain(table, name, rule.kind)
        if name in scripts and (texts := _texts(table, name)) is not None:
            told = letters.told(texts, scripts[name])
            columns |= {f"{name}.{key}": told[key] for key in ("characters", "damaged", "foreign")}
            if rule.role == "input":
                bare[name] = pa.array(letters.bare(texts), pa.string())
        if rule.role == "id":
            columns[ROW] = columns[name]
        if rule.role in ("input", "target") and not pa.types.is_nested(values.type):
            content[name] = values
    if content:
        columns[CONTENT] = splits.row_hashes(pa.table(content))
    if bare:
        nearly = {n: v for n, v in content.items() if not (n in scripts and rules[n].role == "target")}
        columns[NEARLY] = splits.row_hashes(pa.table(nearly | bare))
    return pd.DataFrame(columns)


def _texts(table: pa.Table, name: str) -> list[str | None] | None:
    """A column as texts; None if it is no text."""
    plain = pd.Series(_plain(table, name, "text"))
    return [t if isinstance(t, str) else None for t in plain] if plain.dtype == "str" else None


def _plain(table: pa.Table, name: str, kind: str) -> Any:
    """A column as its kind, where it is of that kind; else as it is."""
    given = table.schema.field(name).type
    if pa.types.is_dictionary(given):
        given = given.value_type
    whole = pa.types.is_integer(given) or pa.types.is_boolean(given)
    number = whole or pa.types.is_floating(given) or pa.types.is_decimal(given)
    if pa.types.is_null(given):  # nothing is there, so nothing is of another kind
        return np.full(table.num_rows, np.nan)
    if kind == "number" and number:
        return tables.numbers(table, name)
    if kind in ("category", "text") and (number or is_text(given)):
        return tables.text(table, name).to_pandas()
    if kind == "date" and (pa.types.is_timestamp(given) or pa.types.is_date(given)):
        time_us, missing = tables.microseconds(table, name)
        return np.where(missing, np.datetime64("NaT", "us"), time_us.view("datetime64[us]"))
    return table.column(name).to_pandas()


def _describe(column: pa.ChunkedArray, parts: Sequence[str]) -> dict[str, Any]:
    """A tensor column, put together from columns `parts`, by what its name goes on with; "" is the content hash, None
    where there is no tensor."""
    if not isinstance(column.type, pa.FixedShapeTensorType):
        return {"": pd.array([None] * len(column), "str"), ".shape": str(column.type), ".dtype": str(column.type)}
    channels = column.type.shape[0] if is_series(column.type.shape, parts) else 1
    found = [_describe_block(elements, missing, channels) for elements, missing in blocks(column)]
    described = {key: np.concatenate([part[key] for part in found]) for key in found[0]} if found else _NOTHING
    shape, dtype = str(tuple(column.type.shape)), str(np.dtype(column.type.value_type.to_pandas_dtype()))
    return {**described, "": pd.array(described[""], "str"), ".shape": shape, ".dtype": dtype}


def _describe_block(elements_NE: NDArray[Any], missing_N: NDArray[np.bool_], channels: int) -> dict[str, NDArray[Any]]:
    """N rows of E elements, channel after channel."""
    rows_NE = np.ascontiguousarray(elements_NE)
    digests = [hashlib.blake2b(row, digest_size=16).hexdigest() for row in rows_NE]
    channel = extent(rows_NE.reshape(len(rows_NE) * channels, -1)).values()
    low_NC, high_NC, nan_NC = (each.reshape(-1, channels) for each in channel)
    smallest, largest, nan = np.fmin.reduce(low_NC, axis=1), np.fmax.reduce(high_NC, axis=1), nan_NC.sum(axis=1)
    flat_N = (low_NC == high_NC).sum(axis=1)
    return {
        "": np.where(missing_N, np.array(None), np.array(digests, object)),
        ".min": np.where(missing_N, np.nan, smallest),
        ".max": np.where(missing_N, np.nan, largest),
        ".nan": np.where(missing_N, 0, nan),
        ".constant": np.where(missing_N | (nan > 0), 0, flat_N),
    }


_NOTHING = {**dict.fromkeys(("", ".min", ".max", ".nan", ".constant"), np.zeros(0)), "": np.zeros(0, object)}
