"""A dataset's Parquet file: the same bytes for the same rows, and a note of what it was built from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..contract import Json
from ..errors import DataError

_NOTE = b"tidemill"


def write(table: pa.Table, file: Path, note: Json) -> None:
    """Write `table`. `note` says what it was built from, and must hold no time and no machine."""
    stated = {_NOTE: json.dumps(note, sort_keys=True).encode()}
    pq.write_table(
        table.replace_schema_metadata(stated).combine_chunks(),
        file,
        compression="zstd",
        compression_level=3,
        version="2.6",
        row_group_size=65536,
        write_page_checksum=True,
    )


def note(file: Path) -> Json:
    """What `write` was told; None where the file is absent, damaged or somebody else's."""
    try:
        stated = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return json.loads(stated[_NOTE]) if _NOTE in stated else None


def names(file: Path) -> list[str]:
    """The columns of a file. Raises DataError if it is damaged or truncated."""
    with _opened(file) as opened:
        return list(opened.schema_arrow.names)


def read(file: Path, columns: list[str] | None = None) -> pa.Table:
    """The rows of a file. Raises DataError if it is damaged or truncated."""
    with _opened(file) as opened:
        return opened.read(columns=columns)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            yield opened
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            "not a whole Parquet file",
            where=str(file),
            why=str(error).splitlines()[0],
            fix=f"tidemill data fetch {file.stem}",
        ) from error
