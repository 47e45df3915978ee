"""The command encode: what it is told it hands on, and what came of it it shows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from components import scores
from components.errors import ParamsError
from flows import project
from flows.cli import app


def test_encode_hands_on_its_options_and_shows_what_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def encode_table(here: Any, *given: Any, **options: Any) -> dict[str, Any]:
        asked.append((*given, options))
        return {"pipeline": "tides", "rows": 3, "drifting": None, "input": "f" * 64}

    def pipeline(name: str) -> None:
        if name != "tides":
            raise ParamsError(f"no pipeline {name!r}")

    monkeypatch.setattr(scores, "encode_table", encode_table)
    monkeypatch.setattr(project, "open_project", lambda: SimpleNamespace(params=SimpleNamespace(pipeline=pipeline)))
    told = CliRunner().invoke(
        app, ["encode", "tides", "in.csv", "out.parquet", "--id", "row", "--ignore-extra", "--json"]
    )
    assert told.exit_code == 0, told.output
    assert asked == [("tides", Path("in.csv"), Path("out.parquet"), {"ignore_extra": True, "row_id": "row"})]
    assert json.loads(told.stdout) == [{"pipeline": "tides", "rows": 3}]
    refused = CliRunner().invoke(app, ["encode", "tide", "in.csv", "out.parquet"])
    assert isinstance(refused.exception, ParamsError) and len(asked) == 1
