"""A piece of a measurement that takes minutes, done once: what it found is kept under .tidemill/benchmarks/ by what it
is made of, so that a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from components import receipts
from components.closure import closure
from components.contract import Json

from . import trained

PINS = ("requirements.lock", "benchmarks/requirements.txt")


def once(work: Callable[..., Any], pipeline: str, *asked: Any, **named: Any) -> Any:
    """What `work(pipeline, *asked, **named)` returns, mappings of numbers, as JSON gives it back.

    The same pipeline's train key (its data, settings, code and seed), sources here, pinned packages and arguments find
    the same: then nothing is done. Functions among the arguments, or in a tuple of them, stand for their modules.
    Raises TidemillError if the pipeline has not been trained, and what `work` raises; then nothing is kept.
    """
    resolved = trained.resolved(pipeline)
    nested = [value if isinstance(value, tuple) else (value,) for value in (work, *asked, *named.values())]
    parts: dict[str, Json] = {
        "train": trained.receipt(resolved).key,
        "work": json.loads(json.dumps([work, asked, named], default=_path)),
        "sources": _sources([each.__module__ for values in nested for each in values if callable(each)]),
        "pins": {name: receipts.sha256(resolved.workspace.root / name) for name in PINS},
    }
    file = resolved.workspace.state / "benchmarks" / f"{receipts.key(parts)}.json"
    if not file.is_file():
        found = work(pipeline, *asked, **named)
        told = {"pipeline": pipeline, "inputs": parts, "found": found}
        receipts.write_file(file, (json.dumps(told, indent=1, default=float) + "\n").encode())
    return json.loads(file.read_text(encoding="utf-8"))["found"]


def _path(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _sources(modules: list[str]) -> dict[str, str]:
    """SHA-256 of what the modules import, by name. What finds a pipeline and its winner is left out: it decides nothing
    that the train key does not tell."""
    finding = closure([trained.__name__]).keys() - {trained.__name__}
    return {name: receipts.sha256(file) for name, file in closure(modules).items() if name not in finding}
