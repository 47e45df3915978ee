"""Samples of a champion, as a person asks for them: a Parquet file of made rows, and a picture of some.

The file's columns: the model's input columns, then `model_version` and `run_key` as scores have them. Champion, number
of rows and seed say every byte of it. Rows are made in blocks, each from a seed of its own, so any number fits the
memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import plan, receipts
from .contract import Generative, Json
from .errors import ParamsError, TidemillError
from .plan import Project

if TYPE_CHECKING:
    from .model import Model

BLOCK_ROWS = 4096
FOOTER = "tidemill.samples"  # in the Parquet file: what it was made from
_LABEL = pa.dictionary(pa.int8(), pa.string())


def write(project: Project, pipeline: str, count: int, output: Path, seed: int) -> Json:
    """Write `count` rows that the champion makes to `output`, and a picture of the first beside it (.png), if they are
    of a kind that people can look at.

    Raises ParamsError if the number, the output or the family does not allow it, RegistryError if there is no champion,
    TidemillError if the output cannot be written.
    """
    from . import registry
    from .plots import figures, samples

    if count < 1:
        raise ParamsError(f"got {count} rows, expected at least 1", where="command line: N")
    picture = _picture_of(output)
    resolved = plan.resolve(project, pipeline)
    version = registry.champion(resolved.workspace, resolved.name)
    made = registry.load(resolved.workspace, resolved.name, version.version)
    if not isinstance(made.family, Generative):
        raise ParamsError(
            f"version {version.version} of {pipeline} makes no samples",
            where=f"pipeline {pipeline}",
            why=f"{type(made.family).__name__} has no `sample`",
            fix="ask a pipeline of a family that makes samples",
        )
    told = {"model_version": str(version.version), "run_key": version.tags[f"{registry.TAG}run_key"]}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with receipts.replacing(output) as temporary:
            first = _write(temporary, made, told, count, seed)
            figure = samples.picture(made.spec, first, f"{pipeline} version {version.version}: seed {seed}")
            if figure:
                with receipts.replacing(picture) as drawn:
                    figures.save(figure, drawn)
    except OSError as error:
        fix = "make room, or choose a place that you may write to"
        raise TidemillError("the samples cannot be written", where=str(output), why=str(error), fix=fix) from error
    shown = str(picture) if figure else None
    return {"pipeline": pipeline, "rows": count, "seed": seed, "output": str(output), "picture": shown, **told}


def _picture_of(output: Path) -> Path:
    """Where the picture goes. Raises ParamsError if the output cannot be a file, or if files of others are there."""
    if output.is_dir() or output.suffix.lower() == ".png":
        what = "a folder" if output.is_dir() else "a picture's name"
        raise ParamsError(f"got {what}, expected a Parquet file's name", where=str(output), fix="name a .parquet file")
    picture = output.with_suffix(".png")
    ours = output.is_file() and _is_ours(output)
    for file in (output, picture):
        if file.exists() and not ours:
            raise ParamsError("holds no samples, and is not replaced", where=str(file), fix="choose another name")
    return picture


def _is_ours(file: Path) -> bool:
    try:
        return FOOTER.encode() in (pq.read_schema(file).metadata or {})
    except pa.ArrowInvalid:  # no Parquet file
        return False


def _write(file: Path, made: Model, told: dict[str, str], count: int, seed: int) -> pa.Table:
    """All rows into the file; returns the first of them, without the labels: enough for a picture."""
    from .plots import samples

    facts = {**told, "rows": count, "seed": seed, "weights_sha256": made.weights_sha256}
    names, shown, writer = [column.name for column in made.spec.columns], list[pa.RecordBatch](), None
    try:
        for block, start in enumerate(range(0, count, BLOCK_ROWS)):
            rows = made.sample(min(BLOCK_ROWS, count - start), _seed(seed, block))
            if rows.schema.names != names or rows.num_rows != min(BLOCK_ROWS, count - start):
                raise TidemillError(
                    "the model does not make what it was asked for",
                    where=f"version {told['model_version']}",
                    why=f"{rows.num_rows} rows of {rows.schema.names} for {count - start} of {names}",
                    fix="mend `sample` of its family",
                )
            labels = [pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), [value]) for value in told.values()]
            fields = [*rows.schema, *(pa.field(name, _LABEL) for name in told)]
            schema = pa.schema(fields, {FOOTER: json.dumps(facts, sort_keys=True)})
            if writer is None:
                writer = pq.ParquetWriter(file, schema, use_dictionary=list(told))
            if sum(map(len, shown)) < samples.MOST:
                shown.append(rows)
            writer.write_batch(pa.RecordBatch.from_arrays([*rows.columns, *labels], schema=schema))
    finally:
        if writer:
            writer.close()
    return pa.Table.from_batches(shown)


def _seed(seed: int, block: int) -> int:
    return int(np.random.SeedSequence([seed % 2**63, block]).generate_state(1, np.uint64)[0] >> 1)
