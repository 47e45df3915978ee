"""The project that a command or a flow works on."""

from __future__ import annotations

import sys
from pathlib import Path

from components import params
from components.plan import Project
from components.workspace import Workspace, guard_environment

from .progress import screen


def open_project(start: Path | None = None) -> Project:
    """The project at or above a folder (the current one). Families of its own may lie beside params.yaml."""
    guard_environment()
    workspace = Workspace.find(start)
    if str(workspace.root) not in sys.path:
        sys.path.append(str(workspace.root))
    return Project(workspace, params.load(workspace), screen.say, screen.watch)
