"""Seeds: another for each epoch, and the same again."""

from __future__ import annotations

import torch

from components.devices import seeded


def test_seeds_differ_by_seed_and_by_epoch_and_repeat() -> None:
    def drawn(seed: int, epoch: int) -> tuple[float, float]:
        generator = seeded(seed, epoch)
        return float(generator.random()), float(torch.rand(()))

    pairs = [drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({p[0] for p in pairs}) == len({p[1] for p in pairs}) == 4
    assert drawn(1, 1) == pairs[-1]
