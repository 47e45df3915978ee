"""Gradients dropped and clipped without the bookkeeping of torch's own functions, which takes longer than a step of a
small net. The results are the same, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def drop(weights: Iterable[nn.Parameter]) -> None:
    for weight in weights:
        weight.grad = None


@torch.no_grad()
def clip(weights: Iterable[nn.Parameter], most: float) -> None:
    """Scale the gradients, all on one device, so that the norm of all together is `most` at most. Sparse ones do not
    count and stay."""
    gradients = [weight.grad for weight in weights if weight.grad is not None and not weight.grad.is_sparse]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
