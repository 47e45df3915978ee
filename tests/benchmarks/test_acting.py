"""The plainest loops do the same work as the families that act: as many updates a step, and they learn by them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks import acting
from benchmarks.plain import reinforcement
from components import environments
from components.contract import Data
from components.families import FAMILIES, family
from components.settings import configure
from tests.components import test_ddpg, test_dqn
from tests.components.test_ddpg import VALLEY

CASES: dict[str, tuple[Data, dict[str, Any]]] = {
    "dqn": (test_dqn.POLES, test_dqn.SMALL),
    "ddpg": (VALLEY, test_ddpg.SMALL),
    "ddpg, late": (VALLEY, {**test_ddpg.SMALL, **test_ddpg.FIXED}),
}


def test_every_family_that_acts_has_a_loop() -> None:
    assert set(acting.LOOPS) == {name for name in FAMILIES if family(name).learning == "reinforcement"}


@pytest.mark.parametrize("case", CASES)
def test_both_make_as_many_updates_a_step_and_take_turns(case: str) -> None:
    (data, hyper), name = CASES[case], case.partition(",")[0]
    updates = {True: 0, False: 0}  # by an optimiser of the family, which is fused

    def count(optimizer: torch.optim.Optimizer, *_: object) -> None:
        updates[bool(optimizer.param_groups[0]["fused"])] += 1

    settings = configure(family(name).Settings, hyper)
    net = family(name).load(data.spec, hyper, next(family(name).fit(data, hyper, 0, None)).state().served())
    loop = acting.LOOPS[name](environments.opened(data.spec), net.train(), settings)
    handle = register_optimizer_step_post_hook(count)
    try:
        steps = sum(itertools.islice(acting.our_steps(family(name), data, hyper), 3))
        for _ in range(steps):
            next(loop)
    finally:
        handle.remove()
    assert updates[True] == pytest.approx(updates[False], abs=2 * settings.environments) and updates[False] > 50
    speeds = acting.compared(family(name), name, data, hyper, 0.0)
    assert len(speeds["tidemill"]) == len(speeds["plain"]) == 5 and min(map(min, speeds.values())) > 0


def test_a_person_s_loop_learns_too() -> None:
    settings = configure(family("ddpg").Settings, test_ddpg.SMALL)
    torch.manual_seed(0)
    net = family("ddpg").load(
        VALLEY.spec, test_ddpg.SMALL, next(family("ddpg").fit(VALLEY, test_ddpg.SMALL, 0, None)).state().served()
    )
    before = family("ddpg").judge(net, VALLEY, "val")["return"].mean()
    loop = reinforcement.ddpg(environments.opened(VALLEY.spec), net, settings)
    for _ in range(1200):
        next(loop)
    after = family("ddpg").judge(net, VALLEY, "val")["return"].mean()
    assert after > max(before, -3.0)
