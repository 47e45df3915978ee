"""gan: two nets that learn from each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from components.contract import Data

from .cases import Case, images, one_thread  # noqa: F401


def bars(dtype: str = "uint8", low: float = 0, high: float = 250) -> Data:
    """Bars without the noise behind them, which a small generator does not make."""
    data = images("generation")
    splits = {}
    for split, rows in data.splits.items():
        pixels = np.where(rows["image"].combine_chunks().to_numpy_ndarray() > 100, high, low).astype(dtype)
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
        splits[split] = rows.set_column(rows.schema.get_field_index("image"), "image", column)
    (column_spec,) = data.spec.columns
    return Data(dataclasses.replace(data.spec, columns=(dataclasses.replace(column_spec, dtype=dtype),)), splits)


BARS = bars()
SMALL = {"width": 16, "latent": 16, "batch_rows": 16, "passes": 4, "lr": 2e-3}
# Sixteen images by heart: the distance of what is made from those alone, where independent pixels have about 70.
HEART = {**SMALL, "augment": 0.0, "passes": 60}
CASES = [
    Case("hinge", BARS, SMALL, HEART, reached=35.0, epochs=8, heart_epochs=20),
    Case(
        "wasserstein",
        BARS,
        {**SMALL, "loss": "wasserstein", "critic_steps": 2},
        {**HEART, "loss": "wasserstein"},
        reached=40.0,
        epochs=8,
        heart_epochs=20,
    ),
]
