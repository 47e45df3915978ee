"""Agents beside ours: the same episodes, as many steps, and only learning is timed. The package itself is not here."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import stable_baselines, steps, trained
from benchmarks.rows import control
from components import environments
from components.contract import Epoch, State
from components.families import family
from components.families.ddpg import Settings
from tests.components.test_ddpg import VALLEY
from tests.components.test_environments import recorded


class Constant:
    """An agent that always says the same."""

    def __init__(self, action: Any) -> None:
        self.action, self.learnt = action, 0

    def learn(self, count: int, callback: Any) -> None:
        for self.learnt in range(1, count + 1):
            assert callback({}, {})

    @property
    def num_timesteps(self) -> int:
        return self.learnt

    def predict(self, x_NO: Any, deterministic: bool) -> tuple[Any, None]:
        assert deterministic
        return np.stack([self.action] * len(x_NO)), None


@pytest.mark.parametrize(
    ("data", "space", "action"),
    [(recorded(), "Discrete", 6), (VALLEY, "Box", np.array([[2.0], [-1.5]]))],
    ids=["choices", "floats"],
)
def test_an_agent_is_measured_on_the_episodes_that_measure_ours(data: Any, space: str, action: Any) -> None:
    found = stable_baselines.judged(Constant(action), data.spec, space, "test")
    arena = environments.measuring(data.spec, space, "test")
    own = environments.play(lambda x_NO: [action] * len(x_NO), arena, "test")
    assert found["return"].tolist() == own["return"].tolist() and len(set(own["return"])) > 1


def test_a_rival_learns_for_as_many_steps_as_the_winner_has_had(monkeypatch: pytest.MonkeyPatch) -> None:
    data, agent = recorded(), Constant(6)
    rival = SimpleNamespace(kind="DQN", space="Discrete", begin=lambda spec, seed: agent)
    monkeypatch.setitem(stable_baselines.RIVALS, data.spec.dataset, rival)  # type: ignore[arg-type]
    monkeypatch.setattr(trained, "steps", lambda pipeline: 16_400)
    threads = torch.get_num_threads()
    found = control.acting(data, 3)
    torch.set_num_threads(threads)
    assert agent.learnt == 16_400
    assert found["random policy"]["return"] == environments.recorded_return(data, "test")["test/return"]
    assert 7 <= found["stable-baselines3 DQN"]["return"] <= 9  # straight to the end


def test_a_rival_is_tested_as_it_was_when_val_was_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Val is 2, 5, 3 after each thousand steps; the test figure that counts is the second's."""
    agent = Constant(6)
    rival = SimpleNamespace(kind="DQN", space="Discrete", begin=lambda spec, seed: agent)
    value = {"val": {1000: 2.0, 2000: 5.0, 3000: 3.0}, "test": {1000: 20.0, 2000: 50.0, 3000: 30.0}}

    def judged(agent: Any, spec: Any, space: str, split: str) -> Any:
        return {"return": np.array([value[split][agent.learnt]])}

    monkeypatch.setattr(stable_baselines, "judged", judged)
    found = stable_baselines.learnt(rival, recorded().spec, 0, 3500)  # type: ignore[arg-type]
    assert found["test/return"] == 50.0 and agent.learnt == 3500


def test_the_winner_s_steps_are_those_of_its_last_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    curve = [{"train/steps": 1000.0}, {"train/steps": 2100.0}]
    (tmp_path / "trials.json").write_text(json.dumps([{"curve": curve}, {"curve": curve[:1]}]))
    workspace = SimpleNamespace(results=lambda pipeline, stage: tmp_path)
    monkeypatch.setattr(trained, "resolved", lambda pipeline: SimpleNamespace(workspace=workspace))
    assert trained.steps("poles") == 2100


def test_every_family_that_acts_tells_the_steps_of_an_epoch() -> None:
    for name, data in (("dqn", recorded()), ("ddpg", VALLEY)):
        hyper = {"width": 8, "steps": 40, "warm_up": 20, "environments": 2}
        for number, epoch in enumerate(itertools.islice(family(name).fit(data, hyper, 0, None), 2), 1):
            assert epoch.metrics["train/steps"] >= 40 * number


def test_the_seconds_that_measure_our_net_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> None:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass

    class Slow:
        def fit(self, data: Any, hyper: Any, seed: int, state: Any) -> Any:
            for number in (1, 2, 3):
                environments.play(None, None, "val")  # type: ignore[arg-type]
                yield Epoch(number, {"train/steps": number * 1000.0}, lambda: State({}))

    monkeypatch.setattr(environments, "play", busy)
    monkeypatch.setattr(steps, "data_of", lambda asked: None)
    asked: Any = SimpleNamespace(family=Slow(), block=SimpleNamespace(settings={}))
    seconds, made = steps.ours(asked, 1500, 0)
    assert made == 2000 and 0 <= seconds < 0.1


def test_a_rival_with_our_settings_keeps_the_rest_of_its_own() -> None:
    zoo = stable_baselines.RIVALS["pendulum"]
    own = steps.alike(zoo, Settings(width=32, depth=3, batch_rows=48, warm_up=77))
    assert own.layers == (32, 32, 32) and own.noise == zoo.noise
    changed = {key for key in own.hyper if own.hyper[key] != zoo.hyper.get(key)}
    assert changed == {"batch_size", "learning_starts", "buffer_size", "train_freq", "gradient_steps"}
    assert (own.hyper["batch_size"], own.hyper["learning_starts"], own.hyper["train_freq"]) == (48, 77, 1)
