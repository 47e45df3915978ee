"""A dataset's Parquet file: the same bytes for the same rows, and a note of what it was built from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..contract import Json
from ..errors import DataError

_NOTE = b"tidemill"


def write(table: pa.Table, file: Path, note: Json) -> None:
    """Write `table` in one atomic step. `note` says what it was built from and must hold no time or machine."""
    stated = {_NOTE: json.dumps(note, sort_keys=True).encode()}
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        pq.write_table(
            table.replace_schema_metadata(stated).combine_chunks(),
            aside,
            compression="zstd",
            compression_level=3,
            version="2.6",
            row_group_size=65536,
        )
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def note(file: Path) -> Json:
    """What `write` was told; None where the file is absent, damaged or somebody else's."""
    try:
        stated = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return json.loads(stated[_NOTE]) if _NOTE in stated else None


def read(file: Path, columns: list[str] | None = None) -> pa.Table:
    """The rows of a file.

    Raises DataError if the file is damaged or truncated.
    """
    try:
        return pq.ParquetFile(file).read(columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            "not a whole Parquet file",
            where=str(file),
            why=str(error).splitlines()[0],
            fix="put a whole copy in its place",
        ) from error
