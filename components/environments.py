"""What families that learn by acting have in common: gymnasium environments, their seeds, measured episodes, and a
memory of transitions. gymnasium is imported where an environment is made: a model that only scores does without.

Every reset is seeded, and training, val and test never share a seed. Legend: B transitions of a batch, N episodes or
rows, O elements of an observation, D elements of an action.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from .contract import TRAINING_SEEDS, Column, Data, Metrics, Outcomes, Spec, State
from .errors import BadInput, DataError
from .tables import Rows, numbers, tensors

# Observations x_NO → an action for each, as the space has it.
Policy: TypeAlias = Callable[[torch.Tensor], Sequence[Any]]


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


def opened(spec: Spec, drawn: str | None = None) -> Any:
    """The environment of a dataset, with its settings and in its wrappers. `drawn`: its render mode. Raises DataError
    if there is none of this name, or if it cannot be made so, whatever its own code raises."""
    import gymnasium

    told = {**spec.environment_settings, **({"render_mode": drawn} if drawn else {})}
    try:
        made = gymnasium.make(spec.environment or "", disable_env_checker=True, **told)
    except Exception as error:
        fix = "mend its name or its environment_settings, or install the package that brings it"
        raise DataError(
            f"no environment {spec.environment!r}", where=spec.dataset, why=_line(error), fix=fix
        ) from error
    for path in spec.environment_wrappers:
        made = _wrapped(made, path, spec)
    return made


def _wrapped(inner: Any, path: str, spec: Spec) -> Any:
    """The environment in one more wrapper, "package.module:Class"."""
    import gymnasium

    module, _, name = path.partition(":")
    known: list[str] = []
    try:
        found = importlib.import_module(module)
        known = difflib.get_close_matches(name, dir(found), 1)
        wrapper = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as error:
        hint = f"did you mean {module}:{known[0]}? " if known else ""
        fix = f"{hint}name it as package.module:Class, and install the package that brings it"
        raise DataError(f"no wrapper {path!r}", where=spec.dataset, why=_line(error), fix=fix) from error
    try:
        made = wrapper(inner)
        if not isinstance(made, gymnasium.Env):
            raise TypeError(f"it makes a {type(made).__name__}, not a gymnasium.Env")
        if made.spec is None:
            raise TypeError("it hides the environment's spec, which says the time limit: make it a gymnasium.Wrapper")
    except Exception as error:
        fix = "it is given the environment and nothing else: one that wants more needs a class of your own around it"
        what = f"wrapper {path!r} does not go around environment {spec.environment!r}"
        raise DataError(what, where=spec.dataset, why=_line(error), fix=fix) from error
    return made


def make(spec: Spec, actions: str) -> Any:
    """The environment of a dataset, whose action space must be of the kind named `actions` ("Discrete", "Box").

    Raises DataError if there is none of this name, or if nobody could learn in it from these observations.
    """
    import gymnasium

    environment, name = opened(spec), spec.environment
    space, seen, shape = environment.action_space, environment.observation_space, observation_column(spec).shape
    alike = isinstance(seen, gymnasium.spaces.Box) and math.prod(seen.shape) == math.prod(shape)
    faults = [
        (
            type(space).__name__ != actions,
            f"its actions are {space}, not {actions}",
            f"choose a family that acts in {type(space).__name__}, or a wrapper that makes them {actions}",
        ),
        (
            not alike,
            f"its observations are {seen}, not a Box of shape {shape} as recorded",
            "have it recorded anew, or choose wrappers that show what was recorded",
        ),
        (
            environment.spec.max_episode_steps is None,
            "it has no time limit, so an episode may never end",
            "give it one in the dataset's block: environment_settings: {max_episode_steps: 1000}",
        ),
    ]
    for wrong, why, fix in faults:
        if wrong:
            raise DataError(f"environment {name!r} does not fit", where=spec.dataset, why=why, fix=fix)
    return environment


def flat(observation: Any) -> NDArray[np.float32]:
    """x_O in float32, in numpy: a step is over before torch has made a tensor."""
    return np.asarray(observation, np.float32).reshape(-1)


def observations(rows: Rows, column: Column) -> torch.Tensor:
    """Recorded observations, x_NO in float32."""
    return tensors(rows, column).reshape(rows.num_rows, math.prod(column.shape)).float()


def finite(rows: Rows, column: Column) -> torch.Tensor:
    """Observations to be scored, x_NO. Raises BadInput if an element is not finite."""
    x_NO = observations(rows, column)
    if not x_NO.isfinite().all():
        raise BadInput(f"column {column.name!r} holds observations that are not finite")
    return x_NO


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


class Arena:
    """Environments of one dataset, in step, so that a policy is asked once for all. Whatever one of them does that no
    policy could be blamed for is an error which says where: nobody learns from it, nobody is measured by it.

    spec       of the dataset that they are of
    worlds     the environments, all alike
    x_NO       what each shows now, in float32
    """

    def __init__(self, spec: Spec, actions: str, count: int) -> None:
        """Raises DataError as `make` does."""
        self.worlds = [make(spec, actions) for _ in range(count)]
        space = self.worlds[0].observation_space
        self.x_NO = np.zeros((count, math.prod(space.shape)), np.float32)
        self.spec, self._shape, self._limit = spec, space.shape, self.worlds[0].spec.max_episode_steps
        self._steps = [0] * count
        self._episodes = [("", 0)] * count  # what each is called, and its seed

    def reset(self, at: int, seed: int, episode: str) -> None:
        """Begin an episode in the environment `at`. `episode` says in an error which it is. Raises DataError."""
        self._steps[at], self._episodes[at] = 0, (episode, seed)
        try:
            seen, _ = self.worlds[at].reset(seed=seed)
            shown = np.asarray(seen, np.float32)
        except Exception as error:
            raise self._fault(at, f"raised {_named(error)} in reset", error) from error
        self._show(at, shown)
        self._require_finite([at])

    def step(self, live: Sequence[int], actions: Sequence[Any]) -> list[tuple[float, bool, bool]]:
        """Act in the environments `live`, an action each. Returns for each the reward, whether its world ended, and
        whether its episode did (which a time limit ends too). Raises DataError."""
        results = []
        for at, action in zip(live, actions, strict=True):
            self._steps[at] += 1
            try:
                after, paid, terminated, truncated, _ = self.worlds[at].step(action)
                shown, reward = np.asarray(after, np.float32), float(paid)
            except Exception as error:
                raise self._fault(at, f"raised {_named(error)} in step", error) from error
            if not math.isfinite(reward):
                raise self._fault(at, f"gave the reward {reward}")
            self._show(at, shown)
            ended = bool(terminated or truncated)
            if not ended and self._steps[at] >= self._limit:
                raise self._fault(at, f"did not end at its own time limit of {self._limit} steps")
            results.append((reward, bool(terminated), ended))
        self._require_finite(live)
        return results

    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """low_D and high_D of actions from a Box. Raises DataError if one has no bounds, or is not a float."""
        space = self.worlds[0].action_space
        low_D, high_D = (torch.from_numpy(flat(side)) for side in (space.low, space.high))
        if space.dtype.kind != "f" or not (high_D - low_D).isfinite().all():
            raise DataError(
                f"environment {self.spec.environment!r} does not fit the family",
                where=self.spec.dataset,
                why=f"its actions are {space}, not floats with bounds",
                fix="name a wrapper that gives them bounds in the dataset's environment_wrappers",
            )
        return low_D, high_D

    def actions(self, a_ND: torch.Tensor) -> list[NDArray[Any]]:
        """Of the shape and the type that actions from a Box have, and within it."""
        space = self.worlds[0].action_space
        return list(a_ND.cpu().numpy().astype(space.dtype).reshape(-1, *space.shape).clip(space.low, space.high))

    def _show(self, at: int, shown: NDArray[np.float32]) -> None:
        if shown.shape != self._shape:
            raise self._fault(at, f"showed an observation of shape {shown.shape}, its space has {self._shape}")
        self.x_NO[at] = shown.reshape(-1)

    def _require_finite(self, live: Sequence[int]) -> None:
        if np.isfinite(self.x_NO[live]).all():
            return
        at = next(each for each in live if not np.isfinite(self.x_NO[each]).all())
        elements = np.flatnonzero(~np.isfinite(self.x_NO[at])).tolist()
        raise self._fault(at, f"showed an observation that is not finite, in elements {elements}")

    def _fault(self, at: int, what: str, error: Exception | None = None) -> DataError:
        episode, seed = self._episodes[at]
        return DataError(
            f"environment {self.spec.environment!r} {what}",
            where=f"{self.spec.dataset}: {episode} (reset with seed {seed}), step {self._steps[at]}",
            why=str(error) if error else "nobody can learn from that, nor be measured by it",
            fix="mend the environment: the same seed and actions show it again; or name another in the dataset",
        )


def _named(error: Exception) -> str:
    return type(error).__name__


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).splitlines()), "") or _named(error)


def measuring(spec: Spec, actions: str, split: str) -> Arena:
    """As many environments as the dataset has episodes to measure a policy on a split. Raises DataError."""
    return Arena(spec, actions, len(spec.evaluation[split]))


def play(policy: Policy, arena: Arena, split: str) -> Outcomes:
    """The undiscounted return of one episode in each environment, by the split's own seeds. Raises DataError."""
    for at in range(len(arena.worlds)):
        arena.reset(at, arena.spec.evaluation[split][at], f"{split} episode {at}")
    return_N, live = np.zeros(len(arena.worlds)), list(range(len(arena.worlds)))
    while live:
        results = arena.step(live, policy(torch.from_numpy(arena.x_NO[live])))
        for at, (reward, _, _) in zip(live, results, strict=True):
            return_N[at] += reward
        live = [at for at, (_, _, ended) in zip(live, results, strict=True) if not ended]
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
        return {name: rows.index_select(0, drawn).to(where) for name, rows in self.rows.items()}

    def learnt(self, batch: dict[str, torch.Tensor], error_B: torch.Tensor) -> None:
        """How wrong the net was about a batch: nothing to this memory, which draws all alike."""

    def filled(self) -> dict[str, torch.Tensor]:
        """What a State keeps, beside the number `added`."""
        return {f"replay/{name}": rows[: len(self)] for name, rows in self.rows.items()}

    def fill(self, state: State, added: int) -> None:
        self.added = added
        for name, rows in self.rows.items():
            rows[: len(self)] = state.tensors[f"replay/{name}"]
