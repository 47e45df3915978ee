"""One trial of a family that learns by acting: epochs of whole episodes, and what it goes on from beside its nets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from . import progress
from .contract import Json, Metrics, State
from .devices import seeded
from .rollouts import Floats, Rollouts
from .states import Parts


class Learner(progress.Learner):
    """A trial under way. `updates` count from its beginning. Of its parts "net" is the one that serves."""

    def __init__(self, rollouts: Rollouts, parts: Parts, model: Json) -> None:
        net = parts["net"]
        assert isinstance(net, nn.Module)
        super().__init__(parts, net, model)
        self.rollouts, self.updates = rollouts, 0

    @abstractmethod
    def act(self, x_NO: Floats, generator: np.random.Generator) -> tuple[Sequence[Any], Sequence[Any]]:
        """Actions to explore with, as the memory holds them and as the environments take them."""

    @abstractmethod
    def learn(self, made: int, generator: np.random.Generator) -> Iterable[torch.Tensor]:
        """The updates that the last `made` steps call for: their losses."""

    def learn_epoch(self, steps: int) -> Metrics:
        """Whole episodes, until so many steps are made and something was learnt."""
        generator, goal = seeded(self.rollouts.seed, self.epoch), self.rollouts.steps + steps
        losses: list[torch.Tensor] = []
        playing = self.rollouts.play(
            lambda x_NO: self.act(x_NO, generator), lambda: self.rollouts.steps >= goal and bool(losses)
        )
        for made in playing:
            losses += self.learn(made, generator)
        return {
            "train/loss": float(torch.stack(losses).mean()),
            "train/return": float(np.mean(self.rollouts.returns)),
            "train/steps": float(self.rollouts.steps),
        }

    def counts(self) -> dict[str, Json]:
        played = {"episodes": self.rollouts.episodes, "steps": self.rollouts.steps}
        return {"updates": self.updates, "added": self.rollouts.replay.added, **played}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return self.rollouts.replay.filled()

    def recall(self, counts: Mapping[str, Json], state: State) -> None:
        self.updates = counts["updates"]
        self.rollouts.episodes, self.rollouts.steps = counts["episodes"], counts["steps"]
        self.rollouts.replay.fill(state, counts["added"])
