"""Tensor columns read in blocks, and what can be said of each tensor in a few numbers. Nothing leaves numpy.

Legend: N rows, E elements of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# Rows of a tensor column that are looked at together: bounds the memory beside the column itself.
BLOCK_ROWS = 1024
LOWEST = 4  # pixels that an image has at least from top to bottom


def blocks(column: pa.ChunkedArray) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """(elements, missing) of a fixed-shape tensor column, BLOCK_ROWS rows at a time.

    Elements have the shape [rows, elements of a row]; missing, [rows], marks rows that hold no tensor.
    """
    size = math.prod(column.type.shape)
    for chunk in column.iterchunks():
        for start in range(0, len(chunk), BLOCK_ROWS):
            block = chunk.slice(start, BLOCK_ROWS)
            # `values` knows nothing of the slice, unlike `flatten`, which would drop missing rows.
            first = block.storage.offset
            flat = block.storage.values.slice(first * size, len(block) * size).to_numpy(zero_copy_only=False)
            yield flat.reshape(len(block), size), block.is_null().to_numpy(zero_copy_only=False)


def is_series(shape: Sequence[int], parts: Sequence[str] = ()) -> bool:
    """Whether a tensor is a series, channels × steps, for people to look at: one that is put together from columns, or
    too low for an image."""
    return len(shape) == 2 and shape[1] > 1 and (bool(parts) or shape[0] < LOWEST)


def is_image(shape: Sequence[int], parts: Sequence[str] = ()) -> bool:
    """Whether a tensor is an image for people to look at."""
    return len(shape) in (2, 3) and min(shape[-2:]) >= LOWEST and not is_series(shape, parts)


def extent(rows_NE: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Each row's smallest and largest element, NaN only where all are NaN, and how many elements are no number."""
    nan = np.isnan(rows_NE).sum(axis=1) if rows_NE.dtype.kind == "f" else np.zeros(len(rows_NE), np.int64)
    return {".min": np.fmin.reduce(rows_NE, axis=1), ".max": np.fmax.reduce(rows_NE, axis=1), ".nan": nan}


def moments(rows_NE: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Mean and deviation of each row's elements; NaN where one of them is."""
    return {".mean": rows_NE.mean(axis=1, dtype=np.float64), ".std": rows_NE.std(axis=1, dtype=np.float64)}
