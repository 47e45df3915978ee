"""Episodes of an environment under a policy that acts at random, recorded as a dataset.

A family that learns by acting makes the environment itself; these rows are what validation looks at, what observations
and rewards are scaled by, and what fixes the version of the environment that a result belongs to. Episode k is reset
with seed k, and its actions come from a generator with seed k. About 60/20/20, by a hash of each whole episode.

One row: id "7-0", episode 7, step 0, observation (before the action), action, reward (rounded to what float32 can say:
the bits below are the processor's, and would make the same episode other bytes on another), terminated 0, truncated 0
(1 where the time limit alone ended it), split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..contract import SPLIT, Column, Json, Spec
from ..errors import DataError
from ..expectations import ColumnRule, Expectations, Measured, Split
from . import splits

if TYPE_CHECKING:
    from ..environments import Arena

EPISODE, STEP, OBSERVATION, ACTION, REWARD = "episode", "step", "observation", "action", "reward"
ENDS = ("terminated", "truncated")
COLUMNS = (EPISODE, STEP, OBSERVATION, ACTION, REWARD, *ENDS)
COUNT = 100
# Of observations in one recording: it is held in memory, and validation goes through it.
MOST_BYTES = 2**31


@dataclass(frozen=True)
class Recording:
    """The rows, in order: id, episode, step, observation, action, reward, terminated, truncated, split. A continuous
    action is a tensor as the observation is, float32 both. Beside them the environment's spaces, and the `longest` that
    its time limit lets an episode be, in steps."""

    rows: pa.Table
    observation: Any
    action: Any
    longest: int


@dataclass(frozen=True)
class Recorder:
    """What is recorded for a dataset: `count` episodes of a gymnasium id, made with `settings`, in `wrappers`, the
    innermost first. `evaluation`: the episodes that measure a policy, where they are not the usual ones; no row hangs
    on them."""

    dataset: str
    environment: str
    count: int = COUNT
    settings: Mapping[str, Json] = field(default_factory=dict, hash=False)
    wrappers: tuple[str, ...] = ()
    evaluation: Mapping[Split, Measured] = field(default_factory=dict, hash=False)

    def opened(self) -> Any:
        """The environment. Raises DataError if it cannot be made, or is not one that anybody learns in."""
        from .. import environments

        made = environments.opened(self._spec(()))
        _check_observations(made.observation_space, self)
        _check_actions(made.action_space, self)
        return made

    def record(self) -> Recording:
        """Play and record. Raises DataError as `opened` does, if the environment does anything that no policy could be
        blamed for, and if the episodes are too few or too large."""
        from ..environments import Arena

        world = self.opened()
        seen, acted = world.observation_space, world.action_space
        world.close()
        column = Column(OBSERVATION, "tensor", "float32", seen.shape)
        arena = Arena(self._spec((column,)), type(acted).__name__, 1)
        episodes, steps = [], 0
        for number in range(self.count):
            episodes.append(_episode(arena, number))
            steps += episodes[-1].num_rows
            self._check_size(steps, math.prod(seen.shape))
        longest = int(arena.worlds[0].spec.max_episode_steps)
        arena.worlds[0].close()
        rows = pa.concat_tables(episodes).combine_chunks()
        return Recording(rows.append_column(SPLIT, self._split(episodes)), seen, acted, longest)

    def build(self, _: object) -> pa.Table:
        """As a dataset's module has it: nothing is read from packages."""
        return self.record().rows

    def expectations(
        self, longest: int, observation: ColumnRule, action: ColumnRule, reward: ColumnRule
    ) -> Expectations:
        """What such episodes promise, of `longest` steps at most."""
        flag = ColumnRule(role="ignored", kind="number", min=0, max=1)
        return Expectations(
            columns={
                "id": ColumnRule(role="id", kind="text"),
                EPISODE: ColumnRule(role="ignored", kind="number", min=0, max=self.count - 1),
                STEP: ColumnRule(role="ignored", kind="number", min=0, max=longest - 1),
                OBSERVATION: observation,
                ACTION: action,
                REWARD: reward,
                **dict.fromkeys(ENDS, flag),
            },
            environment=self.environment,
            environment_settings=dict(self.settings),
            environment_wrappers=self.wrappers,
            evaluation=dict(self.evaluation),
        )

    def _spec(self, columns: tuple[Column, ...]) -> Spec:
        made = partial(Spec, self.dataset, "control", columns, environment=self.environment)
        return made(environment_settings=self.settings, environment_wrappers=self.wrappers)

    def _check_size(self, steps: int, elements: int) -> None:
        if 4 * steps * elements > MOST_BYTES:
            raise DataError(
                f"{self.count} episodes of {self.environment!r} are too large to be recorded",
                where=self.dataset,
                why=f"{steps} steps of {elements} float32 each are above {MOST_BYTES} bytes",
                fix="record fewer episodes, or see less by a wrapper such as gymnasium.wrappers:GrayscaleObservation",
            )

    def _split(self, episodes: list[pa.Table]) -> pa.Array:
        content = np.array([np.bitwise_xor.reduce(splits.row_hashes(e.drop(["id", EPISODE]))) for e in episodes])
        split = splits.assign(content, np.zeros(len(episodes)))
        empty = [name for name, count in splits.counts(split).items() if not count]
        if empty:
            raise DataError(
                f"{self.count} episodes leave none for split {', '.join(empty)}",
                where=self.dataset,
                why=f"{len(np.unique(content))} of them differ, and those that are alike share a split",
                fix="record more episodes",
            )
        return split.take(pa.array(np.repeat(range(len(episodes)), [e.num_rows for e in episodes])))


def _episode(arena: Arena, number: int) -> pa.Table:
    space, draw = arena.worlds[0].action_space, np.random.default_rng(number)
    shape = arena.worlds[0].observation_space.shape
    arena.reset(0, number, f"recorded episode {number}")
    steps = []
    ended = False
    while not ended:
        before, action = arena.x_NO[0].reshape(shape).copy(), _drawn(space, draw)
        ((reward, terminated, ended),) = arena.step([0], [action])
        steps.append((before, action, reward, int(terminated), int(ended and not terminated)))
    observations, actions, rewards, terminated_, truncated_ = zip(*steps, strict=True)
    return pa.table(
        {
            "id": [f"{number}-{step}" for step in range(len(steps))],
            EPISODE: pa.array([number] * len(steps), pa.int64()),
            STEP: pa.array(range(len(steps)), pa.int64()),
            OBSERVATION: _tensors(observations),
            ACTION: pa.array(actions, pa.int64()) if isinstance(actions[0], int) else _tensors(actions),
            REWARD: pa.array(np.asarray(rewards, np.float32).astype(np.float64)),
            ENDS[0]: pa.array(terminated_, pa.int64()),
            ENDS[1]: pa.array(truncated_, pa.int64()),
        }
    )


def _drawn(space: Any, draw: np.random.Generator) -> Any:
    """An action, all equally likely: one of a choice, or floats between the space's bounds."""
    if hasattr(space, "n"):
        return int(space.start) + int(draw.integers(int(space.n)))
    return draw.uniform(space.low, space.high).astype(space.dtype)


def _tensors(values: Any) -> pa.ExtensionArray:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(values).astype(np.float32))


def _check_observations(space: Any, recorder: Recorder) -> None:
    from gymnasium import spaces

    if isinstance(space, spaces.Box) and space.shape:
        return
    raise DataError(
        f"environment {recorder.environment!r} shows what no family learns from",
        where=recorder.dataset,
        why=f"its observations are {space}, not a Box with a shape",
        fix="flatten them: environment_wrappers: ['gymnasium.wrappers:FlattenObservation']",
    )


def _check_actions(space: Any, recorder: Recorder) -> None:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return
    wrong = "neither Discrete nor a Box with a shape and bounds"
    if isinstance(space, spaces.Box) and space.shape:
        if np.isfinite(np.asarray(space.high, np.float64) - np.asarray(space.low, np.float64)).all():
            return
        wrong = "without bounds"
    raise DataError(
        f"environment {recorder.environment!r} cannot be acted in at random",
        where=recorder.dataset,
        why=f"its actions are {space}, {wrong}",
        fix="name a wrapper of your own in environment_wrappers, whose actions are Discrete or a Box with bounds",
    )
