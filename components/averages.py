"""Running averages of weights (Polyak & Juditsky 1992)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float, steps: int) -> None:
    """Move the average towards the net, which has just made its step number `steps`: weights and buffers."""
    # The first steps weigh more than the decay says, or the average would remember the initial weights for long.
    share = 1 - min(decay, (1 + steps) / (10 + steps))
    for mean, value in zip(_tensors(average), _tensors(net), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, share)
        else:
            mean.copy_(value)


def _tensors(net: nn.Module) -> list[torch.Tensor]:
    return [*net.parameters(), *net.buffers()]
