"""What was recorded, traced up and down from whatever a person holds in hand, and compared."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import lineage, params, receipts, registry, stages, versioning
from components.contract import Data
from components.errors import ParamsError, RegistryError, TidemillError
from components.lineage import Record, branches
from components.lineage.branches import Node
from components.lineage.compare import compare
from components.lineage.trace import trace
from components.params import Gate
from components.plan import Project
from components.registry import catalogue
from components.sweep import Watchers
from components.tracking import Origin, past, sweep_run
from components.tracking.store import open_store
from components.workspace import Workspace

from ..conftest import write_customers
from .shelf import OBJECTIVE, SPEC, candidate
from .test_tracking import origin, tell, trial

ROOT = Path(__file__).parents[2]
FLOW_RUN = "0f9c2d6e-6a0b-4d3e-9a53-2f1c1f8f0c11"
PARAMS = """\
seed: {seed}
datasets:
  customers: {{table: customers.csv, target: churned}}
pipelines:
  churn: {{dataset: customers, family: mlp, search: {{trials: 2, epochs: 4}}}}
"""


def open_project(root: Path, flow_run: str = "") -> Project:
    workspace = Workspace(root)
    return Project(workspace, params.load(workspace), lambda _: None, lambda _: Watchers(), flow_run)


def play(project: Project) -> None:
    stages.fetch(project, ["churn"])
    for stage in stages.PLAY.values():
        stage(project, "churn")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A project of 200 rows that was trained with two seeds and has scored a table of somebody's."""
    root = tmp_path_factory.mktemp("lineage")
    (root / ".tidemill").mkdir()
    shutil.copy(empty_store, root / ".tidemill" / "mlflow.db")
    write_customers(root / "customers.csv", 200)
    write_customers(root / "tomorrow.csv", 20, seed=2)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "TIDEMILL_STORAGE"):
            patch.delenv(name, raising=False)
        for seed in (1, 2):
            (root / "params.yaml").write_text(PARAMS.format(seed=seed))
            play(open_project(root, FLOW_RUN if seed == 1 else ""))
        stages.score_table(open_project(root), "churn", root / "tomorrow.csv", root / "out" / "scores.parquet")
    yield root


def test_x(made: Path) -> None:
    from flows.lineage import drawn

    for thing in ("churn", str(made / "out/scores.parquet"), "customers", FLOW_RUN):
        print("=====", thing)
        print("\n".join(drawn(trace(Workspace(made), thing))))
    for x in compare(Workspace(made), "churn/1", "churn/2").lines:
        print(x)
    print(compare(Workspace(made), "churn/1", "churn/2").verdict)
