"""replay.py in a process of its own, whose import path begins in the checkout of another commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ..contract import Json
from ..errors import TrainingFailed
from ..versioning import checkouts
from ..workspace import FORCED, Workspace

_PROGRAM = Path(__file__).with_name("replay.py")
_HOME = Path(__file__).parents[2]  # the folder that this Tidemill is imported from
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Replay:
    """`there` is the checkout, `place` a folder for the task, its log and the model."""

    workspace: Workspace
    there: Workspace
    place: Path
    task: Json

    def play(self, what: str) -> Generator[Json]:
        """The news of the program as it tells them. Close it: the program ends with whoever listens.

        Raises TrainingFailed with its last words if it fails.
        """
        file, log = self.place / "task.json", self.place / f"{what}.log"
        file.write_text(json.dumps(self.task), encoding="utf-8")
        # -P: the program's own folder, full of this Tidemill's modules, stays off its import path.
        command = [sys.executable, "-P", str(_PROGRAM), what, str(file)]
        with log.open("wb") as said:
            process = subprocess.Popen(
                command,
                cwd=self.there.root,
                env=self._environment(),
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for whoever listens
                text=True,
            )
        with process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    yield json.loads(line)
                process.wait()
            finally:
                _stop(process)
        if process.returncode:
            raise self._failed(what, process.returncode, log)

    def _environment(self) -> dict[str, str]:
        """As Ray gives it to a trial, with the checkout first on the import path."""
        threads = str(self.task["inputs"]["resources"]["cpus"])
        return os.environ | FORCED | {"PYTHONPATH": os.pathsep.join(self._import_path()), "OMP_NUM_THREADS": threads}

    def _import_path(self) -> list[str]:
        """The checkout's side of what lies in the repository, then the rest; this Tidemill last, for a project that
        holds none of its own."""
        repository = checkouts.root(self.workspace).resolve()
        tree = self.place / "tree"
        found = [self.there.root]
        given = [Path(part).resolve() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
        for folder in (*given, _HOME):
            inside = folder.is_relative_to(repository)
            found.append(tree / folder.relative_to(repository) if inside else folder)
        return list(dict.fromkeys(map(str, [*found, _HOME])))

    def _failed(self, what: str, code: int, log: Path) -> TrainingFailed:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        begin = max((n for n, line in enumerate(lines) if not line.startswith(" ")), default=0)
        last_words = " ".join(line.strip() for line in lines[begin:])[:600]
        killed = f"it was ended by signal {-code}" if code < 0 else ""
        return TrainingFailed(
            f"the {what} process failed in the checkout",
            where=str(self.there.root),
            why=killed or last_words or f"it ended with code {code} and said nothing",
            fix="the packages of now may not suit the code of then: install the requirements.lock of that commit",
        )


def _stop(process: subprocess.Popen[str]) -> None:
    """End it if it still runs."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
