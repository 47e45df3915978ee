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
`split` with train, val and test overrules it. With `user: COLUMN` and `item: COLUMN` the target is a rating: a number,
whatever its values, and the split a hash of the pair, so that nobody is tested on what they have rated before. With
`text: COLUMN` the target may be a text too: the split is then a hash of the bare text that is read, which may stand
there with several targets, so that nothing is tested that was learnt with another target.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import letters
from ..contract import SPLIT, SPLITS, Column, Json
from ..errors import DataError, ParamsError
from ..expectations import Duplicates, Expectations
from ..params import DatasetBlock
from ..workspace import Workspace
from . import bounds, inference, promises, rated, series, sources, splits
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
    single = {"target": block.target, "text": block.text, "id": block.id, "user": block.user, "item": block.item}
    for key, column in [*single.items(), *(("ignore", column) for column in block.ignore)]:
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
    pair = {"ratings": list(rated.pair(stated) or ())} if stated.ratings else {}  # which the split hangs on
    return {"columns": rules, "source": source.sha256(workspace.state / "hashes")} | pair


def build(source: sources.Source, stated: Expectations) -> pa.Table:
    """All rows as the expectations say, in the order of the source, with the split of each.

    Raises DataError if a column is missing or holds a value of another kind, or the target says nothing.
    """
    found = {
        name: Found(
            None if rule.kind == "text" and not rule.is_learnt_text else rule.kind,
            rule.role,
            rule.dtype,
            rule.shape,
            parts=rule.parts,
        )
        for name, rule in stated.columns.items()
    }
    table = _typed(source, found)
    target = _target(found)
    inference.check_complete(table[target], target, source.path)
    if pc.count_distinct(table[target]).as_py() < 2:
        raise DataError(
            f"target {target!r} has one value only, {table[target][0].as_py()!r}",
            where=str(source.path),
            fix="give rows of another class as well",
        )
    split = _split(source, table, found, rated.pair(stated))
    return table.select(list(found)).append_column(SPLIT, split)


def infer(source: sources.Source, block: DatasetBlock) -> tuple[Expectations, dict[str, str]]:
    """What the table's training rows promise, and remarks on single columns."""
    raw = source.raw()
    if not raw.num_rows:
        raise DataError("an empty table", where=str(source.path), fix="give a table with rows")
    readings = inference.readings(raw.select([n for n in raw.column_names if n != SPLIT]), block.ignore)
    readings |= {name: replace(readings[name], parts=made.parts) for name, made in source.assembled().items()}
    fixed = _fixed(source, raw, readings, block)
    pair = (block.user, block.item) if block.user and block.item else None
    found, table, split = _settle(source, raw, readings, fixed, pair)
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
    if pair:
        promised = rated.promised(promised, table, split, pair)
    return promised, {name: kind.remark for name, kind in found.items()}


# ── roles and kinds ─────────────────────────────────────────────────────────────────────────────────────


def _check_roles(name: str, block: DatasetBlock, stated: Expectations) -> None:
    wanted = {column: "ignored" for column in block.ignore if column in stated.columns}
    named = ((block.target, "target"), (block.id, "id"))
    inputs = (block.text, block.user, block.item)
    wanted |= {column: role for column, role in (*named, *((column, "input") for column in inputs)) if column}
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
    rated.check_agreed(name, block, stated)


def _fixed(source: sources.Source, raw: pa.Table, readings: dict[str, Found], block: DatasetBlock) -> dict[str, Found]:
    """The columns whose role does not depend on the split: ignored, id, target, and a text to learn from with which
    all others are ignored."""
    target = str(series.target(block))
    fixed = {name: replace(readings[name], role="ignored") for name in block.ignore if name in readings}
    pair = [name for name in (block.user, block.item) if name]
    id = block.id or inference.find_id(raw, readings, {target, str(block.text), *block.ignore, *pair})
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
    inference.check_complete(raw[target], target, source.path)
    if pair:
        rated.check(source.path, readings, target, block)
        fixed |= {name: Found("category") for name in pair} | {target: Found("number", "target")}
        return fixed | _read(source, raw, readings, block, fixed[target])
    fixed[target] = inference.target(raw[target], readings[target], f"{source.path} {target}", bool(block.text))
    if block.text:
        fixed |= _read(source, raw, readings, block, fixed[target])
        why = f"not learnt from, since params.yaml names the text {block.text!r}"
        fixed |= {n: replace(r, role="ignored", remark=why) for n, r in readings.items() if n not in fixed}
    return fixed


def _read(
    source: sources.Source, raw: pa.Table, readings: dict[str, Found], block: DatasetBlock, target: Found
) -> dict[str, Found]:
    """The text to learn from, if there is one."""
    if not block.text:
        return {}
    if target.kind == "text":
        inference.check_order(raw, block.text, str(block.target), source.path)
    return {block.text: inference.text(raw[block.text], readings[block.text], f"{source.path} {block.text}", target)}


def _settle(
    source: sources.Source,
    raw: pa.Table,
    readings: dict[str, Found],
    fixed: dict[str, Found],
    pair: tuple[str, str] | None,
) -> tuple[dict[str, Found], pa.Table, pa.Array]:
    """Kinds learnt from the training rows, and the split, each of which depends on the other."""
    found = {**readings, **fixed}
    for _ in range(_ROUNDS):
        table = _typed(source, found)
        split = _split(source, table, found, pair)
        open_ = {name: reading for name, reading in readings.items() if name not in fixed}
        kinds = inference.kinds(raw.select(list(open_)).filter(pc.equal(split, SPLITS[0])), open_)
        settled = {**readings, **kinds, **fixed}
        if settled == found:
            break
        found = settled
    else:
        table = _typed(source, found)
        split = _split(source, table, found, pair)
    return found, table, split


def _typed(source: sources.Source, found: dict[str, Found]) -> pa.Table:
    wanted = [kind.column(name) for name, kind in found.items() if kind.role != "id"]
    if SPLIT in source.names:
        wanted.append(Column(SPLIT, "category"))
    return source.typed(wanted, _role(found, "id"))


def _role(found: dict[str, Found], role: str) -> str | None:
    return next((name for name, kind in found.items() if kind.role == role), None)


def _target(found: dict[str, Found]) -> str:
    return next(name for name, kind in found.items() if kind.role == "target")


# ── split ───────────────────────────────────────────────────────────────────────────────────────────────


def _content(table: pa.Table, found: dict[str, Found], roles: Collection[str] = ("input", "target")) -> splits.Hashes:
    """One hash a row of what is learnt from: inputs and target."""
    learnt = [name for name, kind in found.items() if kind.role in roles and kind.kind]
    table = table.select(learnt)
    for at, name in enumerate(learnt):
        if found[name].kind == "text":  # texts that differ in case, signs and spaces alone fall into one split
            table = table.set_column(at, name, pa.array(letters.bare(table[name].to_pylist()), pa.string()))
    return splits.row_hashes(table)


def _split(source: sources.Source, table: pa.Table, found: dict[str, Found], pair: tuple[str, str] | None) -> pa.Array:
    target, kind = table[_target(found)], found[_target(found)].kind
    one = pair or kind == "text"  # a pair or a text that may come with several targets, and must stay in one split
    if pair:
        content = splits.row_hashes(table.select(pair))
    else:
        content = _content(table, found, ("input",) if one else ("input", "target"))
    if not one and splits.repeats(content) > COARSE:
        content = splits.apart(content)
    if one:
        strata = np.zeros(table.num_rows, np.int64)
    elif kind == "category":
        strata = pc.dictionary_encode(target).combine_chunks().indices.to_numpy()
    else:  # numbers: fifths of their range of ranks
        numbers = target.to_numpy()
        strata = np.digitize(numbers, np.quantile(numbers, (0.2, 0.4, 0.6, 0.8)))
    if SPLIT in table.column_names:
        split = splits.given(table[SPLIT].combine_chunks(), content, strata, str(source.path))
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


def _duplicates(table: pa.Table, train: pa.Table, found: dict[str, Found]) -> Duplicates:
    """Half as many again as among the training rows, and 0.05; across splits none, unless rows repeat by nature."""
    within = splits.repeats(_content(train, found))
    coarse = found[_target(found)].kind != "text" and splits.repeats(_content(table, found)) > COARSE
    share = 1.0 if coarse else 0.0
    return Duplicates(within=min(1.0, math.ceil((1.5 * within + 0.05) * 100) / 100), across=share, near=share)
