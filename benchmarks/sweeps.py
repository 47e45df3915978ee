"""What a pipeline costs from nothing: python -m benchmarks.sweeps PIPELINE…, in a project where none of them has run.

Runs `tidemill run PIPELINE` and prints one line for each: seconds by the clock, the highest memory of all processes of
the project together, exit code. Exits with 1 if one misses a mark, fails, or had been trained already.

Memory is the sum of proportional set sizes (a page that eight processes share counts once, not eight times), of
resident set sizes where those cannot be read, twice a second. Counted are the run and all that came of it, also where
the parent has gone since, and processes that name the project's .tidemill. End `tidemill up` first: of servers that
were up before, only MLflow's does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from components import receipts
from components.workspace import Workspace

SECONDS = 12 * 60.0
MEMORY = 4e9  # bytes
EVERY_S = 0.5


@dataclass
class Tree:
    """Processes that are here or name `folder`, and all that came of them, whoever their parents are by now."""

    folder: Path
    seen: set[psutil.Process] = field(default_factory=set)  # equal by pid and time of birth

    def memory(self) -> int:
        """Bytes that all of them hold now."""
        there = [p for p in psutil.process_iter(["ppid", "cmdline", "create_time"]) if p.pid != os.getpid()]
        self.seen |= {p for p in there if str(self.folder) in " ".join(p.info["cmdline"] or ())}
        self.seen = {p for p in self.seen if p.is_running()}
        known = {p.pid for p in self.seen}
        for process in sorted(there, key=lambda p: (p.info["create_time"], p.pid)):  # parents before children
            if process.info["ppid"] in known:
                known.add(process.pid)
                self.seen.add(process)
        return sum(map(held, self.seen))


def held(process: psutil.Process) -> int:
    """Bytes of one process, 0 if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):
            return int(process.memory_info().rss)
    return 0


def measured(command: list[str], tree: Tree) -> tuple[float, int, int]:
    """Seconds, most bytes, exit code."""
    started, most = time.monotonic(), 0
    with subprocess.Popen(command, stdout=sys.stderr) as run:
        tree.seen.add(psutil.Process(run.pid))
        while run.poll() is None:
            most = max(most, tree.memory())
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(EVERY_S)
        return time.monotonic() - started, most, run.returncode


def main() -> int:
    told = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    told.add_argument("pipelines", nargs="+", metavar="PIPELINE")
    workspace = Workspace.find()
    tree, missed = Tree(workspace.state), 0
    for name in told.parse_args().pipelines:
        before = receipts.read(workspace, name, "train")
        program = [sys.executable, "-c", "from flows.cli import main; main()"]
        seconds, memory, code = measured([*program, "run", name], tree)
        misses = [f"exit code {code}"] if code else []
        misses += ["nothing was trained"] if receipts.read(workspace, name, "train") == before else []
        misses += [f"mark {SECONDS:g} s"] if seconds >= SECONDS else []
        misses += [f"mark {MEMORY / 1e9:g} GB"] if memory > MEMORY else []
        verdict = f"missed: {', '.join(misses)}" if misses else "met"
        print(f"{name:24} {seconds:6.0f} s {memory / 1e9:6.2f} GB  exit code {code}  {verdict}", flush=True)
        missed += bool(misses)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
