"""How far a trial has come, whatever way it learns: its epochs, the best net so far, the State that it goes on from.

The shared loop (training.py) keeps a Progress. A family with a way of its own (two optimisers, an environment) makes a
Learner, which is one, and says how it learns an epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from .contract import MODEL, Epoch, Json, Metrics, Objective, State
from .states import NOTHING, Parts, pack, unpack


@dataclass
class Progress:
    """`epoch` counts from the trial's beginning.

    best   what the best epoch so far is the best by
    kept   the weights that it serves, by their names in a State; none before the first
    model  what these need beside them to be served
    """

    epoch: int = 0
    best: float = float("nan")
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)
    model: Json = None

    def keep_best(self, value: float, better: Callable[[float, float], bool], served: nn.Module) -> bool:
        """Keep what is served now, if it is the first or `value` is better than the best: whether it is kept."""
        if self.kept and not better(value, self.best):
            return False
        self.best, self.kept = value, pack({MODEL.rstrip("/"): served}).tensors
        return True

    def keeper(
        self, parts: Parts, counts: Mapping[str, Json], tensors: Mapping[str, torch.Tensor] = NOTHING
    ) -> Callable[[], State]:
        """What an Epoch's `state` is. It packs the parts and further tensors as they are when it is asked, so once the
        next epoch has begun it raises RuntimeError."""
        number = self.epoch

        def keep() -> State:
            if self.epoch != number:
                raise RuntimeError(f"the state of epoch {number} is gone: ask for it before the next epoch")
            progress = {"epoch": number, **counts, "best": repr(self.best)}  # as text: JSON has no NaN
            return pack(parts, {"progress": progress, "model": self.model}, {**tensors, **self.kept})

        return keep

    def go_on(self, state: State, parts: Parts) -> Mapping[str, Json]:
        """Put all back as it was when `keeper` packed it; returns its counts."""
        unpack(state, parts)
        counts: Mapping[str, Json] = state.scalars["progress"]
        self.epoch, self.best, self.model = counts["epoch"], float(counts["best"]), state.scalars["model"]
        self.kept = {name: tensor.clone() for name, tensor in state.served().tensors.items()}
        return counts


class Learner(Progress, ABC):
    """A trial under way that learns in its own way.

    parts   what a State holds beside the best net and `tensors`: nets and optimisers
    served  the net that is judged after each epoch, and served if it is the best
    """

    def __init__(self, parts: Parts, served: nn.Module, model: Json) -> None:
        super().__init__(model=model)
        self.parts, self.served = parts, served

    @abstractmethod
    def counts(self) -> dict[str, Json]:
        """What it counts beside epochs; `recall` gets it back."""

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What else a State holds, by names in it; not copied yet."""
        return NOTHING

    @abstractmethod
    def recall(self, counts: Mapping[str, Json], state: State) -> None:
        """Go on from the counts and tensors of a State."""

    def epochs(self, learn: Callable[[], Metrics], objective: Objective, state: State | None) -> Iterator[Epoch]:
        """Learn for ever, from scratch or from `state`. `learn` learns the epoch number `epoch`, and returns what came
        of it on val rows too: val/<objective> at least."""
        if state is not None:
            self.recall(self.go_on(state, self.parts), state)
        while True:
            self.epoch += 1
            metrics = learn()
            self.keep_best(metrics[f"val/{objective.metric}"], objective.better, self.served)
            yield Epoch(self.epoch, metrics, self.keeper(self.parts, self.counts(), self.tensors()))
