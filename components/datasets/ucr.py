"""Series of the UCR archive (Dau et al. 2019), as aeon 1.6.0 (BSD) ships them: what its datasets have in common.

A `.ts` file has a head (lines that begin with # or @), then a line a series: its values, a colon, its class. Each
dataset has an official split into training and test series; a third of the training series, by a hash of each, evenly
over the classes, is val here. With so few series that is much: families that are told to (`whole`) let val choose
settings only, and serve a net that has learnt from all the official training series.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..contract import SPLIT
from ..errors import DataError
from ..expectations import ColumnRule, Duplicates, Expectations
from . import splits
from .packages import Member

VAL = 1 / 3


@dataclass(frozen=True)
class Archive:
    """One dataset: its two files, how many series it has in all and of how many steps, its classes, and what no value
    is beyond. `repeated`: the share of the series of a split that are there twice in the source."""

    train: Member
    test: Member
    rows: int
    steps: int
    classes: tuple[str, ...]
    bound: float
    repeated: float = 0.0

    def build(self, read: Callable[[Member], bytes]) -> pa.Table:
        """Columns id (number of the series, training series first), series [1, steps], class, split."""
        parts = [_parsed(member, read(member), self.steps) for member in (self.train, self.test)]
        series = np.concatenate([values for values, _ in parts])
        names = pa.array([name for _, classes in parts for name in classes], pa.string())
        rows = pa.table({"series": pa.FixedShapeTensorArray.from_numpy_ndarray(series), "class": names})
        official = len(parts[0][0])
        hashes = splits.row_hashes(rows)[:official]
        mine = splits.assign(hashes, names[:official].to_numpy(zero_copy_only=False), val=VAL, test=0.0)
        split = pa.concat_arrays([mine, pa.array(["test"] * (len(rows) - official), pa.string())])
        return rows.add_column(0, "id", pa.array(range(len(rows)), pa.int64())).append_column(SPLIT, split)

    def expectations(self) -> Expectations:
        shape, bound = (1, self.steps), self.bound
        return Expectations(
            columns={
                "id": ColumnRule(role="id", kind="number", min=0, max=self.rows - 1),
                "series": ColumnRule(kind="tensor", dtype="float32", shape=shape, min=-bound, max=bound),
                "class": ColumnRule(role="target", kind="category", values=list(self.classes)),
            },
            class_share=0.5 / len(self.classes),
            duplicates=Duplicates(within=self.repeated),
        )


def member(path: str, sha256: str) -> Member:
    return Member("aeon", "1.6.0", f"aeon/datasets/data/{path}", sha256)


def _parsed(source: Member, content: bytes, steps: int) -> tuple[np.ndarray, list[str]]:
    """Series [rows, 1, steps] and the class of each."""
    lines = [line.strip() for line in content.decode().splitlines()]
    pairs = [line.rpartition(":") for line in lines if line and line[0] not in "#@"]
    series = [np.array(values.split(","), np.float32) for values, _, _ in pairs]
    if any(len(one) != steps for one in series):
        raise DataError(f"a series that has not {steps} steps", where=str(source))
    return np.stack(series)[:, None], [name for _, _, name in pairs]
