"""Agents of stable-baselines3 (Raffin et al. 2021) on the environments of our datasets, with the hyperparameters of its
zoo (DLR-RM/rl-baselines3-zoo, hyperparameters/dqn.yml and ddpg.yml), what these leave out being the package's defaults.
The package is in benchmarks/requirements.txt alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components import environments
from components.contract import Metrics, Outcomes, Spec

EVERY = 1000  # steps between two measurements


@dataclass(frozen=True)
class Rival:
    """`kind`: the class's name. `noise`: deviation of what is added to actions, which lie within ±1 to it."""

    kind: str
    hyper: Mapping[str, Any]
    noise: float = 0.0
    layers: tuple[int, ...] = ()

    @property
    def space(self) -> str:
        return "Discrete" if self.kind == "DQN" else "Box"

    def begin(self, spec: Spec, seed: int) -> Any:
        """An agent that has learnt nothing yet, on one thread of the processor as our trials are."""
        import stable_baselines3
        from stable_baselines3.common.noise import NormalActionNoise

        world, told = environments.make(spec, self.space), dict(self.hyper)
        if self.noise:
            width = world.action_space.shape[0]
            told["action_noise"] = NormalActionNoise(np.zeros(width), np.full(width, self.noise))
        layers = {"net_arch": list(self.layers)}
        return getattr(stable_baselines3, self.kind)(
            "MlpPolicy", world, seed=seed, policy_kwargs=layers, device="cpu", **told
        )


# Its first 10,000 steps are at random.
DDPG: dict[str, Any] = {"gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000, "learning_rate": 1e-3}
RIVALS = {
    "cartpole": Rival(
        "DQN",
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
        },
        layers=(256, 256),
    ),
    "pendulum": Rival("DDPG", DDPG | {"train_freq": (1, "episode"), "gradient_steps": -1}, 0.1, (400, 300)),
    # Of ReacherBulletEnv-v0: the zoo has no entry for MuJoCo's.
    "reacher": Rival("DDPG", DDPG | {"train_freq": 1, "gradient_steps": 1}, 0.1, (400, 300)),
}


def learnt(rival: Rival, spec: Spec, seed: int, steps: int) -> Metrics:
    """The test metrics of an agent after so many steps, as it was when it did best in the val episodes: these are
    played after every EVERY steps, as a trial's best epoch is chosen, and count as no steps for either."""
    best, kept = float("-inf"), Metrics()
    agent = rival.begin(spec, seed)

    def choose(_: Any, __: Any) -> bool:
        nonlocal best, kept
        if agent.num_timesteps % EVERY == 0:
            value = environments.measure(judged(agent, spec, rival.space, "val"), "val")["val/return"]
            if value > best:
                best, kept = value, environments.measure(judged(agent, spec, rival.space, "test"), "test")
        return True  # go on

    agent.learn(steps, callback=choose)
    return kept


def judged(agent: Any, spec: Spec, space: str, split: str) -> Outcomes:
    """What came of the split's episodes, the same that our nets are measured on."""
    arena = environments.measuring(spec, space, split)
    return environments.play(lambda x_NO: agent.predict(x_NO.numpy(), deterministic=True)[0], arena, split)
