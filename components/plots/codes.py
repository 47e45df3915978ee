"""What codes look like: a linear probe on them beside one on the raw inputs, and a map, coloured by class or cluster.

Legend: N rows, D elements of a code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import codes, tables
from ..contract import Data
from ..model import Model
from . import figures

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH_ROWS = 1024
CLUSTERS = 10  # that a map without labels is coloured by
NAMED = 20  # classes that a map has a colour for; of more it is coloured by cluster
# Okabe and Ito's colours first, and as many others, most of them darker or lighter ones of these.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#8C564B", "#7F7F7F"),
    *("#1B3A5C", "#7A3300", "#00533C", "#8C6100", "#7A3F61", "#A6D8F5", "#F7F1A8", "#595959", "#C9A89F", "#BFBFBF"),
)


@dataclasses.dataclass(frozen=True)
class Coded:
    """Codes of a split's rows; their inputs as plain numbers; the classes' numbers, where there are classes."""

    codes_ND: codes.Floats
    inputs_NE: codes.Floats
    label_N: codes.Labels | None

    def seen(self, what: str) -> codes.Rows:
        assert self.label_N is not None
        return codes.Rows(self.codes_ND if what == "codes" else self.inputs_NE, self.label_N)


def draw(folder: Path, model: Model, data: Data, title: str) -> list[list[Any]]:
    """Write map.png and, where the data has classes, probe.png; returns the probe's table, empty without one."""
    train, test = (coded(model, data.splits[split]) for split in ("train", "test"))
    _map(folder, model, test, title)
    if train.label_N is None or test.label_N is None:
        return []
    probed = {what: codes.probe(train.seen(what), test.seen(what)) for what in ("codes", "raw inputs")}
    made = figures.figure(6.5, 4.2, f"{title}: logistic regression on codes and on raw inputs")
    _bars(made, probed)
    figures.save(made, folder / "probe.png")
    sizes = list(probed["codes"])
    return [["labels", *probed], *([size, *(round(each[size], 6) for each in probed.values())] for size in sizes)]


def coded(model: Model, rows: pa.Table) -> Coded:
    """Rows as the net and as a rival on raw inputs see them."""
    spec, parts = model.spec, list(_batches(model, rows))
    inputs = [tables.tensors(rows, c).flatten(1).numpy().astype(np.float32) for c in spec.columns if c.kind == "tensor"]
    has_classes = bool(spec.classes) and spec.target is not None and spec.target in rows.column_names
    label_N = tables.labels(rows, str(spec.target), spec.classes) if has_classes else None
    return Coded(np.concatenate([model.encode(part) for part in parts]), np.hstack(inputs), label_N)


def _batches(model: Model, rows: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from rows.select([column.name for column in model.spec.columns]).to_batches(max_chunksize=BATCH_ROWS)


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────


def _bars(made: Any, probed: Mapping[str, Mapping[int, float]]) -> None:
    axes, sizes = made.add_subplot(), list(probed["codes"])
    for number, (what, colour) in enumerate(zip(probed, (figures.BLUE, figures.GREY), strict=True)):
        at = np.arange(len(sizes)) + 0.38 * number
        bars = axes.bar(at, [probed[what][size] for size in sizes], width=0.36, color=colour, label=what)
        axes.bar_label(bars, fmt="%.3f", fontsize=8.5, color=figures.INK)
    axes.set_xticks(np.arange(len(sizes)) + 0.19, [f"{size:,}" for size in sizes])
    figures.plain(axes, "labelled training rows", "accuracy on the test rows")
    axes.set_ylim(0, 1.18)
    axes.legend(loc="upper left", frameon=False, ncols=2)


def _map(folder: Path, model: Model, test: Coded, title: str) -> None:
    taken = np.linspace(0, len(test.codes_ND) - 1, min(codes.MAPPED, len(test.codes_ND))).astype(np.int64)
    codes_ND, by_class = test.codes_ND[taken], test.label_N is not None and len(model.spec.classes) <= NAMED
    if by_class and test.label_N is not None:
        group_N, names = test.label_N[taken], list(model.spec.classes)
    else:
        group_N = codes.clustered(codes_ND, CLUSTERS)
        names = [f"cluster {number}" for number in range(int(group_N.max()) + 1)]
    coloured = str(model.spec.target) if by_class else "cluster of k-means"
    made = figures.figure(7.4, 6.4, f"{title}: codes of {len(taken)} test rows (t-SNE), coloured by {coloured}")
    _points(made.add_subplot(), codes.map2(codes_ND), group_N, names)
    figures.save(made, folder / "map.png")


def _points(axes: Any, xy_N2: NDArray[np.float64], group_N: codes.Labels, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        mine = group_N == number
        if mine.any():
            axes.scatter(*xy_N2[mine].T, s=9, linewidths=0, color=COLOURS[number % len(COLOURS)], label=name)
    axes.set_axis_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2.2, fontsize=9)
