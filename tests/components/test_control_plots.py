"""The report of a policy: returns over steps, returns of test episodes, a filmstrip of one of them."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from components import environments, plots
from components.contract import Data, Hyper, Metrics, Objective, Outcomes, Spec
from components.model import Model
from components.plots import control
from components.sweep import Trial
from components.workspace import exported

from .test_environments import Corridor, recorded, spec

OBJECTIVE = Objective("return", "max")


class Lit(Corridor):
    """A corridor that can be seen: white where one stands. Without a screen is where it draws."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    drivers: ClassVar[set[str | None]] = set()

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def render(self) -> Any:
        Lit.drivers.add(os.environ.get("SDL_VIDEODRIVER"))
        picture = np.zeros((20, 50, 3), np.uint8)
        picture[:, 10 * self.at : 10 * self.at + 10] = 255
        return picture


class Broken(Lit):
    def render(self) -> Any:
        raise RuntimeError("no screen\nat all")


for name, kind in (("Lit", Lit), ("Broken", Broken)):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", entry_point=kind, max_episode_steps=12)


class Right:
    """A family whose policy always goes right."""

    def score(self, net: Any, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch({"action": pa.array([6] * len(batch), pa.int64())})

    def outputs(self, spec: Spec) -> pa.Schema:
        return pa.schema([("action", pa.int64())])

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        return environments.recorded_return(data, split)

    def judge(self, net: Any, data: Data, split: str) -> Outcomes:
        return environments.play(
            lambda x_NO: [6] * len(x_NO), environments.measuring(data.spec, "Discrete", split), split
        )


def trial(key: str, start: float, epochs: int, step: int) -> Trial:
    curve: list[Metrics] = [{"train/steps": step * e + 0.0, "val/return": start + e} for e in range(1, epochs + 1)]
    return Trial(key, {}, "finished", curve, start + epochs, epochs)


TRIALS = [trial("aaaa", 3, 6, 100), trial("bbbb", 1, 3, 110), Trial("cccc", {}, "failed")]


def drawn(folder: Path, environment: str, trials: Sequence[Trial] = TRIALS) -> list[str]:
    data = recorded()
    data = dataclasses.replace(data, spec=spec(environment))
    model = Model(Right(), data.spec, {}, None, "")  # type: ignore[arg-type]
    return [file.name for file in plots.draw(folder, model, data, trials, OBJECTIVE)]


def read(file: Path) -> list[list[str]]:
    with file.open(newline="") as opened:
        return list(csv.reader(opened))


@pytest.fixture(scope="module")
def lit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lit")
    names = ["curves.csv", "episode.png", "learning_curves.png", "returns.csv", "returns.png", "steps.csv", "steps.png"]
    assert drawn(folder, "Lit-v0") == names
    return folder


def test_tables_are_what_was_played_and_learnt(lit: Path) -> None:
    head, *rows = read(lit / "steps.csv")
    assert head == ["trial", "step", "val/return"]
    assert rows[0] == ["1", "100", "4.0"] and rows[-1] == ["2", "330", "4.0"] and len(rows) == 9
    head, *rows = read(lit / "returns.csv")
    assert head == ["episode", "return"] and len(rows) == 100
    assert {float(value) for _, value in rows} == {7.0, 8.0, 9.0}, "from cells 0, 1 and 2"


def test_the_curve_over_steps_is_of_the_seeds_where_the_best_was_learnt_by_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    figure, save = plots.figures.figure, plots.figures.save
    monkeypatch.setattr(plots.figures, "figure", lambda w, h, title: (said.append(title), figure(w, h, title))[1])

    def saved(made: Any, file: Path) -> Path:
        if file.name == "steps.png":
            said.extend(text.get_text() for text in made.axes[0].get_legend().get_texts())
        return save(made, file)

    monkeypatch.setattr(plots.figures, "save", saved)
    again = [dataclasses.replace(trial(f"aaaa-{seed}", seed, 6, 100), seed=seed) for seed in (8, 9)]
    failed = Trial("aaaa-10", {}, "failed", again[0].curve, seed=10)
    drawn(tmp_path, "Corridor-v0", [*TRIALS, *again, failed])
    head, *rows = read(tmp_path / "steps.csv")
    assert head == ["seed", "step", "val/return"] and len(rows) == 18
    assert [row for row in rows if row[1] == "100"] == [["1", "100", "4.0"], ["2", "100", "9.0"], ["3", "100", "10.0"]]
    assert "steps: val/return by steps in the environment, 3 seeds" in said
    assert {"range of seeds", "median of seeds", "best trial"} <= {*said}
    drawn(tmp_path / "one", "Corridor-v0", [*TRIALS, failed])
    assert read(tmp_path / "one" / "steps.csv")[0][0] == "trial", "one seed alone has no spread"
    assert {"range of trials", "median of trials"} <= {*said}


def test_the_band_is_where_two_trials_are() -> None:
    curves = [np.array([[100.0, 1], [300, 3]]), np.array([[200.0, 4], [400, 6]]), np.array([[500.0, 9]])]
    band = control.spread(curves)
    assert band is not None
    step_P, low_P, median_P, high_P = band
    assert step_P[0] == 200 and step_P[-1] == 300
    assert (low_P[0], median_P[0], high_P[0]) == (2, 3, 4) and (low_P[-1], high_P[-1]) == (3, 5)
    assert control.spread(curves[:1]) is None and control.spread([curves[0], curves[2]]) is None


def test_a_filmstrip_is_the_test_episode_step_by_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The white tenth of the corridor goes to the right, a step a picture; no screen is needed and none is left."""
    shown: list[Any] = []
    real = plots.figures.pictures
    monkeypatch.setattr(plots.figures, "pictures", lambda *given: (shown.append(given), real(*given))[1])
    monkeypatch.setenv("SDL_VIDEODRIVER", "mine")
    Lit.drivers.clear()
    drawn(tmp_path, "Lit-v0")
    (_, frames, captions, _) = shown[0]
    assert {frame.shape for frame in frames} == {(3, 50, 50)}, "channels first, square"
    cells = [int(frame[0, 25].argmax()) // 10 for frame in frames]
    assert cells == list(range(cells[0], 5)) and len(frames) == len(captions) > 2
    assert captions[0] == "step 0, return 0" and captions[-1] == f"step {len(cells) - 1}, return {12 - len(cells)}"
    assert Lit.drivers == {"dummy"} and os.environ["SDL_VIDEODRIVER"] == "mine"


def test_pictures_are_the_same_bytes_again(lit: Path, tmp_path: Path) -> None:
    drawn(tmp_path, "Lit-v0")
    for file in lit.glob("*.png"):
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name
        with Image.open(file) as picture:
            if file.name == "episode.png":
                counts = {ink: count for count, ink in picture.convert("RGB").getcolors(1 << 20) or []}
                assert counts[0, 0, 0] > 0.03 * picture.width * picture.height, "the dark corridor"
            assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


@pytest.mark.parametrize(("environment", "why"), [("Broken-v0", "no screen at all"), ("Corridor-v0", "render_mode")])
def test_what_cannot_be_drawn_is_said(tmp_path: Path, environment: str, why: str) -> None:
    names = drawn(tmp_path, environment)
    assert "episode.txt" in names and "episode.png" not in names and "returns.png" in names
    said = (tmp_path / "episode.txt").read_text()
    assert said.count("\n") == 1 and environment in said and why in said


def test_cartpole_is_drawn_without_a_screen() -> None:
    pytest.importorskip("pygame")
    cartpole = Spec("poles", "control", (), environment="CartPole-v1")
    with exported(control.UNSEEN):
        world = environments.opened(cartpole, "rgb_array")
        world.reset(seed=0)
        assert len(np.unique(world.render())) > 3
        world.close()
