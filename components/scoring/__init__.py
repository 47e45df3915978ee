"""Batch scoring: rows in, predictions out, in constant memory and committed once.

A file becomes one Parquet file; a folder becomes a folder with one for each of its files. The output's columns:
the row's own id (or its number, `row`, from 0 in each file), the model's outputs, `model_version`, `run_key`. Rows
that do not fit the model go to a quarantine file, and those that do are compared with what it was trained on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .. import intake, profile, receipts
from ..contract import ROW, Codes, Json, Spec
from ..errors import BadInput, Drifted, ParamsError, TidemillError
from ..intake import Piece, Table
from ..profile import Counts, Tally
from . import delivery, drift, quarantine
from .delivery import Delivery, Made, Part
from .overlap import ahead

FORMAT = 2  # of the output; part of every key
VERSION, RUN_KEY = "model_version", "run_key"
_LABEL = pa.dictionary(pa.int8(), pa.string())
Say = Callable[[int], None]  # told how many rows are done


class Scorer(Protocol):
    """What scoring needs of a model: components/model.py's Model, or that class in a model's own package."""

    @property
    def spec(self) -> Spec: ...
    @property
    def weights_sha256(self) -> str: ...
    @property
    def profile(self) -> Json: ...
    def outputs(self) -> pa.Schema: ...
    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch: ...
    def encode(self, batch: pa.RecordBatch) -> Codes: ...


@dataclass(frozen=True)
class Job:
    """How to score. `model_version` and `run_key` stand in every row.

    `id` names the column that names a row: by default the spec's own, if the input has it; `row` numbers the
    rows instead. Columns in `known` may be in the input, unread; `ignore_extra` lets any others be there too.
    `quarantine` is the largest share of the rows that may not fit: with 0 the first ends the scoring. `drift` None
    compares nothing; `blocked` is where the comparison goes that forbids the delivery, by default beside the output.
    `codes`: what the model returns are its codes, so that an output of scores does not pass for one of codes.
    """

    model_version: str
    run_key: str
    batch_rows: int = 65536
    id: str | None = None
    ignore_extra: bool = False
    known: tuple[str, ...] = ()
    quarantine: float = 0.0
    drift: drift.Terms | None = None
    blocked: Path | None = None
    codes: bool = False


@dataclass(frozen=True)
class Scored:
    """What stands in `output` now. `kept` of its `files` stood there already; `unchanged`: all of it did. Of `rows_in`
    rows `rows` were scored, the others are in `quarantine`. `drift` is the comparison with the training rows, as it
    stands in `drift_file`; None without one. `input` is the hash of all that was read."""

    output: Path
    receipt: Path
    key: str
    rows: int
    files: int
    kept: int
    unchanged: bool
    seconds: float = field(compare=False)
    rows_in: int
    quarantined: int
    quarantine: Path | None
    drift: Json
    drift_file: Path
    input: str


def score(model: Scorer, source: Path, output: Path, job: Job, say: Say = lambda _: None) -> Scored:
    """Score a csv or Parquet file, or a folder of them, and deliver the result, the receipt last.

    A file that is there for the same key, whole, is kept. Raises BadInput if the input does not fit the model,
    Drifted if it is unlike the training rows and that is to block, ParamsError if the output cannot be there, Busy if
    somebody else is writing it. What stood in its place stands until all of the new is whole.
    """
    started = time.monotonic()
    source, output = source.resolve(), output.resolve()
    sources = intake.files(source)
    _check_place(source, output)
    wanted = intake.Wanted(model.spec, job.id, job.known, job.ignore_extra, aside=job.quarantine > 0)
    tables = {name: intake.open_file(file, wanted) for name, file in sources.items()}
    if all(table.empty for table in tables.values()):
        raise BadInput("a table without rows", where=str(source), fix="give a table with rows")
    names = delivery.names(source, output, sources)
    with delivery.opened(output, source.is_dir()) as delivered:
        run = _Run(model, job, delivered, say)
        parts = {names[name]: run.part(name, names[name], table) for name, table in tables.items()}
        quarantine.check(delivered, parts, job.quarantine, source)
        key = receipts.key({name: part.key for name, part in parts.items()})
        made = [part.made for part in parts.values()]
        facts = _settings(model, job) | {"key": key, "rows": run.rows}
        facts |= {"rows_in": sum(m.rows_in for m in made), "quarantined": sum(m.quarantined for m in made)}
        found = _compared(model, job, delivered, [m.counts for m in made], facts)
        unchanged = delivered.close(parts, facts, {"drift.json": found, "blocked.json": None})
    return Scored(
        output,
        delivered.receipt,
        key,
        run.rows,
        len(parts),
        run.kept,
        unchanged,
        time.monotonic() - started,
        facts["rows_in"],
        facts["quarantined"],
        delivered.beside("quarantine.parquet" if source.is_file() else "quarantine") if facts["quarantined"] else None,
        found,
        delivered.beside("drift.json"),
        receipts.key({part.source: part.source_sha256 for part in parts.values()}),
    )


def _compared(
    model: Scorer, job: Job, delivered: Delivery, counts: list[Counts], facts: Mapping[str, Json]
) -> dict[str, Json] | None:
    """The rows beside the training rows. Raises Drifted, with nothing delivered, if they must not be so unlike."""
    if job.drift is None or model.profile is None:
        return None
    about = {name: facts[name] for name in ("key", "model", "rows_in", "rows", "quarantined")}
    found = drift.compare(model.profile, profile.add(iter(counts)), job.drift) | about
    if found["drifting"] and job.drift.block:
        place = job.blocked or delivered.beside("blocked.json")
        receipts.write_json(place, found)
        delivered.discard()
        raise Drifted(
            f"the rows are unlike those that version {job.model_version} was trained on: {drift.said(found)}",
            where=str(delivered.output),
            why=f"scoring.drift in params.yaml says block, so nothing is delivered; {place} says more",
            fix="look at the input, train on newer rows, or set scoring: {drift: {then: warn}}",
        )
    return found


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
    return ({"codes": True} if job.codes else {}) | {
        "format": FORMAT,
        "model": {"version": job.model_version, "weights_sha256": model.weights_sha256},
        "profile": receipts.key(model.profile) if model.profile and job.drift else None,
        "run_key": job.run_key,
        "batch_rows": job.batch_rows,
        "aside": job.quarantine > 0,
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
            stands = self._delivered.may_stand(name)  # then the key is needed first, else while scoring
            part = self._delivered.standing(name, source, *self._made_from(table, hashing)) if stands else None
            if part is None:
                part = self._make(source, name, table, hashing)
            else:
                self.kept += 1
        self.rows += part.made.rows
        self._say(self.rows)
        return part

    def _made_from(self, table: Table, hashing: Future[str]) -> tuple[str, str]:
        """The input's SHA-256 and the key of the file that is made from it."""
        settings = self._settings | {"input": hashing.result(), "id": table.id.name if table.id else ROW}
        return hashing.result(), receipts.key(settings)

    def _make(self, source: str, name: str, table: Table, hashing: Future[str]) -> Part:
        before = table.file.stat()
        with ExitStack() as stack:
            temporary = stack.enter_context(self._delivered.waiting(self._delivered.path(name)))
            aside = stack.enter_context(quarantine.opened(self._delivered, name))  # in place before the scores are
            made = self._write(temporary, table, aside, hashing)
            _check_unchanged(table.file, before)
            sha256, aside_sha256 = receipts.sha256(temporary), aside.close(self._made_from(table, hashing)[1])
        source_sha256, key = self._made_from(table, hashing)
        return Part(source, source_sha256, key, sha256, made, aside_sha256)

    def _write(self, file: Path, table: Table, aside: quarantine.Aside, hashing: Future[str]) -> Made:
        rows_in, rows, schema = 0, 0, _schema(self._model, table)
        labels = [f.name for f in schema if not pa.types.is_floating(f.type) and f.name != ROW]
        compares = self._job.drift is not None and self._model.profile is not None
        tally = Tally(self._model, self._model.profile, table.absent) if compares else None
        with pq.ParquetWriter(file, schema, use_dictionary=labels) as writer:
            with closing(ahead(_scored(self._model, self._job, table, schema, tally))) as pieces:
                for piece, batch in pieces:
                    writer.write_batch(batch)
                    aside.add(piece.faults)
                    rows_in, rows = rows_in + piece.read, rows + batch.num_rows
                    self._say(self.rows + rows)
            made = Made(rows_in, rows, aside.rows, tally.counts() if tally else {})
            quarantine.add_up(made, table)
            writer.add_key_value_metadata(delivery.footer(self._made_from(table, hashing)[1], made))
        return made


def _check_unchanged(file: Path, before: os.stat_result) -> None:
    after = file.stat()
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
        raise BadInput("changed while it was read", where=str(file), fix="score it again once it is whole")


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


def _scored(
    model: Scorer, job: Job, table: Table, schema: pa.Schema, tally: Tally | None
) -> Generator[tuple[Piece, pa.RecordBatch]]:
    outputs = model.outputs()
    with closing(ahead(table.batches(job.batch_rows))) as pieces:
        for read in pieces:
            piece, made = quarantine.scored(model.score, read, outputs, job.quarantine > 0)
            rows = piece.inputs.num_rows
            if made.num_rows != rows or not made.schema.equals(outputs):
                raise TidemillError(
                    "the model does not return what it promises",
                    where=f"version {job.model_version}",
                    why=f"{made.num_rows} rows of {made.schema.names} for {rows}, promised {outputs.names}",
                    fix="mend `score` or `outputs` of its family",
                )
            if tally:
                tally.add(piece.inputs)
            columns = [piece.ids, *made.columns, _label(job.model_version, rows), _label(job.run_key, rows)]
            yield piece, pa.RecordBatch.from_arrays(columns, schema=schema)


def _label(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [value])
