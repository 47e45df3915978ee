"""100 recorded episodes of CartPole-v1 under a policy that pushes left or right at random.

From gymnasium 1.4.0 (MIT). How they are recorded: episodes.py.

One row: observation float32 [4] (position m, velocity m/s, pole angle rad, its velocity rad/s), action 1 (right),
reward 1.0.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from ..expectations import ColumnRule, Expectations
from . import episodes
from .packages import Member

ENVIRONMENT, EPISODES = "CartPole-v1", 100
SOURCE = f"gymnasium==1.4.0 {ENVIRONMENT} {EPISODES} episodes"


def build(_: Callable[[Member], bytes]) -> pa.Table:
    return episodes.record(ENVIRONMENT, EPISODES)


def expectations() -> Expectations:
    return episodes.expectations(
        *(ENVIRONMENT, EPISODES, 500),
        # Beyond 2.4 m or 0.21 rad an episode ends; random pushes move the pole at some 3 rad/s.
        observation=ColumnRule(kind="tensor", dtype="float32", shape=(4,), min=-5, max=5),
        action=ColumnRule(role="ignored", kind="number", min=0, max=1),
        reward=ColumnRule(role="ignored", kind="number", min=1, max=1),
    )
