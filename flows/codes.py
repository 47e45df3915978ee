"""The command about codes: encode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .printing import AsJson, show


def add(app: typer.Typer) -> None:
    """Give the application this command."""
    app.command()(encode)


def encode(
    pipeline: str,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="csv, Parquet, or a folder of them.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Parquet file, or a folder if INPUT is one.")],
    ignore_extra: Annotated[bool, typer.Option(help="Leave columns that the model does not know aside.")] = False,
    row_id: Annotated[str | None, typer.Option("--id", help="Column that names a row; 'row' numbers them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the champion's codes for a table: what its net makes of each row before its last layer."""
    from components import scores

    from .project import open_project

    project = open_project()
    project.params.pipeline(pipeline)
    encoded = scores.encode_table(project, pipeline, source, output, ignore_extra=ignore_extra, row_id=row_id)
    show([{name: value for name, value in encoded.items() if name not in ("input", "drifting")}], as_json)
