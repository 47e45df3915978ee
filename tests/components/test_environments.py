"""Environments: what is made, seeded, measured and remembered."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pyarrow as pa
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary

from components import environments
from components.contract import EVALUATION, SPLITS, TRAINING_SEEDS, Column, Data, Spec, State
from components.environments import Arena, Replay
from components.errors import DataError
from components.rollouts import Rollouts

POSITION = (Column("observation", "tensor", "float32", (1,)),)


class Corridor(gymnasium.Env[Any, Any]):
    """Five cells and a start drawn among the first three. Action 6 goes right, 5 left; the right end pays 10 and ends
    the episode; each step costs 1."""

    observation_space: Any = Box(0, 4, (1,), np.float32)
    action_space: Any = Discrete(2, start=5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.at = int(self.np_random.integers(3))
        return np.array([self.at], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.at = min(4, max(0, self.at + (1 if action == 6 else -1)))
        return np.array([self.at], np.float32), 10.0 if self.at == 4 else -1.0, self.at == 4, False, {}


class Switches(Corridor):
    action_space: ClassVar[Any] = MultiBinary(2)


class Faulty(Corridor):
    """Goes wrong in `fault`'s way: in reset, or in its second step."""

    def __init__(self, fault: str) -> None:
        self.fault, self.made = fault, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.made = 0
        seen, told = super().reset(seed=seed, options=options)
        if self.fault == "reset raises":
            raise ZeroDivisionError("the floor is gone")
        return {"reset nan": seen * np.nan, "reset shape": np.zeros(3, np.float32)}.get(self.fault, seen), told

    def step(self, action: Any) -> Any:
        seen, reward, ended, _, told = super().step(action)
        self.made += 1
        if self.made == 2 and self.fault == "step raises":
            raise ZeroDivisionError("the floor is gone")
        if self.made == 2 and self.fault == "step old":
            return seen, reward, ended, told
        if self.made == 2:
            seen = {"step inf": seen + np.inf, "step shape": seen[0], "step words": ["a"]}.get(self.fault, seen)
            reward = {"reward nan": np.nan, "reward words": "much"}.get(self.fault, reward)
        return seen, reward, False, False, told


class Tireless(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Says that it goes on, whatever is inside it."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)

    def step(self, action: Any) -> Any:
        seen, reward, *_ = self.env.step(action)
        return seen, reward, False, False, {}


for name, kind, limit in (
    ("Corridor", Corridor, 12),
    ("Endless", Corridor, None),
    ("Switches", Switches, 12),
    ("Faulty", Faulty, 12),
):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", entry_point=kind, max_episode_steps=limit)


def spec(environment: str, columns: tuple[Column, ...] = POSITION) -> Spec:
    return Spec("steps", "control", columns, environment=environment)


def recorded(environment: str = "Corridor-v0") -> Data:
    """Six random episodes a split, as a dataset holds them."""
    splits = {}
    for number, split in enumerate(SPLITS):
        world, draw = environments.make(spec(environment), "Discrete"), np.random.default_rng(number)
        seen, rewards, episodes = [], [], []
        for episode in range(6):
            x, ended = world.reset(seed=episode)[0], False
            while not ended:
                seen.append(x)
                x, reward, terminated, truncated, _ = world.step(int(draw.integers(5, 7)))
                ended = terminated or truncated
                rewards.append(reward)
                episodes.append(episode)
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(seen))
        splits[split] = pa.table({"observation": column, "episode": episodes, "reward": rewards})
    return Data(spec(environment), splits)


# ── what is made ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("CartPool-v1", "no environment 'CartPool-v1'"),
        ("nowhere.at_all:Corridor-v0", "no environment"),
        (None, "no environment None"),
        ("Switches-v0", "not Discrete"),
        ("Endless-v0", "no time limit"),
        ("CartPole-v1", r"not a Box of shape \(1,\)"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(environment: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        environments.make(spec(environment), "Discrete")


def test_observations_are_one_tensor_column() -> None:
    columns = (Column("position", "number"), Column("speed", "number"))
    with pytest.raises(DataError, match=r"position \(number\), speed \(number\), expected one tensor column"):
        environments.make(spec("Corridor-v0", columns), "Discrete")


def test_bounds_are_scaled_to_one_and_where_there_are_none_the_recorded_rows_decide() -> None:
    space = Box(np.array([0, -np.inf, -3.4e38, 7], np.float32), np.array([8, np.inf, 3.4e38, 7], np.float32))
    rows = torch.tensor([[1.0, 10.0, 5.0, 7.0], [1.0, 30.0, 5.0, 7.0]])
    shift, factor = environments.scale(space, rows)
    x = torch.tensor([[0.0, 10.0, 5.0, 7.0], [8.0, 30.0, 6.0, 7.0]])
    assert ((x - shift) * factor).tolist() == [[-1.0, -1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]


def test_an_environments_settings_and_wrappers_are_the_datasets() -> None:
    """And a limit that the environment lacks is one of its settings."""
    asked = dataclasses.replace(
        spec("Endless-v0", (Column("observation", "tensor", "float32", (1, 1)),)),
        environment_settings={"max_episode_steps": 5},
        environment_wrappers=("gymnasium.wrappers:TimeAwareObservation", "gymnasium.wrappers:FlattenObservation"),
    )
    assert Spec.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert not {"environment_settings", "environment_wrappers"} & spec("Endless-v0").to_json().keys()
    with pytest.raises(DataError, match=r"observations are .*not a Box of shape \(1, 1\)"):
        environments.make(asked, "Discrete")
    made = environments.make(dataclasses.replace(asked, environment_wrappers=()), "Discrete")
    assert made.spec.max_episode_steps == 5
    timed = dataclasses.replace(asked, columns=(Column("observation", "tensor", "float32", (2,)),))
    arena = Arena(timed, "Discrete", 1)
    arena.reset(0, 1, "an episode")
    arena.step([0], [5])
    assert arena.x_NO[0, 1] == 1.0, "the time"


@pytest.mark.parametrize(
    ("change", "why", "fix"),
    [
        ({"environment_settings": {"speed": 3}}, "speed", "its environment_settings"),
        ({"environment_wrappers": ("gymnasium.wrappers:Nothing",)}, "Nothing", "name it as package.module:Class"),
        ({"environment_wrappers": ("nowhere_at_all:Nothing",)}, "nowhere_at_all", "name it as package.module:Class"),
    ],
)
def test_settings_and_wrappers_that_there_are_not_are_named(change: dict[str, Any], why: str, fix: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        environments.make(dataclasses.replace(spec("Corridor-v0"), **change), "Discrete")
    assert fix in str(caught.value)


# ── what goes wrong in it ───────────────────────────────────────────────────────────────────────────────

FAULTS = {
    "reset raises": (r"'Faulty-v0' raised ZeroDivisionError in reset", 0, "the floor is gone"),
    "reset nan": (r"observation that is not finite, in elements \[0\]", 0, ""),
    "reset shape": (r"observation of shape \(3,\), its space has \(1,\)", 0, ""),
    "step raises": (r"raised ZeroDivisionError in step", 2, "the floor is gone"),
    "step old": (r"raised ValueError in step", 2, "not enough values"),
    "step inf": (r"observation that is not finite, in elements \[0\]", 2, ""),
    "step shape": (r"observation of shape \(\), its space has \(1,\)", 2, ""),
    "step words": (r"raised ValueError in step", 2, "could not convert"),
    "reward nan": (r"gave the reward nan", 2, ""),
    "reward words": (r"raised ValueError in step", 2, "could not convert"),
}


@pytest.mark.parametrize("measured", [True, False], ids=["measured", "trained"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_says_in_which_episode_with_which_seed_at_which_step(fault: str, measured: bool) -> None:
    what, step, why = FAULTS[fault]
    asked = dataclasses.replace(spec("Faulty-v0"), environment_settings={"fault": fault})
    arena = Arena(asked, "Discrete", 2)
    with pytest.raises(DataError, match=what) as caught:
        if measured:
            environments.play(lambda x_NO: [5] * len(x_NO), arena, "val")
        else:
            _practise(arena)
    episode, seed = ("val", EVALUATION["val"][0]) if measured else ("training", environments.training_seed(3, 0))
    assert f"steps: {episode} episode 0 (reset with seed {seed}), step {step}" in str(caught.value)
    assert why in str(caught.value) and "fix: mend the environment" in str(caught.value)


def test_an_environment_that_does_not_keep_its_own_limit_is_stopped() -> None:
    asked = dataclasses.replace(spec("Corridor-v0"), environment_wrappers=(f"{__name__}:Tireless",))
    for go in (lambda arena: environments.play(lambda x: [5] * len(x), arena, "test"), _practise):
        with pytest.raises(DataError, match="did not end at its own time limit of 12 steps") as caught:
            go(Arena(asked, "Discrete", 2))
        assert "step 12" in str(caught.value)


def _practise(arena: Arena) -> None:
    memory = Replay(100, 1, torch.zeros((), dtype=torch.int64))
    for _ in Rollouts(arena, memory, 3, 0.9).play(lambda x: ([0] * len(x), [5] * len(x)), lambda: False):
        assert len(memory) < 90


# ── seeds ───────────────────────────────────────────────────────────────────────────────────────────────


def test_no_training_episode_is_a_measured_one() -> None:
    seeds = {environments.training_seed(seed, episode) for seed in (0, 1, 2**62) for episode in range(300)}
    assert len(seeds) == 900
    assert min(seeds) >= TRAINING_SEEDS > max(map(max, EVALUATION.values()))
    assert max(seeds) < 2**31


def test_what_measures_where_a_dataset_says_nothing() -> None:
    told = {split: (seeds[0], len(seeds), seeds.step) for split, seeds in spec("Corridor-v0").evaluation.items()}
    assert told == {"train": (0, 50, 1), "val": (1_000_000, 50, 1), "test": (2_000_000, 100, 1)}
    assert "evaluation" not in spec("Corridor-v0").to_json()


def test_a_dataset_may_say_what_measures() -> None:
    asked = dataclasses.replace(spec("Corridor-v0"), evaluation=EVALUATION | {"val": range(7, 10)})
    told = json.loads(json.dumps(asked.to_json()))
    assert told["evaluation"] == {"val": {"episodes": 3, "first_seed": 7}} and Spec.from_json(told) == asked
    arena = environments.measuring(asked, "Discrete", "val")
    environments.play(lambda x_NO: [6] * len(x_NO), arena, "val")
    assert [world.unwrapped.np_random_seed for world in arena.worlds] == [7, 8, 9]
    assert len(environments.measuring(asked, "Discrete", "test").worlds) == 100


def test_what_was_written_before_a_dataset_could_say_it_is_read() -> None:
    old = {"dataset": "steps", "task": "control", "columns": [{"name": "x", "kind": "tensor", "shape": [1]}]}
    assert Spec.from_json(old).evaluation == EVALUATION


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────


def test_episodes_in_step_are_those_one_after_the_other() -> None:
    def policy(x_NO: torch.Tensor) -> list[int]:
        """Right, but at cell 1 left: starts at 0 and 1 never arrive."""
        return [5 if x == 1 else 6 for x in x_NO[:, 0].tolist()]

    arena = Arena(spec("Corridor-v0"), "Discrete", 8)
    outcomes = environments.play(policy, arena, "val")
    together = environments.measure(outcomes, "val")
    alone, world = [], arena.worlds[0]
    for i in range(8):
        x, total, ended = world.reset(seed=EVALUATION["val"][i])[0], 0.0, False
        while not ended:
            x, reward, terminated, truncated, _ = world.step(policy(torch.tensor(x)[None])[0])
            total, ended = total + reward, terminated or truncated
        alone.append(total)
    assert set(alone) == {9.0, -12.0} and outcomes["return"].tolist() == alone
    assert together == {"val/return": np.mean(alone), "val/return_std": pytest.approx(np.std(alone))}


def test_recorded_returns_are_the_sums_of_rewards_by_episode() -> None:
    rows = pa.table({"episode": [7, 7, 3, 3, 3], "reward": [1.0, 2.0, 0.5, 0.5, -1.0]})
    data = Data(spec("Corridor-v0"), {"test": rows})
    assert environments.recorded_return(data, "test") == {"test/return": 1.5}


# ── what is remembered ──────────────────────────────────────────────────────────────────────────────────


def test_the_oldest_transition_gives_way_and_a_filled_buffer_goes_on_as_it_was() -> None:
    replay, again = (Replay(3, 2, torch.zeros((), dtype=torch.int64)) for _ in range(2))
    for number in range(4):
        replay.add(before=[number, 0.5], action=number, reward=number, discount=0.9, after=[number + 1, 0.5])
    assert len(replay) == 3
    assert replay.rows["reward"].tolist() == [3.0, 1.0, 2.0]
    again.fill(State(replay.filled()), replay.added)
    for each in (replay, again):
        each.add(before=[9, 9], action=9, reward=9, discount=0.0, after=[9, 9])
    for name, rows in replay.rows.items():
        assert torch.equal(rows, again.rows[name])
    draws = [
        each.sample(5, np.random.default_rng(0), torch.device("cpu"))["action"].tolist() for each in (replay, again)
    ]
    assert draws[0] == draws[1] and set(draws[0]) <= {3, 9, 2}


def test_only_what_is_filled_is_kept_and_drawn() -> None:
    replay = Replay(100, 1, torch.zeros((), dtype=torch.int64))
    replay.add(before=[1], action=1, reward=1, discount=1, after=[1])
    assert {rows.shape[0] for rows in replay.filled().values()} == {1}
    assert replay.sample(20, np.random.default_rng(0), torch.device("cpu"))["reward"].tolist() == [1.0] * 20
