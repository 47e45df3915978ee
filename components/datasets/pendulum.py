"""100 recorded episodes of Pendulum-v1 under a policy that turns at random.

From gymnasium 1.4.0 (MIT). How they are recorded: episodes.py.

One row: observation float32 [3] (cosine and sine of the angle from upright, its velocity rad/s), action float32 [1]
(torque, N m, within ±2), reward -5.3 (0 where it stands still, upright, without torque), always 200 steps.
"""

from __future__ import annotations

import math

from ..expectations import ColumnRule, Expectations
from .episodes import Recorder

RECORDER = Recorder("pendulum", "Pendulum-v1")
SOURCE = f"gymnasium==1.4.0 {RECORDER.environment} {RECORDER.count} episodes"
LOWEST = -(math.pi**2 + 0.1 * 8**2 + 0.001 * 2**2)  # hanging down, at full speed and torque
build = RECORDER.build


def expectations() -> Expectations:
    return RECORDER.expectations(
        200,
        observation=ColumnRule(kind="tensor", dtype="float32", shape=(3,), min=-8, max=8),
        action=ColumnRule(role="ignored", kind="tensor", dtype="float32", shape=(1,), min=-2, max=2),
        reward=ColumnRule(role="ignored", kind="number", min=LOWEST, max=0),
    )
