"""The commands about champions: history, why, promote, rollback."""

from __future__ import annotations

from typing import Annotated

import typer

from .printing import AsJson, show

Because = Annotated[str, typer.Option("--because", help="Your reason, kept in the history.")]
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="PIPELINE/NUMBER, or PIPELINE@champion.")]


def add(app: typer.Typer) -> None:
    """Give the application these commands."""
    for command in (history, why, promote, rollback):
        app.command()(command)


def history(pipeline: str, as_json: AsJson = False) -> None:
    """Show who was champion of a pipeline from when to when, and why."""
    import dataclasses

    from components.registry import championship

    from .project import open_project

    project = open_project()
    project.params.pipeline(pipeline)
    show([dataclasses.asdict(reign) for reign in championship.reigns(project.workspace, pipeline)], as_json)


def why(version: VersionName, as_json: AsJson = False) -> None:
    """Say what the gate said of a version, and what would have had to be different."""
    from components.registry import championship

    from .project import open_project

    told = championship.why(open_project().workspace, version)
    if as_json:
        show([told], as_json=True)
        return
    print(f"{told['version']}: {'promoted' if told['promoted'] else 'refused'}: {told['reason']}")
    for line in told["wanted"]:
        print(f"  it would have needed {line}")
    for line in told["history"]:
        print(f"  {line}")


def promote(version: VersionName, because: Because, as_json: AsJson = False) -> None:
    """Make a version champion, whatever the gate said of it."""
    from components import champions

    from .project import open_project

    show([champions.promote(open_project(), version, because)], as_json)


def rollback(pipeline: str, because: Because = "rolled back", as_json: AsJson = False) -> None:
    """Give the championship back to the champion before the present one."""
    from components import champions

    from .project import open_project

    show([champions.rollback(open_project(), pipeline, because)], as_json)
