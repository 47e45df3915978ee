"""What families share that take images and series alike: an image is a grid with two sides, a series one with one.

Any other tensor is a row of numbers, one channel wide: read and scaled like the others, but never changed.

Legend: B rows of a batch, N rows of a split, C channels, S sides: height × width of an image, steps of a series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from . import images, series, tensors
from .contract import Column, Spec
from .errors import BadInput, DataError
from .tables import Rows
from .tables import tensors as read_tensors

FURTHEST = 10  # that a scaled value may be from 0: further out, numbers say no more and might overflow
CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
KERNEL = {1: 7, 2: 3}  # a convolution that sees seven steps looks at fewer numbers than one that sees 3 × 3


def column(spec: Spec) -> Column:
    """The one tensor column. Raises DataError if the inputs are anything else."""
    if len(spec.columns) != 1 or spec.columns[0].kind != "tensor":
        raise DataError(
            "this family takes one column of tensors: images, series, or rows of numbers",
            where=spec.dataset,
            why=f"inputs are {', '.join(f'{c.name} ({c.kind})' for c in spec.columns[:20])}",
            fix="ignore the other columns, or choose another family",
        )
    return spec.columns[0]


def is_image(spec: Spec) -> bool:
    grid = column(spec)
    return tensors.is_image(grid.shape, grid.parts)


def is_series(spec: Spec) -> bool:
    grid = column(spec)
    return len(grid.shape) == 1 or tensors.is_series(grid.shape, grid.parts)


def shape(spec: Spec) -> tuple[int, ...]:
    """C and S."""
    grid = column(spec)
    if is_image(spec):
        return images.shape(grid)
    return series.shape(grid) if is_series(spec) else (1, math.prod(grid.shape))


def read(spec: Spec, rows: Rows) -> torch.Tensor:
    """x_NCS in the column's own dtype, on the CPU."""
    return read_tensors(rows, column(spec)).reshape(-1, *shape(spec))


def augmented(spec: Spec, x_BCS: torch.Tensor, strength: float) -> torch.Tensor:
    """Scaled images moved, turned, scaled and sheared, scaled series stretched, warped and made noisy, each by chance;
    the rest as it is."""
    if is_image(spec):
        return images.augmented(x_BCS, strength)
    return series.augmented(x_BCS, strength) if is_series(spec) else x_BCS


class Scale(nn.Module):
    """Pixels to 0 … 1; of anything else each channel to mean 0 and deviation 1. `fit` has seen the training rows."""

    shift: torch.Tensor
    width: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("width", torch.ones(channels))

    def fit(self, spec: Spec, x_NCS: torch.Tensor) -> None:
        if is_image(spec):
            low, high = images.bounds(x_NCS).tolist()
            self.shift.fill_(low)
            self.width.fill_(high - low)
        else:
            mean_C, deviation_C = series.scale(x_NCS.float())
            self.shift.copy_(torch.tensor(mean_C))
            self.width.copy_(torch.tensor(deviation_C))

    def forward(self, x_NCS: torch.Tensor) -> torch.Tensor:
        """Float32, on the CPU. Raises BadInput if a value is not finite."""
        x_NCS = x_NCS.float()
        if not x_NCS.isfinite().all():
            raise BadInput("rows hold numbers that are not finite")
        shift, width = (each.cpu().reshape(-1, *[1] * (x_NCS.ndim - 2)) for each in (self.shift, self.width))
        return x_NCS.sub(shift).div(width).clamp(-FURTHEST, FURTHEST)


def halves(sides: Sequence[int], times: int) -> tuple[int, ...]:
    """Sides that are left after so many convolutions of stride 2."""
    return tuple((side + 2**times - 1) // 2**times for side in sides)
