"""The commands about lineage: trace, compare, reproduce."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .printing import AsJson, show

if TYPE_CHECKING:
    from components.lineage.branches import Node

Thing = Annotated[
    str,
    typer.Argument(
        metavar="THING",
        help="A score file, a version, an MLflow run, a run key, a flow run, or a dataset's name, file or MD5.",
    ),
]
Row = Annotated[str | None, typer.Option("--row", help="The id of a row in a score file.")]
Side = Annotated[str, typer.Argument(help="PIPELINE/NUMBER, PIPELINE@champion, or a run key.")]
OfVersion = Annotated[str, typer.Argument(metavar="VERSION", help="PIPELINE, PIPELINE@champion or PIPELINE/NUMBER.")]
SHOWN = 8  # entries of a list


def add(app: typer.Typer) -> None:
    """Give the application these commands."""
    for command in (trace, compare, reproduce):
        app.command()(command)


def trace(thing: Thing, row: Row = None, as_json: AsJson = False) -> None:
    """Show what something was made from, down to the data's bytes, and all that was made from it."""
    from components.lineage.trace import trace as find

    from .project import open_project

    tree = find(open_project().workspace, thing, row)
    if as_json:
        print(json.dumps(tree.to_json(), indent=1))
        return
    for line in drawn(tree):
        print(line)


def compare(a: Side, b: Side, as_json: AsJson = False) -> None:
    """Hold two versions or two trainings side by side, what differs first."""
    from components.lineage.compare import compare as hold

    from .project import open_project

    told = hold(open_project().workspace, a, b).to_json()
    if as_json:
        print(json.dumps(told, indent=1))
        return
    print(told["verdict"])
    lines = told["lines"]
    shown = ({"": "" if one["same"] else "≠", "what": one["what"], a: one["a"], b: one["b"]} for one in lines)
    show(list(shown), as_json=False)


def reproduce(version: OfVersion, as_json: AsJson = False) -> None:
    """Train a version again, the winning trial alone, in a clean checkout of its commit; compare what comes out.

    Weights are compared by hash, metrics and the learning curve by value. Exit code 0: the same; 10: it differs.
    """
    from components.reproduction import reproduce as train_again

    from .project import open_project

    project = open_project()
    verdict = train_again(project.workspace, version, project.say)
    told = verdict.to_json()
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        show(verdict.to_rows(), as_json=False)
        print(verdict.sentence())
    verdict.require()


def drawn(node: Node) -> Iterator[str]:
    """A tree as lines of text: a thing, what is known of it, what it was made from, what it gave."""
    yield f"{node.kind} {node.name}"
    branches: list[tuple[str, tuple[Node, ...]]] = [
        (f"{name}: {_text(value)}", ()) for name, value in node.to_json().items() if name not in _DRAWN
    ]
    branches += [(title, nodes) for title, nodes in (("made from", node.made_from), ("gave", node.gave)) if nodes]
    for number, (text, nodes) in enumerate(branches, 1):
        last = number == len(branches)
        yield ("└── " if last else "├── ") + text
        for index, below in enumerate(nodes, 1):
            end = index == len(nodes)
            for line_number, line in enumerate(drawn(below)):
                turn = ("└── " if end else "├── ") if line_number == 0 else ("    " if end else "│   ")
                yield ("    " if last else "│   ") + turn + line


_DRAWN = ("kind", "name", "made_from", "gave")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return _some([f"{name} {_text(part)}" for name, part in value.items()])
    if isinstance(value, list):
        return _some([_text(part) for part in value])
    return "–" if value is None else str(value)


def _some(parts: list[str]) -> str:
    more = len(parts) - SHOWN
    return (", ".join(parts[:SHOWN]) + (f" and {more} more" if more > 0 else "")) or "none"
