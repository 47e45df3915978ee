"""dqn: deep Q-learning after Mnih et al. 2015, "Human-level control through deep reinforcement learning", for any
gymnasium environment with Box observations and Discrete actions. As settings: double Q-learning (van Hasselt et al.
2016), dueling streams (Wang et al. 2016), returns over n steps (Sutton 1988) and prioritised replay (Schaul et al.
2016, in priorities.py), which Hessel et al. 2018, "Rainbow", put together.

How it differs: an MLP on vectors instead of a convolutional net on frames; AdamW instead of RMSProp; observations are
scaled by the space's bounds; the gradient's norm is clipped beside the Huber loss; several environments play in step.
Each epoch is measured on greedy episodes with fixed seeds, and the best net so far is what is served. An epoch ends
when all episodes have, so that no environment's state is kept.

Legend: B transitions of a batch, N rows or environments, O elements of an observation, D of a code, A actions.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from .. import acting, environments, gradients
from ..contract import (
    Choice,
    Codes,
    Column,
    Data,
    Domain,
    Epoch,
    Hyper,
    Kind,
    Learning,
    Metrics,
    Objective,
    Outcomes,
    Spec,
    State,
    Task,
    Uniform,
)
from ..devices import device, seeded
from ..environments import Arena, Replay, measuring, observation_column
from ..priorities import Prioritised
from ..rollouts import Floats, Rollouts
from ..settings import configure
from ..states import Parts, unpack
from ..training import adam

OUTPUTS = pa.schema([("action", pa.int64()), ("value", pa.float32())])


@dataclass(frozen=True)
class Settings:
    """`look_ahead`: steps whose rewards a return sums before it turns to the target net, without correction for the
    older policy. `double`: the net chooses the action that the target net values. `dueling`: see Net. `prioritised`:
    the exponent alpha of Schaul et al.; 0: all transitions alike. Its correction's exponent grows from `correct` to 1
    over `correct_steps` steps.

    `environments`: that play in step. `steps`: of all of them in an epoch, at least; before the first update come
    `warm_up`. `explore_steps`: over which the share of random actions falls from 1 to `explore`. `update_every`: steps
    between updates of the net; `target_every`: updates between copies into the target net. `replay`: transitions
    remembered."""

    width: int = 128
    depth: int = 2
    double: bool = True
    dueling: bool = False
    prioritised: float = 0.0
    correct: float = 0.4
    correct_steps: int = 20_000
    look_ahead: int = 20
    lr: float = 1e-3
    gamma: float = 0.99
    batch_rows: int = 64
    environments: int = 4
    steps: int = 1000
    warm_up: int = 1000
    explore: float = 0.05
    explore_steps: int = 5000
    update_every: int = 2
    target_every: int = 50
    replay: int = 50_000
    clip: float = 10.0


class Net(nn.Module):
    """Values of the actions, q_BA, of observations x_BO: an MLP on (x - shift) * factor. `column` holds the
    observations in a table; `first` is the environment's name for action 0.

    With dueling, half of the last hidden layer says what the observation is worth, the other half by how much each
    action is better than their mean: two streams with a hidden layer each, as the paper has them.
    """

    shift: torch.Tensor
    factor: torch.Tensor

    def __init__(self, column: Column, actions: int, first: int, settings: Settings) -> None:
        super().__init__()
        self.column, self.actions, self.first = column, actions, first
        widths = [math.prod(column.shape), *[settings.width] * settings.depth]
        self.register_buffer("shift", torch.zeros(widths[0]))
        self.register_buffer("factor", torch.ones(widths[0]))
        hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*hidden)
        half = widths[-1] // 2 if settings.dueling else 0  # of the code, for the worth
        self.worth = nn.Linear(half, 1) if half else None
        self.last = nn.Linear(widths[-1] - half, actions)

    def hidden(self, x_BO: torch.Tensor) -> torch.Tensor:
        x_BD: torch.Tensor = self.layers((x_BO - self.shift) * self.factor)
        return x_BD

    def forward(self, x_BO: torch.Tensor) -> torch.Tensor:
        x_BD = self.hidden(x_BO)
        q_BA: torch.Tensor
        if self.worth is None:
            q_BA = self.last(x_BD)
            return q_BA
        half = self.worth.in_features
        better_BA = self.last(x_BD[:, half:])
        q_BA = self.worth(x_BD[:, :half]) + better_BA - better_BA.mean(1, keepdim=True)
        return q_BA

    @torch.inference_mode()
    def best(self, x_NO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value and number (from `first`) of the greedy action, on the CPU."""
        value_N, action_N = self(x_NO.to(self.shift.device)).max(1)
        return value_N.cpu(), action_N.cpu() + self.first

    def greedy(self, x_NO: torch.Tensor) -> list[int]:
        """The policy that is measured."""
        actions: list[int] = self.best(x_NO)[1].tolist()
        return actions


class Learner(acting.Learner):
    """One trial under way."""

    def __init__(self, settings: Settings, rollouts: Rollouts, net: Net) -> None:
        self.settings, self.net = settings, net
        self.weights = list(net.parameters())
        self.target = copy.deepcopy(net).requires_grad_(False)
        self.optimizer = adam(net.parameters(), settings.lr)
        parts: Parts = {"net": net, "target": self.target, "optimizer": self.optimizer}
        super().__init__(rollouts, parts, {"actions": net.actions, "first": net.first})

    def act(self, x_NO: Floats, generator: np.random.Generator) -> tuple[list[int], list[int]]:
        """The greedy actions, but for a share at random, which falls."""
        done = min(1.0, self.rollouts.steps / max(1, self.settings.explore_steps))
        random_N = generator.random(len(x_NO)) < 1 - (1 - self.settings.explore) * done
        action_N = generator.integers(self.net.actions, size=len(x_NO))
        if not random_N.all():
            with torch.inference_mode():
                greedy_N = self.net(torch.from_numpy(x_NO).to(self.net.shift.device)).argmax(1).cpu().numpy()
            action_N = np.where(random_N, action_N, greedy_N)
        return action_N.tolist(), (action_N + self.net.first).tolist()

    def learn(self, made: int, generator: np.random.Generator) -> list[torch.Tensor]:
        """An update each `update_every` steps, once `warm_up` are made."""
        steps, every = self.rollouts.steps, self.settings.update_every
        due = steps // every - max(steps - made, self.settings.warm_up - 1) // every
        rows, where = self.settings.batch_rows, self.net.shift.device
        return [self.update(self.rollouts.replay.sample(rows, generator, where)) for _ in range(due)]

    def update(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One step down the Huber loss of the temporal difference. All in float32: in bfloat16 values near 100 are half
        a point apart."""
        with torch.no_grad():
            following_BA = self.target(batch["after"])
            chosen_BA = self.net(batch["after"]) if self.settings.double else following_BA
            wanted_B = batch["reward"] + batch["discount"] * following_BA.gather(1, chosen_BA.argmax(1)[:, None])[:, 0]
        q_B = self.net(batch["before"]).gather(1, batch["action"][:, None])[:, 0]
        loss_B = functional.smooth_l1_loss(q_B, wanted_B, reduction="none")
        loss = (loss_B * batch["weight"] if "weight" in batch else loss_B).mean()
        gradients.drop(self.weights)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.clip(self.weights, self.settings.clip)
        self.optimizer.step()
        self.rollouts.replay.learnt(batch, q_B - wanted_B)
        self.updates += 1
        if self.updates % self.settings.target_every == 0:
            self.target.load_state_dict(self.net.state_dict())
        return loss.detach()


class Dqn:
    learning: ClassVar[Learning] = "reinforcement"
    tasks: ClassVar[tuple[Task, ...]] = ("control",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    actions: ClassVar[tuple[Kind, ...]] = ("number",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        return Objective("return", "max")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "lr": Uniform(5e-4, 2e-3, log=True, mutable=True),
            "gamma": Choice((0.98, 0.99)),
            "target_every": Choice((50, 100, 200)),
            "look_ahead": Choice((5, 10, 20)),
            "double": Choice((True, False)),
            "dueling": Choice((True, False)),
            "prioritised": Choice((0.0, 0.6)),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec = configure(Settings, hyper), data.spec
        seeded(seed)
        practice, arena = Arena(spec, "Discrete", settings.environments), measuring(spec, "Discrete", "val")
        learner = Learner(settings, _rollouts(settings, practice, seed), _net(settings, practice, data))

        def learn() -> Metrics:
            metrics = learner.learn_epoch(settings.steps)
            return metrics | environments.measure(environments.play(learner.net.greedy, arena, "val"), "val")

        yield from learner.epochs(learn, self.objective(spec), state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(observation_column(spec), **state.scalars["model"], settings=configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """Returns of greedy episodes: each split has seeds of its own, the same for every net."""
        return environments.play(net.greedy, measuring(data.spec, "Discrete", split), split)

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return environments.measure(outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """A random policy: the mean return of the split's recorded episodes."""
        return environments.recorded_return(data, split)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The greedy action for each observation, and its value: the discounted return that it promises."""
        x_NO = environments.finite(batch, net.column)
        value_N, action_N = net.best(x_NO)
        return pa.record_batch([pa.array(action_N.numpy()), pa.array(value_N.numpy())], schema=OUTPUTS)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The last hidden layer; the scaled observations where there is none."""
        codes: Codes = net.hidden(environments.finite(batch, net.column).to(net.shift.device)).cpu().numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return OUTPUTS


def _net(settings: Settings, practice: Arena, data: Data) -> Net:
    """A net for these environments, which it sees scaled."""
    seen, acted, column = (
        practice.worlds[0].observation_space,
        practice.worlds[0].action_space,
        observation_column(data.spec),
    )
    net = Net(column, int(acted.n), int(acted.start), settings)
    net.shift, net.factor = environments.scale(seen, environments.observations(data.splits["train"], column))
    return net.to(device())


def _rollouts(settings: Settings, practice: Arena, seed: int) -> Rollouts:
    size, elements, action = settings.replay, practice.x_NO.shape[1], torch.zeros((), dtype=torch.int64)
    if settings.prioritised:
        fading = (settings.prioritised, settings.correct, settings.correct_steps)
        replay: Replay = Prioritised(size, elements, action, *fading)
    else:
        replay = Replay(size, elements, action)
    return Rollouts(practice, replay, seed, settings.gamma, settings.look_ahead)
