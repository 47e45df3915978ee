"""What families that look at series share: reading the column of series, and changing training series a little.

Legend: B series of a batch, N rows of a split, C channels, T steps.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from .contract import Column, Spec
from .errors import BadInput, DataError
from .tables import Rows, tensors

# Most that `augmented` does: noise in deviations, a share of the height, a share of half the length.
NOISE, STRETCH, WARP = 0.05, 0.2, 0.1
WAVES = 3


def column(spec: Spec) -> Column:
    """The one column of series. Raises DataError if the inputs are anything else."""
    if len(spec.columns) != 1 or spec.columns[0].kind != "tensor" or len(spec.columns[0].shape) not in (1, 2):
        raise DataError(
            "this family takes one column of series (channels × steps)",
            where=spec.dataset,
            why=f"inputs are {', '.join(f'{c.name} ({c.kind})' for c in spec.columns[:20])}",
            fix="of a wide table: name its columns by `series` in the dataset's block of params.yaml, and ignore the "
            "other columns; or choose another family",
        )
    return spec.columns[0]


def shape(series: Column) -> tuple[int, int]:
    channels, steps = (1, *series.shape)[-2:]
    return channels, steps


def read(spec: Spec, rows: Rows) -> torch.Tensor:
    """x_NCT in float32, on the CPU. Raises BadInput if a value is not finite."""
    series = column(spec)
    x_NCT = tensors(rows, series).reshape(-1, *shape(series)).float()
    if not x_NCT.isfinite().all():
        raise BadInput("series hold values that are not finite")
    return x_NCT


def scale(x_NCT: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel over all rows and steps; a channel of one value has deviation 1."""
    x_CE = x_NCT.transpose(0, 1).flatten(1).double()
    deviation_C = x_CE.std(1, correction=0)
    return x_CE.mean(1).tolist(), torch.where(deviation_C > 0, deviation_C, 1.0).tolist()


def augmented(x_BCT: torch.Tensor, strength: float) -> torch.Tensor:
    """Each standardised series with noise, higher or lower by a share of its own, and its time smoothly warped.

    Noise and scaling after Um et al. 2017, "Data augmentation of wearable sensor data"; time runs along a few sine
    waves of random height, which keep the ends in place and never run backwards, instead of along a spline.
    """
    if not strength:
        return x_BCT
    count, _, steps = x_BCT.shape
    higher_B = 1 + strength * STRETCH * (2 * torch.rand(count, device=x_BCT.device) - 1)
    wave_W = torch.arange(1, WAVES + 1, device=x_BCT.device)
    height_BW = strength * WARP * (2 * torch.rand(count, WAVES, device=x_BCT.device) - 1) / wave_W
    time_T = torch.linspace(-1, 1, steps, device=x_BCT.device)
    bend_WT = torch.sin(math.pi / 2 * wave_W[:, None] * (time_T + 1))
    time_BT = time_T + height_BW @ bend_WT
    grid_B1T2 = torch.stack([time_BT, torch.zeros_like(time_BT)], 2)[:, None]
    warped = functional.grid_sample(x_BCT[:, :, None], grid_B1T2, padding_mode="border", align_corners=True)[:, :, 0]
    return warped * higher_B[:, None, None] + strength * NOISE * torch.randn_like(x_BCT)


def mixed(x_BCT: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """mixup (Zhang et al. 2018): each series with a share of another one of its batch. Returns the mixture, which row
    the other is, and the share that is the series' own; `alpha` 0 mixes nothing."""
    count = len(x_BCT)
    if not alpha:
        return x_BCT, torch.arange(count, device=x_BCT.device), torch.ones(count, device=x_BCT.device)
    other_B = torch.randperm(count).to(x_BCT.device)
    drawn_B = torch.distributions.Beta(alpha, alpha).sample((count,)).to(x_BCT.device)
    share_B = torch.maximum(drawn_B, 1 - drawn_B)
    return torch.lerp(x_BCT[other_B], x_BCT, share_B[:, None, None]), other_B, share_B
