"""A trial that learns in its own way: the best net is kept, and going on is the same as never having stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from torch import nn

from components.contract import Epoch, Json, Metrics, Objective, State
from components.devices import seeded
from components.progress import Learner

from .cases import bytes_of, stored

VALUES = (3.0, 1.0, 2.0, float("nan"), 0.5)  # of the epochs


class Walker(Learner):
    """Its net's weight walks at random; what it has seen on the way is its memory."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        net = nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        self.steps, self.seen = 0, torch.zeros(0)
        super().__init__({"net": net, "optimizer": self.optimizer}, net, {"wide": 2})

    def learn_epoch(self, values: Sequence[float]) -> Metrics:
        draw = seeded(5, self.epoch)
        for _ in range(3):
            x_B2 = torch.from_numpy(draw.normal(size=(4, 2))).float()
            self.optimizer.zero_grad()
            self.served(x_B2).square().sum().backward()
            self.optimizer.step()
            self.steps, self.seen = self.steps + 1, torch.cat([self.seen, x_B2.mean()[None]])
        return {"train/seen": float(self.seen.sum()), "val/loss": values[self.epoch - 1]}

    def counts(self) -> dict[str, Json]:
        return {"steps": self.steps}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return {"memory/seen": self.seen}

    def recall(self, counts: Mapping[str, Json], state: State) -> None:
        self.steps, self.seen = counts["steps"], state.tensors["memory/seen"].clone()


def walk(state: State | None = None, values: Sequence[float] = VALUES) -> Iterator[Epoch]:
    walker = Walker()
    return walker.epochs(lambda: walker.learn_epoch(values), Objective("loss", "min"), state)


def walked(state: State | None = None, count: int = 5) -> list[tuple[Metrics, State]]:
    return [(epoch.metrics, epoch.state()) for epoch in itertools.islice(walk(state), count)]


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_going_on_equals_never_stopping(stop: int) -> None:
    whole = walked()
    rest = walked(stored(whole[stop - 1][1]), 5 - stop)
    assert [bytes_of(state) for _, state in rest] == [bytes_of(state) for _, state in whole[stop:]]
    assert [repr(metrics) for metrics, _ in rest] == [repr(metrics) for metrics, _ in whole[stop:]]
    assert [state.scalars["progress"]["steps"] for _, state in whole] == [3, 6, 9, 12, 15]


def test_what_is_served_is_the_best_so_far_with_what_it_needs() -> None:
    states = [state for _, state in walked()]
    for number, best in enumerate((0, 1, 1, 1, 4)):
        served = states[number].served()
        assert served.scalars == {"model": {"wide": 2}}
        assert served.tensors["model/weight"].equal(states[best].tensors["net/weight"])
    assert [state.scalars["progress"]["best"] for state in states] == ["3.0", "1.0", "1.0", "1.0", "0.5"]


def test_a_first_epoch_without_a_number_is_served_until_a_better_one_comes() -> None:
    states = [epoch.state() for epoch in itertools.islice(walk(values=(float("nan"), 9.0)), 2)]
    for state in states:
        assert state.tensors["model/weight"].equal(state.tensors["net/weight"])
    assert [state.scalars["progress"]["best"] for state in states] == ["nan", "9.0"]


def test_another_epochs_state_is_not_to_be_had() -> None:
    walking = walk()
    first = next(walking)
    assert bytes_of(first.state()) == bytes_of(first.state()), "as often as one likes before"
    next(walking)
    with pytest.raises(RuntimeError, match="the state of epoch 1 is gone"):
        first.state()
