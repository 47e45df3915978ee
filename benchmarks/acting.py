"""Environment steps a second of dqn while it learns, beside the plainest torch loop: python benchmarks/acting.py
[SETTING=VALUE…] [--seconds S].

Both learn the same net in CartPole, from as many updates a step, of the same batches and loss: Tidemill by the family's
`fit`, without the measuring between its epochs; the other as a person writes it who wants no more than that: one
environment, a ring of numpy arrays, torch's AdamW as it comes, nothing looked at that could be wrong. They take turns,
on one thread. What is measured is the processor's seconds; medians of steps a second are compared.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from components import datasets, environments, families, params  # noqa: E402
from components.contract import Data, Hyper  # noqa: E402
from components.families.dqn import Net, Settings  # noqa: E402
from components.settings import configure  # noqa: E402
from components.workspace import Workspace  # noqa: E402

MARK = 1.0
SEED = 7


class Ring:
    """Transitions, the latest `size`."""

    def __init__(self, size: int, observation: int) -> None:
        self.before, self.after = (np.zeros((size, observation), np.float32) for _ in range(2))
        self.action, self.reward = np.zeros(size, np.int64), np.zeros(size, np.float32)
        self.discount, self.added = np.zeros(size, np.float32), 0

    def add(self, *transition: Any) -> None:
        at = self.added % len(self.reward)
        for rows, value in zip(self._rows(), transition, strict=True):
            rows[at] = value
        self.added += 1

    def sample(self, count: int) -> list[torch.Tensor]:
        drawn = np.random.randint(0, min(self.added, len(self.reward)), count)
        return [torch.from_numpy(rows[drawn]) for rows in self._rows()]

    def _rows(self) -> tuple[Any, ...]:
        return self.before, self.action, self.reward, self.discount, self.after


def plain_steps(net: Net, settings: Settings) -> Iterator[None]:
    """As a script has it; yields after each step."""
    import gymnasium

    environment, target = gymnasium.make("CartPole-v1"), copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=0)
    ring, recent, updates = Ring(settings.replay, 4), deque[Any](), 0
    x, _ = environment.reset(seed=SEED)
    for step in itertools.count(1):
        share = max(settings.explore, 1 - (1 - settings.explore) * step / settings.explore_steps)
        if np.random.random() < share:
            action = int(environment.action_space.sample())
        else:
            with torch.no_grad():
                action = int(net(torch.from_numpy(x)[None]).argmax())
        after, reward, terminated, truncated, _ = environment.step(action)
        recent.append((x, action, reward))
        ended = terminated or truncated
        while recent and (ended or len(recent) == settings.look_ahead):
            total = sum(settings.gamma**k * each[2] for k, each in enumerate(recent))
            ring.add(*recent[0][:2], total, 0.0 if terminated else settings.gamma ** len(recent), after)
            recent.popleft()
        x = environment.reset()[0] if ended else after
        if step >= settings.warm_up and step % settings.update_every == 0:
            plain_update(net, target, optimizer, ring.sample(settings.batch_rows), settings)
            updates += 1
            if updates % settings.target_every == 0:
                target.load_state_dict(net.state_dict())
        yield


def plain_update(net: Net, target: Net, optimizer: Any, batch: list[torch.Tensor], settings: Settings) -> None:
    before, action, reward, discount, after = batch
    with torch.no_grad():
        following = target(after)
        chosen = net(after) if settings.double else following
        wanted = reward + discount * following.gather(1, chosen.argmax(1, keepdim=True))[:, 0]
    q = net(before).gather(1, action[:, None])[:, 0]
    loss = functional.smooth_l1_loss(q, wanted)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
    optimizer.step()


def our_steps(data: Data, hyper: Hyper) -> Iterator[int]:
    """Yields after each epoch, with its steps."""
    before = 0
    with mock.patch.object(environments, "play", lambda *_: {"return": np.zeros(1)}):
        for epoch in families.family("dqn").fit(data, hyper, SEED, None):
            made = int(epoch.metrics["train/steps"])
            yield made - before
            before = made


def compared(data: Data, hyper: Hyper, seconds: float) -> dict[str, list[float]]:
    """Steps a second of both, turn about, from the second epoch on, until they have had so many seconds together."""
    settings = configure(Settings, hyper)
    net = Net(environments.observation_column(data.spec), 2, 0, settings)
    ours, plain = our_steps(data, hyper), plain_steps(net, settings)
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
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="numbers, of dqn's settings")
    parser.add_argument("--seconds", type=float, default=40, help="the processor's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    hyper = {name: float(value) for name, _, value in (one.partition("=") for one in options.settings)}
    workspace = Workspace.find()
    block = params.load(workspace).datasets.get("cartpole", params.DatasetBlock())
    data = datasets.load(workspace, "cartpole", datasets.expectations(workspace, "cartpole", block), "control")
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} cores; programs at work in the last 1, 5 and 15 minutes: {load}")
    speeds = compared(data, hyper, options.seconds)
    ours, plain = (statistics.median(each) for each in speeds.values())
    print(f"tidemill {ours:,.0f}, plain torch {plain:,.0f} steps a second; {len(speeds['plain'])} turns of both")
    print(f"ratio {ours / plain:.2f}, mark: at least {MARK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
