"""Environment steps a second of a family that acts while it learns, beside the plainest torch loop:
python benchmarks/acting.py [PIPELINE…] [--seconds S].

Both learn the same net in the pipeline's environment, with its settings, from as many updates a step, of the same
batches and loss: Tidemill by the family's `fit`, without the measuring between its epochs; the other as a person writes
it who wants no more than that (plain/reinforcement.py). They take turns, on one thread. What is measured is the
processor's seconds; medians of steps a second are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.plain import reinforcement  # noqa: E402
from benchmarks.trained import data_of, resolved  # noqa: E402
from components import environments  # noqa: E402
from components.contract import Data, Family, Hyper  # noqa: E402
from components.settings import configure  # noqa: E402

MARK = 1.0
SEED = 7
LOOPS: dict[str, Callable[[Any, Any, Any], Iterator[None]]] = {"dqn": reinforcement.dqn, "ddpg": reinforcement.ddpg}
PIPELINES = ("cartpole", "pendulum", "reacher")


def unmeasured() -> Any:
    """No episode is played to measure the policy while it lasts."""
    return mock.patch.object(environments, "play", lambda *_: {"return": np.zeros(1)})


def our_steps(family: Family[Any], data: Data, hyper: Hyper) -> Iterator[int]:
    """Yields after each epoch, with its steps."""
    before = 0
    with unmeasured():
        for epoch in family.fit(data, hyper, SEED, None):
            made = int(epoch.metrics["train/steps"])
            yield made - before
            before = made


def compared(family: Family[Any], name: str, data: Data, hyper: Hyper, seconds: float) -> dict[str, list[float]]:
    """Steps a second of both, turn about, from the second epoch on, until they have had so many seconds together."""
    with unmeasured():
        begun = next(iter(family.fit(data, {**hyper, "steps": 1}, SEED, None))).state()
    net = family.load(data.spec, hyper, begun.served())
    plain = LOOPS[name](environments.opened(data.spec), net.train(), configure(family.Settings, hyper))
    ours = our_steps(family, data, hyper)
    for _ in range(next(ours)):
        next(plain)
    speeds: dict[str, list[float]] = {"tidemill": [], "plain": []}
    spent = 0.0
    while len(speeds["plain"]) < 5 or spent < seconds:
        started = time.process_time()
        made = next(ours)
        between = time.process_time()
        for _ in range(made):
            next(plain)
        ended = time.process_time()
        speeds["tidemill"].append(made / (between - started))
        speeds["plain"].append(made / (ended - between))
        spent += ended - started
    return speeds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/acting.py", description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", nargs="*", help=f"of {', '.join(PIPELINES)}; all, unless named")
    parser.add_argument("--seconds", type=float, default=40, help="the processor's, for each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} cores; programs at work in the last 1, 5 and 15 minutes: {load}")
    print(f"{'pipeline':12} {'tidemill':>9} {'plain torch':>12}   steps a second {'ratio':>6}  turns")
    for pipeline in options.pipeline or PIPELINES:
        asked = resolved(pipeline)
        hyper = {**dataclasses.asdict(asked.family.Settings()), **asked.block.settings}
        speeds = compared(asked.family, asked.block.family, data_of(asked), hyper, options.seconds)
        ours, plain = (statistics.median(each) for each in speeds.values())
        print(
            f"{pipeline:12} {ours:9,.0f} {plain:12,.0f} {ours / plain:23.2f}  {len(speeds['plain'])}",
            flush=True,
        )
    print(f"mark: a ratio of at least {MARK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
