"""dqn: observations in, actions out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from components.contract import SPLITS, Data
from components.datasets import cartpole
from components.devices import device
from components.errors import BadInput, ParamsError
from components.families.dqn import Dqn, Learner, Net, Settings

from .cases import Case, evaluate, one_thread  # noqa: F401
from .test_environments import recorded

SMALL = {
    "width": 32,
    "steps": 400,
    "warm_up": 200,
    "explore_steps": 800,
    "update_every": 2,
    "target_every": 50,
    "environments": 2,
}
EVERYTHING = {**SMALL, "double": False, "dueling": True, "prioritised": 0.6, "correct_steps": 1000, "environments": 3}


def _poles() -> Data:
    rows = cartpole.build(lambda _: b"")
    spec = cartpole.expectations().spec("poles", "control")
    return Data(spec, {split: rows.filter(pc.equal(rows["split"], split)) for split in SPLITS})


POLES, CORRIDOR = _poles(), recorded()
# An environment has no batch to learn by heart: what is asked instead is that it soon does better than at random.
CASES = [
    Case("poles", POLES, SMALL, SMALL, reached=40.0, epochs=6, heart_epochs=12, batch=POLES),
    Case("everything", POLES, EVERYTHING, EVERYTHING, reached=40.0, epochs=6, heart_epochs=12, batch=POLES),
]


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Dqn().fit(POLES, SMALL, 0, None), 3)
    return Dqn().load(POLES.spec, SMALL, epoch.state().served())


def test_observations_are_scored_with_the_best_action_and_its_value(net: Any) -> None:
    rows = POLES.splits["test"].slice(0, 50).combine_chunks().to_batches()[0]
    out = Dqn().score(net, rows)
    with torch.inference_mode():
        q_NA = net(torch.from_numpy(rows["observation"].to_numpy_ndarray().copy()).to(device()))
    assert out["action"].to_pylist() == q_NA.argmax(1).tolist()
    assert out["value"].to_pylist() == q_NA.max(1).values.tolist()


def test_observations_that_are_not_finite_are_named(net: Any) -> None:
    broken = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]], np.float32))
    with pytest.raises(BadInput, match="'observation' holds observations that are not finite"):
        Dqn().score(net, pa.record_batch({"observation": broken}))


def test_the_baseline_is_the_recorded_random_policy() -> None:
    rows = POLES.splits["test"]
    returns = rows.group_by("episode").aggregate([("reward", "sum")])["reward_sum"].to_numpy()
    assert Dqn().baseline(POLES, "test", {})["test/return"] == pytest.approx(returns.mean())
    assert 10 < returns.mean() < 40


def test_an_epoch_ends_with_all_episodes_and_has_the_steps_that_were_asked() -> None:
    """So there is no environment to store, and steps can be counted for a budget."""
    steps = 0
    for epoch in itertools.islice(Dqn().fit(POLES, SMALL, 4, None), 3):
        kept = epoch.state()
        progress = kept.scalars["progress"]
        asked = steps + SMALL["steps"]
        steps = progress["steps"]
        assert asked <= steps < asked + 4 * 500
        assert len(kept.tensors["replay/reward"]) == progress["added"] == steps == epoch.metrics["train/steps"]
    assert progress["episodes"] > 3


@pytest.mark.parametrize("environments", [1, 3, 8])
def test_so_many_updates_a_step_whatever_plays_in_step(environments: int) -> None:
    """From the warm-up's last step on, one each three steps."""
    hyper = {**SMALL, "warm_up": 100, "update_every": 3, "environments": environments}
    progress = next(Dqn().fit(CORRIDOR, hyper, 0, None)).state().scalars["progress"]
    assert progress["updates"] == progress["steps"] // 3 - 99 // 3


def test_dueling_streams_say_what_a_state_is_worth_and_by_how_much_actions_differ() -> None:
    """The values' mean is the worth of the first half of the code alone; the second half's gains have mean 0."""
    net = Net(POLES.spec.columns[0], 3, 0, Settings(width=8, dueling=True))
    x_BO = torch.randn(5, 4)
    worth_B1 = net.worth(net.hidden(x_BO)[:, :4])
    torch.testing.assert_close(net(x_BO).mean(1, keepdim=True), worth_B1)
    (gradient,) = torch.autograd.grad(net(x_BO).sum(), net.last.weight)
    assert gradient.abs().max() < 1e-5, "what all actions have in common is not the second stream's to say"
    assert net.last.in_features == 4
    plain = Net(POLES.spec.columns[0], 3, 0, Settings(width=8))
    assert plain.worth is None and plain.last.in_features == 8


@pytest.mark.parametrize("double", [True, False])
def test_double_the_net_chooses_and_the_target_net_values(double: bool) -> None:
    """The net would take action 1 next, the target net finds it worth 3 and action 0 worth 5."""
    learner = _learner({"double": double, "lr": 0.0})
    _say(learner.net, [1.0, 2.0])
    _say(learner.target, [5.0, 3.0])
    whole = torch.ones(1)
    batch = {"before": torch.zeros(1, 1), "after": torch.zeros(1, 1), "reward": whole, "discount": whole * 0.5}
    loss = learner.update({**batch, "action": torch.zeros(1, dtype=torch.int64)})
    following = 3.0 if double else 5.0
    assert float(loss) == pytest.approx(1 + 0.5 * following - 1.0 - 0.5, rel=1e-5), "Huber's, for an error above 1"


def test_priorities_follow_the_nets_errors_and_weights_are_in_its_loss() -> None:
    learner = _learner({"prioritised": 1.0, "lr": 0.0})
    _say(learner.net, [0.0, 0.0])
    _say(learner.target, [0.0, 0.0])
    for reward in (2.0, 6.0):
        learner.rollouts.replay.add(before=[0], action=0, reward=reward, discount=0.0, after=[0])
    batch = {name: rows[:2] for name, rows in learner.rollouts.replay.rows.items()}
    loss = learner.update({**batch, "row": torch.arange(2), "weight": torch.tensor([1.0, 0.5])})
    assert float(loss) == pytest.approx((1.5 + 0.5 * 5.5) / 2)
    assert learner.rollouts.replay.filled()["replay/chance"].tolist() == pytest.approx([2, 6], rel=1e-4)


def _learner(hyper: dict[str, Any]) -> Learner:
    """As `fit` makes it in the corridor, before its first step."""
    with pytest.MonkeyPatch.context() as patch:
        found: list[Learner] = []
        patch.setattr(Learner, "learn_epoch", lambda self, _: found.append(self) or {})
        patch.setattr(Learner, "keep_best", lambda *_: None)
        next(Dqn().fit(CORRIDOR, {**SMALL, **hyper}, 0, None))
    return found[0]


def _say(net: Net, values: list[float]) -> None:
    """Make the net answer with these values, whatever it sees."""
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.copy_(torch.tensor(values))


def test_the_greedy_policy_finds_the_shortest_way_whatever_the_actions_are_called() -> None:
    """The corridor's actions are 5 and 6. From cell 0, 1 or 2 the way to cell 4 costs 3, 2 or 1 and pays 10."""
    hyper = {**SMALL, "steps": 200, "warm_up": 100, "explore_steps": 400, "look_ahead": 3}
    *_, epoch = itertools.islice(Dqn().fit(CORRIDOR, hyper, 0, None), 5)
    net = Dqn().load(CORRIDOR.spec, hyper, epoch.state().served())
    cells = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[0], [1], [2], [3]], np.float32))
    out = Dqn().score(net, pa.record_batch({"observation": cells}))
    assert out["action"].to_pylist() == [6, 6, 6, 6]
    assert out["value"].to_pylist() == sorted(out["value"].to_pylist()), "the nearer, the better"
    assert 7 <= evaluate(Dqn(), net, CORRIDOR, "test")["test/return"] <= 9


def test_a_terminal_state_is_worth_nothing_but_a_time_limit_ends_no_world() -> None:
    """Each transition sums its rewards up to `look_ahead` steps, and discounts what follows by as many."""
    hyper = {**SMALL, "steps": 300, "warm_up": 100, "look_ahead": 3, "gamma": 0.5, "explore_steps": 300}
    kept = next(Dqn().fit(CORRIDOR, hyper, 1, None)).state().tensors
    discounts, rewards, last = kept["replay/discount"], kept["replay/reward"], kept["replay/after"][:, 0] == 4
    assert set(discounts[last].tolist()) == {0.0}
    assert {0.125, 0.25, 0.5} == set(discounts[~last].tolist()), "the last steps before the time limit look less far"
    costs = {0.125: -1.75, 0.25: -1.5, 0.5: -1.0}
    for discount, reward in zip(discounts[~last].tolist(), rewards[~last].tolist(), strict=True):
        assert reward == costs[discount]
    assert set(rewards[last].tolist()) == {10.0, 4.0, 1.0}


def test_what_is_served_is_the_best_epoch_so_far() -> None:
    best, served = -np.inf, None
    for epoch in itertools.islice(Dqn().fit(POLES, SMALL, 2, None), 4):
        state = epoch.state()
        if epoch.metrics["val/return"] > best:
            best, served = epoch.metrics["val/return"], state.served().tensors
            assert all(torch.equal(v, state.tensors[k.replace("model/", "net/")]) for k, v in served.items())
        assert served is not None and all(torch.equal(v, state.tensors[k]) for k, v in served.items())
    net = Dqn().load(POLES.spec, SMALL, state.served())
    assert evaluate(Dqn(), net, POLES, "val")["val/return"] == best


def test_another_epochs_state_is_not_to_be_had() -> None:
    learning = Dqn().fit(CORRIDOR, SMALL, 0, None)
    first = next(learning)
    next(learning)
    with pytest.raises(RuntimeError, match="the state of epoch 1 is gone"):
        first.state()


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ParamsError, match="unknown setting 'stpes'"):
        next(Dqn().fit(POLES, {"stpes": 1}, 0, None))
