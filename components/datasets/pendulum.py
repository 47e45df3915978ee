"""100 recorded episodes of Pendulum-v1 under a policy that turns at random.

From gymnasium 1.4.0 (MIT). How they are recorded: episodes.py.

One row: observation float32 [3] (cosine and sine of the angle from upright, its velocity rad/s), action float32 [1]
(torque, N m, within ±2), reward -5.3 (0 where it stands still, upright, without torque), always 200 steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyarrow as pa

from ..expectations import ColumnRule, Expectations
from . import episodes
from .packages import Member

ENVIRONMENT, EPISODES = "Pendulum-v1", 100
SOURCE = f"gymnasium==1.4.0 {ENVIRONMENT} {EPISODES} episodes"
LOWEST = -(math.pi**2 + 0.1 * 8**2 + 0.001 * 2**2)  # hanging down, at full speed and torque


def build(_: Callable[[Member], bytes]) -> pa.Table:
    return episodes.record(ENVIRONMENT, EPISODES)


def expectations() -> Expectations:
    return episodes.expectations(
        *(ENVIRONMENT, EPISODES, 200),
        observation=ColumnRule(kind="tensor", dtype="float32", shape=(3,), min=-8, max=8),
        action=ColumnRule(role="ignored", kind="tensor", dtype="float32", shape=(1,), min=-2, max=2),
        reward=ColumnRule(role="ignored", kind="number", min=LOWEST, max=0),
    )
