"""100 recorded episodes of CartPole-v1 under a policy that pushes left or right at random.

From gymnasium 1.4.0 (MIT). How they are recorded: episodes.py.

One row: observation float32 [4] (position m, velocity m/s, pole angle rad, its velocity rad/s), action 1 (right),
reward 1.0.
"""

from __future__ import annotations

from ..expectations import ColumnRule, Expectations
from .episodes import Recorder

RECORDER = Recorder("cartpole", "CartPole-v1")
SOURCE = f"gymnasium==1.4.0 {RECORDER.environment} {RECORDER.count} episodes"
build = RECORDER.build


def expectations() -> Expectations:
    return RECORDER.expectations(
        500,
        # Beyond 2.4 m or 0.21 rad an episode ends; random pushes move the pole at some 3 rad/s.
        observation=ColumnRule(kind="tensor", dtype="float32", shape=(4,), min=-5, max=5),
        action=ColumnRule(role="ignored", kind="number", min=0, max=1),
        reward=ColumnRule(role="ignored", kind="number", min=1, max=1),
    )
