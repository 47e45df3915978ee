"""Batch scoring: rows in, predictions out, in constant memory and committed once.

A file becomes one Parquet file; a folder becomes a folder with one for each of its files. The output's columns:
the row's own id (or its number, `row`, from 0 in each file), the model's outputs, `model_version`, `run_key`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .. import intake, receipts
from ..contract import ROW, Json, Spec
from ..errors import BadInput, ParamsError, TidemillError
from ..intake import Table
from . import delivery
from .delivery import Delivery, Part

FORMAT = 1  # of the output; part of every key
VERSION, RUN_KEY = "model_version", "run_key"
_LABEL = pa.dictionary(pa.int8(), pa.string())
Say = Callable[[int], None]  # told how many rows are done
Item = TypeVar("Item")


class Scorer(Protocol):
    """What scoring needs of a model: components/model.py's Model, or that class in a model's own package."""

    @property
    def spec(self) -> Spec: ...
    @property
    def weights_sha256(self) -> str: ...
    def outputs(self) -> pa.Schema: ...
    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch: ...


@dataclass(frozen=True)
class Job:
    """How to score. `model_version` and `run_key` stand in every row.

    `id` names the column that names a row: by default the spec's own, if the input has it; `row` numbers the
    rows instead. Columns in `known` may be in the input, unread; `ignore_extra` lets any others be there too.
    """

    model_version: str
    run_key: str
    batch_rows: int = 65536
    id: str | None = None
    ignore_extra: bool = False
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """What stands in `output` now. `kept` of its `files` stood there already; `unchanged`: all of it did."""

    output: Path
    receipt: Path
    key: str
    rows: int
    files: int
    kept: int
    unchanged: bool
    seconds: float = field(compare=False)


def score(model: Scorer, source: Path, output: Path, job: Job, say: Say = lambda _: None) -> Scored:
    """Score a csv or Parquet file, or a folder of them, and commit the result file by file, the receipt last.

    A file that stands there for the same key, whole, is kept. Raises BadInput if the input does not fit the
    model, ParamsError if the output cannot be there, Busy if somebody else is writing it.
    """
    started = time.monotonic()
    source, output = source.resolve(), output.resolve()
    sources = intake.files(source)
    _check_place(source, output)
    wanted = intake.Wanted(model.spec, job.id, job.known, job.ignore_extra)
    tables = {name: intake.open_file(file, wanted) for name, file in sources.items()}
    if all(table.empty for table in tables.values()):
        raise BadInput("a table without rows", where=str(source), fix="give a table with rows")
    names = delivery.names(source, output, sources)
    with delivery.opened(output, source.is_dir()) as delivered:
        run = _Run(model, job, delivered, say)
        parts = {names[name]: run.part(name, names[name], table) for name, table in tables.items()}
        key = receipts.key({name: part.key for name, part in parts.items()})
        facts = _settings(model, job) | {"key": key, "rows": run.rows}
        unchanged = delivered.close(parts, facts)
    seconds = time.monotonic() - started
    return Scored(output, delivered.receipt, key, run.rows, len(parts), run.kept, unchanged, seconds)


def _check_place(source: Path, output: Path) -> None:
    fault, fix = "", "choose another place for the output"
    if output == source:
        fault = "the output would replace the input"
    elif output.is_relative_to(source):
        fault = "the output would lie in the input"
    elif source.is_relative_to(output):
        fault = "the input lies in the output"
    elif source.is_dir() and output.exists() and not output.is_dir():
        fault, fix = "a folder is scored into a folder, and this is a file", "name a folder"
    elif source.is_file() and output.is_dir():
        fault, fix = "a file is scored into a file, and this is a folder", f"name a file: {output / 'scores.parquet'}"
    elif source.is_file() and output.suffix.lower() not in intake.PARQUET:
        fault, fix = "the output is Parquet, whatever the input is", f"name it {output.with_suffix('.parquet')}"
    if fault:
        raise ParamsError(fault, where=str(output), fix=fix)


# ── one run ─────────────────────────────────────────────────────────────────────────────────────────────


def _settings(model: Scorer, job: Job) -> dict[str, Json]:
    """What all files of a run share of what makes them."""
    return {
        "format": FORMAT,
        "model": {"version": job.model_version, "weights_sha256": model.weights_sha256},
        "run_key": job.run_key,
        "batch_rows": job.batch_rows,
        "versions": {"pyarrow": pa.__version__, "torch": torch.__version__},
    }


class _Run:
    """The files of one scoring, one after the other."""

    def __init__(self, model: Scorer, job: Job, delivered: Delivery, say: Say) -> None:
        self._model, self._job, self._delivered, self._say = model, job, delivered, say
        self._settings = _settings(model, job)
        self.rows = self.kept = 0

    def part(self, source: str, name: str, table: Table) -> Part:
        """Score one file, unless its output stands there, whole, for the same key."""
        with ThreadPoolExecutor(1) as pool:
            hashing = pool.submit(_sha256, table.file)
            stands = self._delivered.path(name).exists()  # then the key is needed first, else while scoring
            part = self._delivered.standing(name, source, *self._made_from(table, hashing)) if stands else None
            if part is None:
                part = self._make(source, name, table, hashing)
            else:
                self.kept += 1
        self.rows += part.rows
        self._say(self.rows)
        return part

    def _made_from(self, table: Table, hashing: Future[str]) -> tuple[str, str]:
        """The input's SHA-256 and the key of the file that is made from it."""
        settings = self._settings | {"input": hashing.result(), "id": table.id.name if table.id else ROW}
        return hashing.result(), receipts.key(settings)

    def _make(self, source: str, name: str, table: Table, hashing: Future[str]) -> Part:
        before = table.file.stat()
        with self._delivered.replacing(name) as temporary:
            rows = self._write(temporary, table, hashing)
            after = table.file.stat()
            if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
                raise BadInput(
                    "changed while it was read", where=str(table.file), fix="score it again once it is whole"
                )
            sha256 = receipts.sha256(temporary)
        source_sha256, key = self._made_from(table, hashing)
        return Part(source, source_sha256, key, sha256, rows)

    def _write(self, file: Path, table: Table, hashing: Future[str]) -> int:
        rows, schema = 0, _schema(self._model, table)
        labels = [f.name for f in schema if not pa.types.is_floating(f.type) and f.name != ROW]
        with pq.ParquetWriter(file, schema, use_dictionary=labels) as writer:
            with closing(_ahead(_scored(self._model, self._job, table, schema))) as batches:
                for batch in batches:
                    writer.write_batch(batch)
                    rows += batch.num_rows
                    self._say(self.rows + rows)
            writer.add_key_value_metadata({delivery.KEY: self._made_from(table, hashing)[1]})
        return rows


def _sha256(file: Path) -> str:
    try:
        return receipts.sha256(file)
    except OSError as error:
        raise BadInput(
            "cannot be read", where=str(file), why=str(error), fix="see that it stays while it is scored"
        ) from error


def _schema(model: Scorer, table: Table) -> pa.Schema:
    """Columns of the output for one file. Raises BadInput if two of them would have one name."""
    id_field = table.id or pa.field(ROW, pa.int64())
    fields = [id_field, *model.outputs(), pa.field(VERSION, _LABEL), pa.field(RUN_KEY, _LABEL)]
    if id_field.name in [f.name for f in fields[1:]]:
        raise BadInput(
            f"the id column {id_field.name!r} has the name of a column of the output",
            where=str(table.file),
            fix=f"name another by --id COLUMN, or number the rows by --id {ROW}",
        )
    return pa.schema(fields)


def _scored(model: Scorer, job: Job, table: Table, schema: pa.Schema) -> Generator[pa.RecordBatch]:
    first, outputs = 0, model.outputs()
    with closing(_ahead(table.batches(job.batch_rows))) as batches:
        for ids, inputs in batches:
            rows = inputs.num_rows
            made = model.score(inputs)
            if made.num_rows != rows or not made.schema.equals(outputs):
                raise TidemillError(
                    "the model does not return what it promises",
                    where=f"version {job.model_version}",
                    why=f"{made.num_rows} rows of {made.schema.names} for {rows}, promised {outputs.names}",
                    fix="mend `score` or `outputs` of its family",
                )
            own = ids if ids is not None else pa.array(np.arange(first, first + rows))
            columns = [own, *made.columns, _label(job.model_version, rows), _label(job.run_key, rows)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
            first += rows


def _label(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [value])


# ── overlap ─────────────────────────────────────────────────────────────────────────────────────────────


def _ahead(items: Generator[Item], most: int = 2) -> Generator[Item]:
    """The same items, made by a thread that is at most `most` items ahead. Close it, or it waits for ever."""
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(most)
    stopped = threading.Event()

    def make() -> None:
        try:
            for item in items:
                made.put((item, None))
                if stopped.is_set():
                    return
            made.put((None, None))
        except BaseException as error:  # raised again where the items are used
            made.put((None, error))
        finally:
            items.close()

    thread = threading.Thread(target=make, name="scoring", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room
            while not made.empty():
                made.get_nowait()
            thread.join(0.01)
