"""Rows of a file as they are read: those that fit, as the model wants them, and those that do not, with the reason.

Legend: N rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..contract import Column
from . import columns


@dataclass(frozen=True)
class Fault:
    """A row that cannot be what the model wants. `row` counts from 0 in its file. `column` and `value` are those of the
    first fault in it, None where the row as a whole is at fault; `raw` is the row without its tensors."""

    row: int
    id: str | None
    column: str | None
    value: str | None
    reason: str
    raw: str


@dataclass(frozen=True)
class Raw:
    """Some rows as the file holds them, their numbers, and the lines between them that do not read."""

    batch: pa.RecordBatch
    rows_N: NDArray[np.int64]
    faults: Sequence[Fault] = ()


@dataclass(frozen=True)
class Piece:
    """`read` rows of a file. `rows_N`, `ids` (row numbers where there is no id) and `inputs` are of those that fit."""

    read: int
    rows_N: NDArray[np.int64]
    ids: pa.Array
    inputs: pa.RecordBatch
    faults: Sequence[Fault] = ()

    def without(self, reasons: Mapping[int, str]) -> Piece:
        """Less the rows that the model itself refuses: index among those that fit → reason."""
        if not reasons:
            return self
        stays, rows_N = _but(self.inputs.num_rows, reasons), self.rows_N
        more = [
            Fault(int(rows_N[at]), str(self.ids[at].as_py()), None, None, why, _shown(self.inputs, at))
            for at, why in reasons.items()
        ]
        mask = pa.array(stays)
        rest = self.rows_N[stays], self.ids.filter(mask), self.inputs.filter(mask)
        return Piece(self.read, *rest, [*self.faults, *more])


def sort_out(raw: Raw, wanted: Sequence[Column], id_name: str | None) -> Piece:
    """What fits as the model wants it, and a fault for each row that does not."""
    batch, read = raw.batch, raw.batch.num_rows + len(raw.faults)
    found: dict[int, list[tuple[Column, object]]] = {}
    for column in wanted:
        values = columns.given(batch, column)
        for at in columns.all_unfit(values, column):
            found.setdefault(at, []).append((column, columns.plain(values, at)))
    faults = [_fault(raw, at, found[at], id_name) for at in sorted(found)]
    stays = _but(batch.num_rows, found)
    batch, rows_N = (batch.filter(pa.array(stays)), raw.rows_N[stays]) if found else (batch, raw.rows_N)
    inputs = [columns.cast(columns.given(batch, column), column) for column in wanted]
    named = pa.RecordBatch.from_arrays(inputs, [column.name for column in wanted])
    ids = batch.column(id_name) if id_name else pa.array(rows_N)
    return Piece(read, rows_N, ids, named, sorted([*raw.faults, *faults], key=lambda fault: fault.row))


def _fault(raw: Raw, at: int, wrong: Sequence[tuple[Column, object]], id_name: str | None) -> Fault:
    row_id = str(raw.batch.column(id_name)[at].as_py()) if id_name else None
    (first, value), *_ = wrong
    reason = "; ".join(f"column {column.name!r}: {columns.reason(column, got)}" for column, got in wrong)
    shown = None if value is None else columns.shown(value) if first.kind == "tensor" else str(value)
    return Fault(int(raw.rows_N[at]), row_id, first.name, shown, reason, _shown(raw.batch, at))


def _but(rows: int, bad: Mapping[int, object]) -> NDArray[np.bool_]:
    """True for each row that is not bad."""
    stays = np.ones(rows, bool)
    stays[list(bad)] = False
    return stays


def _shown(batch: pa.RecordBatch, at: int) -> str:
    plain = (f.name for f in batch.schema if not isinstance(f.type, pa.BaseExtensionType))
    row = {name: batch.column(name)[at].as_py() for name in plain if not pa.types.is_nested(batch.column(name).type)}
    return json.dumps(row, default=str, ensure_ascii=False)
