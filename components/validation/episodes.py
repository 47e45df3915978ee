"""Recorded episodes of an environment: which column is what, and whether values lie in the environment's spaces.

One row is one step: `observation` before `action`, then `reward`, `terminated` and `truncated`; `episode` and `step`
count both from 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from .. import environments
from ..contract import SPLITS, Data, Spec
from ..datasets.episodes import ACTION, OBSERVATION
from ..errors import DataError
from ..tensors import blocks


def outside(data: Data) -> pd.DataFrame:
    """For each row, train first, how many elements of its observation and action lie outside their spaces.

    Columns observation.outside and action.outside, where the rows have such a column; one of another shape than the
    space's lies outside as a whole. Raises DataError if there is no such environment, or a space is neither of
    numbers nor of choices.
    """
    tables = [data.splits[name] for name in SPLITS if name in data.splits]
    found = {}
    for name, (low, high, whole) in _spaces(data.spec).items():
        if tables and all(name in table.schema.names for table in tables):
            counts = [_outside(table.column(name), low, high, whole) for table in tables]
            found[f"{name}.outside"] = np.concatenate(counts)
    return pd.DataFrame(found)


def _spaces(spec: Spec) -> dict[str, tuple[NDArray[Any], NDArray[Any], bool]]:
    """(lowest, highest, whole numbers only) of the observation's and the action's elements."""
    made = environments.opened(spec)
    spaces = {OBSERVATION: made.observation_space, ACTION: made.action_space}
    made.close()
    return {name: _bounds(space, f"{spec.environment} {name}") for name, space in spaces.items()}


def _bounds(space: Any, where: str) -> tuple[NDArray[Any], NDArray[Any], bool]:
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return space.low.ravel(), space.high.ravel(), space.dtype.kind in "iu"
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        first = np.ravel(space.start)
        return first, first + np.ravel(getattr(space, "nvec", getattr(space, "n", 0))) - 1, True
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return np.zeros(size), np.ones(size), True
    raise DataError(
        f"a space of kind {type(space).__name__} cannot be checked",
        where=where,
        fix="flatten it with gymnasium.wrappers.FlattenObservation",
    )


def _outside(column: pa.ChunkedArray, low_E: NDArray[Any], high_E: NDArray[Any], whole: bool) -> NDArray[np.int64]:
    """Rows of E elements; an element that is missing counts as outside."""
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType) and math.prod(kind.shape) == low_E.size:
        parts = [elements for elements, _ in blocks(column)]
        low_E, high_E = (_recorded(edge_E, kind.value_type) for edge_E in (low_E, high_E))
    elif low_E.size == 1 and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        parts = [column.to_numpy()[:, None]]
    else:
        return np.full(len(column), low_E.size)
    inside = [(part >= low_E) & (part <= high_E) & ((part == np.floor(part)) | (not whole)) for part in parts]
    return np.concatenate([np.zeros(0, np.int64), *((~i).sum(axis=1) for i in inside)])


def _recorded(edge_E: NDArray[Any], kind: pa.DataType) -> NDArray[Any]:
    """An edge as rows of that type have it: float32 may have 0.1 a little above what float64 has."""
    with np.errstate(over="ignore"):  # the largest float64 is no bound
        return edge_E.astype(kind.to_pandas_dtype()) if pa.types.is_floating(kind) else edge_E
