"""569 fine needle aspirates of breast masses, 30 numbers each: malignant or benign (Wisconsin, diagnostic).

From scikit-learn 1.9.1 (BSD), member sklearn/datasets/data/breast_cancer.csv: a head line with the counts and the
names of the classes, then a line a sample: 30 numbers, and the class as its place in the head line. Every number
is there; 212 samples are malignant, 357 benign. The split is ours, about 60/20/20, by a hash of each row, evenly
over the classes.

One row: id 0, mean radius 17.99, mean texture 10.38, … worst fractal dimension 0.1189, diagnosis "malignant",
split "train".
"""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa
from pyarrow import csv

from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations
from . import splits
from .packages import Member

MEMBER = Member(
    "scikit-learn",
    "1.9.1",
    "sklearn/datasets/data/breast_cancer.csv",
    "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed",
)
SOURCE = str(MEMBER)

# Each measure comes as its mean over the cells, its standard error, and the mean of the three largest. The bounds
# of (mean, error, worst) leave room above the largest value in the set: lengths are in pixels, the rest is relative.
BOUNDS = {
    "radius": (60, 6, 80),
    "texture": (80, 10, 100),
    "perimeter": (400, 45, 500),
    "area": (6000, 1200, 10000),
    "smoothness": (0.5, 0.1, 0.5),
    "compactness": (1, 0.5, 2.5),
    "concavity": (1, 1, 2.5),
    "concave points": (0.5, 0.2, 0.6),
    "symmetry": (1, 0.2, 1.5),
    "fractal dimension": (0.5, 0.1, 0.5),
}
FEATURES = {
    **{f"mean {name}": mean for name, (mean, _, _) in BOUNDS.items()},
    **{f"{name} error": error for name, (_, error, _) in BOUNDS.items()},
    **{f"worst {name}": worst for name, (_, _, worst) in BOUNDS.items()},
}


def build(read: Callable[[Member], bytes]) -> pa.Table:
    """Columns id (line of the source after its head, from 0), 30 numbers, diagnosis, split."""
    content = read(MEMBER)
    classes = content.split(b"\n", 1)[0].decode().strip().split(",")[2:]
    lines = csv.read_csv(
        io.BytesIO(content),
        read_options=csv.ReadOptions(skip_rows=1, column_names=[*FEATURES, "diagnosis"]),
        convert_options=csv.ConvertOptions(column_types={**dict.fromkeys(FEATURES, pa.float64()), "diagnosis": "int8"}),
    )
    names = pa.array(classes).take(lines["diagnosis"])
    table = lines.set_column(len(FEATURES), "diagnosis", names)
    split = splits.assign(splits.row_hashes(table), names.to_numpy(zero_copy_only=False))
    return table.add_column(0, "id", pa.array(range(len(table)), pa.int64())).append_column(SPLIT, split)


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="number", min=0, max=568),
            **{name: ColumnRule(kind="number", min=0, max=bound) for name, bound in FEATURES.items()},
            "diagnosis": ColumnRule(role="target", kind="category", values=["benign", "malignant"]),
        },
        class_share=0.3,
    )
