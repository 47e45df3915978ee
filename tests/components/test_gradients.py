"""Gradients are dropped and clipped as torch's own functions do it, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components import gradients


@pytest.mark.parametrize("most", [0.01, 1.0, 1e6])
@pytest.mark.parametrize("value", [0.0, 1.0, float("inf"), float("nan")])
def test_clipping_is_torch_s_own(most: float, value: float) -> None:
    torch.manual_seed(0)
    ours, theirs = (
        [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2))] for _ in "ab"
    )
    for mine, other in zip(ours[:2], theirs[:2], strict=True):  # the third has no gradient
        mine.grad = torch.randn_like(mine)
        mine.grad[0] *= value
        other.grad = mine.grad.clone()
    gradients.clip(ours, most)
    nn.utils.clip_grad_norm_(theirs, most)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert mine.grad is not None and other.grad is not None
        assert mine.grad.numpy().tobytes() == other.grad.numpy().tobytes()
    gradients.drop(ours)
    assert all(weight.grad is None for weight in ours)


def test_sparse_gradients_neither_count_nor_change() -> None:
    table, weight = nn.Embedding(9, 2, sparse=True), nn.Parameter(torch.ones(4))
    (table(torch.tensor([1, 5])).sum() * 1e6 + weight.sum()).backward()
    gradients.clip([table.weight, weight], 0.5)
    assert table.weight.grad is not None and weight.grad is not None
    assert table.weight.grad.coalesce().values().unique().tolist() == [1e6]
    assert float(weight.grad.norm()) == pytest.approx(0.5)
