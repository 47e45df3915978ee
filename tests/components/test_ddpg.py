"""ddpg: observations in, actions of any bounds out."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from gymnasium.spaces import Box
from torch.nn import functional

from components.contract import SPLITS, Column, Data, Spec
from components.datasets import episodes
from components.environments import Arena, Replay
from components.errors import BadInput, DataError, ParamsError
from components.families.ddpg import Ddpg, Learner, Net, Settings, Side
from components.rollouts import Rollouts

from .cases import Case, evaluate, one_thread  # noqa: F401

POSITION = (Column("observation", "tensor", "float32", (1,)),)
WANTED = (0.0, -1.5)  # where to be, and the second element of the action


class Valley(gymnasium.Env[Any, Any]):
    """A place between -1 and 1 and an action of two elements with bounds of their own: 2 of 0 to 4 stays, the more the
    further right; the second should be -1.5. Both cost their squared distance. `pay`: what a unit of cost is."""

    observation_space: Any = Box(-1, 1, (1,), np.float32)
    action_space: Any = Box(np.array([[0.0], [-3.0]]), np.array([[4.0], [-1.0]]), dtype=np.float64)

    def __init__(self, pay: float = 1.0, cliff: float = 2.0, space: Any = None) -> None:
        self.pay, self.cliff, self.action_space = pay, cliff, space or self.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = float(self.np_random.uniform(-1, 1))
        return np.array([self.at], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        first, second = action.ravel()
        self.at = float(np.clip(self.at + 0.2 * (first - 2), -1, 1))
        cost = (self.at - WANTED[0]) ** 2 + (second - WANTED[1]) ** 2
        return np.array([self.at], np.float32), -self.pay * float(cost), self.at > self.cliff, False, {}


KINDS: dict[str, dict[str, Any]] = {
    "Valley": {},
    "Gorge": {"pay": 1024.0},
    "Cliff": {"cliff": 0.5},
    "Steps": {"space": Box(0, 4, (2, 1), np.int64)},
    "Plain": {"space": Box(-np.inf, 4, (2, 1), np.float32)},
}
for name, settings in KINDS.items():
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", entry_point=Valley, kwargs=settings, max_episode_steps=10)


def recorded(environment: str, count: int = 20) -> Data:
    rows = episodes.Recorder("valley", environment, count).record().rows
    spec = Spec("valley", "control", POSITION, environment=environment)
    return Data(spec, {split: rows.filter(pc.equal(rows["split"], split)) for split in SPLITS})


VALLEY = recorded("Valley-v0")
FIXED = {"critics": 2, "delay": 2, "smoothing": 0.2}
SMALL = {"width": 16, "batch_rows": 16, "environments": 2, "steps": 80, "warm_up": 40, "gamma": 0.8, "tau": 0.05}
SMALL |= {"actor_lr": 5e-3, "critic_lr": 5e-3}
# An environment has no batch to learn by heart: what is asked instead is that it soon does much better than at random.
CASES = [
    Case("plain", VALLEY, SMALL, SMALL, reached=-3.0, epochs=5, heart_epochs=12, batch=VALLEY),
    Case("td3", VALLEY, SMALL | FIXED, SMALL | FIXED, reached=-3.0, epochs=5, heart_epochs=20, batch=VALLEY),
]


def learner(environment: str = "Valley-v0", **changes: Any) -> Learner:
    """One with 40 transitions to learn from."""
    torch.manual_seed(0)
    settings = Settings(**{"width": 16, "batch_rows": 16, **changes})
    net = Net(POSITION[0], 2, settings)
    net.low, net.high = torch.tensor([0.0, -3.0]), torch.tensor([4.0, -1.0])
    net.factor += 1
    spec = Spec("valley", "control", POSITION, environment=environment)
    replay, draw = Replay(100, 1, torch.zeros(2)), np.random.default_rng(1)
    for _ in range(40):
        x, after, reward = draw.normal(size=3)
        replay.add(before=[x], action=draw.uniform(-1, 1, 2), reward=reward, discount=0.9, after=[after])
    return Learner(settings, Rollouts(Arena(spec, "Box", 2), replay, 0, 0.9), net)


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Ddpg().fit(VALLEY, SMALL | FIXED, 0, None), 6)
    return Ddpg().load(VALLEY.spec, SMALL | FIXED, epoch.state().served())


# ── what it scores ──────────────────────────────────────────────────────────────────────────────────────


def test_observations_are_scored_with_an_action_within_its_bounds_and_its_value(net: Any) -> None:
    rows = VALLEY.splits["test"].combine_chunks().to_batches()[0]
    out = Ddpg().score(net, rows)
    x_NO = torch.from_numpy(rows["observation"].to_numpy_ndarray().copy())
    with torch.inference_mode():
        a_NA = net.actor(net.seen(x_NO))
        value_N = net.critic(net.seen(x_NO), a_NA).amin(0) * net.unit
    action_NA = np.array(out["action"].to_pylist())
    np.testing.assert_allclose(action_NA, np.array([2, -2]) + np.array([2, 1]) * a_NA.cpu().numpy(), atol=1e-5)
    assert (action_NA >= [0, -3]).all() and (action_NA <= [4, -1]).all()
    assert out["value"].to_pylist() == value_N.tolist()


def test_it_learns_where_to_go_and_what_each_element_of_an_action_does(net: Any) -> None:
    places = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[-0.8], [0.0], [0.8]], np.float32))
    first, second = np.array(Ddpg().score(net, pa.record_batch({"observation": places}))["action"].to_pylist()).T
    assert first[0] > 3 and 1 < first[1] < 3 and first[2] < 1
    np.testing.assert_allclose(second, -1.5, atol=0.3)
    assert evaluate(Ddpg(), net, VALLEY, "test")["test/return"] > -3


def test_observations_that_are_not_finite_are_named(net: Any) -> None:
    broken = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[0], [np.inf]], np.float32))
    with pytest.raises(BadInput, match="'observation' holds observations that are not finite"):
        Ddpg().score(net, pa.record_batch({"observation": broken}))


def test_the_ends_of_the_policy_s_range_are_the_bounds_themselves() -> None:
    told = learner().net.told(torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]))
    assert told.tolist() == [[0.0, -3.0], [2.0, -2.0], [4.0, -1.0]]


@pytest.mark.parametrize("environment", ["Steps-v0", "Plain-v0"])
def test_actions_that_are_no_floats_with_bounds_are_refused(environment: str) -> None:
    data = Data(Spec("valley", "control", POSITION, environment=environment), VALLEY.splits)
    with pytest.raises(DataError, match="not floats with bounds"):
        next(Ddpg().fit(data, SMALL, 0, None))


def test_actions_to_choose_from_are_another_family_s() -> None:
    from .test_environments import recorded as corridor

    with pytest.raises(DataError, match="not Box"):
        next(Ddpg().fit(corridor(), SMALL, 0, None))


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ParamsError, match="unknown setting 'stpes'"):
        next(Ddpg().fit(VALLEY, {"stpes": 1}, 0, None))


# ── what it learns from ─────────────────────────────────────────────────────────────────────────────────


def test_an_epoch_has_the_steps_that_were_asked_and_an_update_for_each_but_the_first() -> None:
    for number, epoch in enumerate(itertools.islice(Ddpg().fit(VALLEY, SMALL, 4, None), 3), 1):
        progress = epoch.state().scalars["progress"]
        assert progress["steps"] == epoch.metrics["train/steps"] == 80 * number
        assert progress["updates"] == 80 * number - SMALL["warm_up"]
        assert progress["added"] == len(epoch.state().tensors["replay/reward"]) == 80 * number
        assert progress["episodes"] == 8 * number


def test_a_terminal_state_is_worth_nothing_but_a_time_limit_ends_no_world() -> None:
    def kept(environment: str) -> tuple[set[float], set[float]]:
        """Discounts of what follows where the place is beyond the cliff, and elsewhere."""
        tensors = next(Ddpg().fit(recorded(environment), {**SMALL, "gamma": 0.5}, 1, None)).state().tensors
        beyond = tensors["replay/after"][:, 0] > 0.5
        return set(tensors["replay/discount"][beyond].tolist()), set(tensors["replay/discount"][~beyond].tolist())

    assert kept("Cliff-v0") == ({0.0}, {0.5})
    assert kept("Valley-v0") == ({0.5}, {0.5})


def test_rewards_in_another_unit_teach_the_same_and_promise_as_much_more() -> None:
    """1024 times the reward, so that not a bit differs."""
    train = VALLEY.splits["train"]
    paid = train.set_column(train.schema.get_field_index("reward"), "reward", pc.multiply(train["reward"], 1024.0))
    gorge = Data(Spec("gorge", "control", POSITION, environment="Gorge-v0"), {**VALLEY.splits, "train": paid})
    one, other = (next(Ddpg().fit(data, SMALL, 3, None)).state().tensors for data in (VALLEY, gorge))
    assert all(torch.equal(one[name], other[name]) for name in one if name.startswith(("net/actor", "net/critic")))
    assert float(other["model/unit"]) == 1024 * float(one["model/unit"])


def test_exploration_is_any_action_at_first_and_then_the_policy_s_with_noise() -> None:
    one, draw = learner(warm_up=10, noise=0.1), np.random.default_rng(2)
    x_NO = np.zeros((500, 1), np.float32)
    drawn_NA, told = one.act(x_NO, draw)
    assert drawn_NA.min() < -0.98 and drawn_NA.max() > 0.98 and abs(drawn_NA.mean()) < 0.1
    assert all(one.rollouts.arena.worlds[0].action_space.contains(action) for action in told)
    one.rollouts.steps = 10
    noisy_NA, _ = one.act(x_NO, draw)
    assert np.std(noisy_NA - one.net.actor(torch.zeros(1, 1)).detach().numpy()) == pytest.approx(0.1, rel=0.1)


def test_what_is_served_is_the_best_epoch_so_far() -> None:
    best, served = -np.inf, None
    for epoch in itertools.islice(Ddpg().fit(VALLEY, SMALL, 2, None), 4):
        state = epoch.state()
        if epoch.metrics["val/return"] > best:
            best, served = epoch.metrics["val/return"], state.served().tensors
            assert all(torch.equal(v, state.tensors[k.replace("model/", "net/")]) for k, v in served.items())
        assert served is not None and all(torch.equal(v, state.tensors[k]) for k, v in served.items())
    net = Ddpg().load(VALLEY.spec, SMALL, state.served())
    assert evaluate(Ddpg(), net, VALLEY, "val")["val/return"] == best


def test_another_epochs_state_is_not_to_be_had() -> None:
    learning = Ddpg().fit(VALLEY, SMALL, 0, None)
    first = next(learning)
    next(learning)
    with pytest.raises(RuntimeError, match="the state of epoch 1 is gone"):
        first.state()


# ── how it learns ───────────────────────────────────────────────────────────────────────────────────────


def test_layers_side_by_side_are_layers_each() -> None:
    side, x_KBI = Side(2, 3, 4), torch.randn(2, 5, 3)
    for k in range(2):
        alone = functional.linear(x_KBI[k], side.weight[k].T, side.bias[k, 0])
        torch.testing.assert_close(side(x_KBI)[k], alone)


def test_critics_are_held_to_the_lower_value_of_both_targets() -> None:
    one = learner(critics=2)
    source = torch.Generator().manual_seed(3)
    for own in one.target.critic.parameters():
        own.data.normal_(generator=source)
    batch = one.rollouts.replay.sample(16, np.random.default_rng(5), torch.device("cpu"))
    with torch.no_grad():
        asked = batch["after"], one.target.actor(batch["after"])
        one.target.critic.layers[-1].bias -= one.target.critic(*asked).mean(1)[:, None, None]
        q_KB = one.target.critic(*asked)
        assert not (q_KB[0] < q_KB[1]).all() and not (q_KB[0] > q_KB[1]).all()
        wanted_B = batch["reward"] + 0.9 * torch.minimum(*q_KB)
        had_KB = one.net.critic(batch["before"], batch["action"])
    (loss,) = taught(one, 1)
    assert float(loss) == pytest.approx(float((had_KB - wanted_B).square().mean(1).sum()), rel=1e-5)


def test_the_policy_and_the_targets_wait_for_so_many_updates_of_the_critics() -> None:
    one = learner(delay=3)
    before = weights(one)
    taught(one, 2)
    assert changed(before, weights(one)) == {"net/critic"}
    taught(one, 1)
    assert changed(before, weights(one)) == {"net/critic", "net/actor", "target/critic", "target/actor"}


def test_the_policy_climbs_the_value_that_the_critic_sees() -> None:
    one = learner(critic_lr=0.0, actor_lr=1e-2)
    z_BO = torch.linspace(-1, 1, 21)[:, None]
    source = torch.Generator().manual_seed(3)
    for own in one.net.critic.parameters():
        own.data.normal_(generator=source)

    def promised() -> float:
        with torch.no_grad():
            return float(one.net.critic(z_BO, one.net.actor(z_BO))[0].mean())

    before = promised()
    taught(one, 20)
    assert promised() > before + 0.1


@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_the_targets_follow_so_far(tau: float) -> None:
    one = learner(tau=tau)
    before = [own.clone() for own in one.target.parameters()]
    taught(one, 1)
    for old, new, aim in zip(before, one.target.parameters(), one.net.parameters(), strict=True):
        torch.testing.assert_close(new, old + tau * (aim - old))


def test_the_target_policy_is_smoothed_by_noise_that_is_cut() -> None:
    one, a_BA = learner(smoothing=0.2), torch.zeros(4000, 2)
    noisy_BA = one._smoothed(a_BA, np.random.default_rng(0))
    assert float(noisy_BA.std()) == pytest.approx(0.2, rel=0.05)
    assert float(noisy_BA.abs().max()) == pytest.approx(0.5)
    assert float(one._smoothed(a_BA + 0.95, np.random.default_rng(0)).max()) == 1.0
    assert torch.equal(learner()._smoothed(a_BA, np.random.default_rng(0)), a_BA)


def taught(one: Learner, updates: int) -> list[torch.Tensor]:
    one.rollouts.steps = one.settings.warm_up + updates
    return list(one.learn(updates, np.random.default_rng(5)))


def weights(one: Learner) -> dict[str, torch.Tensor]:
    nets = {"net": one.net, "target": one.target}
    return {f"{name}/{key}": own.detach().clone() for name, net in nets.items() for key, own in net.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.partition(".")[0] for name, own in before.items() if not torch.equal(own, after[name])}
