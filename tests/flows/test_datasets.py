"""What `tidemill data add` takes for a table, for an environment, and for neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from components import params
from components.errors import ParamsError
from components.workspace import Workspace
from flows import cli


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 3\n")
    return Workspace(tmp_path)


def add(*words: str) -> None:
    done = CliRunner().invoke(cli.app, ["data", "add", *words])
    if done.exception:
        raise done.exception


def test_an_environment_needs_no_line_of_params(workspace: Workspace) -> None:
    add(
        *("poles", "--environment", "CartPole-v1", "--episodes", "5"),
        *("--setting", "max_episode_steps=9", "--setting", "sutton_barto_reward=true"),
        *("--wrapper", "gymnasium.wrappers:FlattenObservation"),
    )
    block = params.load(workspace).datasets["poles"]
    assert block.model_dump(exclude_defaults=True) == {
        "environment": "CartPole-v1",
        "environment_settings": {"max_episode_steps": 9, "sutton_barto_reward": True},
        "environment_wrappers": ["gymnasium.wrappers:FlattenObservation"],
        "episodes": 5,
    }
    assert workspace.data("poles").is_file() and workspace.expectations("poles").is_file()


def test_a_table_is_what_it_was(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "given.csv").write_text("size,sold\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(90)))
    add("ships", "given.csv", "--target", "sold")
    assert params.load(workspace).datasets["ships"].target == "sold"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["poles"], "got neither a table nor an environment alone"),
        (["poles", "given.csv", "--environment", "CartPole-v1"], "got neither a table nor an environment alone"),
        (["poles", "given.csv", "--episodes", "5"], "got neither a table nor an environment alone"),
        (["poles", "--environment", "CartPole-v1", "--target", "x"], "got neither a table nor an environment alone"),
        (["poles", "--environment", "CartPole-v1", "--setting", "steps"], "got --setting 'steps', expected KEY=VALUE"),
        (["poles", "--environment", "CartPole-v1", "--setting", "a=["], r"got --setting 'a=\[', expected KEY=VALUE"),
    ],
)
def test_words_that_do_not_go_together_are_refused(workspace: Workspace, words: list[str], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        add(*words)
    assert workspace.params.read_text() == "seed: 3\n"
