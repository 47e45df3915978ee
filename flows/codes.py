"""The command about codes: encode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .printing import AsJson, show

# What every command says of a table that the champion is asked about.
Source = Annotated[Path, typer.Argument(metavar="INPUT", help="csv, Parquet, or a folder of them.")]
Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Parquet file, or a folder if INPUT is one.")]
IgnoreExtra = Annotated[bool, typer.Option(help="Leave columns that the model does not know aside.")]
RowId = Annotated[str | None, typer.Option("--id", help="Column that names a row; 'row' numbers them.")]


def add(app: typer.Typer) -> None:
    """Give the application this command."""
    app.command()(encode)


def encode(
    pipeline: str,
    source: Source,
    output: Output,
    ignore_extra: IgnoreExtra = False,
    row_id: RowId = None,
    as_json: AsJson = False,
) -> None:
    """Write the champion's codes for a table: what its net makes of each row before its last layer."""
    from components import scores

    from .project import open_project

    project = open_project()
    project.params.pipeline(pipeline)
    encoded = scores.encode_table(project, pipeline, source, output, ignore_extra=ignore_extra, row_id=row_id)
    show([{name: value for name, value in encoded.items() if name not in ("input", "drifting")}], as_json)
