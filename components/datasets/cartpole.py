"""100 recorded episodes of CartPole-v1 under a policy that pushes left or right at random.

From gymnasium 1.4.0 (MIT). A family that learns by acting makes the environment itself; these rows are what
validation looks at, and they fix the version of the environment that a result belongs to. Episode k is reset with
seed k, and its actions come from a generator with seed k. About 60/20/20, by a hash of each whole episode.

One row: id "7-0", episode 7, step 0, observation float32 [4] (position m, velocity m/s, pole angle rad, its velocity
rad/s; before the action), action 1 (right), reward 1.0, terminated 0, truncated 0, split "train".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations
from . import splits
from .packages import Member

ENVIRONMENT, EPISODES = "CartPole-v1", 100
SOURCE = f"gymnasium==1.4.0 {ENVIRONMENT} {EPISODES} episodes"


def build(_: Callable[[Member], bytes]) -> pa.Table:
    """A row a step, in order: id, episode, step, observation, action, reward, terminated, truncated, split."""
    import gymnasium

    environment = gymnasium.make(ENVIRONMENT)
    episodes = [_record(environment, number) for number in range(EPISODES)]
    environment.close()
    content = np.array([np.bitwise_xor.reduce(splits.row_hashes(e.drop(["id", "episode"]))) for e in episodes])
    split = splits.assign(content, np.zeros(EPISODES)).take(
        pa.array(np.repeat(range(EPISODES), [e.num_rows for e in episodes]))
    )
    return pa.concat_tables(episodes).combine_chunks().append_column(SPLIT, split)


def _record(environment: Any, number: int) -> pa.Table:
    observation, _ = environment.reset(seed=number)
    draw = np.random.default_rng(number)
    steps = []
    ended = False
    while not ended:
        action = int(draw.integers(2))
        after, reward, terminated, truncated, _ = environment.step(action)
        steps.append((observation, action, float(reward), int(terminated), int(truncated)))
        observation, ended = after, terminated or truncated
    observations, actions, rewards, terminated_, truncated_ = zip(*steps, strict=True)
    return pa.table(
        {
            "id": [f"{number}-{step}" for step in range(len(steps))],
            "episode": pa.array([number] * len(steps), pa.int64()),
            "step": pa.array(range(len(steps)), pa.int64()),
            "observation": pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(observations).astype(np.float32)),
            "action": pa.array(actions, pa.int64()),
            "reward": pa.array(rewards, pa.float64()),
            "terminated": pa.array(terminated_, pa.int64()),
            "truncated": pa.array(truncated_, pa.int64()),
        }
    )


def expectations() -> Expectations:
    flag = ColumnRule(role="ignored", kind="number", min=0, max=1)
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="text"),
            "episode": ColumnRule(role="ignored", kind="number", min=0, max=EPISODES - 1),
            "step": ColumnRule(role="ignored", kind="number", min=0, max=499),
            # Beyond 2.4 m or 0.21 rad an episode ends; random pushes move the pole at some 3 rad/s.
            "observation": ColumnRule(kind="tensor", dtype="float32", shape=(4,), min=-5, max=5),
            "action": flag,
            "reward": ColumnRule(role="ignored", kind="number", min=1, max=1),
            "terminated": flag,
            "truncated": flag,
        },
        environment=ENVIRONMENT,
    )
