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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from .. import environments, gradients
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
from ..priorities import Prioritised
from ..rollouts import Rollouts
from ..settings import configure
from ..states import Parts, pack, unpack
from ..training import adam

Floats: TypeAlias = NDArray[np.float32]
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
    lr: float = 2e-3
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

    def __post_init__(self) -> None:
        self.weights = list(self.net.parameters())

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

    def _update(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
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
        self.replay.learnt(batch, q_B - wanted_B)
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
            "look_ahead": Choice((5, 10, 20)),
            "double": Choice((True, False)),
            "dueling": Choice((True, False)),
            "prioritised": Choice((0.0, 0.6)),
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
        replay = _replay(settings, len(net.shift))
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


def _replay(settings: Settings, elements: int) -> Replay:
    """A memory of observations of so many elements."""
    action = torch.zeros((), dtype=torch.int64)
    if not settings.prioritised:
        return Replay(settings.replay, elements, action)
    fading = (settings.prioritised, settings.correct, settings.correct_steps)
    return Prioritised(settings.replay, elements, action, *fading)
