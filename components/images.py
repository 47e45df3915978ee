"""What families that look at images share: reading and scaling the image column, and changing training images a little.

Legend: B images of a batch, N rows of a split, C channels, H height, W width.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from .contract import Column, Spec
from .errors import BadInput, DataError
from .tables import Rows, tensors


def column(spec: Spec) -> Column:
    """The one image column. Raises DataError if the inputs are anything else."""
    if len(spec.columns) != 1 or spec.columns[0].kind != "tensor" or len(spec.columns[0].shape) not in (2, 3):
        raise DataError(
            "this family takes one column of images (channels × height × width, or height × width)",
            where=spec.dataset,
            why=f"inputs are {', '.join(f'{c.name} ({c.kind})' for c in spec.columns)}",
            fix="ignore the other columns, or choose another family",
        )
    return spec.columns[0]


def shape(image: Column) -> tuple[int, int, int]:
    channels, height, width = (1, *image.shape)[-3:]
    return channels, height, width


def read(spec: Spec, rows: Rows) -> torch.Tensor:
    """x_NCHW in the column's own dtype, on the CPU."""
    image = column(spec)
    return tensors(rows, image).reshape(-1, *shape(image))


def bounds(x_NCHW: torch.Tensor) -> torch.Tensor:
    """The pixel values that `scaled` maps to 0 and 1: bytes have bounds of their own, others those of these images."""
    if x_NCHW.dtype == torch.uint8:
        return torch.tensor([0.0, 255.0])
    low, high = float(x_NCHW.min()), float(x_NCHW.max())
    return torch.tensor([low, high if high > low else low + 1])


def scaled(x_NCHW: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """Float32, from 0 to 1 within the bounds. Raises BadInput if a pixel is not finite."""
    low, high = bounds.tolist()
    x_NCHW = x_NCHW.float()
    if not x_NCHW.isfinite().all():
        raise BadInput("images hold pixels that are not finite")
    return x_NCHW.sub(low).div(high - low).clamp(-10, 10)  # further out, numbers say no more and might overflow


def rows(spec: Spec, x_NCHW: torch.Tensor, bounds: torch.Tensor) -> pa.RecordBatch:
    """Images in [0, 1] as rows of the dataset: what `read` and `scaled` made them from, in its type and range."""
    image = column(spec)
    low, high = bounds.tolist()
    dtype = np.dtype(image.dtype)
    x = x_NCHW.detach().cpu().double().clamp(0, 1).mul(high - low).add(low).numpy()
    x = (np.rint(x) if dtype.kind in "iu" else x).astype(dtype).reshape(len(x), math.prod(image.shape))
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(dtype), image.shape)
    cells = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), math.prod(image.shape))
    return pa.RecordBatch.from_arrays([pa.ExtensionArray.from_storage(kind, cells)], names=[image.name])


def augmented(
    x_BCHW: torch.Tensor, strength: float, flip: bool = False, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Each image under a small random affine map of its own, bilinearly; beyond its border its edge goes on.
    `generator`: in place of torch's global one."""
    if not strength and not flip:
        return x_BCHW
    count, _, height, width = x_BCHW.shape
    drawn = functools.partial(torch.rand, device=x_BCHW.device, generator=generator)
    move_B2, turn_B, grow_B, shear_B = (
        (drawn(shape) * 2 - 1) * strength * most
        for shape, most in (((count, 2), 0.2), (count, math.radians(12)), (count, 0.15), (count, 0.15))
    )
    mirror_B = 1 - 2.0 * (drawn(count) < 0.5) if flip else torch.ones_like(turn_B)
    cos_B, sin_B, scale_B = turn_B.cos(), turn_B.sin(), 1 + grow_B
    across_B, down_B = (shear_B - sin_B) * height / width, sin_B * width / height  # from pixels to the grid's -1 to 1
    rows = [cos_B * scale_B * mirror_B, across_B * scale_B, down_B * scale_B * mirror_B, cos_B * scale_B]
    map_B23 = torch.cat([torch.stack(rows, 1).reshape(count, 2, 2), move_B2[:, :, None]], 2)
    grid = functional.affine_grid(map_B23, list(x_BCHW.shape), align_corners=False)
    return functional.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)


def moved(x_BCHW: torch.Tensor, share: float) -> torch.Tensor:
    """Each image moved by up to this share of its sides, whole pixels. What comes in is 0."""
    if not share:
        return x_BCHW
    count, _, height, width = x_BCHW.shape
    far = [round(side * share) for side in (height, width)]
    padded_BHWC = functional.pad(x_BCHW, (far[1], far[1], far[0], far[0])).permute(0, 2, 3, 1)
    down_B11, across_B11 = (torch.randint(0, 2 * most + 1, (count, 1, 1), device=x_BCHW.device) for most in far)
    of_B11, down_H1, across_W = (torch.arange(size, device=x_BCHW.device) for size in (count, height, width))
    moved_BHWC = padded_BHWC[of_B11[:, None, None], down_B11 + down_H1[:, None], across_B11 + across_W]
    return moved_BHWC.permute(0, 3, 1, 2)
