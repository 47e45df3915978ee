"""What comes of rows that families of images made, and of those that the trivial rival makes.

Legend: N rows, E elements of an image, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import torch

from . import fidelity, images
from .contract import Data, Metrics, Outcomes

SEED = 2020  # of what is made to be judged: two nets make theirs from the same noise


def judged(data: Data, split: str, made: Callable[[int, int], pa.RecordBatch]) -> Outcomes:
    """What comes of the split's images and as many rows that `made(count, seed)` gives."""
    judge, real = fidelity.judge(data), images.read(data.spec, data.splits[split])
    made_NCHW = images.read(data.spec, made(len(real), SEED))
    return fidelity.outcomes(judge, *(images.scaled(x_NCHW, judge.bounds) for x_NCHW in (real, made_NCHW)))


def baseline(data: Data, split: str) -> Metrics:
    """What images come to whose pixels are drawn one by one, each from the training images' pixels at its place."""
    train = images.read(data.spec, data.splits["train"])
    bounds, values_NE = images.bounds(train), train.flatten(1)

    def made(count: int, seed: int) -> pa.RecordBatch:
        draw = torch.Generator().manual_seed(seed)
        rows_NE = torch.randint(len(values_NE), (count, values_NE.shape[1]), generator=draw)
        drawn_NCHW = values_NE.gather(0, rows_NE).reshape(count, *train.shape[1:])
        return images.rows(data.spec, images.scaled(drawn_NCHW, bounds), bounds)

    return fidelity.measure(judged(data, split, made), split)
