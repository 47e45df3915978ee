"""Training episodes in many environments in step, moved into a replay memory as they go.

Legend: N environments that still play, O elements of an observation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import mul
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .environments import Arena, Replay, training_seed

Floats: TypeAlias = NDArray[np.float32]
# Observations x_NO → an action for each as the memory holds it, and the same as the environment takes it.
Act: TypeAlias = Callable[[Floats], tuple[Sequence[Any], Sequence[Any]]]
Step: TypeAlias = tuple[Floats, Any, float]  # x_O, the action then, its reward


class Rollouts:
    """Whole training episodes. `episodes` and `steps` count from a trial's beginning, and with the memory they are all
    that going on needs: between two epochs no episode is under way. Every reset has its episode's own seed.

    A transition spans `look_ahead` steps, fewer where an episode ends before: its rewards' discounted sum, and the
    discount of what follows. A time limit does not end the world (Pardo et al. 2018, "Time limits in reinforcement
    learning"): what would have followed it counts.
    """

    def __init__(self, arena: Arena, replay: Replay, seed: int, gamma: float, look_ahead: int = 1) -> None:
        self.arena, self.replay, self.seed = arena, replay, seed
        self.discounts = [gamma**power for power in range(look_ahead + 1)]
        self.episodes = self.steps = 0
        self.returns: list[float] = []  # of the episodes that ended since `play` was asked

    def play(self, act: Act, enough: Callable[[], bool]) -> Iterator[int]:
        """Act until it is `enough` and every episode under way has ended. Yields after each step that all made
        together, with how many these are; what they saw is in the memory by then. Raises DataError."""
        self.returns = []
        recent: dict[int, deque[Step]] = {}
        total: dict[int, float] = {}
        for at in range(len(self.arena.worlds)):
            self._begin(at, recent, total)
        while recent:
            live = sorted(recent)
            x_NO = self.arena.x_NO[live]
            stored, said = act(x_NO)
            results = self.arena.step(live, said)
            self.steps += len(live)
            for row, (at, (reward, terminated, ended)) in enumerate(zip(live, results, strict=True)):
                recent[at].append((x_NO[row], stored[row], reward))
                total[at] += reward
                self._remember(recent[at], self.arena.x_NO[at], terminated, ended)
                if ended:
                    self.returns.append(total[at])
                    del recent[at]
            yield len(live)
            if not enough():
                for at in live:
                    if at not in recent:
                        self._begin(at, recent, total)

    def _begin(self, at: int, recent: dict[int, deque[Step]], total: dict[int, float]) -> None:
        seed = training_seed(self.seed, self.episodes)
        self.arena.reset(at, seed, f"training episode {self.episodes}")
        self.episodes += 1
        recent[at], total[at] = deque(), 0.0

    def _remember(self, recent: deque[Step], after_O: Floats, terminated: bool, ended: bool) -> None:
        """Move steps whose return is complete into the memory: the oldest one, or all where the episode ends."""
        while recent and (ended or len(recent) == len(self.discounts) - 1):
            rewards = sum(map(mul, self.discounts, [reward for _, _, reward in recent]))
            discount = 0.0 if terminated else self.discounts[len(recent)]
            before_O, action, _ = recent.popleft()
            self.replay.add(before=before_O, action=action, reward=rewards, discount=discount, after=after_O)
