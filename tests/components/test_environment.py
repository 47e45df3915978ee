"""An environment that the project has never seen: what is recorded of it, what that promises, what makes it no use."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pyarrow as pa
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from components import datasets, validation
from components.contract import EVALUATION, TRAINING_SEEDS, Data, Spec
from components.datasets import episodes, parquet
from components.environments import Arena
from components.errors import DataError, ParamsError, TidemillError
from components.expectations import Expectations
from components.families.ddpg import Ddpg
from components.families.dqn import Dqn
from components.params import DatasetBlock
from components.tuning import execution
from components.workspace import Workspace

from . import test_ddpg, test_dqn
from .test_environments import Corridor, recorded

FLATTEN = "gymnasium.wrappers:FlattenObservation"


class Tilted(Corridor):
    """Seen and acted in by floats, the edges of which float32 does not have."""

    observation_space: Any = Box(-0.7, 0.1, (2, 1), np.float64)
    action_space: Any = Box(-0.3, 0.3, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.slope = self.np_random.uniform(-0.7, 0.1)
        return np.array([[self.slope], [0.1]]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return np.array([[-0.7], [0.1]]), self.slope, False, False, {}


class Rooms(Corridor):
    observation_space: ClassVar[Any] = Dict({"room": Discrete(3)})


class Free(Corridor):
    action_space: ClassVar[Any] = Box(-np.inf, np.inf, (1,))


class Same(Tilted):
    """Every episode is the same one."""

    action_space: ClassVar[Any] = Discrete(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=0)
        return np.array([[0.0], [0.1]]), {}


class Greedy(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: Any, more: int) -> None:
        super().__init__(env)


def hollow(_: Any) -> str:
    return "no environment"


def bare(env: Any) -> Any:
    return Corridor()


for kind in (Tilted, Rooms, Free, Same):
    if f"{kind.__name__}-v0" not in gymnasium.registry:
        gymnasium.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=6)


class Project:
    """A workspace with one environment."""

    def __init__(self, root: Path, environment: str = "Corridor-v0", **block: Any) -> None:
        self.workspace = Workspace(root)
        self.block = DatasetBlock(environment=environment, **block)

    def promised(self, **change: Any) -> Expectations:
        return datasets.expectations(self.workspace, "mine", self.block.model_copy(update=change))

    def recipe(self, **change: Any) -> datasets.Recipe:
        return datasets.recipe(self.workspace, "mine", self.block.model_copy(update=change), lambda _: None)

    def load(self) -> Data:
        recipe = self.recipe()
        self.workspace.data("mine").parent.mkdir(exist_ok=True)
        parquet.write(recipe.build(), self.workspace.data("mine"), recipe.note)
        return datasets.load(self.workspace, "mine", self.promised(), "control")

    @property
    def stated(self) -> Path:
        return self.workspace.expectations("mine")


def fault(kind: type[TidemillError], project: Project) -> str:
    with pytest.raises(kind) as raised:
        project.recipe()
    assert not project.stated.exists(), "nothing is promised of what is no use"
    return str(raised.value)


# ── what is recorded and promised ───────────────────────────────────────────────────────────────────────


def test_a_gymnasium_id_is_a_dataset(tmp_path: Path) -> None:
    project = Project(tmp_path, episodes=20)
    data = project.load()
    assert data.spec.environment == "Corridor-v0" and data.spec.task == "control"
    assert validation.validate(data, project.promised(), tmp_path / "docs").failures == ()
    rows = pa.concat_tables(data.splits.values()).to_pandas()
    assert sorted(rows["episode"].unique()) == [*range(20)]
    split = [set(table["episode"].to_pylist()) for table in data.splits.values()]
    assert all(split) and sum(map(len, split)) == 20, "each episode is in one split, none of which is empty"
    world = gymnasium.make("Corridor-v0")
    for number, episode in rows.groupby("episode"):
        shown, ended = world.reset(seed=number)[0], False
        for _, row in episode.sort_values("step").iterrows():
            assert not ended and row["observation"].tolist() == shown.tolist()
            shown, paid, terminated, truncated, _ = world.step(row["action"])
            ended = terminated or truncated
            assert (row["reward"], row["terminated"]) == (paid, terminated)
            assert row["truncated"] == (truncated and not terminated)
        assert ended


def test_what_it_promises_is_inferred_once(tmp_path: Path) -> None:
    project = Project(tmp_path, environment_settings={"max_episode_steps": 9})
    columns = project.promised().columns
    bounds = {name: (rule.min, rule.max) for name, rule in columns.items()}
    assert bounds == {
        "id": (None, None),
        "episode": (0, None),
        "step": (0, 8),
        "observation": (0, 4),
        "action": (5, 6),
        "reward": (-12, 120),  # -1 to 10, and as far again; ten times as far where they are seldom
        "terminated": (0, 1),
        "truncated": (0, 1),
    }
    text = project.stated.read_text()
    assert "environment: Corridor-v0\nenvironment_settings:\n  max_episode_steps: 9\ncolumns:\n" in text
    assert "class_share" not in text and "duplicates" not in text
    project.stated.write_text(text.replace("max: 120", "max: 12"))
    assert project.promised().columns["reward"].max == 12, "it is its owner's to edit"


def test_elements_on_the_edge_of_a_space_are_inside_it(tmp_path: Path) -> None:
    project = Project(tmp_path, "Tilted-v0", episodes=6)
    data = project.load()
    assert data.splits["train"].schema.field("observation").type == pa.fixed_shape_tensor(pa.float32(), (2, 1))
    assert validation.validate(data, project.promised(), tmp_path / "docs").failures == ()


def test_wrappers_make_an_environment_fit(tmp_path: Path) -> None:
    project = Project(tmp_path, "FrozenLake-v1", episodes=10, environment_wrappers=[FLATTEN])
    spec = project.load().spec
    assert spec.columns[0].shape == (16,) and spec.environment_wrappers == (FLATTEN,)
    assert f"environment_wrappers: [{FLATTEN}]" in project.stated.read_text()
    assert (project.promised().columns["observation"].min, project.promised().columns["observation"].max) == (0, 1)


def test_what_measures_a_policy_is_promised_and_no_row_hangs_on_it(tmp_path: Path) -> None:
    usual = Project(tmp_path / "usual", episodes=5)
    project = Project(tmp_path / "mine", episodes=5, evaluation={"val": 20, "test": 100})
    spec = project.promised().spec("mine", "control")
    assert spec.evaluation == EVALUATION | {"val": range(1_000_000, 1_000_020)}
    assert "evaluation:\n  val: {episodes: 20, first_seed: 1000000}\ncolumns:" in project.stated.read_text()
    assert usual.promised().spec("mine", "control").evaluation == EVALUATION
    assert "\nevaluation:" not in usual.stated.read_text() and "evaluation" not in usual.promised().model_dump()
    assert project.recipe().note == usual.recipe().note
    text = project.stated.read_text()
    project.stated.write_text(text.replace("first_seed: 1000000", "first_seed: 1_500_000"))
    seeds = project.promised().spec("mine", "control").evaluation["val"]
    assert seeds == range(1_500_000, 1_500_020) and type(seeds.start) is int, "which ones is its owner's to say"
    assert Expectations.model_validate(project.promised().model_dump()) == project.promised()


@pytest.mark.parametrize(
    ("learner", "data", "settings"),
    [(Dqn(), recorded(), test_dqn.SMALL), (Ddpg(), test_ddpg.VALLEY, test_ddpg.SMALL)],
    ids=["dqn", "ddpg"],
)
def test_epochs_and_reports_play_the_dataset_s_episodes(
    learner: Any, data: Data, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    played: dict[str, list[int]] = {"training": [], "val": [], "test": []}
    reset = Arena.reset

    def counted(arena: Arena, at: int, seed: int, episode: str) -> None:
        played[episode.partition(" ")[0]].append(seed)
        reset(arena, at, seed, episode)

    monkeypatch.setattr(Arena, "reset", counted)
    asked = dataclasses.replace(data.spec, evaluation=EVALUATION | {"val": range(40, 43), "test": range(90, 95)})
    data = dataclasses.replace(data, spec=asked)
    *_, last = itertools.islice(learner.fit(data, settings, 0, None), 2)
    assert played["val"] == [40, 41, 42] * 2 and played["test"] == []
    assert min(played["training"]) >= TRAINING_SEEDS
    net = learner.load(data.spec, settings, last.state().served())
    assert len(learner.judge(net, data, "test")["return"]) == 5 and played["test"] == [90, 91, 92, 93, 94]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluation": {"val": 20}}, "evaluation.val is 20, expectations/mine.yaml says 50"),
        ({"environment": "CartPole-v1"}, "environment is 'CartPole-v1', expectations/mine.yaml says 'Corridor-v0'"),
        (
            {"environment_settings": {"max_episode_steps": 9}},
            "environment_settings is {'max_episode_steps': 9}, expectations/mine.yaml says none",
        ),
        ({"environment_wrappers": [FLATTEN]}, f"environment_wrappers is ['{FLATTEN}'], expectations/mine.yaml says no"),
    ],
)
def test_params_and_expectations_must_agree(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    project = Project(tmp_path)
    project.promised()
    with pytest.raises(ParamsError) as raised:
        project.recipe(**change)
    assert said in str(raised.value) and "delete expectations/mine.yaml" in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  reward:", "  pay:", r"mine\.yaml:\d+ columns: got no column reward, expected all"),
        ("role: ignored", "role: target", r"mine\.yaml:\d+ columns\.episode\.role: got 'target', expected ignored"),
        ("    shape: [1]\n", "", r"mine\.yaml:\d+ columns\.observation\.kind: got a tensor without dtype and shape"),
        ("max: 6", "max: 4", r"mine\.yaml:\d+ columns\.action\.max: got 4(\.0)?, expected no less than min"),
        ("environment: Corridor-v0", "environment_settings: {a: 1}", r"mine\.yaml:\d+ environment_settings: got envi"),
        (
            "environment: Corridor-v0",
            "evaluation: {val: {episodes: 1, first_seed: 3}}",
            r"mine\.yaml:\d+ evaluation: got evaluation without an environment",
        ),
        (
            "columns:",
            "evaluation:\n  val: {episodes: 50, first_seed: 3}\ncolumns:",
            r"mine\.yaml:\d+ evaluation\.val: got seeds 3 to 52, expected none of train's, 0 to 49",
        ),
        (
            "columns:",
            "evaluation:\n  val: {episodes: 50}\ncolumns:",
            r"mine\.yaml:\d+ evaluation\.val\.first_seed: got nothing, expected a value",
        ),
    ],
)
def test_an_edit_that_breaks_the_file_is_named_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    project = Project(tmp_path)
    project.promised()
    text = project.stated.read_text()
    assert old in text
    project.stated.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError, match=said):
        project.promised()


# ── what the rows hang on ───────────────────────────────────────────────────────────────────────────────

MAZE = """\
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
class Maze(CartPoleEnv):
    pass
if "Maze-v0" not in gymnasium.registry:
    gymnasium.register("Maze-v0", entry_point=Maze, max_episode_steps=20)
"""


def test_the_note_names_all_that_the_rows_hang_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maze_of_ours.py").write_text(MAZE)
    monkeypatch.syspath_prepend(str(tmp_path))
    project = Project(tmp_path, "maze_of_ours:Maze-v0", environment_wrappers=[FLATTEN], episodes=5)
    recipe = project.recipe()
    assert not recipe.pinned
    note = recipe.note
    assert json.loads(json.dumps(note)) == note, "so that it is the same when it is read back"
    assert note["environment"] == "maze_of_ours:Maze-v0" and note["episodes"] == 5
    assert note["wrappers"] == [FLATTEN] and note["settings"] == {}
    assert note["versions"] == {"gymnasium": gymnasium.__version__, "numpy": np.__version__}
    assert project.recipe().note == note
    assert project.recipe(episodes=6).note != note
    (tmp_path / "maze_of_ours.py").write_text(MAZE.replace("    pass", "    gravity = 1.6"))
    changed = project.recipe().note
    assert changed | {"code": None} == note | {"code": None} and changed["code"] != note["code"]
    sys.modules.pop("maze_of_ours")


def test_what_makes_an_environment_or_a_wrapper_counts_as_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if what is made is of a package's classes alone."""
    maker = (
        "from gymnasium.envs.classic_control import CartPoleEnv as Env\ndef dim(env):\n    return env\ndef make(**_):\n"
    )
    (tmp_path / "lamps_of_ours.py").write_text(f"{maker}    return Env()\n")
    (tmp_path / "light_of_ours.py").write_text(f"{maker}    return Env()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(
        gymnasium.registry,
        "Lit-v0",
        gymnasium.envs.registration.EnvSpec("Lit-v0", entry_point="light_of_ours:make", max_episode_steps=9),
    )
    project = Project(tmp_path, "Lit-v0", environment_wrappers=["lamps_of_ours:dim"], episodes=5)
    codes = {project.recipe().note["code"]}
    for file in ("light_of_ours.py", "lamps_of_ours.py"):
        (tmp_path / file).write_text(f"{maker}    return Env(True)\n")
        codes.add(project.recipe().note["code"])
    assert len(codes) == 3 and None not in codes


def test_an_environment_of_a_package_names_what_that_computes_with(tmp_path: Path) -> None:
    note = Project(tmp_path, "Reacher-v5", episodes=3).recipe().note
    assert note["code"] is None and note["versions"]["mujoco"] == "4.0.0"


def test_workers_are_told_which_packages_bring_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec("mine", "control", (), environment="maze.rooms:Maze-v0", environment_wrappers=(FLATTEN, "lamps.led:On"))
    assert spec.packages == {"maze", "lamps"}
    assert Spec("mine", "control", (), environment="CartPole-v1").packages == set()
    (tmp_path / "maze.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    request = SimpleNamespace(family="dqn", data=None, seed=1, storage="", checkpoint_every_s=1.0)
    request.resources = SimpleNamespace(cpus=1)
    course: Any = SimpleNamespace(
        request=request, ledger=SimpleNamespace(objective=None), lease=SimpleNamespace(token="")
    )
    share: Any = SimpleNamespace(joined=False)
    assert str(tmp_path) in execution.lesson(course, share, {"components", "maze"}).folders


# ── what is no use ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"environment": "CartPool-v1"}, ["mine: no environment 'CartPool-v1'", "Did you mean: `CartPole`?"]),
        ({"environment": "nowhere_at_all:Maze-v0"}, ["no environment", "No module named 'nowhere_at_all'"]),
        ({"environment_settings": {"speed": 3}}, ["no environment 'Corridor-v0'", "'speed'", "environment_settings"]),
        (
            {"environment_wrappers": ["gymnasium.wrappers:FlatenObservation"]},
            ["no wrapper 'gymnasium.wrappers:FlatenObservation'", f"did you mean {FLATTEN}?"],
        ),
        ({"environment_wrappers": ["nowhere_at_all:On"]}, ["no wrapper", "No module named 'nowhere_at_all'"]),
        (
            {"environment_wrappers": [f"{__name__}:Greedy"]},
            ["does not go around environment 'Corridor-v0'", "'more'", "it is given the environment and nothing else"],
        ),
        ({"environment_wrappers": [f"{__name__}:hollow"]}, ["it makes a str, not a gymnasium.Env"]),
        ({"environment_wrappers": [f"{__name__}:bare"]}, ["hides the environment's spec", "a gymnasium.Wrapper"]),
        ({"environment": "FrozenLake-v1"}, ["its observations are Discrete(16), not a Box", FLATTEN]),
        ({"environment": "Rooms-v0"}, ["its observations are Dict(", FLATTEN]),
        ({"environment": "Blackjack-v1"}, ["its observations are Tuple(", FLATTEN]),
        ({"environment": "Switches-v0"}, ["its actions are MultiBinary(2), neither Discrete nor a Box"]),
        ({"environment": "Free-v0"}, ["its actions are Box(-inf, inf, (1,), float32), without bounds", "a wrapper"]),
        ({"environment": "Endless-v0"}, ["no time limit", "environment_settings: {max_episode_steps: 1000}"]),
        ({"environment": "Same-v0"}, ["leave none for split val, test", "1 of them differ", "record more episodes"]),
    ],
)
def test_what_nobody_can_learn_in_is_refused(tmp_path: Path, block: dict[str, Any], said: list[str]) -> None:
    found = fault(DataError, Project(tmp_path, **{"environment": "Corridor-v0", **block}))
    for words in said:
        assert words in found
    assert "fix: " in found


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("reset raises", "raised ZeroDivisionError in reset"),
        ("step raises", "raised ZeroDivisionError in step"),
        ("step inf", "an observation that is not finite, in elements [0]"),
        ("step shape", "an observation of shape ()"),
        ("reward nan", "gave the reward nan"),
    ],
)
def test_what_goes_wrong_while_it_is_recorded_says_where(tmp_path: Path, wrong: str, said: str) -> None:
    found = fault(DataError, Project(tmp_path, "Faulty-v0", environment_settings={"fault": wrong}))
    assert said in found and "mine: recorded episode 0 (reset with seed 0), step " in found


def test_a_recording_that_no_memory_holds_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "MOST_BYTES", 400)
    found = fault(DataError, Project(tmp_path))
    assert "100 episodes of 'Corridor-v0' are too large to be recorded" in found and "above 400 bytes" in found
