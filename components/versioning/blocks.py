"""Blocks added to params.yaml as lines of text, so that everything that its owner wrote stays as it was."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from .. import receipts
from ..contract import Json
from ..errors import ParamsError
from ..workspace import Workspace


def add_dataset(workspace: Workspace, name: str, block: Mapping[str, Json]) -> None:
    """Add a block under `datasets`, after those that are there. The name must be new."""
    file = workspace.params
    text = file.read_text(encoding="utf-8")
    before = YAML().load(text) or CommentedMap()
    wanted = {**before, "datasets": {**(before.get("datasets") or {}), name: dict(block)}}
    added = _inserted(text, before, name, block)
    if YAML().load(added) != wanted:
        raise ParamsError(
            "no place found for a new dataset",
            where=f"{file.name}: datasets",
            fix=f"write it yourself: {name}: {{{', '.join(f'{k}: {v}' for k, v in block.items())}}}",
        )
    receipts.write_file(file, added.encode())


def _inserted(text: str, before: CommentedMap, name: str, block: Mapping[str, Json]) -> str:
    datasets = before.get("datasets")
    if not datasets or datasets.fa.flow_style():
        return _rewritten(before, name, block)
    lines = text.splitlines(keepends=True)
    last, indent = datasets.lc.key(list(datasets)[-1])
    below = [before.lc.key(key)[0] for key in before if before.lc.key(key)[0] > last]
    end = min(below, default=len(lines))
    while end > last + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1  # blank lines and comments belong to what follows
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    return "".join([*lines[:end], textwrap.indent(_dumped({name: dict(block)}), " " * indent), *lines[end:]])


def _rewritten(before: CommentedMap, name: str, block: Mapping[str, Json]) -> str:
    """Where `datasets` is absent or stands on one line, there is no line to add to."""
    datasets = CommentedMap(before.get("datasets") or {})
    datasets[name] = CommentedMap(block)
    before["datasets"] = datasets
    return _dumped(before)


def _dumped(document: Any) -> str:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(document, text)
    return text.getvalue()
