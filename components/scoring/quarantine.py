"""Rows that cannot be scored: set aside with their reason, so that the others can. Every row is in one place or the
other, and the counts say so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import receipts
from ..errors import BadInput, TidemillError
from ..intake import Fault, Piece, Table
from .delivery import KEY, Delivery, Made, Part

_TEXT = ("id", "column", "value", "reason", "raw")
SCHEMA = pa.schema([("row", pa.int64()), *((name, pa.string()) for name in _TEXT)])
Score = Callable[[pa.RecordBatch], pa.RecordBatch]


class Aside:
    """The quarantine of one file of scores, which is made with the first row for it. Made by `opened`."""

    def __init__(self, place: Callable[[], Path]) -> None:
        self._place, self._file = place, Path()
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def add(self, faults: Sequence[Fault]) -> None:
        if not faults:
            return
        if self._writer is None:
            self._file = self._place()
            self._writer = pq.ParquetWriter(self._file, SCHEMA)
        self._writer.write_table(pa.Table.from_pylist([asdict(fault) for fault in faults], SCHEMA))
        self.rows += len(faults)

    def close(self, key: str = "") -> str | None:
        """Finish the file; its SHA-256, None if there is none."""
        writer, self._writer = self._writer, None
        if writer is None:
            return None
        writer.add_key_value_metadata({KEY: key})
        writer.close()
        return receipts.sha256(self._file)


@contextlib.contextmanager
def opened(delivered: Delivery, name: str) -> Iterator[Aside]:
    """The quarantine of the file of that name; on success it waits for its place."""
    with contextlib.ExitStack() as stack:
        aside = Aside(lambda: stack.enter_context(delivered.waiting(delivered.quarantine(name))))
        try:
            yield aside
        finally:
            aside.close()


def scored(score: Score, piece: Piece, outputs: pa.Schema, aside: bool) -> tuple[Piece, pa.RecordBatch]:
    """The model's scores, and the piece less the rows that the model refuses, if they go aside."""
    nothing = pa.RecordBatch.from_pylist([], outputs)
    if not piece.inputs.num_rows:
        return piece, nothing
    try:
        return piece, score(piece.inputs)
    except BadInput:
        if not aside:
            raise
    rest = piece.without(_refused(score, piece.inputs))
    return rest, score(rest.inputs) if rest.inputs.num_rows else nothing


def _refused(score: Score, inputs: pa.RecordBatch) -> dict[int, str]:
    """Index → reason of each row that the model refuses, found by halves."""
    found, waiting = {}, [(0, inputs.num_rows)]
    while waiting:
        low, high = waiting.pop()
        try:
            score(inputs.slice(low, high - low))
        except BadInput as error:
            if high - low == 1:
                found[low] = error.what
            else:
                waiting += [((low + high) // 2, high), (low, (low + high) // 2)]
    return found


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────


def add_up(made: Made, table: Table) -> None:
    """Raise TidemillError unless every row that was read is scored or in quarantine."""
    read = made.rows_in if table.rows is None else table.rows
    if not read == made.rows_in == made.rows + made.quarantined:
        raise TidemillError(
            f"{read} rows, of which {made.rows_in} were read, {made.rows} scored and {made.quarantined} set aside",
            where=str(table.file),
            why="that does not add up, so nothing is delivered",
            fix="report it with the file: this is a fault of Tidemill",
        )


def check(delivered: Delivery, parts: Mapping[str, Part], most: float, source: Path) -> None:
    """Raise BadInput, with nothing delivered, if a larger share of the rows than `most` does not fit."""
    rows, aside = sum(p.made.rows_in for p in parts.values()), sum(p.made.quarantined for p in parts.values())
    if aside <= most * rows:
        return
    name, part = next((name, part) for name, part in parts.items() if part.made.quarantined)
    first = next(pq.ParquetFile(delivered.standing_quarantine(name)).iter_batches(1)).to_pylist()[0]
    delivered.discard()
    raise BadInput(
        f"{aside:,} of {rows:,} rows do not fit the model: more than scoring.quarantine allows, {most:g} of them",
        where=str(source),
        why=f"the first is row {first['row']} of {part.source}, counted from 0: {first['reason']}",
        fix="correct the rows, or allow more in params.yaml: scoring: {quarantine: SHARE}",
    )
