"""An MLflow store of a test's own, and small models to put in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.contract import Data
from components.workspace import Workspace

from . import shelf


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded store's database. Making one takes seconds, copying it none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        from components.tracking.store import open_store

        workspace = Workspace(tmp_path_factory.mktemp("store"))
        open_store(workspace)
    return workspace.state / "mlflow.db"


@pytest.fixture
def workspace(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with an empty store, in an empty current folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = Workspace(tmp_path / "project")
    made.state.mkdir(parents=True)
    shutil.copy(empty_store, made.state / "mlflow.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return made


@pytest.fixture(scope="session")
def data() -> Data:
    return shelf.tides()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, data: Data) -> dict[str, Path]:
    """Model folders by how well they were taught."""
    place = tmp_path_factory.mktemp("models")
    return {"poor": shelf.train(place / "poor", data, 2), "good": shelf.train(place / "good", data, 6)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")  # what one file registers, another must not find
def team_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """A real MLflow server that keeps the artifacts itself."""
    place, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(empty_store, place / "mlflow.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{place / 'mlflow.db'}",
        "--artifacts-destination",
        str(place / "files"),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = (place / "log").open("w")
    process = subprocess.Popen(
        command, cwd=place, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        else:
            pytest.fail((place / "log").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
