"""Encoders and decoders of grids (components/grids.py), as pairs: from rows to codes and back.

The encoder ends in a linear layer, and so does the decoder, which gives rows as they were scaled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import nn

from . import grids

Pair: TypeAlias = tuple[nn.Sequential, nn.Sequential]


def convolutional(channels: int, sides: Sequence[int], width: int, code: int) -> Pair:
    """Strides halve the sides twice, nearest neighbours double them again."""
    axes, half, quarter = len(sides), grids.halves(sides, 1), grids.halves(sides, 2)
    convolution, norm, kernel = grids.CONVOLUTION[axes], grids.BATCH_NORM[axes], grids.KERNEL[axes]
    cells, pad = 2 * width * math.prod(quarter), kernel // 2
    encoder = nn.Sequential(
        *_layer(convolution(channels, width, kernel, 2, pad, bias=False), norm(width)),
        *_layer(convolution(width, 2 * width, kernel, 2, pad, bias=False), norm(2 * width)),
        nn.Flatten(),
        nn.Linear(cells, code),
    )
    decoder = nn.Sequential(
        *_layer(nn.Linear(code, cells, bias=False), nn.BatchNorm1d(cells)),
        nn.Unflatten(1, (2 * width, *quarter)),
        nn.Upsample(half),
        *_layer(convolution(2 * width, width, kernel, 1, pad, bias=False), norm(width)),
        nn.Upsample(tuple(sides)),
        convolution(width, channels, kernel, 1, pad),
    )
    return encoder, decoder


def dense(channels: int, sides: Sequence[int], width: int, code: int) -> Pair:
    """Two hidden layers on either side of the code."""
    wide = [channels * math.prod(sides), 32 * width, 16 * width]
    down = [
        layer for a, b in itertools.pairwise(wide) for layer in _layer(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b))
    ]
    encoder = nn.Sequential(nn.Flatten(), *down, nn.Linear(wide[-1], code))
    back = [code, *wide[:0:-1]]
    up = [
        layer for a, b in itertools.pairwise(back) for layer in _layer(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b))
    ]
    return encoder, nn.Sequential(*up, nn.Linear(wide[1], wide[0]), nn.Unflatten(1, (channels, *sides)))


def _layer(weights: nn.Module, norm: nn.Module) -> tuple[nn.Module, ...]:
    return weights, norm, nn.LeakyReLU(0.1)


NETS: Mapping[str, Callable[[int, Sequence[int], int, int], Pair]] = {"convolutional": convolutional, "dense": dense}
