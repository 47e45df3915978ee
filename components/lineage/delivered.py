"""Score files as they lie on disk: whose scores they are, by the records here or by what they say themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import receipts
from ..contract import Json
from ..errors import ParamsError
from ..scoring import RUN_KEY, VERSION
from ..scoring.delivery import footer_key
from . import Record, branches, place
from .branches import Node
from .known import Known, Version

FOLDER = "_receipt.json"  # what a folder of scores has instead of a receipt beside each file


def scores(found: Known, path: Path) -> Node:
    """A score file or a folder of them: on record here, or as its own footer, columns and receipt tell."""
    told = _told(path)
    if path.is_dir() and not told:
        raise ParamsError("no receipt of scores", where=str(path / FOLDER), fix="name a score file in the folder")
    here, own = place(found.workspace, path), _on_record(found, path, told)
    if own:
        node = branches.scores(found, own, up=True)
        files = {name: said for name, said in node.facts["files"].items() if _below(name, here)}
        moved = {} if files else {"recorded_as": node.name}
        return Node(node.kind, here, node.facts | {"files": files or node.facts["files"]} | moved, node.made_from)
    version, key = _whose(path, told)
    facts: dict[str, Json] = {"rows": told.get("rows"), "model_version": version, "run_key": key}
    facts |= {"key": told.get("key") or footer_key(path), "receipt": _fits(path, told), "on_record": False}
    wanted = [v for v in found.versions if (str(v.number), v.key) == (version, key) and _same_weights(v, told)]
    sources = {part["source"]: part["source_sha256"] for part in told.get("files", {}).values()}
    rows = (Node("input", ", ".join(list(sources)[:3]), {"sha256": sources}),) if sources else ()
    made_from = tuple(branches.version(found, v, up=True) for v in wanted[:1]) + rows
    if not wanted:
        lost = {"in_registry": False, "run_key": key}
        trained = [t for t in found.trainings if t.key == key]
        above = tuple(branches.training(found, t, up=True) for t in trained)
        made_from = (Node("version", f"number {version} of an unknown pipeline", lost, above), *rows)
    return Node("scores", here, {k: v for k, v in facts.items() if v is not None}, made_from)


def _on_record(found: Known, path: Path, told: dict[str, Json]) -> Record | None:
    """The record of these very bytes, wherever they lie now: of several, the one that names this place, else one of
    just as many files."""
    here = place(found.workspace, path)
    hashes = [part["sha256"] for part in told["files"].values()] if path.is_dir() else [receipts.sha256(path)]
    wanted = set(hashes)
    fits = [work for work in found.scorings() if wanted and wanted <= set(branches.score_files(work).values())]
    fits.sort(key=lambda work: len(branches.score_files(work)) != len(hashes))
    named = (work for work in fits if any(_below(name, here) for name in branches.score_files(work)))
    return next(named, fits[0] if fits else None)


def _below(name: str, here: str) -> bool:
    return name == here or name.startswith(f"{here}/")


def _told(path: Path) -> dict[str, Json]:
    """The receipt beside a score file, or in the folder that it lies in; empty if there is none."""
    beside = path / FOLDER if path.is_dir() else path.with_name(f"{path.name}.receipt.json")
    above = () if path.is_dir() else path.parents
    file = next((file for file in (beside, *(folder / FOLDER for folder in above)) if file.is_file()), None)
    try:
        told: dict[str, Json] = json.loads(file.read_text(encoding="utf-8")) if file else {}
        return told if told["files"] and told["model"] and told["run_key"] else {}
    except (ValueError, KeyError, TypeError):  # something else goes by that name
        return {}


def _fits(path: Path, told: dict[str, Json]) -> str:
    if not told:
        return "none: nothing says that it is whole"
    files = {part["sha256"] for part in told["files"].values()}
    return "fits" if path.is_dir() or receipts.sha256(path) in files else "of other bytes: the file was altered"


def _whose(path: Path, told: dict[str, Json]) -> tuple[str, str]:
    """(model version, run key) that stand in the rows, or in the receipt where there is no row."""
    if path.is_file():
        with pq.ParquetFile(path) as scored:
            for batch in scored.iter_batches(1, columns=[VERSION, RUN_KEY]):
                return batch.column(VERSION)[0].as_py(), batch.column(RUN_KEY)[0].as_py()
    return str(told.get("model", {}).get("version", "")), str(told.get("run_key", ""))


def _same_weights(version: Version, told: dict[str, Json]) -> bool:
    said = told.get("model", {}).get("weights_sha256")
    return said is None or version.tags.get("weights_sha256") == said


def row(path: Path, name: str) -> dict[str, Json]:
    """What stands in a row; its id is the first column. Raises ParamsError if there is no such row."""
    if path.is_dir():
        raise ParamsError("a folder of scores", where=str(path), fix="name the file in it that has the row")
    with pq.ParquetFile(path) as scored:
        for batch in scored.iter_batches():
            at = pc.index(pc.cast(batch.column(0), pa.string()), name).as_py()
            if at >= 0:
                told: dict[str, Json] = batch.slice(at, 1).to_pylist()[0]
                return {column: _plain(value) for column, value in told.items()}
        column = scored.schema_arrow.names[0]
    raise ParamsError(f"no row has {column} {name!r}", where=str(path), fix=f"name one by its {column}")


def _plain(value: Json) -> Json:
    return value if isinstance(value, int | float | list | None) else str(value)
