"""A table of ratings: what it promises beside its columns, and what must be so for it to be one.

datasets:
  books: {table: ratings.csv, user: reader, item: book, target: stars}
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract import SPLITS
from ..errors import DataError, ParamsError
from ..expectations import Expectations, Ratings
from ..params import DatasetBlock
from . import splits
from .inference import Found


def check(path: Path, readings: dict[str, Found], target: str, block: DatasetBlock) -> None:
    """Raise ParamsError if a column has two roles, DataError if the ratings are no numbers."""
    roles = [name for name in (block.user, block.item, target, block.id, *block.ignore) if name]
    twice = sorted({name for name in roles if roles.count(name) > 1})
    if twice:
        raise ParamsError(
            f"column {twice[0]!r} has two roles", where="params.yaml", fix="name another column for one of them"
        )
    if readings[target].kind != "number":
        raise DataError(
            f"target {target!r} holds no numbers",
            where=str(path),
            why="with `user` and `item` it is a rating",
            fix="name the column of the ratings, or leave `user` and `item` out",
        )
    for name in (block.user, block.item):
        if name not in readings:
            raise DataError(f"column {name!r} is of no use as a user or an item", where=str(path), fix="name another")


def pair(stated: Expectations) -> tuple[str, str] | None:
    """The columns of user and item, where the target is a rating."""
    return (stated.ratings.user, stated.ratings.item) if stated.ratings else None


def check_agreed(name: str, block: DatasetBlock, stated: Expectations) -> None:
    """Raise ParamsError if params.yaml and the expectations differ on who rates what."""
    if (block.user, block.item) == (pair(stated) or (None, None)):
        return
    raise ParamsError(
        f"params.yaml says that {block.item or 'nothing'!r} is rated by {block.user or 'nobody'!r}, "
        f"expectations/{name}.yaml says {' by '.join(reversed(pair(stated) or ('nobody', 'nothing')))}",
        where=f"params.yaml datasets.{name}",
        fix=f"make them agree, or delete expectations/{name}.yaml to have it inferred anew",
    )


def promised(stated: Expectations, table: pa.Table, split: pa.Array, named: tuple[str, str]) -> Expectations:
    """With what all ratings promise. Any user and any item may come, a rating only as high or low as there are now:
    a scale is known from all rows, not learnt. Half as many cold ones again as there are now, and 0.05."""
    target = str(stated.column("target"))
    scale = pc.min_max(table[target]).as_py()
    rules = dict(stated.columns)
    rules |= {name: rules[name].model_copy(update={"values": None}) for name in named}
    rules[target] = rules[target].model_copy(update=scale)
    pairs, split_N = splits.row_hashes(table.select(named)), split.to_numpy(zero_copy_only=False)
    repeats = max(splits.repeats(pairs[split_N == name]) for name in SPLITS)
    users, items = (_cold(table[name], split_N) for name in named)
    found = Ratings(
        user=named[0],
        item=named[1],
        repeats=_slack(repeats) if repeats else 0.0,
        cold_users=_slack(users),
        cold_items=_slack(items),
    )
    return stated.model_copy(update={"columns": rules, "ratings": found})


def _cold(values: pa.ChunkedArray, split_N: np.ndarray) -> float:
    """The highest share of rows of val and of test whose value no training row has."""
    known = pc.is_in(values, pc.unique(values.filter(pa.array(split_N == SPLITS[0])))).to_numpy()
    return max(1 - float(known[split_N == name].mean()) for name in SPLITS[1:])


def _slack(share: float) -> float:
    return min(1.0, math.ceil((1.5 * share + 0.05) * 100) / 100)
