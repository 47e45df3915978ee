"""One trial of a family that learns by acting: epochs of whole episodes, the best net so far, and the State of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .contract import MODEL, Json, Metrics, Objective, State
from .devices import seeded
from .rollouts import Floats, Rollouts
from .states import Parts, pack, unpack


class Learner(ABC):
    """A trial under way. `epoch` and `updates` count from its beginning.

    parts    what the State holds beside `rollouts` and the best net: nets and optimisers. "net" is the one that serves
    model    what it needs beside its weights to be served
    """

    def __init__(self, rollouts: Rollouts, parts: Parts, model: Json) -> None:
        self.rollouts, self.parts, self.model = rollouts, parts, model
        self.epoch = self.updates = 0
        self.best = float("nan")
        self.best_tensors: Mapping[str, torch.Tensor] = {}

    @abstractmethod
    def act(self, x_NO: Floats, generator: np.random.Generator) -> tuple[Sequence[Any], Sequence[Any]]:
        """Actions to explore with, as the memory holds them and as the environments take them."""

    @abstractmethod
    def learn(self, made: int, generator: np.random.Generator) -> Iterable[torch.Tensor]:
        """The updates that the last `made` steps call for: their losses."""

    def learn_epoch(self, steps: int) -> Metrics:
        """Whole episodes, until so many steps are made and something was learnt."""
        self.epoch += 1
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

    def keep_best(self, value: float, objective: Objective) -> None:
        net = self.parts["net"]
        assert isinstance(net, nn.Module)
        if not self.best_tensors or objective.better(value, self.best):
            self.best, self.best_tensors = value, pack({MODEL.rstrip("/"): net}).tensors

    def keeper(self) -> Callable[[], State]:
        number, replay = self.epoch, self.rollouts.replay

        def keep() -> State:
            if self.epoch != number:
                raise RuntimeError(f"the state of epoch {number} is gone: ask for it before the next epoch")
            counts = {"epoch": self.epoch, "updates": self.updates, "added": replay.added}
            played = {"episodes": self.rollouts.episodes, "steps": self.rollouts.steps}
            progress = {**counts, **played, "best": repr(self.best)}  # as text: JSON has no NaN
            kept = {**replay.filled(), **self.best_tensors}
            return pack(self.parts, {"progress": progress, "model": self.model}, kept)

        return keep

    def go_on(self, state: State) -> None:
        unpack(state, self.parts)
        kept = state.scalars["progress"]
        self.epoch, self.updates, self.best = kept["epoch"], kept["updates"], float(kept["best"])
        self.rollouts.episodes, self.rollouts.steps = kept["episodes"], kept["steps"]
        self.best_tensors = {name: tensor.clone() for name, tensor in state.served().tensors.items()}
        self.rollouts.replay.fill(state, kept["added"])
