"""Whether the packages that are installed are those of requirements.lock."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from ..errors import TidemillError
from ..plan import Project
from .finding import FIX, Finding

LOCK = "requirements.lock"
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;#\\]+)")


def as_locked(project: Project) -> list[Finding]:
    """One finding for all: they are put right together, in an environment that lies in the project, as `make setup`
    makes it. Another may serve other work, too: that is a person's to change."""
    file = project.workspace.root / LOCK
    if not file.is_file():
        return [Finding.well(f"no {LOCK} here to compare with")]
    pins = [pin.groups() for line in file.read_text(encoding="utf-8").splitlines() if (pin := _PIN.match(line))]
    other = [said for name, version in pins if (said := _difference(name, version))]
    if not other:
        return [Finding.well(f"{len(pins)} packages are those of {LOCK}")]
    meaning = f"results may differ from those of others, and {LOCK} is the only set that was tested"
    finding = f"{len(other)} of {len(pins)} packages: {', '.join(other)}"
    if not Path(sys.prefix).resolve().is_relative_to(project.workspace.root.resolve()):
        return [Finding.wrong(finding, meaning, "make setup")]
    return [Finding.wrong(finding, meaning, f"{FIX}, or make setup", partial(_install, file))]


def _difference(name: str, version: str) -> str:
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is absent"
    # A local part such as +cpu says how a wheel was built.
    same = installed.partition("+")[0] == version.partition("+")[0]
    return "" if same else f"{name} is {installed}, not {version}"


def _install(lock: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it did not say why"]
        raise TidemillError(f"pip could not install what {LOCK} names", why=said[-1])
