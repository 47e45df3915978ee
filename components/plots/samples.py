"""Rows that a generative model made, beside real ones; and where its family can decode, walks from row to row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..contract import Column, Latent, Spec
from ..tensors import is_image, is_series
from . import figures

if TYPE_CHECKING:
    from . import Seen

SHOWN, COLUMNS = 64, 8  # made rows of a plot, and real ones
WALKS, STEPS = 8, 8  # walks of a plot, and rows that are made along each
MOST, ACROSS = 100, 10  # rows of a picture of samples alone
SEED = 0
GAP = 2  # pixels between two images

Values = NDArray[Any]  # of one row: an image or a series


def draw(folder: Path, seen: Seen) -> None:
    """samples.png, and walk.png where the family can decode; nothing of rows that nobody can look at."""
    column = _looked_at(seen.spec)
    if column is None:
        return
    real, made = _values(seen.rows.slice(0, SHOWN), column), _values(seen.model.sample(SHOWN, SEED), column)
    lines = [
        [*real[at : at + COLUMNS], None, *made[at : at + COLUMNS]] for at in range(0, min(len(real), SHOWN), COLUMNS)
    ]
    title = f"{seen.title}: test rows on the left, made rows on the right"
    figures.save(_grid(lines, column, title), folder / "samples.png")
    if isinstance(seen.model.family, Latent) and len(real) > 1:
        title = f"{seen.title}: from a test row to another, and what the codes between them stand for"
        figures.save(_grid(_walks(seen, column), column, title), folder / "walk.png")


def picture(spec: Spec, rows: pa.Table, title: str) -> Figure | None:
    """A grid of the first MOST rows; None of rows that nobody can look at."""
    column = _looked_at(spec)
    if column is None:
        return None
    values = _values(rows.slice(0, MOST), column)
    return _grid([values[at : at + ACROSS] for at in range(0, len(values), ACROSS)], column, title)


def _walks(seen: Seen, column: Column) -> list[list[Values | None]]:
    """Each line: a test row, STEPS decoded codes that lie evenly between its code and another's, and the other row."""
    few = seen.rows.slice(0, 2 * WALKS).select([column.name]).combine_chunks()
    codes_ND = seen.model.encode(few.to_batches()[0])
    pairs = [(at, at + 1) for at in range(0, len(codes_ND) - 1, 2)]
    share_S = np.linspace(0, 1, STEPS)[:, None]
    between = [codes_ND[a] + share_S * (codes_ND[b] - codes_ND[a]) for a, b in pairs]
    made = _values(seen.model.decode(np.concatenate(between).astype(np.float32)), column)
    real = _values(few, column)
    return [
        [real[a], None, *made[line * STEPS : (line + 1) * STEPS], None, real[b]] for line, (a, b) in enumerate(pairs)
    ]


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


def _looked_at(spec: Spec) -> Column | None:
    """The one input, if it is an image or a series."""
    (column, *others) = spec.columns
    looks = column.kind == "tensor" and (is_image(column.shape, column.parts) or is_series(column.shape, column.parts))
    return column if looks and not others else None


def _values(rows: pa.Table | pa.RecordBatch, column: Column) -> list[Values]:
    found = rows.column(column.name)
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return list(found.to_numpy_ndarray()) if len(found) else []


def _grid(lines: Sequence[Sequence[Values | None]], column: Column, title: str) -> Figure:
    """Lines of rows, all in one range of values; None leaves a place free."""
    across, down = max((len(line) for line in lines), default=1), max(1, len(lines))
    if not is_image(column.shape, column.parts):
        made = figures.figure(1.3 * across, 1.2 * down + 0.6, title)
        flat = [np.zeros((1, 2)) * np.nan if value is None else value for line in lines for value in line]
        figures.strips(made, flat, [""] * len(flat), across)
        return made
    channels, height, width = (1, *column.shape)[-3:]
    values = [value for line in lines for value in line if value is not None]
    low, high = (min(v.min() for v in values), max(v.max() for v in values)) if values else (0, 1)
    white = np.zeros if channels == 1 else np.ones  # a single channel is drawn as ink on paper
    sheet = white((down * (height + GAP) - GAP, across * (width + GAP) - GAP, channels if channels == 3 else 1))
    for top, line in enumerate(lines):
        for left, value in enumerate(line):
            if value is not None:
                scaled = (value.reshape(channels, height, width).astype(np.float64) - low) / (float(high - low) or 1.0)
                at = (slice(top * (height + GAP), None), slice(left * (width + GAP), None))
                sheet[at][:height, :width] = np.moveaxis(scaled[: sheet.shape[2]], 0, -1)
    inches = 11.0
    made = figures.figure(inches, inches * sheet.shape[0] / sheet.shape[1] + 0.5, title)
    axes = made.add_subplot()
    axes.set_axis_off()
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    return made
