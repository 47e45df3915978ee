"""The commands about datasets: data fetch, data add."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from components.errors import ParamsError

data = typer.Typer(no_args_is_help=True, help="Datasets: fetch them, add your own.")


def add(app: typer.Typer) -> None:
    """Give the application these commands."""
    data.command()(fetch)
    data.command("add")(bring)
    app.add_typer(data, name="data")


def fetch(names: Annotated[list[str] | None, typer.Argument(metavar="[DATASET]...")] = None) -> None:
    """Build datasets under data/ where they are absent or their source has changed; check them against data.dvc."""
    from components import versioning

    from .project import open_project

    project = open_project()
    versioning.fetch(project.workspace, project.params, names or None, project.say, record=True)


def bring(  # noqa: PLR0913 - what can be said of a dataset
    name: str,
    path: Annotated[Path | None, typer.Argument(help="A csv or Parquet file, or a folder of them.")] = None,
    *,
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    text: Annotated[str | None, typer.Option(help="The column of free text to learn from, and nothing else.")] = None,
    series: Annotated[
        str | None, typer.Option(help="Columns that are the steps of a series, as 't*'; files: a csv is a series.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="The column that says who gave the rating.")] = None,
    item: Annotated[str | None, typer.Option(help="The column that says what was rated.")] = None,
    environment: Annotated[
        str | None, typer.Option(metavar="ID", help="In place of PATH a gymnasium id, to record episodes of.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="What the environment is made with.")
    ] = None,
    wrapper: Annotated[
        list[str] | None, typer.Option(metavar="MODULE:CLASS", help="What is put around it, the innermost first.")
    ] = None,
    episodes: Annotated[int | None, typer.Option(min=3, help="Episodes to record. Default: 100.")] = None,
) -> None:
    """Bring a table of your own, or episodes of an environment, under data/ and DVC, and name it in params.yaml."""
    from components import versioning

    from .project import open_project

    project = open_project()
    of_table = _said(target=target, text=text, series=series, user=user, item=item)
    of_world = _said(environment_settings=_settings(setting or ()), environment_wrappers=wrapper, episodes=episodes)
    if path is not None and environment is None and not of_world:
        versioning.add(project.workspace, name, path, of_table, project.say)
    elif path is None and environment is not None and not of_table:
        versioning.add_environment(project.workspace, name, {"environment": environment} | of_world, project.say)
    else:
        raise ParamsError(
            "got neither a table nor an environment alone",
            fix="tidemill data add NAME PATH --target COLUMN …, or tidemill data add NAME --environment ID "
            "with --setting, --wrapper, --episodes",
        )


def _said(**given: Any) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value}


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE, where the value is read as YAML reads it: 5 is a number, true is true."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found = {}
    for word in given:
        key, separator, value = word.partition("=")
        try:
            found[key] = YAML(typ="safe").load(value)
        except YAMLError:
            separator = ""
        if not (key and separator):
            raise ParamsError(f"got --setting {word!r}, expected KEY=VALUE", fix="--setting max_episode_steps=200")
    return found
