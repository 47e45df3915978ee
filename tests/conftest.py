"""A project in a folder of its own, and the command line as a person calls it."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .warm import REPOSITORY, Forks

BIN = Path(sys.executable).parent
ADDRESSES = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS", "TIDEMILL_STORAGE", "PREFECT_HOME")


@dataclass(frozen=True)
class Home:
    """A Tidemill project in a folder; `tidemill(...)` runs the command there."""

    root: Path

    def environment(self, **more: str) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if k not in ADDRESSES}
        return ours | {"PATH": f"{BIN}{os.pathsep}{ours['PATH']}", "NO_COLOR": "1"} | more

    def tidemill(self, *words: str, timeout_s: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """The command, in a process that need not import everything first: see warm.py."""
        forks = Forks.warm()
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place) / "out", Path(place) / "err"
            pid = forks.start(words, self.root, self.environment(**more), out, err)
            code = forks.wait(pid, timeout_s)
            said = out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
        return subprocess.CompletedProcess(words, code, *said)

    def call(self, *words: str, timeout_s: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / words[0]) if (BIN / words[0]).exists() else words[0], *words[1:]]
        return subprocess.run(
            command, cwd=self.root, env=self.environment(**more), text=True, capture_output=True, timeout=timeout_s
        )

    def json(self, *words: str, **more: str) -> Any:
        done = self.tidemill(*words, "--json", **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def params(self, text: str) -> None:
        (self.root / "params.yaml").write_text(text, encoding="utf-8")

    def receipts(self) -> list[str]:
        folder = self.root / ".tidemill" / "receipts"
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.json"))


def borrow_data(home: Home, *datasets: str) -> None:
    """Datasets that `make test` has fetched into the repository, and what data.dvc says of them."""
    (home.root / "data").mkdir(exist_ok=True)
    for name in datasets:
        file = REPOSITORY / "data" / f"{name}.parquet"
        if not file.is_file():
            pytest.fail(f"data/{name}.parquet is absent: tidemill data fetch")
        shutil.copyfile(file, home.root / "data" / file.name)
    shutil.copyfile(REPOSITORY / "data.dvc", home.root / "data.dvc")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `pytest -n`: a file stays with one worker, and all that look at the project that has run with one too. What
    takes longest comes first, so that no worker waits for another in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/faults/"))
    for item in items:
        shared = "started" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("started" if shared else item.nodeid.partition("::")[0]))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# In the environment of the project that has run; test_secrets looks for them.
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-secret-8a41",
    "MLFLOW_TRACKING_PASSWORD": "planted-secret-8a42",
    "POSTGRES_PASSWORD": "planted-secret-8a43",
    "TIDEMILL_NOTIFY_WEBHOOK": "http://127.0.0.1:9/planted-secret-8a44",
    "TIDEMILL_NOTIFY_EMAIL": "mailto://anna:planted-secret-5c21@127.0.0.1:9?to=anna@example.org",
}

STARTED = """\
seed: 5
datasets:
  breast-cancer: {}
  cartpole: {}
  digits: {}
  customers: {table: customers.csv, target: churned}
pipelines:
  cancer:
    dataset: breast-cancer
    family: mlp
    tags: [quick]
    search: {trials: 3, epochs: 9, first_rung: 3}
  poles:
    dataset: cartpole
    family: dqn
    search: {trials: 1, epochs: 2}
  odd-digits:
    dataset: digits
    family: autoencoder
    settings: {normal: "8"}
    search: {trials: 1, epochs: 3}
  customers:
    dataset: customers
    family: mlp
    search: {trials: 2, epochs: 6}
"""


def write_customers(file: Path, rows: int = 600, seed: int = 1) -> None:
    """A table as people have them: text, gaps, a date, an id, and a target that depends on some of it."""
    draw = random.Random(seed)
    with file.open("w", newline="", encoding="utf-8") as opened:
        out = csv.writer(opened)
        out.writerow(["customer_id", "plan", "age", "monthly_fee", "signed_up", "city", "churned"])
        for i in range(rows):
            plan = draw.choice(["basic", "plus", "pro"])
            age = draw.randint(18, 80)
            fee = round(draw.gauss({"basic": 10, "plus": 25, "pro": 60}[plan], 3), 2)
            year, month = draw.randint(2018, 2025), draw.randint(1, 12)
            churned = draw.random() < (0.75 if plan == "basic" and year >= 2022 else 0.12)
            out.writerow(
                [
                    f"C{i:05d}",
                    plan if draw.random() > 0.05 else "",
                    age if draw.random() > 0.08 else "NA",
                    fee,
                    f"{year}-{month:02d}-{draw.randint(1, 28):02d}",
                    draw.choice(["Paris", "Lyon", "Nice", "Lille"]),
                    "yes" if churned else "no",
                ]
            )


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A project whose pipelines, one for each way of learning and a table of its own, have all run once.

    Tests look at it; none changes what the others read.
    """
    home = Home(tmp_path_factory.mktemp("started"))
    home.params(STARTED)
    write_customers(home.root / "customers.csv")
    borrow_data(home, "breast-cancer", "cartpole", "digits")
    done = home.tidemill("run", "--all", timeout_s=580, **SECRETS)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (home.root / "first-run.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    return home
