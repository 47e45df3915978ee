"""Secrets come from the environment and stay there: planted ones are in no file, no message, no command line."""

from __future__ import annotations

import base64
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import params, plan
from components.errors import TidemillError, Unreachable, hidden
from components.tracking.store import open_store
from components.workspace import Workspace, guard_environment

from ..conftest import SECRETS, Home, write_customers

SECRET = "planted-secret-c0de"
PROJECT = """\
datasets:
  customers: {table: customers.csv, target: churned}
pipelines:
  customers: {dataset: customers, family: mlp, search: {trials: 1, epochs: 1}}
"""


def holding(folder: Path, secret: str) -> list[Path]:
    """Files below a folder that hold a secret as it is, or as HTTP sends it."""
    forms = (secret.encode(), base64.b64encode(f"tidemill:{secret}".encode()))
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if any(form in file.read_bytes() for form in forms)]


@pytest.mark.parametrize("name", SECRETS)
def test_a_project_that_has_run_holds_no_secret(started: Home, name: str) -> None:
    """Databases, logs, results, Data Docs, MLflow's runs, Prefect's records, and what the command said."""
    assert holding(started.root, SECRETS[name]) == []
    assert (started.root / ".tidemill" / "prefect").is_dir() and (started.root / "first-run.txt").is_file()


@pytest.mark.parametrize(
    ("words", "variable", "address"),
    [
        ("run", "MLFLOW_TRACKING_URI", f"http://tidemill:{SECRET}@127.0.0.1:9"),
        ("history", "MLFLOW_TRACKING_URI", f"postgresql://tidemill:{SECRET}@127.0.0.1:9/mlflow"),
        ("run", "PREFECT_API_URL", f"http://tidemill:{SECRET}@127.0.0.1:9/api"),
    ],
)
def test_an_address_that_does_not_answer_is_told_without_its_password(
    home: Home, words: str, variable: str, address: str
) -> None:
    home.params(PROJECT)
    write_customers(home.root / "customers.csv", 300)
    done = home.tidemill(words, "customers", **{variable: address})
    assert done.returncode == 7 and "127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert holding(home.root, SECRET) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@host:5000/x", "http://me:***@host:5000/x"),
        ("at http://:p%40ss@host, and https://u:b@c@d/e", "at http://:***@host, and https://u:***@d/e"),
        ("postgresql+psycopg2://me:pa/s?s#@db:5432/mlflow", "postgresql+psycopg2://me:***@db:5432/mlflow"),
        ("sftp://me:pass@host/sweeps/digits-0", "sftp://me:***@host/sweeps/digits-0"),
        ("http://127.0.0.1:5000/#/models/digits@champion", "http://127.0.0.1:5000/#/models/digits@champion"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
        ("sqlite:////home/me/a@b:c.db", "sqlite:////home/me/a@b:c.db"),
        ("models:/digits@champion", "models:/digits@champion"),
    ],
)
def test_passwords_in_messages(text: str, shown: str) -> None:
    assert hidden(text) == shown
    error = TidemillError(text, where=text, why=text, fix=text)
    assert str(error) == f"{shown}: {shown}\n  why: {shown}\n  fix: {shown}"


# ── a server that wants a password ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Host and port of what answers as MLflow does to whoever has the password."""
    wanted = "Basic " + base64.b64encode(f"tide mill:{SECRET}/@".encode()).decode()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers.get("Authorization") == wanted else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"experiments": []}).encode())

        def log_message(self, *_: object) -> None:
            pass

    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):  # to be set and unset by the code, and put back here
        monkeypatch.setenv(name, "")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_password_in_an_address_is_used_and_recorded_nowhere(
    locked: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(home.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://tide%20mill:wrong@{locked}")
    with pytest.raises(Unreachable, match="401"):
        open_store(workspace)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://tide%20mill:{SECRET}%2F%40@{locked}")
    store = open_store(workspace)
    assert store.uri == os.environ["MLFLOW_TRACKING_URI"] == f"http://{locked}"
    home.params(PROJECT)
    write_customers(home.root / "customers.csv", 300)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{SECRET}@db/mlflow")
    project = plan.Project(workspace, params.load(workspace), print, lambda _: None)  # type: ignore[arg-type,return-value]
    settled = plan.settled(plan.resolve(project, "customers"), "register")
    assert settled["registry"] == "postgresql://me:***@db/mlflow"


def test_what_is_set_beside_an_address_stays(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{locked}")
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:{SECRET}@{locked}/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "other:word")
    guard_environment()
    assert os.environ["PREFECT_API_URL"] == f"http://{locked}/api"
    assert os.environ["PREFECT_API_AUTH_STRING"] == "other:word"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
