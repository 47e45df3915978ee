"""Episodes of an environment under a policy that acts at random, recorded as a dataset.

A family that learns by acting makes the environment itself; these rows are what validation looks at, what observations
and rewards are scaled by, and what fixes the version of the environment that a result belongs to. Episode k is reset
with seed k, and its actions come from a generator with seed k. About 60/20/20, by a hash of each whole episode.

One row: id "7-0", episode 7, step 0, observation (before the action), action, reward, terminated 0, truncated 0, split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations
from . import splits


def record(environment: str, count: int) -> pa.Table:
    """A row a step, in order: id, episode, step, observation, action, reward, terminated, truncated, split.
    A continuous action is a tensor as the observation is, float32 both."""
    import gymnasium

    world = gymnasium.make(environment)
    episodes = [_episode(world, number) for number in range(count)]
    world.close()
    content = np.array([np.bitwise_xor.reduce(splits.row_hashes(e.drop(["id", "episode"]))) for e in episodes])
    split = splits.assign(content, np.zeros(count)).take(
        pa.array(np.repeat(range(count), [e.num_rows for e in episodes]))
    )
    return pa.concat_tables(episodes).combine_chunks().append_column(SPLIT, split)


def _episode(world: Any, number: int) -> pa.Table:
    observation, _ = world.reset(seed=number)
    draw = np.random.default_rng(number)
    steps = []
    ended = False
    while not ended:
        action = _drawn(world.action_space, draw)
        after, reward, terminated, truncated, _ = world.step(action)
        steps.append((observation, action, float(reward), int(terminated), int(truncated)))
        observation, ended = after, terminated or truncated
    observations, actions, rewards, terminated_, truncated_ = zip(*steps, strict=True)
    return pa.table(
        {
            "id": [f"{number}-{step}" for step in range(len(steps))],
            "episode": pa.array([number] * len(steps), pa.int64()),
            "step": pa.array(range(len(steps)), pa.int64()),
            "observation": _tensors(observations),
            "action": pa.array(actions, pa.int64()) if isinstance(actions[0], int) else _tensors(actions),
            "reward": pa.array(rewards, pa.float64()),
            "terminated": pa.array(terminated_, pa.int64()),
            "truncated": pa.array(truncated_, pa.int64()),
        }
    )


def _drawn(space: Any, draw: np.random.Generator) -> Any:
    """An action, all equally likely: one of a choice, or floats between the space's bounds."""
    if hasattr(space, "n"):
        return int(space.start) + int(draw.integers(int(space.n)))
    return draw.uniform(space.low, space.high).astype(space.dtype)


def _tensors(values: Any) -> pa.ExtensionArray:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(values).astype(np.float32))


def expectations(
    environment: str, count: int, longest: int, observation: ColumnRule, action: ColumnRule, reward: ColumnRule
) -> Expectations:
    """What such episodes promise, of `longest` steps at most."""
    flag = ColumnRule(role="ignored", kind="number", min=0, max=1)
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="text"),
            "episode": ColumnRule(role="ignored", kind="number", min=0, max=count - 1),
            "step": ColumnRule(role="ignored", kind="number", min=0, max=longest - 1),
            "observation": observation,
            "action": action,
            "reward": reward,
            "terminated": flag,
            "truncated": flag,
        },
        environment=environment,
    )
