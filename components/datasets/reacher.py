"""100 recorded episodes of Reacher-v5, an arm of two joints that is to touch a target, under a policy that turns at
random.

From gymnasium 1.4.0 (MIT) on MuJoCo 4.0.0 (Apache-2.0). How they are recorded: episodes.py.

One row: observation float32 [10] (cosines of both joints' angles, their sines, the target's place x, y in m, the
joints' velocities rad/s, fingertip minus target x, y in m), action float32 [2] (torques, N m, within ±1), reward -0.31
(minus the distance in m, minus the sum of squared torques), always 50 steps.
"""

from __future__ import annotations

from ..expectations import ColumnRule, Expectations
from .episodes import Recorder

RECORDER = Recorder("reacher", "Reacher-v5")
SOURCE = f"gymnasium==1.4.0 mujoco==4.0.0 {RECORDER.environment} {RECORDER.count} episodes"
build = RECORDER.build


def expectations() -> Expectations:
    return RECORDER.expectations(
        50,
        # Only velocities go beyond ±1, and nothing bounds them but friction.
        observation=ColumnRule(kind="tensor", dtype="float32", shape=(10,), min=-100, max=100),
        action=ColumnRule(role="ignored", kind="tensor", dtype="float32", shape=(2,), min=-1, max=1),
        # The arm reaches 0.21 m and the target is within 0.2 m of its shoulder; torques cost 2 at most.
        reward=ColumnRule(role="ignored", kind="number", min=-2.45, max=0),
    )
