"""How fast a family that acts goes through its environment: python -m benchmarks.steps [PIPELINE…] [--repeats N].

Three learn in turn, each from nothing, on one thread, over as many steps of the environment: Tidemill with its default
settings; stable-baselines3's agent with those of its zoo; and the same agent with ours (widths, rows of a batch, steps
before the first update and between updates), so that what is left between these two is neither a smaller net nor fewer
updates. What is measured is the processor's seconds, all threads of the process together, of acting and learning; the
episodes that measure our net after each epoch are left out, for the rival plays none. Medians are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from components import environments
from components.plan import Resolved

from .stable_baselines import RIVALS, Rival
from .trained import data_of, resolved

MARK = 1.0


def ours(asked: Resolved, steps: int, seed: int) -> tuple[float, int]:
    """Seconds without those of measuring, and steps."""
    data, measuring = data_of(asked), 0.0
    play = environments.play

    def timed(*told: Any) -> Any:
        nonlocal measuring
        begun = time.process_time()
        found = play(*told)
        measuring += time.process_time() - begun
        return found

    with mock.patch.object(environments, "play", timed):
        begun = time.process_time()
        for epoch in asked.family.fit(data, asked.block.settings, seed, None):
            if (made := int(epoch.metrics["train/steps"])) >= steps:
                break
        return time.process_time() - begun - measuring, made


def theirs(rival: Rival, asked: Resolved, steps: int, seed: int) -> tuple[float, int]:
    agent = rival.begin(asked.spec, seed)
    begun = time.process_time()
    agent.learn(steps)
    return time.process_time() - begun, steps


def alike(rival: Rival, settings: Any) -> Rival:
    """The rival with our settings. A family that updates at each step has no `update_every`."""
    every = getattr(settings, "update_every", 1)
    hyper = {"batch_size": settings.batch_rows, "learning_starts": settings.warm_up, "buffer_size": settings.replay}
    hyper |= {"train_freq": every, "gradient_steps": 1}
    return dataclasses.replace(rival, hyper={**rival.hyper, **hyper}, layers=(settings.width,) * settings.depth)


def compared(pipeline: str, steps: int, repeats: int) -> dict[str, float]:
    """Median steps a second of the three."""
    asked, rival = resolved(pipeline), RIVALS[pipeline]
    settings = asked.family.Settings(**asked.block.settings)
    own = alike(rival, settings)
    learners: dict[str, Callable[[int], tuple[float, int]]] = {
        "tidemill": lambda seed: ours(asked, steps, seed),
        "zoo": lambda seed: theirs(rival, asked, steps, seed),
        "alike": lambda seed: theirs(own, asked, steps, seed),
    }
    speeds: dict[str, list[float]] = {name: [] for name in learners}
    for repeat in range(repeats):
        for name in sorted(learners, reverse=repeat % 2 == 1):
            seconds, made = learners[name](repeat)
            speeds[name].append(made / seconds)
    return {name: statistics.median(each) for name, each in speeds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pipeline", nargs="*", help=f"of {', '.join(RIVALS)}; all, unless named")
    parser.add_argument("--steps", type=int, default=20_000, help="of the environment, for each")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} cores; programs at work in the last 1, 5 and 15 minutes: {load}")
    print(f"{options.steps} steps, medians of {options.repeats}; steps a second of one thread")
    print(f"{'pipeline':12} {'tidemill':>9} {'zoo':>9} {'ratio':>6} {'alike':>9} {'ratio':>6}")
    missed = 0
    for pipeline in options.pipeline or RIVALS:
        each = compared(pipeline, options.steps, options.repeats)
        ratios = {name: each["tidemill"] / each[name] for name in ("zoo", "alike")}
        missed += ratios["zoo"] < MARK
        print(
            f"{pipeline:12} {each['tidemill']:9,.0f} {each['zoo']:9,.0f} {ratios['zoo']:6.2f} "
            f"{each['alike']:9,.0f} {ratios['alike']:6.2f}",
            flush=True,
        )
    print(f"mark: a ratio of at least {MARK} to the rival as its zoo has it")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
