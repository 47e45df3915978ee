"""Seeds: another for each epoch, and the same again. Batches: larger on a GPU, if an epoch keeps its steps. Blocks."""

from __future__ import annotations

import pytest
import torch

from components.devices import batch_rows, in_blocks, seeded


def test_seeds_differ_by_seed_and_by_epoch_and_repeat() -> None:
    def drawn(seed: int, epoch: int) -> tuple[float, float]:
        generator = seeded(seed, epoch)
        return float(generator.random()), float(torch.rand(()))

    pairs = [drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({p[0] for p in pairs}) == len({p[1] for p in pairs}) == 4
    assert drawn(1, 1) == pairs[-1]


@pytest.mark.parametrize(
    ("where", "asked", "rows", "given"),
    [
        ("cpu", 64, 100_000, 64),
        ("mps", 64, 100_000, 64),
        ("cuda", 64, 100_000, 256),
        ("cuda", 64, 3000, 150),
        ("cuda", 64, 1000, 64),
        ("cuda", 64, 10, 64),
    ],
)
def test_a_gpu_takes_larger_batches_where_twenty_steps_are_left(where: str, asked: int, rows: int, given: int) -> None:
    assert batch_rows(asked, rows, torch.device(where)) == given


@pytest.mark.parametrize(("rows", "asked"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (0, [0])])
def test_a_net_is_asked_about_so_many_rows_at_a_time_in_their_order(rows: int, asked: list[int]) -> None:
    sizes: list[int] = []

    def doubled(x_BD: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x_BD))
        assert torch.is_inference_mode_enabled()
        return 2 * x_BD

    x_ND = torch.arange(rows * 2.0, dtype=torch.float64).reshape(rows, 2)
    said_ND = in_blocks(doubled, x_ND, 4, torch.device("cpu"))
    assert sizes == asked and said_ND.dtype == torch.float32
    assert said_ND.shape == (rows, 2) and said_ND.tolist() == (2 * x_ND).tolist()
