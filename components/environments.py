"""What families that learn by acting have in common: gymnasium environments, their seeds, measured episodes, and a
memory of transitions. gymnasium is imported where an environment is made: a model that only scores does without.

Every reset is seeded, and training, val and test never share a seed. Legend: B transitions of a batch, N episodes or
rows, O elements of an observation, D elements of an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from .contract import Column, Data, Metrics, Outcomes, Spec, State
from .errors import DataError
from .tables import Rows, numbers, tensors

Policy: TypeAlias = Callable[
    [torch.Tensor], Sequence[Any]
]  # observations x_NO → an action for each, as the space has it

# Episodes that measure a policy on a split, and the seed of the first; training's own seeds begin above them all.
EPISODES = {"train": 50, "val": 50, "test": 100}
SEEDS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
TRAINING_SEEDS = 2**24


def observation_column(spec: Spec) -> Column:
    """The one tensor column of observations. Raises DataError if the inputs are anything else."""
    if [column.kind for column in spec.columns] != ["tensor"]:
        inputs = ", ".join(f"{column.name} ({column.kind})" for column in spec.columns) or "none"
        raise DataError(
            f"got the inputs {inputs}, expected one tensor column of observations",
            where=spec.dataset,
            fix="record the observations as one fixed-shape tensor column, and list the rest as ignored",
        )
    return spec.columns[0]


def make(spec: Spec, actions: str) -> Any:
    """The environment of a dataset, whose action space must be of the kind named `actions` ("Discrete", "Box").

    Raises DataError if there is none of this name, or if nobody could learn in it from these observations.
    """
    import gymnasium

    name = spec.environment
    try:
        environment = gymnasium.make(name or "", disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        why, fix = str(error).splitlines()[0], "mend its name in the dataset, or install the package that brings it"
        raise DataError(f"no environment {name!r}", where=spec.dataset, why=why, fix=fix) from error
    space, seen, shape = environment.action_space, environment.observation_space, observation_column(spec).shape
    alike = isinstance(seen, gymnasium.spaces.Box) and math.prod(seen.shape) == math.prod(shape)
    faults = {
        f"its actions are {space}, not {actions}": type(space).__name__ != actions,
        f"its observations are {seen}, not a Box of shape {shape} as recorded": not alike,
        "it has no time limit, so an episode may never end": environment.spec.max_episode_steps is None,
    }
    for why, wrong in faults.items():
        if wrong:
            raise DataError(f"environment {name!r} does not fit the family", where=spec.dataset, why=why)
    return environment


def flat(observation: Any) -> NDArray[np.float32]:
    """x_O in float32, in numpy: a step is over before torch has made a tensor."""
    return np.asarray(observation, np.float32).reshape(-1)


def observations(rows: Rows, column: Column) -> torch.Tensor:
    """Recorded observations, x_NO in float32."""
    return tensors(rows, column).reshape(rows.num_rows, math.prod(column.shape)).float()


def scale(space: Any, recorded_NO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """shift_O and factor_O, so that (x - shift) * factor lies within ±1 where the space has bounds; elsewhere the
    recorded rows get mean 0 and deviation 1."""
    low_O, high_O = torch.from_numpy(flat(space.low)), torch.from_numpy(flat(space.high))
    bounded_O = (low_O.abs() < 1e6) & (high_O.abs() < 1e6)  # some spaces write the largest float for no bound
    shift_O = torch.where(bounded_O, high_O / 2 + low_O / 2, recorded_NO.mean(0))
    spread_O = torch.where(bounded_O, high_O / 2 - low_O / 2, recorded_NO.std(0, correction=0))
    return shift_O, 1 / torch.where(spread_O > 1e-6, spread_O, 1.0)


def training_seed(seed: int, episode: int) -> int:
    """Of the reset of a training episode."""
    drawn = int(np.random.SeedSequence([seed % 2**63, episode]).generate_state(1)[0])
    return TRAINING_SEEDS + drawn % (2**31 - TRAINING_SEEDS)


def play(policy: Policy, arena: Sequence[Any], split: str) -> Outcomes:
    """The undiscounted return of one episode in each environment, by the split's own seeds, all in step, so that the
    policy is asked once for all."""
    x_NO = np.stack([flat(world.reset(seed=SEEDS[split] + i)[0]) for i, world in enumerate(arena)])
    return_N, live = np.zeros(len(arena)), list(range(len(arena)))
    while live:
        going = []
        for i, action in zip(live, policy(torch.from_numpy(x_NO[live])), strict=True):
            after, reward, terminated, truncated, _ = arena[i].step(action)
            x_NO[i] = flat(after)
            return_N[i] += float(reward)
            if not (terminated or truncated):
                going.append(i)
        live = going
    return {"return": return_N}


def measure(outcomes: Outcomes, split: str) -> Metrics:
    """split/return and split/return_std: mean and deviation of the episodes' returns."""
    return_N = outcomes["return"]
    return {f"{split}/return": float(return_N.mean()), f"{split}/return_std": float(return_N.std())}


def recorded_return(data: Data, split: str) -> Metrics:
    """split/return of the recorded episodes: their mean sum of rewards."""
    rows = data.splits[split]
    _, episode_N = np.unique(numbers(rows, "episode"), return_inverse=True)
    return {f"{split}/return": float(np.bincount(episode_N, numbers(rows, "reward")).mean())}


class Replay:
    """The last `size` transitions, each over the n steps of a return: before_BO, action_BD, reward_B (their discounted
    sum), discount_B (of what follows; 0 where nothing does), after_BO. On the CPU, whatever the net runs on."""

    def __init__(self, size: int, observation: int, action: torch.Tensor) -> None:
        """`action`: any one, for its shape D and dtype."""
        self.added = 0
        self.rows = {
            "before": torch.zeros(size, observation),
            "action": torch.zeros(size, *action.shape, dtype=action.dtype),
            "reward": torch.zeros(size),
            "discount": torch.zeros(size),
            "after": torch.zeros(size, observation),
        }
        self._shared = {name: rows.numpy() for name, rows in self.rows.items()}  # quicker to write one row into

    def __len__(self) -> int:
        return min(self.added, len(self.rows["reward"]))

    def add(self, **transition: Any) -> None:
        at = self.added % len(self.rows["reward"])
        for name, value in transition.items():
            self._shared[name][at] = value
        self.added += 1

    def sample(self, count: int, generator: np.random.Generator, where: torch.device) -> dict[str, torch.Tensor]:
        drawn = torch.from_numpy(generator.integers(0, len(self), count))
        return {name: rows[drawn].to(where) for name, rows in self.rows.items()}

    def filled(self) -> dict[str, torch.Tensor]:
        """What a State keeps, beside the number `added`."""
        return {f"replay/{name}": rows[: len(self)] for name, rows in self.rows.items()}

    def fill(self, state: State, added: int) -> None:
        self.added = added
        for name, rows in self.rows.items():
            rows[: len(self)] = state.tensors[f"replay/{name}"]
