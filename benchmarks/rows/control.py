"""Pipelines whose family acts."""

from __future__ import annotations

from components import environments
from components.contract import Data

from .. import stable_baselines, trained
from . import Figures, Row


def acting(data: Data, seed: int) -> Figures:
    """The random policy whose episodes are the dataset, and stable-baselines3's agent within as many steps of the
    environment as our winner has had, at its best in the val episodes as our winner is."""
    import torch

    torch.set_num_threads(1)
    name = data.spec.dataset
    rival = stable_baselines.RIVALS[name]
    reached = stable_baselines.learnt(rival, data.spec, seed, trained.steps(name))
    random = environments.recorded_return(data, "test")
    found = {"random policy": random, f"stable-baselines3 {rival.kind}": reached}
    return {name: {"return": each["test/return"]} for name, each in found.items()}


ROWS = [
    # 500 is all that there is: two that have learnt it are level.
    Row("cartpole", "return", "max", acting, 475.0, above=("random policy",), level=("stable-baselines3 DQN",)),
    Row("pendulum", "return", "max", acting, -160.0, above=("random policy",)),
    Row("reacher", "return", "max", acting, above=("random policy", "stable-baselines3 DDPG")),
]
