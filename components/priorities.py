"""A memory that draws transitions by how wrong the net was about them (Schaul et al. 2016, "Prioritized experience
replay", the proportional kind).

How it differs: sums are kept over blocks of rows, not in a tree: quicker in numpy at these sizes, and a sum is always
that of its rows as they stand, so that going on from a State draws the same rows, bit for bit. Corrections are divided
by the largest of their batch, and their exponent grows to 1 over so many transitions, not over a training whose end
nobody knows.

Legend: B transitions of a batch, K blocks, R rows of a block.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .contract import State
from .environments import Replay

BLOCK_ROWS = 256
SMALLEST = 1e-6  # is added to an error: nobody's chance is nothing


class Prioritised(Replay):
    """Row i is drawn with a chance proportional to (|error_i| + SMALLEST)**alpha; a new one as if its error were the
    largest seen so far. `beta`, the exponent of the correction for it, grows to 1 over `corrected_by` transitions."""

    def __init__(
        self, size: int, observation: int, action: torch.Tensor, alpha: float, beta: float, corrected_by: int
    ) -> None:
        super().__init__(size, observation, action)
        self.alpha, self.beta, self.corrected_by = alpha, beta, corrected_by
        self._chance_KR = np.zeros((-(-size // BLOCK_ROWS), BLOCK_ROWS))  # not divided by their sum
        self._sum_K = np.zeros(len(self._chance_KR))
        self._changed: set[int] = set()  # blocks whose sum is not theirs any more
        self._largest = 1.0

    def add(self, **transition: object) -> None:
        self._set(np.array([self.added % len(self.rows["reward"])]), np.array([self._largest]))
        super().add(**transition)

    def sample(self, count: int, generator: np.random.Generator, where: torch.device) -> dict[str, torch.Tensor]:
        """With each transition's `row`, for `learnt`, and the `weight` of its error in the loss."""
        row_B, chance_B = self._draw(count, generator)
        beta = min(1.0, self.beta + (1 - self.beta) * self.added / self.corrected_by)
        weight_B = (chance_B.min() / chance_B) ** beta
        row = torch.from_numpy(row_B)
        batch = {name: rows.index_select(0, row).to(where) for name, rows in self.rows.items()}
        return batch | {"row": row, "weight": torch.from_numpy(weight_B).float().to(where)}

    def learnt(self, batch: dict[str, torch.Tensor], error_B: torch.Tensor) -> None:
        chance_B = (error_B.detach().abs().cpu().double().numpy() + SMALLEST) ** self.alpha
        self._largest = max(self._largest, float(chance_B.max()))
        self._set(batch["row"].numpy(), chance_B)

    def filled(self) -> dict[str, torch.Tensor]:
        chances = torch.from_numpy(self._chance_KR.reshape(-1)[: len(self)])
        return super().filled() | {
            "replay/chance": chances,
            "replay/largest": torch.tensor(self._largest, dtype=torch.float64),
        }

    def fill(self, state: State, added: int) -> None:
        super().fill(state, added)
        self._largest = float(state.tensors["replay/largest"])
        self._set(np.arange(len(self)), state.tensors["replay/chance"].numpy())

    def _set(self, row_B: NDArray[np.int64], chance_B: NDArray[np.float64]) -> None:
        self._chance_KR.reshape(-1)[row_B] = chance_B
        self._changed.update((row_B // BLOCK_ROWS).tolist())

    def _draw(self, count: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows and their chances: one row from each of `count` equal parts of the sum of all."""
        changed = sorted(self._changed)
        self._sum_K[changed] = self._chance_KR[changed].sum(1)
        self._changed.clear()
        end_K = self._sum_K.cumsum()
        at_B = (np.arange(count) + generator.random(count)) * (end_K[-1] / count)
        block_B = np.minimum(np.searchsorted(end_K, at_B, "right"), (len(self) - 1) // BLOCK_ROWS)
        inside_B = at_B - (end_K[block_B] - self._sum_K[block_B])
        row_B = (self._chance_KR[block_B].cumsum(1) <= inside_B[:, None]).sum(1) + block_B * BLOCK_ROWS
        row_B = np.minimum(row_B, np.minimum((block_B + 1) * BLOCK_ROWS, len(self)) - 1)  # where rounding went past
        return row_B, self._chance_KR.reshape(-1)[row_B]
