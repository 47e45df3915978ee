"""How far a row lies from many others, by Mahalanobis distance: part of a net, fitted in one step.

Legend: B rows of a batch, N rows that it is fitted on, T traits of a row.
"""

from __future__ import annotations

import torch
from torch import nn

SMALLEST = 1e-6  # deviation that a trait is taken to have at least


class Mahalanobis(nn.Module):
    """The squared distance (Mahalanobis 1936) from the mean of the rows that it was fitted on, in units of their own
    covariance, a trait: about 1 for rows like them."""

    center: torch.Tensor
    precision: torch.Tensor

    def __init__(self, traits: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(traits))
        self.register_buffer("precision", torch.eye(traits))

    @torch.no_grad()
    def fit(self, t_NT: torch.Tensor, ridge: float) -> None:
        """`ridge`: share of its variance that is added to every trait, so that no direction counts for too much."""
        t_NT = t_NT.cpu().double()
        deviation_T = t_NT.std(0).clamp_min(SMALLEST)
        covariance_TT = torch.cov((t_NT / deviation_T).T) + ridge * torch.eye(t_NT.shape[1], dtype=t_NT.dtype)
        precision_TT = torch.linalg.inv(covariance_TT) / (deviation_T[:, None] * deviation_T[None, :])
        self.center.copy_(t_NT.mean(0))
        self.precision.copy_(precision_TT)

    def forward(self, t_BT: torch.Tensor) -> torch.Tensor:
        away_BT = t_BT - self.center
        return ((away_BT @ self.precision) * away_BT).mean(1)
