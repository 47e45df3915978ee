"""A piece of a measurement that takes minutes, done once: what it found is kept under .tidemill/benchmarks/ by what it
is made of, so that a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components import receipts
from components.closure import closure
from components.contract import Json
from components.errors import TidemillError

from . import trained

PINS = ("requirements.lock", "benchmarks/requirements.txt")


def once(work: Callable[..., Any], pipeline: str, *asked: Any, **named: Any) -> Any:
    """What `work(pipeline, *asked, **named)` returns, mappings of numbers, as JSON gives it back.

    The same pipeline's train key (its data, settings, code and seed), sources here, pinned packages and arguments find
    the same: then nothing is done. Functions among the arguments stand for their modules. Raises TidemillError if the
    pipeline has not been trained, and what `work` raises; then nothing is kept.
    """
    project = trained.resolved(pipeline)
    receipt = receipts.read(project.workspace, pipeline, "train")
    if receipt is None:
        raise TidemillError(f"{pipeline} has not been trained", fix=f"tidemill run {pipeline}")
    root = project.workspace.root
    parts: dict[str, Json] = {
        "train": receipt.key,
        "work": [_told(each) for each in (work, *asked)] + [[name, _told(value)] for name, value in named.items()],
        "sources": _sources([each.__module__ for each in _functions((work, *asked, *named.values()))]),
        "pins": {name: receipts.sha256(root / name) for name in PINS},
    }
    file = project.workspace.state / "benchmarks" / f"{receipts.key(parts)}.json"
    if not file.is_file():
        found = work(pipeline, *asked, **named)
        told = {"pipeline": pipeline, "inputs": parts, "found": found}
        receipts.write_file(file, (json.dumps(told, indent=1, default=float) + "\n").encode())
    return json.loads(file.read_text(encoding="utf-8"))["found"]


def _told(value: Any) -> Json:
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return [_told(each) for each in value] if isinstance(value, list | tuple) else value


def _functions(values: Any) -> list[Callable[..., Any]]:
    nested = [_functions(value) for value in values if isinstance(value, list | tuple)]
    return [value for value in values if callable(value)] + [each for found in nested for each in found]


def _sources(modules: list[str]) -> dict[str, str]:
    """SHA-256 of what the modules import, by name. What finds a pipeline and its winner is left out: it decides nothing
    that the train key does not tell."""
    finding = closure([trained.__name__]).keys() - {trained.__name__}
    found: Mapping[str, Path] = closure(modules)
    return {name: receipts.sha256(file) for name, file in found.items() if name not in finding}
