"""A user's table as it lies on disk: one csv or Parquet file, or a folder of them with the same columns.

`raw` is for finding out what the columns are. Once that is known, `typed` reads the rows exactly as a file for
scoring is read, so that a value means the same in both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from .. import intake
from ..contract import Column, Spec
from ..digests import digest
from ..errors import DataError
from ..intake import columns, csvs

_BATCH_ROWS = 65536


@dataclass(frozen=True)
class Source:
    """A table's files, in the order of their names, and its columns in the order of the first file."""

    path: Path
    files: tuple[Path, ...]
    names: tuple[str, ...]

    def raw(self) -> pa.Table:
        """All rows, each column as Parquet types it, or as every value of a csv allows.

        Where files disagree on a column's type, it is text. Raises DataError if a file does not read.
        """
        tables = [self._raw(file, {}) for file in self.files]
        types = {name: {t.schema.field(name).type for t in tables} - {pa.null()} for name in self.names}
        text = {name: pa.string() for name, found in types.items() if len(found) > 1 and not _numbers(found)}
        if text:
            tables = [self._raw(file, text) for file in self.files]
        return pa.concat_tables(tables, promote_options="permissive")

    def typed(self, wanted: Sequence[Column], id: str | None) -> pa.Table:
        """All rows: the wanted columns as they are wanted, and the id in its plain spelling.

        Raises BadInput that names the first value that does not fit, and its row.
        """
        spec = intake.Wanted(Spec("", "regression", tuple(wanted), id=id), ignore_extra=True)
        ids, batches = [], []
        for file in self.files:
            for piece in intake.open_file(file, spec).batches(_BATCH_ROWS):
                batches.append(piece.inputs)
                ids.append(piece.ids)
        table = pa.Table.from_batches(batches)
        if id is None:
            return table
        if len({found.type for found in ids}) > 1:  # plain numbers in one file, codes in another
            ids = [found.cast(pa.string()) for found in ids]
        return table.append_column(id, pa.chunked_array(ids))

    def assembled(self) -> dict[str, Column]:
        """The tensor columns that are put together from parts."""
        return {}

    def sha256(self, memory: Path) -> str:
        """The hash of the file; for a folder, of its files' names and hashes."""
        if self.path.is_file():
            return digest(self.path, "sha256", memory)
        lines = [f"{f.relative_to(self.path).as_posix()} {digest(f, 'sha256', memory)}\n" for f in self.files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _raw(self, file: Path, types: dict[str, pa.DataType]) -> pa.Table:
        try:
            if file.suffix.lower() in intake.PARQUET:
                table = pq.ParquetFile(file).read(columns=list(self.names)).select(self.names)
                table = table.cast(pa.schema([_plain(f, types) for f in table.schema]))
            else:
                convert = csv.ConvertOptions(
                    column_types=types,
                    include_columns=self.names,
                    null_values=columns.MISSING,
                    strings_can_be_null=True,
                )
                parse = csv.ParseOptions(newlines_in_values=True)
                table = csv.read_csv(file, parse_options=parse, convert_options=convert)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(
                "does not read", where=str(file), why=str(error).splitlines()[0], fix="mend it, or write it again"
            ) from error
        binary = [f.name for f in table.schema if pa.types.is_binary(f.type)]
        if binary:
            raise DataError(f"column {binary[0]!r} is not UTF-8 text", where=str(file), fix="save the file as UTF-8")
        return table.replace_schema_metadata()


def find(path: Path) -> Source:
    """Look at a table's files without reading their rows.

    Raises DataError if there are none, if they differ in their columns, or if a name is there twice.
    """
    files = tuple(intake.files(path).values())
    headers = {file: _header(file) for file in files}
    names = headers[files[0]]
    for file, found in headers.items():
        _check_names(file, found)
        if set(found) != set(names):
            odd = ", ".join(repr(n) for n in sorted(set(found) ^ set(names)))
            raise DataError(
                f"other columns than {files[0].name}: {odd}",
                where=str(file),
                fix="give all files of a table the same columns",
            )
    return Source(path, files, tuple(names))


def _header(file: Path) -> list[str]:
    if file.suffix.lower() not in intake.PARQUET:
        return csvs.header(file)[0]
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            "not a whole Parquet file", where=str(file), why=str(error).splitlines()[0], fix="write or copy it again"
        ) from error


def _check_names(file: Path, names: list[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(
            f"columns that are there twice: {', '.join(map(repr, twice))}",
            where=str(file),
            fix="rename or drop one of each",
        )
    separator = next((s for s in (";", "\t", "|") if len(names) == 1 and s in names[0]), None)
    if separator:
        raise DataError(
            f"one column only, {names[0][:60]!r}",
            where=str(file),
            why=f"its names are separated by {separator!r}",
            fix="write it with commas between columns",
        )


def _plain(field: pa.Field, types: dict[str, pa.DataType]) -> pa.Field:
    """The field without dictionary encoding and large types, and as one of `types` where it is named there."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    kind = pa.string() if columns.is_text(kind) else kind
    return pa.field(field.name, types.get(field.name, kind))


def _numbers(types: set[pa.DataType]) -> bool:
    return all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in types)
