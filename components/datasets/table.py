"""A table of the user's own: `table: PATH` and `target: COLUMN` in params.yaml make it a dataset.

    datasets:
      churn:
        table: exports/churn.csv      # csv or Parquet, or a folder of them
        target: left

    customer_id,age,plan,joined,left            an example row becomes, in data/churn.parquet:
    C-0017,41,basic,2023-05-02,yes              customer_id "C-0017", age 41.0, plan "basic",
                                                joined 2023-05-02 00:00, left "yes", split "train"

What the columns are is inferred once (inference.py, bounds.py) and stands in expectations/NAME.yaml from then on
(promises.py). The split is a hash of what is learnt from: inputs and target; see splits.py. A column named
`split` with train, val and test overrules it.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .. import letters
from ..contract import SPLIT, SPLITS, Column, Json
from ..errors import DataError, ParamsError
from ..expectations import Duplicates, Expectations
from ..params import DatasetBlock
from ..workspace import Workspace
from . import bounds, inference, promises, series, sources, splits
from .inference import Found

# Rows repeat each other by nature from this share on (few and coarse columns): then each is split on its own.
COARSE = 0.2
_ROUNDS = 5  # splits and kinds settle in two; a table that has not settled after five never will


def expectations(workspace: Workspace, name: str, block: DatasetBlock) -> Expectations:
    """What expectations/NAME.yaml says; inferred and written if there is no such file.

    Raises ParamsError if file and params.yaml differ on a column's role, DataError if the table is no use.
    """
    file = workspace.expectations(name)
    if not file.is_file():
        inferred, remarks = infer(find(workspace, name, block), block)
        promises.write(file, inferred, remarks)
    stated = promises.read(file)
    _check_roles(name, block, stated)
    return stated


def find(workspace: Workspace, name: str, block: DatasetBlock) -> sources.Source:
    """The table's files, which have the columns that params.yaml names."""
    where, path = f"params.yaml datasets.{name}", workspace.root / Path(str(block.table)).expanduser()
    if block.series == series.FILES:
        return series.recordings(path, block)
    if not block.target:
        raise ParamsError("got no target, expected the column to predict", where=where, fix="add `target: COLUMN`")
    source = sources.find(path)
    for key, wanted in (
        ("target", [block.target]),
        ("text", [block.text]),
        ("id", [block.id]),
        ("ignore", block.ignore),
    ):
        for column in wanted:
            if column is None or (column in source.names and column != SPLIT):
                continue
            close = difflib.get_close_matches(column, source.names, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"columns are {', '.join(source.names[:30])}"
            raise DataError(f"no column {column!r} in {source.path}", where=f"{where}.{key}", fix=hint)
    return series.wide(source, block) if block.series else source


def note(source: sources.Source, stated: Expectations, workspace: Workspace) -> Json:
    """What the Parquet file depends on: the source's bytes, and how its columns are read."""
    rules = {
        name: [rule.role, rule.kind, rule.dtype, *([rule.shape, rule.parts] if rule.parts else [])]
        for name, rule in stated.columns.items()
    }
    return {"columns": rules, "source": source.sha256(workspace.state / "hashes")}


def build(source: sources.Source, stated: Expectations) -> pa.Table:
    """All rows as the expectations say, in the order of the source, with the split of each.

    Raises DataError if a column is missing or holds a value of another kind, or the target says nothing.
    """
    found = {
        name: Found(
            None if rule.kind == "text" and rule.role != "input" else rule.kind,
            rule.role,
            rule.dtype,
            rule.shape,
            parts=rule.parts,
        )
        for name, rule in stated.columns.items()
    }
    table = _typed(source, found)
    target = _target(found)
    _check_complete(source, table[target], target)
    if pc.count_distinct(table[target]).as_py() < 2:
        raise DataError(
            f"target {target!r} has one value only, {table[target][0].as_py()!r}",
            where=str(source.path),
            fix="give rows of another class as well",
        )
    split = _split(source, table, found)
    return table.select(list(found)).append_column(SPLIT, split)


def infer(source: sources.Source, block: DatasetBlock) -> tuple[Expectations, dict[str, str]]:
    """What the table's training rows promise, and remarks on single columns."""
    raw = source.raw()
    if not raw.num_rows:
        raise DataError("an empty table", where=str(source.path), fix="give a table with rows")
    readings = inference.readings(raw.select([n for n in raw.column_names if n != SPLIT]), block.ignore)
    readings |= {name: replace(readings[name], parts=made.parts) for name, made in source.assembled().items()}
    fixed = _fixed(source, raw, readings, block)
    found, table, split = _settle(source, raw, readings, fixed)
    train = table.filter(pc.equal(split, SPLITS[0]))
    smallest = min(splits.counts(split).values())
    rules = {name: bounds.rule(kind, train[name], smallest) for name, kind in found.items()}
    target, id = _target(found), _role(found, "id")
    if id:
        whole = pa.types.is_integer(table[id].type)
        rules[id] = rules[id].model_copy(update={"kind": "number" if whole else "text"})
    class_share = 0.01
    if found[target].kind == "category":
        rules[target] = rules[target].model_copy(update={"values": sorted(pc.unique(table[target]).to_pylist())})
        rarest = min(pc.value_counts(train[target]).field("counts").to_pylist()) / train.num_rows
        class_share = min(class_share, math.floor(rarest / 2 * 1e5) / 1e5)
    promised = Expectations(columns=rules, duplicates=_duplicates(table, train, found), class_share=class_share)
    return promised, {name: kind.remark for name, kind in found.items()}


# ── roles and kinds ─────────────────────────────────────────────────────────────────────────────────────


def _check_roles(name: str, block: DatasetBlock, stated: Expectations) -> None:
    wanted = {column: "ignored" for column in block.ignore if column in stated.columns}
    named = ((block.target, "target"), (block.id, "id"), (block.text, "input"))
    wanted |= {column: role for column, role in named if column}
    if block.series:
        wanted |= {series.SERIES: "input", str(series.target(block)): "target"}
    for column, role in wanted.items():
        says = stated.columns[column].role if column in stated.columns else "nothing of it"
        if says != role:
            raise ParamsError(
                f"params.yaml says that {column!r} is {role}, expectations/{name}.yaml says {says}",
                where=f"params.yaml datasets.{name}",
                fix=f"make them agree, or delete expectations/{name}.yaml to have it inferred anew",
            )


def _fixed(source: sources.Source, raw: pa.Table, readings: dict[str, Found], block: DatasetBlock) -> dict[str, Found]:
    """The columns whose role does not depend on the split: ignored, id, target, and a text to learn from with which
    all others are ignored."""
    target = str(series.target(block))
    fixed = {name: replace(readings[name], role="ignored") for name in block.ignore if name in readings}
    if block.text:
        fixed[block.text] = inference.text(raw[block.text], readings[block.text], f"{source.path} {block.text}")
    id = block.id or inference.find_id(raw, readings, {target, str(block.text), *block.ignore})
    if id:
        repeated = raw.num_rows - pc.count_distinct(raw[id]).as_py()
        if repeated or raw[id].null_count:
            raise DataError(
                f"id column {id!r} does not name each row",
                where=str(source.path),
                why=f"{raw[id].null_count} rows have none, {repeated} repeat one",
                fix="name another column, or none",
            )
        fixed[id] = Found(None, "id")
    _check_complete(source, raw[target], target)
    fixed[target] = inference.target(raw[target], readings[target], f"{source.path} {target}")
    if block.text:
        why = f"not learnt from, since params.yaml names the text {block.text!r}"
        fixed |= {n: replace(r, role="ignored", remark=why) for n, r in readings.items() if n not in fixed}
    return fixed


def _settle(
    source: sources.Source, raw: pa.Table, readings: dict[str, Found], fixed: dict[str, Found]
) -> tuple[dict[str, Found], pa.Table, pa.Array]:
    """Kinds learnt from the training rows, and the split, each of which depends on the other."""
    found = {**readings, **fixed}
    for _ in range(_ROUNDS):
        table = _typed(source, found)
        split = _split(source, table, found)
        open_ = {name: reading for name, reading in readings.items() if name not in fixed}
        kinds = inference.kinds(raw.select(list(open_)).filter(pc.equal(split, SPLITS[0])), open_)
        settled = {**readings, **kinds, **fixed}
        if settled == found:
            break
        found = settled
    else:
        table = _typed(source, found)
        split = _split(source, table, found)
    return found, table, split


def _typed(source: sources.Source, found: dict[str, Found]) -> pa.Table:
    wanted = [kind.column(name) for name, kind in found.items() if kind.role != "id"]
    if SPLIT in source.names:
        wanted.append(Column(SPLIT, "category"))
    return source.typed(wanted, _role(found, "id"))


def _check_complete(source: sources.Source, target: pa.ChunkedArray, name: str) -> None:
    missing = inference.missing(target)
    count = pc.sum(missing).as_py()
    if count:
        first = pc.indices_nonzero(missing)[:5].to_pylist()
        raise DataError(
            f"target {name!r} is missing in {count} rows: {', '.join(map(str, first))}{' …' * (count > 5)}",
            where=str(source.path),
            why="rows are counted from 0",
            fix="leave out the rows without a target: they can be scored, not learnt from",
        )


def _role(found: dict[str, Found], role: str) -> str | None:
    return next((name for name, kind in found.items() if kind.role == role), None)


def _target(found: dict[str, Found]) -> str:
    return next(name for name, kind in found.items() if kind.role == "target")


# ── split ───────────────────────────────────────────────────────────────────────────────────────────────


def _content(table: pa.Table, found: dict[str, Found]) -> splits.Hashes:
    """One hash a row of what is learnt from: inputs and target."""
    learnt = [name for name, kind in found.items() if kind.role in ("input", "target") and kind.kind]
    table = table.select(learnt)
    for at, name in enumerate(learnt):
        if found[name].kind == "text":  # texts that differ in case, signs and spaces alone fall into one split
            table = table.set_column(at, name, pa.array(letters.bare(table[name].to_pylist()), pa.string()))
    return splits.row_hashes(table)


def _split(source: sources.Source, table: pa.Table, found: dict[str, Found]) -> pa.Array:
    content = _content(table, found)
    if splits.repeats(content) > COARSE:
        content = splits.apart(content)
    target = table[_target(found)]
    if found[_target(found)].kind == "category":
        strata = pc.dictionary_encode(target).combine_chunks().indices.to_numpy()
    else:  # numbers: fifths of their range of ranks
        numbers = target.to_numpy()
        strata = np.digitize(numbers, np.quantile(numbers, (0.2, 0.4, 0.6, 0.8)))
    if SPLIT in table.column_names:
        split = _own_split(source, table[SPLIT].combine_chunks(), content, strata)
    else:
        split = splits.assign(content, strata)
    empty = [name for name, count in splits.counts(split).items() if not count]
    if empty:
        raise DataError(
            f"{table.num_rows} rows leave no row for split {', '.join(empty)}",
            where=str(source.path),
            fix="give more rows",
        )
    return split


def _own_split(
    source: sources.Source, split: pa.Array, content: splits.Hashes, strata: npt.NDArray[np.int64]
) -> pa.Array:
    """The table's own split. If it has no val, a fifth of its training rows become val."""
    strange = split.filter(pc.invert(pc.is_in(split, pa.array(SPLITS))))
    if len(strange):
        raise DataError(
            f"column {SPLIT!r} holds {strange[0].as_py()!r}, expected {', '.join(SPLITS)}",
            where=str(source.path),
            why="a column of this name says which rows are which",
            fix="rename the column, or give it these values",
        )
    given = split.to_numpy(zero_copy_only=False)
    if "val" in given:
        return split
    train = given == SPLITS[0]
    given[train] = splits.assign(content[train], strata[train], val=0.2, test=0.0).to_numpy(zero_copy_only=False)
    return pa.array(given, pa.string())


def _duplicates(table: pa.Table, train: pa.Table, found: dict[str, Found]) -> Duplicates:
    """Half as many again as among the training rows, and 0.05; across splits none, unless rows repeat by nature."""
    within = splits.repeats(_content(train, found))
    coarse = splits.repeats(_content(table, found)) > COARSE
    share = 1.0 if coarse else 0.0
    return Duplicates(within=min(1.0, math.ceil((1.5 * within + 0.05) * 100) / 100), across=share, near=share)
