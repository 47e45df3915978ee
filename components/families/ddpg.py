"""ddpg: deep deterministic policy gradient after Lillicrap et al. 2016, "Continuous control with deep reinforcement
learning", with the three fixes of TD3 (Fujimoto et al. 2018, "Addressing function approximation error in actor-critic
methods") as settings: twin critics, delayed updates of the policy, a smoothed target policy. For any gymnasium
environment with Box observations and bounded Box actions.

How it differs: exploration adds uncorrelated Gaussian noise, as TD3's, after some steps at random; the action enters
the critic's first layer; no batch normalisation, observations are scaled by the space's bounds instead; no weight
decay; rewards are divided by their deviation in the recorded episodes, so that one learning rate does for all
environments; several environments play in step, and a time limit ends no world (rollouts.py). Each epoch is measured
on episodes without noise and with fixed seeds, and the best net so far is what is served. An epoch ends when all
episodes have, so that no environment's state is kept.

Legend: B transitions of a batch, N rows, O elements of an observation, A of an action, D of a code, K critics.
Actions are within ±1 inside, whatever the space's bounds are.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from .. import acting, environments
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
from ..rollouts import Floats, Rollouts
from ..settings import configure
from ..states import Parts, unpack
from ..tables import numbers

OUTPUTS = pa.schema([("action", pa.list_(pa.float32())), ("value", pa.float32())])
SMALL = 3e-3  # the last layers begin within ±SMALL, so that the first actions and values are near 0


@dataclass(frozen=True)
class Settings:
    """`actor_lr`, `critic_lr`: the paper's are 1e-4 and 1e-3. `tau`: how far the target nets follow at an update.
    `noise`: deviation of what is added to an action to explore, of half its range. `environments`: that play in step.
    `steps`: of all of them in an epoch, at least, with an update each, but for the first `warm_up`, which are made at
    random. `replay`: transitions remembered.

    TD3's fixes: `critics` (2: the lower of two values counts), `delay` (updates of the critics for one of the policy
    and the targets), `smoothing` (deviation of the noise on the target policy's action; cut at 2.5 times that). None of
    them: 1, 1, 0."""

    width: int = 64
    depth: int = 2
    actor_lr: float = 1e-3
    critic_lr: float = 1e-3
    gamma: float = 0.98
    tau: float = 0.01
    noise: float = 0.1
    critics: int = 1
    delay: int = 1
    smoothing: float = 0.0
    batch_rows: int = 128
    environments: int = 5
    steps: int = 1000
    warm_up: int = 800
    replay: int = 100_000


class Side(nn.Module):
    """K linear layers side by side: x_KBI → y_KBJ."""

    def __init__(self, count: int, inputs: int, outputs: int, bound: float = 0.0) -> None:
        super().__init__()
        bound = bound or inputs**-0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x_KBI: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x_KBI, self.weight)


class Critic(nn.Module):
    """K values q_KB of actions a_BA at scaled observations z_BO, in units of the recorded rewards' deviation."""

    def __init__(self, observation: int, action: int, settings: Settings) -> None:
        super().__init__()
        self.count = settings.critics
        widths = [observation + action, *[settings.width] * settings.depth]
        hidden = [layer for a, b in itertools.pairwise(widths) for layer in (Side(self.count, a, b), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, Side(self.count, widths[-1], 1, SMALL))

    def forward(self, z_BO: torch.Tensor, a_BA: torch.Tensor) -> torch.Tensor:
        x_BI = torch.cat([z_BO, a_BA], 1)
        q_KB: torch.Tensor = self.layers(x_BI.expand(self.count, *x_BI.shape))[:, :, 0]
        return q_KB


class Net(nn.Module):
    """Actor and critics. Observations x are seen as z = (x - shift) * factor; actions within ±1 lie between low and
    high to the environment; values are told times `unit`. `column` holds the observations in a table."""

    shift: torch.Tensor
    factor: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    unit: torch.Tensor

    def __init__(self, column: Column, action: int, settings: Settings) -> None:
        super().__init__()
        self.column, self.action = column, action
        observation = math.prod(column.shape)
        for name, size in (("shift", observation), ("factor", observation), ("low", action), ("high", action)):
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("unit", torch.ones(()))
        widths = [observation, *[settings.width] * settings.depth]
        hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        last = nn.Linear(widths[-1], action)
        nn.init.uniform_(last.weight, -SMALL, SMALL)
        nn.init.uniform_(last.bias, -SMALL, SMALL)
        self.actor = nn.Sequential(*hidden, last, nn.Tanh())
        self.critic = Critic(observation, action, settings)

    def seen(self, x_BO: torch.Tensor) -> torch.Tensor:
        return (x_BO.to(self.shift.device) - self.shift) * self.factor

    def told(self, a_BA: torch.Tensor) -> torch.Tensor:
        """Actions as the environment has them. Rounding takes none of them out of its bounds."""
        a_BA = a_BA.to(self.low.device)
        return (self.low + (self.high - self.low) * (a_BA / 2 + 0.5)).clamp(self.low, self.high)

    @torch.inference_mode()
    def best(self, x_NO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy's action, as the environment has it, and its value (the lower of two), on the CPU."""
        z_NO = self.seen(x_NO)
        a_NA = self.actor(z_NO)
        return self.told(a_NA).cpu(), (self.critic(z_NO, a_NA).amin(0) * self.unit).cpu()


class Learner(acting.Learner):
    """One trial under way."""

    def __init__(self, settings: Settings, rollouts: Rollouts, net: Net) -> None:
        self.settings, self.net = settings, net
        self.target = copy.deepcopy(net).requires_grad_(False)
        learning, following, policy = net.parameters(), self.target.parameters(), net.actor.parameters()
        self.weights, self.targets, self.policy = (list[torch.Tensor](each) for each in (learning, following, policy))
        self.actor = torch.optim.Adam(self.policy, settings.actor_lr, fused=True)
        self.critic = torch.optim.Adam(net.critic.parameters(), settings.critic_lr, fused=True)
        parts: Parts = {"net": net, "target": self.target, "actor": self.actor, "critic": self.critic}
        super().__init__(rollouts, parts, {"action": net.action})

    def act(self, x_NO: Floats, generator: np.random.Generator) -> tuple[Any, Sequence[Any]]:
        """The policy's actions with noise; at first any, all equally likely."""
        shape = (len(x_NO), self.net.action)
        if self.rollouts.steps < self.settings.warm_up:
            a_NA = generator.uniform(-1, 1, shape).astype(np.float32)
        else:
            with torch.inference_mode():
                meant_NA = self.net.actor(self.net.seen(torch.from_numpy(x_NO))).cpu().numpy()
            noise_NA = generator.standard_normal(shape, np.float32)
            a_NA = (meant_NA + np.float32(self.settings.noise) * noise_NA).clip(-1, 1)
        return a_NA, self.rollouts.arena.actions(self.net.told(torch.from_numpy(a_NA)))

    def learn(self, made: int, generator: np.random.Generator) -> Iterable[torch.Tensor]:
        """An update for each step but the first `warm_up`."""
        return [self._update(generator) for _ in range(min(made, self.rollouts.steps - self.settings.warm_up))]

    def _update(self, generator: np.random.Generator) -> torch.Tensor:
        """One step of the critics down the squared temporal difference, and, each `delay` of them, one of the actor up
        the first critic's value. All in float32: bfloat16 would be too coarse for values and actions alike."""
        batch = self.rollouts.replay.sample(self.settings.batch_rows, generator, self.net.shift.device)
        before_BO, a_BA = self.net.seen(batch["before"]), batch["action"]
        with torch.no_grad():
            after_BO = self.net.seen(batch["after"])
            next_BA = self._smoothed(self.target.actor(after_BO), generator)
            value_B = self.target.critic(after_BO, next_BA).amin(0)
            wanted_B = batch["reward"] / self.net.unit + batch["discount"] * value_B
        loss: torch.Tensor = (self.net.critic(before_BO, a_BA) - wanted_B).square().mean(1).sum()
        self.critic.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic.step()
        self.updates += 1
        if self.updates % self.settings.delay == 0:
            promised = self.net.critic(before_BO, self.net.actor(before_BO))[0].mean()
            self.actor.zero_grad(set_to_none=True)
            (-promised).backward(inputs=self.policy)  # the critics' own gradients are not wanted
            self.actor.step()
            self._follow()
        return loss.detach()

    def _smoothed(self, a_BA: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        if not self.settings.smoothing:
            return a_BA
        noise_BA = torch.from_numpy(generator.standard_normal(tuple(a_BA.shape), np.float32)).to(a_BA.device)
        return (a_BA + noise_BA.clamp(-2.5, 2.5) * self.settings.smoothing).clamp(-1, 1)

    @torch.no_grad()
    def _follow(self) -> None:
        """The target nets' weights go a little way to those that learn."""
        torch._foreach_lerp_(self.targets, self.weights, self.settings.tau)


class Ddpg:
    learning: ClassVar[Learning] = "reinforcement"
    tasks: ClassVar[tuple[Task, ...]] = ("control",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    actions: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        return Objective("return", "max")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "actor_lr": Uniform(5e-4, 2e-3, log=True, mutable=True),
            "critics": Choice((1, 2)),
            "delay": Choice((1, 2)),
            "smoothing": Choice((0.0, 0.2)),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec = configure(Settings, hyper), data.spec
        seeded(seed)
        practice, arena = Arena(spec, "Box", settings.environments), measuring(spec, "Box", "val")
        low_A, high_A = practice.bounds()
        column, recorded = observation_column(spec), data.splits["train"]
        net = Net(column, len(low_A), settings)
        net.low, net.high = low_A, high_A
        recorded_NO = environments.observations(recorded, column)
        net.shift, net.factor = environments.scale(practice.worlds[0].observation_space, recorded_NO)
        net.unit = torch.tensor(float(numbers(recorded, "reward").std()) or 1.0)
        net.to(device())
        replay = Replay(settings.replay, len(net.shift), low_A)
        learner = Learner(settings, Rollouts(practice, replay, seed, settings.gamma), net)

        def learn() -> Metrics:
            return learner.learn_epoch(settings.steps) | environments.measure(_played(net, arena, "val"), "val")

        yield from learner.epochs(learn, self.objective(spec), state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(observation_column(spec), **state.scalars["model"], settings=configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """Returns of episodes without noise: each split has seeds of its own, the same for every net."""
        return _played(net, measuring(data.spec, "Box", split), split)

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return environments.measure(outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """A random policy: the mean return of the split's recorded episodes."""
        return environments.recorded_return(data, split)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The policy's action for each observation, a list of the elements of the environment's, and its value: the
        discounted return that it promises."""
        action_NA, value_N = net.best(environments.finite(batch, net.column))
        offsets = np.arange(len(action_NA) + 1, dtype=np.int32) * net.action
        actions = pa.ListArray.from_arrays(pa.array(offsets), pa.array(action_NA.reshape(-1).numpy()))
        return pa.record_batch([actions, pa.array(value_N.numpy())], schema=OUTPUTS)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The actor's last hidden layer; the scaled observations where there is none."""
        codes: Codes = net.actor[:-2](net.seen(environments.finite(batch, net.column))).cpu().numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return OUTPUTS


def _played(net: Net, arena: Arena, split: str) -> Outcomes:
    return environments.play(lambda x_NO: arena.actions(net.best(x_NO)[0]), arena, split)
