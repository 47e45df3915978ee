"""What commands print: a table for people, or JSON, on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """A table for people, or JSON, on stdout."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for title in rows[0] if rows else ():
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # A pipe gets whole lines: nobody greps a table that was folded at 80 columns.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)
