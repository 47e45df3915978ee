"""The commands that keep a project in order: clean, doctor."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from .printing import AsJson, show

if TYPE_CHECKING:
    from components.health import Check
    from components.retention import Expendable

ILL = 9  # the exit code of a doctor that has found something wrong

Yes = Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only shown.")]
Fix = Annotated[bool, typer.Option("--fix", help="Repair what can be repaired, and look again.")]


def add(app: typer.Typer) -> None:
    """Give the application these commands."""
    for command in (clean, doctor):
        app.command()(command)


def clean(yes: Yes = False, as_json: AsJson = False) -> None:
    """Show what need not stay by `retention` in params.yaml, and its size; remove it with --yes.

    Checkpoints of finished sweeps, old runs, files of old versions that never were champion, leftovers of dead
    processes. Removed runs lie in MLflow's bin, without their files, until `mlflow gc`.
    """
    from components import retention

    from .project import open_project

    project = open_project()
    things = retention.clean(project, project.say) if yes else retention.expendable(project)
    total = sum(thing.bytes for thing in things)
    if as_json:
        rows = [{"kind": t.kind, "what": t.what, "why": t.why, "bytes": t.bytes} for t in things]
        print(json.dumps({"removed": yes, "bytes": total, "things": rows}, indent=1))
        return
    if things:
        show(
            [*map(_row, things), {"kind": "", "what": f"{len(things)} in all", "size": _size(total), "why": ""}], False
        )
    end = "removed" if yes else "tidemill clean --yes removes it"
    project.say(f"{_size(total)}: {end}" if things else "nothing to remove")


def doctor(fix: Fix = False, as_json: AsJson = False) -> None:
    """Look for what is wrong, say what it means and the way out; repair it with --fix.

    Exit code 0: nothing is wrong (any more); 9: something is.
    """
    from components import health

    from .project import open_project

    told = health.examine(open_project(), checks(), fix)
    show([dataclasses.asdict(one) for one in told], as_json)
    if any(one.status == "problem" for one in told):
        raise typer.Exit(ILL)


def checks() -> Mapping[str, Check]:
    """All checks. That of the packages comes last: its repair replaces what the others import."""
    from components import health

    from . import checkups

    ours = {"flow runs": checkups.flow_runs, "servers": checkups.servers, "ports": checkups.ports}
    found = {**health.CHECKS, **ours}
    return {**found, "packages": found.pop("packages")}


def _row(thing: Expendable) -> dict[str, str]:
    return {"kind": thing.kind, "what": thing.what, "size": _size(thing.bytes), "why": thing.why}


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
