"""The command about past partitions: backfill."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .printing import AsJson, show

AT_ONCE = min(4, os.cpu_count() or 1)
SHOWN = 10  # absent partitions that are named

First = Annotated[str, typer.Option("--from", metavar="TIME", help="The first partition: 2026, 2026-01, 2026-01-31 …")]
Last = Annotated[str, typer.Option("--to", metavar="TIME", help="The last one, as it is written above.")]
AtOnce = Annotated[int, typer.Option("--at-once", min=1, help="Partitions that are scored side by side.")]


def add(app: typer.Typer) -> None:
    """Give the application this command."""
    app.command()(backfill)


def backfill(
    pipeline: str,
    first: First,
    last: Last,
    at_once: AtOnce = AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """Score past partitions of `scoring.input`, each once, with the champion; after a kill the same command goes on.

    The scores lie in results/PIPELINE/partitions/. A partition that is absent stops nothing.
    """
    from components import partitions

    from . import servers
    from .project import open_project

    project = open_project()
    root = project.workspace.root
    layout = partitions.require(root, pipeline, project.params.pipeline(pipeline).scoring.input)
    there, absent = partitions.present(layout.span(first, last), layout)
    servers.require_addresses()
    with servers.prefect_server(project.workspace, project.say):
        from . import orphans
        from .pipeline import backfill as score

        orphans.bury(project)
        rows = score(pipeline, first, last, min(at_once, len(there)), str(root))
    show(rows, as_json)
    if absent:
        names = ", ".join(one.name for one in absent[:SHOWN]) + (" …" if len(absent) > SHOWN else "")
        project.say(f"{len(absent)} partition{'s are' if len(absent) > 1 else ' is'} absent: {names}")
