"""A project with servers of its own, pipelines that are all alike, and what is there when one of them is whole.

All pipelines have one dataset, one seed and one block, so each is to end as the first, which nothing disturbs: the same
weights, scores, curves and decision, hash for hash.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from flows.processes import answers

from ..conftest import Home, write_customers
from ..warm import Forks

UNDISTURBED = "undisturbed"
BLOCK = """\
  {name}:
    dataset: customers
    family: mlp
    search: {{trials: 4, epochs: 27, first_rung: 9}}
    checkpoint_every_s: 0
"""
FILES, ROWS = 4, 20_000  # of what is scored


@dataclass
class Run:
    """One `tidemill` command under way."""

    words: tuple[str, ...]
    forks: Forks
    pid: int
    log: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def alive(self) -> bool:
        return self.pid not in self.forks.codes

    def await_text(self, text: str, patience_s: float = 120) -> bool:
        """Whether it has said that, before it ended."""
        deadline = time.monotonic() + patience_s
        while text not in self.text:
            if not self.alive():
                return text in self.text
            assert time.monotonic() < deadline, f"never said {text!r}:\n{self.text}"
            time.sleep(0.02)
        return True

    def pause(self, seconds: float) -> None:
        """Let it go on for a while, or to its end."""
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, patience_s: float = 240) -> int:
        self.pause(patience_s)
        assert not self.alive(), f"tidemill {' '.join(self.words)} does not end:\n{self.text}"
        return self.forks.codes[self.pid]

    def child(self, name: str) -> psutil.Process | None:
        """A process that it started, directly or not, by what it is called: raylet, ray::learn…"""
        with contextlib.suppress(psutil.Error):
            for found in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if found.name().startswith(name) or " ".join(found.cmdline()).startswith(name):
                        return found
        return None


class World:
    """One project. Use inside `made`."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.home, self.forks = Home(root), forks
        self.ports = {"TIDEMILL_PREFECT_PORT": _free_port(), "TIDEMILL_MLFLOW_PORT": _free_port()}
        self.names: list[str] = []
        self.runs: list[Run] = []
        self.addresses: dict[str, str] = {}
        self.seconds = 0.0  # that the undisturbed run took
        self.whole: dict[str, Any] = {}
        self.scores: dict[str, str] = {}

    # ── what is asked of it ─────────────────────────────────────────────────────────────────────────────

    def pipeline(self, name: str) -> str:
        """One more pipeline like the others."""
        self.names.append(name)
        blocks = "".join(BLOCK.format(name=name) for name in self.names)
        text = f"seed: 3\ndatasets:\n  customers: {{table: customers.csv, target: churned}}\npipelines:\n{blocks}"
        aside = self.home.root / ".params.aside"
        aside.write_text(text, encoding="utf-8")
        aside.replace(self.home.root / "params.yaml")
        return name

    def start(self, *words: str, forks: Forks | None = None, **more: str) -> Run:
        forks = forks or self.forks
        log = self.home.root / f"log-{time.monotonic_ns()}.txt"
        log.touch()
        environment = self.home.environment(**{**self.addresses, "OMP_NUM_THREADS": "1", **more})
        run = Run(words, forks, forks.start(words, self.home.root, environment, log, log), log)
        self.runs.append(run)
        return run

    def serve(self) -> None:
        """Have `tidemill up` running, which gives up where its servers die too often, and its servers answering."""
        self.revive()
        deadline = time.monotonic() + 180
        for port, page in zip(self.ports.values(), ("/api/health", "/health"), strict=True):
            while answers(f"http://127.0.0.1:{port}{page}", 2.0):
                assert time.monotonic() < deadline, self.up.text
                self.revive()
                time.sleep(0.2)

    def revive(self) -> None:
        if not hasattr(self, "up") or not self.up.alive():
            self.up = self.start("up", **self.ports)

    def do(self, *words: str, code: int = 0, **more: str) -> Run:
        run = self.start(*words, **more)
        assert run.wait() == code, run.text
        return run

    def server(self, name: str) -> psutil.Process:
        """The server of that name that runs now."""
        recorded = json.loads((self.home.root / ".tidemill" / "servers.json").read_text())
        return psutil.Process(recorded[name]["pid"])

    # ── what there is when it is whole ──────────────────────────────────────────────────────────────────

    def snapshot(self, name: str) -> dict[str, Any]:
        """Everything that a pipeline leaves, less what differs by its name, the clock or chance."""
        receipts = {
            stage: json.loads((self.home.root / ".tidemill" / "receipts" / name / f"{stage}.json").read_text())
            for stage in ("validate", "train", "register", "score")
        }
        outputs = {stage: said["outputs"] for stage, said in receipts.items()}
        for stage, files in outputs.items():
            there = self.hashes(self.home.root / "results" / name / stage)
            assert there == files, f"{stage}: {there} is not what its receipt says"
        train, register = receipts["train"]["facts"], receipts["register"]["facts"]
        # Its name stands in these, in plots too.
        outputs["register"].pop("model.json")
        outputs["train"] = {file: digest for file, digest in outputs["train"].items() if not file.startswith("plots/")}
        return {
            "keys": {stage: receipts[stage]["key"] for stage in ("validate", "train")},
            "outputs": outputs,
            "weights": train["weights_sha256"],
            "metrics": train["metrics"],
            "promoted": (register["promoted"], register["version"], register["value"]),
            "mlflow": self._mlflow(name),
            "sweep": self._sweep(name),
        }

    def hashes(self, folder: Path) -> dict[str, str]:
        from components import receipts

        return receipts.hashes(folder)

    def _mlflow(self, name: str) -> dict[str, Any]:
        """Runs of the pipeline's experiment with their points, and the versions of its model."""
        with contextlib.closing(sqlite3.connect(self.home.root / ".tidemill" / "mlflow.db", timeout=30)) as db:

            def rows(query: str) -> list[Any]:
                return db.execute(query, {"name": name}).fetchall()

            # What a run is, and of which trial: a scoring has a run of its own, by what was scored.
            which = "(select group_concat(value) from (select value from tags t where t.run_uuid = r.run_uuid and t.key"
            which += " in ('tidemill.kind', 'tidemill.trial', 'tidemill.score_key') order by t.key))"
            of = "experiments e join runs r using (experiment_id)"
            runs = rows(f"select {which}, r.status from {of} where e.name = :name and r.lifecycle_stage = 'active'")
            points = rows(
                f"select {which}, m.key, m.step, m.value from {of} join metrics m using (run_uuid) where e.name = :name"
            )
            versions = rows("select version, status from model_versions where name = :name")
            aliases = rows("select alias, version from registered_model_aliases where name = :name")
        points.sort()
        assert len({point[:3] for point in points}) == len(points), "a point stands twice in MLflow"
        return {"runs": sorted(runs), "points": points, "versions": versions, "aliases": aliases}

    def _sweep(self, name: str) -> list[str]:
        """Files that the sweep has left, without the trials' checkpoints."""
        (folder,) = (self.home.root / ".tidemill" / "sweeps").glob(f"{name}-*")
        return sorted(file.name for file in folder.iterdir() if file.is_file())

    def losses(self, name: str) -> list[str]:
        """How what is there differs from the undisturbed pipeline; what runs without anybody; what is half there."""
        found = []
        mine = self.snapshot(name)
        for part, value in self.whole.items():
            if mine[part] != value:
                found.append(f"{part}: {_first_difference(mine[part], value)}")
        with contextlib.closing(sqlite3.connect(self.home.root / ".tidemill/prefect/prefect.db", timeout=30)) as db:
            for table in ("flow_run", "task_run"):
                for run, state in db.execute(
                    f"select name, state_type from {table} where state_type in ('RUNNING', 'PENDING', 'CANCELLING')"
                ):
                    found.append(f"{table} {run} is {state}")
        results = self.home.root / "results" / name
        found += [f"left behind: {path.name}" for path in results.glob(".*")]
        found += [f"left behind: {path}" for path in (self.home.root / ".tidemill" / "flow-runs").glob("*")]
        lock = self.home.root / ".tidemill" / "locks" / f"{name}.lock"
        if lock.read_text():
            found.append(f"unfinished: {lock.read_text()}")
        return found


def _first_difference(mine: Any, other: Any, path: str = "") -> str:
    if isinstance(mine, dict) and isinstance(other, dict):
        for key in sorted({*mine, *other}):
            if mine.get(key) != other.get(key):
                return _first_difference(mine.get(key), other.get(key), f"{path}/{key}")
    if isinstance(mine, list) and isinstance(other, list):
        new, gone = [x for x in mine if x not in other], [x for x in other if x not in mine]
        return f"{path} has {new[:3]} and lacks {gone[:3]}, {len(mine)} for {len(other)}"
    return f"{path} {mine!r} for {other!r}"


@contextlib.contextmanager
def made(root: Path) -> Iterator[World]:
    """A world whose servers run and whose first pipeline is whole."""
    world = World(root, Forks.warm())
    write_customers(root / "customers.csv", rows=300)
    (root / "many").mkdir()
    for number in range(FILES):
        write_customers(root / "many" / f"{number}.csv", rows=ROWS, seed=number + 10)
    world.pipeline(UNDISTURBED)
    try:
        world.serve()
        world.addresses["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{world.ports['TIDEMILL_MLFLOW_PORT']}"
        first = world.do("run", UNDISTURBED)
        world.seconds = time.monotonic() - first.began
        world.whole = world.snapshot(UNDISTURBED)
        world.do("score", UNDISTURBED, "many", "scores")
        world.scores = world.hashes(root / "scores")
        yield world
    finally:
        for run in (*(run for run in world.runs if run is not world.up), world.up):
            if run.alive():  # a round was broken off
                run.signal(signal.SIGCONT)
                run.signal(signal.SIGTERM)
                run.wait(60)
        ended = world.up.wait(60)
        assert ended in (0, 143), world.up.text


def _free_port() -> str:
    from ..components.conftest import free_port

    return str(free_port())
