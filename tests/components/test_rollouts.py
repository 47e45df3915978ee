"""Training episodes in step: whole ones, each with its own seed, remembered as if each had been played alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.environments import Arena, Replay, training_seed
from components.rollouts import Act, Floats, Rollouts

from .test_environments import spec


def _rollouts(count: int, look_ahead: int = 3, gamma: float = 0.5) -> Rollouts:
    memory = Replay(1000, 1, torch.zeros((), dtype=torch.int64))
    return Rollouts(Arena(spec("Corridor-v0"), "Discrete", count), memory, 11, gamma, look_ahead)


def _policy() -> Act:
    """Left at cell 1, right elsewhere: from cells 0 and 1 nobody arrives, and the time limit ends it."""

    def act(x_NO: Floats) -> tuple[list[int], list[int]]:
        chosen = [0 if x == 1 else 1 for x in x_NO[:, 0]]
        return chosen, [each + 5 for each in chosen]

    return act


def _kept(rollouts: Rollouts) -> list[tuple[float, ...]]:
    memory = rollouts.replay
    columns = [rows[: len(memory)].reshape(len(memory)).tolist() for rows in memory.rows.values()]
    return sorted(zip(*columns, strict=True))


def test_together_they_remember_what_they_would_one_after_the_other() -> None:
    alone, together = _rollouts(1), _rollouts(4)
    list(together.play(_policy(), lambda: together.steps >= 60))
    list(alone.play(_policy(), lambda: alone.episodes >= together.episodes))
    assert alone.episodes == together.episodes and alone.steps == together.steps > 60
    assert _kept(alone) == _kept(together)
    assert sorted(alone.returns) == sorted(together.returns) and len(alone.returns) == alone.episodes


def test_every_episode_has_its_own_seed_and_none_is_under_way_in_the_end() -> None:
    rollouts, seeds = _rollouts(3), []
    reset = rollouts.arena.reset
    rollouts.arena.reset = lambda at, seed, episode: (seeds.append(seed), reset(at, seed, episode))[1]  # type: ignore[method-assign, assignment]
    made = list(rollouts.play(_policy(), lambda: rollouts.steps >= 40))
    assert sum(made) == rollouts.steps == len(rollouts.replay) and max(made) == 3
    list(rollouts.play(_policy(), lambda: True))
    assert seeds == [training_seed(11, number) for number in range(rollouts.episodes)] and len(set(seeds)) == len(seeds)
    assert len(rollouts.returns) == 3, "one each, where it is enough from the start"


def test_a_transition_sums_its_rewards_and_discounts_what_follows() -> None:
    """Always right, from cell 0: four steps to cell 4, of which three cost 1 and the last pays 10."""
    rollouts = _rollouts(1)
    rollouts.seed = next(seed for seed in range(50) if _start(seed) == 0)
    list(rollouts.play(lambda x_NO: ([1], [6]), lambda: True))
    kept = [
        tuple(row)
        for row in zip(*[rows[:4].reshape(4).tolist() for rows in rollouts.replay.rows.values()], strict=True)
    ]
    assert kept == [
        (0.0, 1, -1 - 0.5 - 0.25, 0.125, 3.0),
        (1.0, 1, -1 - 0.5 + 2.5, 0.0, 4.0),
        (2.0, 1, -1 + 5.0, 0.0, 4.0),
        (3.0, 1, 10.0, 0.0, 4.0),
    ]


def _start(seed: int) -> float:
    arena = Arena(spec("Corridor-v0"), "Discrete", 1)
    arena.reset(0, training_seed(seed, 0), "")
    return float(arena.x_NO[0, 0])


@pytest.mark.parametrize("count", [1, 3])
def test_what_an_action_was_chosen_for_is_what_is_remembered(count: int) -> None:
    """Observations are copied: the environments go on in the same memory."""
    rollouts, asked = _rollouts(count, look_ahead=1), []

    def act(x_NO: Floats) -> tuple[list[int], list[int]]:
        asked.extend(x_NO[:, 0].tolist())
        return [1] * len(x_NO), [6] * len(x_NO)

    list(rollouts.play(act, lambda: True))
    memory = rollouts.replay.rows
    assert memory["before"][: rollouts.steps, 0].tolist() == asked
    assert (memory["after"] - memory["before"])[: rollouts.steps, 0].tolist() == [1.0] * rollouts.steps
    assert np.isclose(memory["discount"][: rollouts.steps], 0.0).sum() == rollouts.episodes
