"""A csv that is one sample: a row for each step, a column for each channel, and the file's own name for an id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..contract import Column
from ..errors import BadInput
from . import csvs
from .pieces import Fault, Raw


def read(file: Path, column: Column, id_field: pa.Field | None, aside: bool) -> Raw:
    """The one row of a file: the values of one channel after the other, as text. `aside`: a file that does not read is
    a fault of that row, instead of ending the reading."""
    try:
        flat = values(file, column.parts)
    except BadInput as error:
        if not aside:
            raise
        fields = [pa.field(column.name, pa.list_(pa.string())), *([id_field] if id_field else [])]
        return Raw(
            pa.RecordBatch.from_pylist([], pa.schema(fields)),
            np.zeros(0, np.int64),
            [Fault(0, file.stem, None, None, error.why or error.what, "")],
        )
    columns = {column.name: pa.ListArray.from_arrays([0, len(flat)], flat)}
    columns |= {id_field.name: pa.array([file.stem], pa.string())} if id_field else {}
    return Raw(pa.record_batch(columns), np.zeros(1, np.int64))


def values(file: Path, channels: Sequence[str]) -> pa.Array:
    """All values of these columns, one column after the other, as text. Raises BadInput if a line does not read."""
    batches = list(csvs.batches(file, [Column(name, "category") for name in channels], None, csvs.MANY))
    nothing = pa.array([], pa.string())
    return pa.concat_arrays([nothing, *(batch.column(name) for name in channels for batch in batches)])
