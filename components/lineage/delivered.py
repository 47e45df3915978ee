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
from . import SCORING, Record, branches, place
from .branches import Node
from .known import Known, Version


def scores(found: Known, path: Path) -> Node:
    """A score file or a folder of them: on record here, or as its own footer, columns and receipt tell."""
    here = place(found.workspace, path)
    own = next((work for work in found.scorings() if _is(work, path, here)), None)
    if own:
        node = branches.scores(found, own, up=True)
        inside = {"scoring": node.name} if path.is_file() and node.name != here else {}
        files = {name: said for name, said in node.facts["files"].items() if path.is_dir() or name == here}
        return Node(node.kind, here, node.facts | {"files": files} | inside, node.made_from)
    told, version, key = _told(path), *_whose(path)
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


def _is(work: Record, path: Path, here: str) -> bool:
    """Whether these are the very scores that a record speaks of, wherever they lie now."""
    if path.is_dir():
        return work.stage == SCORING and _told(path).get("key") == work.key
    files, sha256 = branches.score_files(work), receipts.sha256(path)
    return files[here] == sha256 if here in files else sha256 in files.values()


def _told(path: Path) -> dict[str, Json]:
    """The receipt beside a score file, or in the folder that it lies in; empty if there is none."""
    beside = path / "_receipt.json" if path.is_dir() else path.with_name(f"{path.name}.receipt.json")
    for file in (beside, *(folder / "_receipt.json" for folder in path.parents)):
        if file.is_file():
            told = json.loads(file.read_text(encoding="utf-8"))
            return told if isinstance(told, dict) and isinstance(told.get("files"), dict) else {}
    return {}


def _fits(path: Path, told: dict[str, Json]) -> str:
    if not told:
        return "none: nothing says that it is whole"
    files = {part["sha256"] for part in told["files"].values()}
    return "fits" if path.is_dir() or receipts.sha256(path) in files else "of other bytes: the file was altered"


def _whose(path: Path) -> tuple[str, str]:
    """(model version, run key) that stand in the rows."""
    if path.is_dir():
        told = _told(path)
        return str(told["model"]["version"]), str(told["run_key"])
    for batch in pq.ParquetFile(path).iter_batches(1, columns=[VERSION, RUN_KEY]):
        return batch.column(VERSION)[0].as_py(), batch.column(RUN_KEY)[0].as_py()
    told = _told(path)
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
    return value if isinstance(value, int | float | list) else str(value)
