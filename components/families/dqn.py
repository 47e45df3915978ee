"""dqn: deep Q-learning after Mnih et al. 2015, "Human-level control through deep reinforcement learning", with double
Q-learning (van Hasselt et al. 2016), for any gymnasium environment with Box observations and Discrete actions.

How it differs: an MLP on vectors instead of a convolutional net on frames; AdamW instead of RMSProp; observations are
scaled by the space's bounds; the gradient's norm is clipped beside the Huber loss; a time limit does not end the world
(Pardo et al. 2018): the value of what would have followed counts. Each epoch is measured on greedy episodes with
fixed seeds, and the best net so far is what is served. An epoch ends with an episode, so that no environment's state
is kept.

Legend: B transitions of a batch, N rows, O elements of an observation, D of a code, A actions.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from .. import environments
from ..contract import (
    MODEL,
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
from ..environments import EPISODES, Arena, Replay, observation_column
from ..errors import BadInput
from ..rollouts import Rollouts
from ..settings import configure
from ..states import Parts, pack, unpack
from ..training import adam

Floats: TypeAlias = NDArray[np.float32]
OUTPUTS = pa.schema([("action", pa.int64()), ("value", pa.float32())])


@dataclass(frozen=True)
class Settings:
    """`look_ahead`: steps whose rewards a return sums before it turns to the target net. `steps`: of the environment
    in an epoch, at least; before the first update come `warm_up` of them.
    `explore_steps`: over which the share of random actions falls from 1 to `explore`. `update_every`: steps between
    updates of the net; `target_every`: updates between copies into the target net. `replay`: transitions remembered."""

    width: int = 128
    depth: int = 2
    lr: float = 2e-3
    gamma: float = 0.99
    look_ahead: int = 20
    batch_rows: int = 64
    environments: int = 8
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
    observations in a table; `first` is the environment's name for action 0."""

    shift: torch.Tensor
    factor: torch.Tensor

    def __init__(self, column: Column, actions: int, first: int, settings: Settings) -> None:
        super().__init__()
        self.column, self.actions, self.first = column, actions, first
        widths = [math.prod(column.shape), *[settings.width] * settings.depth]
        self.register_buffer("shift", torch.zeros(widths[0]))
        self.register_buffer("factor", torch.ones(widths[0]))
        hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], actions))

    def hidden(self, x_BO: torch.Tensor) -> torch.Tensor:
        x_BD: torch.Tensor = self.layers[:-1]((x_BO - self.shift) * self.factor)
        return x_BD

    def forward(self, x_BO: torch.Tensor) -> torch.Tensor:
        q_BA: torch.Tensor = self.layers((x_BO - self.shift) * self.factor)
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


@dataclass
class Learner:
    """One trial under way. `epoch` and `updates` count from the trial's beginning."""

    settings: Settings
    rollouts: Rollouts
    net: Net
    target: Net
    optimizer: torch.optim.Optimizer
    replay: Replay
    epoch: int = 0
    updates: int = 0
    best: float = float("nan")
    best_tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def learn_epoch(self) -> Metrics:
        """Whole episodes, until `settings.steps` are made and something was learnt."""
        self.epoch += 1
        generator = seeded(self.rollouts.seed, self.epoch)
        goal, losses = self.rollouts.steps + self.settings.steps, list[torch.Tensor]()

        def act(x_NO: Floats) -> tuple[list[int], list[int]]:
            action_N = self._act(x_NO, generator)
            return action_N, [action + self.net.first for action in action_N]

        for made in self.rollouts.play(act, lambda: self.rollouts.steps >= goal and bool(losses)):
            for _ in range(self._due(made)):
                losses.append(
                    self._update(self.replay.sample(self.settings.batch_rows, generator, self.net.shift.device))
                )
        return {
            "train/loss": float(torch.stack(losses).mean()),
            "train/return": float(np.mean(self.rollouts.returns)),
            "train/steps": float(self.rollouts.steps),
        }

    def _due(self, made: int) -> int:
        """Updates that the last `made` steps call for."""
        steps, every = self.rollouts.steps, self.settings.update_every
        return (
            steps // every - max(steps - made, self.settings.warm_up - 1) // every
            if steps >= self.settings.warm_up
            else 0
        )

    def _act(self, x_NO: Floats, generator: np.random.Generator) -> list[int]:
        """Numbers of actions: the greedy ones, but for a share that falls."""
        done = min(1.0, self.rollouts.steps / max(1, self.settings.explore_steps))
        random_N = generator.random(len(x_NO)) < 1 - (1 - self.settings.explore) * done
        drawn_N = generator.integers(self.net.actions, size=len(x_NO))
        if random_N.all():
            drawn: list[int] = drawn_N.tolist()
            return drawn
        with torch.inference_mode():
            greedy_N = self.net(torch.from_numpy(x_NO).to(self.net.shift.device)).argmax(1).cpu().numpy()
        chosen: list[int] = np.where(random_N, drawn_N, greedy_N).tolist()
        return chosen

    def _update(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One step down the Huber loss of the temporal difference. The net chooses the next action, the target net
        values it (double Q-learning). All in float32: in bfloat16 values near 100 are half a point apart."""
        with torch.no_grad():
            chosen_B1 = self.net(batch["after"]).argmax(1, keepdim=True)
            value_B = self.target(batch["after"]).gather(1, chosen_B1)[:, 0]
        q_B = self.net(batch["before"]).gather(1, batch["action"][:, None])[:, 0]
        loss = functional.smooth_l1_loss(q_B, batch["reward"] + batch["discount"] * value_B)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.clip)
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.settings.target_every == 0:
            self.target.load_state_dict(self.net.state_dict())
        return loss.detach()

    def keep_best(self, value: float, objective: Objective) -> None:
        if not self.best_tensors or objective.better(value, self.best):
            self.best, self.best_tensors = value, pack({MODEL.rstrip("/"): self.net}).tensors

    def keeper(self) -> Callable[[], State]:
        number = self.epoch

        def keep() -> State:
            if self.epoch != number:
                raise RuntimeError(f"the state of epoch {number} is gone: ask for it before the next epoch")
            counts = {"epoch": self.epoch, "updates": self.updates, "added": self.replay.added}
            played = {"episodes": self.rollouts.episodes, "steps": self.rollouts.steps}
            progress = {**counts, **played, "best": repr(self.best)}  # as text: JSON has no NaN
            model = {"actions": self.net.actions, "first": self.net.first}
            kept = {**self.replay.filled(), **self.best_tensors}
            return pack(self._parts(), {"progress": progress, "model": model}, kept)

        return keep

    def go_on(self, state: State) -> None:
        unpack(state, self._parts())
        kept = state.scalars["progress"]
        self.epoch, self.updates, self.best = kept["epoch"], kept["updates"], float(kept["best"])
        self.rollouts.episodes, self.rollouts.steps = kept["episodes"], kept["steps"]
        self.best_tensors = {name: tensor.clone() for name, tensor in state.served().tensors.items()}
        self.replay.fill(state, kept["added"])

    def _parts(self) -> Parts:
        return {"net": self.net, "target": self.target, "optimizer": self.optimizer}


class Dqn:
    learning: ClassVar[Learning] = "reinforcement"
    tasks: ClassVar[tuple[Task, ...]] = ("control",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        return Objective("return", "max")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "lr": Uniform(5e-4, 2e-3, log=True, mutable=True),
            "gamma": Choice((0.98, 0.99)),
            "target_every": Choice((50, 100, 200)),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where = configure(Settings, hyper), data.spec, device()
        seeded(seed)
        practice, arena = (Arena(spec, "Discrete", count) for count in (settings.environments, EPISODES["val"]))
        space, column = practice.worlds[0].action_space, observation_column(spec)
        net = Net(column, int(space.n), int(space.start), settings)
        recorded_NO = environments.observations(data.splits["train"], column)
        net.shift, net.factor = environments.scale(practice.worlds[0].observation_space, recorded_NO)
        net.to(where)
        replay = Replay(settings.replay, len(net.shift), torch.zeros((), dtype=torch.int64))
        target = copy.deepcopy(net).requires_grad_(False)
        rollouts = Rollouts(practice, replay, seed, settings.gamma, settings.look_ahead)
        learner = Learner(settings, rollouts, net, target, adam(net.parameters(), settings.lr), replay)
        if state is not None:
            learner.go_on(state)
        while True:
            metrics = learner.learn_epoch() | environments.measure(environments.play(net.greedy, arena, "val"), "val")
            learner.keep_best(metrics["val/return"], self.objective(spec))
            yield Epoch(learner.epoch, metrics, learner.keeper())

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(observation_column(spec), **state.scalars["model"], settings=configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """Returns of greedy episodes: each split has seeds of its own, the same for every net."""
        return environments.play(net.greedy, Arena(data.spec, "Discrete", EPISODES[split]), split)

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return environments.measure(outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """A random policy: the mean return of the split's recorded episodes."""
        return environments.recorded_return(data, split)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The greedy action for each observation, and its value: the discounted return that it promises."""
        x_NO = _observations(net, batch)
        value_N, action_N = net.best(x_NO)
        return pa.record_batch([pa.array(action_N.numpy()), pa.array(value_N.numpy())], schema=OUTPUTS)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The last hidden layer; the scaled observations where there is none."""
        codes: Codes = net.hidden(_observations(net, batch).to(net.shift.device)).cpu().numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return OUTPUTS


def _observations(net: Net, batch: pa.RecordBatch) -> torch.Tensor:
    """x_NO. Raises BadInput if an element is not finite."""
    x_NO = environments.observations(batch, net.column)
    if not x_NO.isfinite().all():
        raise BadInput(f"column {net.column.name!r} holds observations that are not finite")
    return x_NO
