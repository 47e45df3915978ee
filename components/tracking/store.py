"""The connection to MLflow, embedded or a team's server: opened, probed and never waited for at length.

tracking and registry work through a Store. Its client carries its addresses with it and nothing global is
set, so that pipelines in threads of one process do not disturb each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .. import room
from ..errors import TidemillError, Unreachable
from ..workspace import Workspace, guard_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE = 1000  # of a search

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 3.0, 5.0
# These hold unless the environment says otherwise. MLflow's own patience with a server that has gone is minutes.
HABITS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
MODELS = {"mlflow.experimentKind": "custom_model_development"}  # MLflow's pages show training, not chat traces
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True)
class Store:
    """An MLflow that has answered. `artifacts` is where files go if this process writes them itself; None: the
    server decides."""

    uri: str
    client: MlflowClient
    artifacts: Path | None

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name, made or brought back if need be."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, self.place(name), MODELS))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def place(self, name: str) -> str | None:
        return (self.artifacts / name).as_uri() if self.artifacts else None

    def link(self, experiment_id: str, run_id: str, address: str = "") -> str:
        """Where a browser shows the run: at `address` (http://…), or at the server itself; "" if neither is known."""
        base = address or (self.uri if self.uri.startswith("http") else "")
        page = f"/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"  # not chat traces
        return base.rstrip("/") + page if base else ""


def open_store(workspace: Workspace) -> Store:
    """The store at the workspace's address; the embedded one is created if it is absent.

    Raises Unreachable within seconds if nothing usable answers there.
    """
    guard_environment()
    uri = workspace.tracking_uri
    for name, value in HABITS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it logs is raised as well
    with answering(uri):
        if uri.startswith("http"):
            _probe_server(uri)
        elif "://" in uri and not uri.startswith("file:"):
            _probe_database(uri)
            with alone(workspace.state):
                client = MlflowClient(tracking_uri=uri, registry_uri=uri)
                client.search_experiments(max_results=1)
                client.search_registered_models(max_results=1)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    ours = uri.startswith(("file:", "/")) or ("://" in uri and not uri.startswith("http"))
    return Store(uri, client, workspace.artifacts if ours else None)


@contextlib.contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what MLflow raises when its store does not answer into Unreachable; leave everything else alone."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (requests.exceptions.RequestException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise _unreachable(uri, str(error)) from error
    except MlflowException as error:
        if "out-of-date database schema" in error.message:
            raise TidemillError(
                "the tracking database was made by another version of MLflow",
                where=uri,
                why=error.message.splitlines()[0].partition(". ")[0],
                fix=f"copy the database, then `mlflow db upgrade {uri}`",
            ) from error
        if error.error_code in _SILENCE or "API request to" in error.message:
            raise _unreachable(uri, error.message) from error
        raise


_SILENCE = (
    "TEMPORARILY_UNAVAILABLE",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "ENDPOINT_NOT_FOUND",
    "REQUEST_LIMIT_EXCEEDED",
)


def _unreachable(uri: str, why: str) -> TidemillError:
    if uri.startswith("sqlite:///") and "database or disk is full" in why:
        return room.missing(Path(uri.removeprefix("sqlite:///")))
    if uri.startswith("http"):
        fix = "start the server, correct MLFLOW_TRACKING_URI, or unset it to use the embedded store"
    elif uri.startswith("sqlite"):
        fix = "move the file away to start with an empty one, or free it if another program holds it"
    else:
        fix = "correct MLFLOW_TRACKING_URI, or unset it to use the embedded store"
    reason = " ".join(why.split()).rpartition("Caused by ")[2].partition(" [SQL:")[0].partition(" (Background")[0]
    return Unreachable("MLflow does not answer", where=uri, why=reason[:300], fix=fix)


def _probe_server(uri: str) -> None:
    """One request with MLflow's own credentials and certificates, and none of its retries."""
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    endpoint = "/api/2.0/mlflow/experiments/search"
    options = {"params": {"max_results": 1}, "timeout": ANSWER_TIMEOUT_S, "max_retries": 0, "raise_on_status": False}
    _knock(uri)
    answer = http_request(get_default_host_creds(uri), endpoint, "GET", **options)
    if answer.status_code != 200:
        said = " ".join(answer.text.split())[:120]
        raise _unreachable(uri, f"HTTP {answer.status_code} {answer.reason}: {said}")
    if not answer.headers.get("Content-Type", "").startswith("application/json"):
        raise _unreachable(uri, "what answers there is not an MLflow server")


def _probe_database(uri: str) -> None:
    """One connection, where MLflow itself would try for an hour."""
    import sqlalchemy
    from mlflow.store.db.utils import create_sqlalchemy_engine

    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unreachable(uri, str(error)) from error
    else:
        _knock(uri)
    engine = create_sqlalchemy_engine(uri)
    try:
        sqlalchemy.inspect(engine)
    finally:
        engine.dispose()


def _knock(uri: str) -> None:
    """Whether anything listens there at all."""
    parts = urlsplit(uri)
    dialect = parts.scheme.partition("+")[0]
    port = _PORTS.get(dialect) or (443 if dialect == "https" else 80)
    try:
        port = parts.port or port
        socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:  # ValueError: no such port
        raise _unreachable(uri, f"{parts.hostname}:{port}: {error}") from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One thread of one process at a time: first clients of a fresh database race its migration and fail."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pages(search: Callable[..., Any], **how: Any) -> Iterator[Any]:
    """Everything that one of the MLflow client's searches finds, a page after the other."""
    token = None
    while True:
        page = search(max_results=PAGE, page_token=token, **how)
        yield from page
        token = page.token
        if not token:
            return
