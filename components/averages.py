"""Running averages of weights (Polyak & Juditsky 1992)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """`net` is the running average of another net's weights and buffers. It keeps the share `decay` of itself a step.

    Weights are looked up once, for that takes longer than a step of a small net; buffers may be put in others' place.
    """

    def __init__(self, of: nn.Module, decay: float) -> None:
        self.net, self.decay = copy.deepcopy(of).requires_grad_(False), decay
        self._means: list[torch.Tensor] = list(self.net.parameters())
        self._weights: list[torch.Tensor] = list(of.parameters())
        pairs = zip(self.net.modules(), of.modules(), strict=True)
        self._holders = [(mean, its) for mean, its in pairs if any(True for _ in its.buffers(recurse=False))]

    @torch.no_grad()
    def follow(self, steps: int) -> None:
        """Move towards the net, which has just made its step number `steps`."""
        # The first steps weigh more than the decay says, or the average would remember the initial weights for long.
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self._means, self._weights, share)
        for mean, its in self._holders:
            for buffer, value in zip(mean.buffers(recurse=False), its.buffers(recurse=False), strict=True):
                if buffer.is_floating_point():
                    buffer.lerp_(value, share)
                else:
                    buffer.copy_(value)
