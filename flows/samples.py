"""The command that makes rows: sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .printing import AsJson, show


def add(app: typer.Typer) -> None:
    """Give the application this command."""
    app.command()(sample)


def sample(
    pipeline: str,
    count: Annotated[int, typer.Argument(metavar="N", help="Rows to make.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Parquet file; a picture goes beside it.")],
    seed: Annotated[int, typer.Option(help="Another seed makes other rows.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write rows that the champion of a generative pipeline makes up."""
    from components import samples

    from .project import open_project

    project = open_project()
    project.params.pipeline(pipeline)
    show([samples.write(project, pipeline, count, output, seed)], as_json)
