"""Where things are: one place that turns the project's folder and the environment into paths and addresses.

Embedded default and team server differ by these addresses alone:
MLFLOW_TRACKING_URI, PREFECT_API_URL, RAY_ADDRESS, TIDEMILL_STORAGE.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .errors import ParamsError

PARAMS = "params.yaml"
LEASE_S = 60.0  # how long a process that gives no sign of life keeps its work


# In every process of ours, whatever the person's own environment says: see docs/security.md.
FORCED = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


def guard_environment() -> None:
    """Make this process, and all that it starts, load no pickle and show no password.

    Addresses are shown, logged and recorded. So a user and password in MLFLOW_TRACKING_URI or PREFECT_API_URL move to
    the variables that these tools have for them; what is set there already stays.
    """
    os.environ.update(FORCED)
    if found := _credentials("MLFLOW_TRACKING_URI"):
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", found[0])
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", found[1])
    if found := _credentials("PREFECT_API_URL"):
        os.environ.setdefault("PREFECT_API_AUTH_STRING", ":".join(found))


def _credentials(variable: str) -> tuple[str, str] | None:
    """User and password of a web address in the environment, taken out of it; None if it holds no password. A
    database's address keeps its own: there is no other place for it."""
    parts = urlsplit(os.environ.get(variable, ""))
    if parts.scheme not in ("http", "https") or parts.password is None:
        return None
    os.environ[variable] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return unquote(parts.username or ""), unquote(parts.password)


@contextlib.contextmanager
def exported(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which every child inherits, and put them back as they were in the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def lease_s() -> float:
    """Seconds that work stays with a process that gives no sign of life."""
    return float(os.environ.get("TIDEMILL_LEASE_S") or LEASE_S)


def command() -> str:
    """What this process was started as, for whoever meets its traces."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


@dataclass(frozen=True)
class Workspace:
    """A project's folder. Reading a property creates nothing."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Workspace:
        """The nearest folder at or above `start` (the current folder) that holds params.yaml."""
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / PARAMS).is_file():
                return cls(folder)
        raise ParamsError(
            f"no {PARAMS} here or in any folder above", where=str(start), fix="cd into a Tidemill project"
        )

    @property
    def params(self) -> Path:
        return self.root / PARAMS

    @property
    def state(self) -> Path:
        """Everything Tidemill keeps for itself: databases, checkpoints, Data Docs. Ignored by git."""
        return self.root / ".tidemill"

    def data(self, dataset: str) -> Path:
        return self.root / "data" / f"{dataset}.parquet"

    def expectations(self, dataset: str) -> Path:
        return self.root / "expectations" / f"{dataset}.yaml"

    def results(self, pipeline: str, stage: str) -> Path:
        return self.root / "results" / pipeline / stage

    def docs(self, dataset: str) -> Path:
        """Great Expectations' context and its Data Docs for one dataset."""
        return self.state / "validation" / dataset

    @property
    def tracking_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps files when its store is the embedded one."""
        return self.state / "mlartifacts"

    def storage(self, configured: str) -> str:
        """The folder or fsspec URL that holds checkpoints: the environment's word, else params.yaml's."""
        place = os.environ.get("TIDEMILL_STORAGE") or configured
        return place if "://" in place else str((self.root / place).resolve())

    @property
    def ray_address(self) -> str | None:
        return os.environ.get("RAY_ADDRESS") or None

    @property
    def prefect_api(self) -> str | None:
        return os.environ.get("PREFECT_API_URL") or None
