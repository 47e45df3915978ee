"""Registered versions: which one is champion, where its files are, and loading it by its own code."""

from __future__ import annotations

import contextlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import model
from ..contract import Json
from ..errors import ParamsError, RegistryError
from ..tracking.store import Store, answering, open_store
from ..workspace import Workspace
from . import artifact, history
from .bundle import Shipped

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
TAG = "tidemill."
CLEANED = f"{TAG}cleaned"  # when `tidemill clean` took a version's files


@dataclass(frozen=True)
class Version:
    """One registered version and the folder with its files, on this machine."""

    pipeline: str
    version: int
    folder: Path
    tags: dict[str, str]
    fetched: bool = False

    @property
    def model_folder(self) -> Path:
        return self.folder / artifact.MODEL


def champion(workspace: Workspace, pipeline: str) -> Version:
    """The version that scoring uses. Raises RegistryError if there is none."""
    store = open_store(workspace)
    with answering(store.uri):
        found = present(store, pipeline)
        if found is None:
            raise RegistryError(
                f"pipeline {pipeline!r} has no champion", where=store.uri, fix=f"tidemill run {pipeline}"
            )
        return local(workspace, store, found)


def champion_identity(workspace: Workspace, pipeline: str) -> Json:
    """What says whether the champion is still the same; None if there is none."""
    store = open_store(workspace)
    with answering(store.uri):
        found = present(store, pipeline)
        if found is None:
            return None
        tags = tags_of(found)
        names = ("weights_sha256", "description_sha256", "code")
        return {"version": int(found.version)} | {name: tags[TAG + name] for name in names}


def load_champion(workspace: Workspace, pipeline: str) -> Shipped:
    """The champion, run by the code that it was registered with. Raises RegistryError if there is none or its
    files are not what was registered."""
    return opened(champion(workspace, pipeline))


def load(workspace: Workspace, pipeline: str, version: int) -> Shipped:
    """The same for any version."""
    store = open_store(workspace)
    with answering(store.uri):
        return opened(local(workspace, store, numbered(store, pipeline, version)))


def numbered(store: Store, pipeline: str, version: int) -> ModelVersion:
    """Raises RegistryError if there is no such version."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version(pipeline, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(
            f"pipeline {pipeline!r} has no version {version}", where=store.uri, fix=f"tidemill history {pipeline}"
        ) from error


def present(store: Store, pipeline: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version_by_alias(pipeline, CHAMPION)
    except MlflowException as error:
        # MLflow calls an absent model RESOURCE_DOES_NOT_EXIST and an absent alias INVALID_PARAMETER_VALUE.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def tags_of(found: ModelVersion) -> dict[str, str]:
    tags = dict(found.tags)
    if f"{TAG}gate" not in tags:
        raise RegistryError(
            "this version was not registered by Tidemill",
            where=f"{found.name} version {found.version}",
            fix=f"give the alias {CHAMPION!r} to another version in the MLflow UI, or remove it",
        )
    return tags


def local(workspace: Workspace, store: Store, found: ModelVersion) -> Version:
    """The version with its files on this machine: where they lie, or fetched once beside the project's state."""
    name, number, tags = found.name, int(found.version), tags_of(found)
    uri = store.client.get_model_version_download_uri(name, found.version)
    if place := artifact.local(uri):
        return Version(name, number, place, tags)
    folder = workspace.state / "models" / _plain(name) / f"{number}-{_plain(tags[TAG + 'description_sha256'][:12])}"
    if not folder.is_dir():
        try:
            _fetch(store, uri, folder)
        except RegistryError as error:
            if CLEANED in tags:
                raise _cleaned(tags, uri) from error
            raise
    return Version(name, number, folder, tags, fetched=True)


def _plain(name: str) -> str:
    """A server's word as the name of a folder. Raises RegistryError if it would lead elsewhere."""
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise RegistryError("the registry names a model in a way that is no name of a folder", where=repr(name))
    return name


def _fetch(store: Store, uri: str, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        try:
            fetched = Path(download_artifacts(artifact_uri=uri, dst_path=place, tracking_uri=store.uri))
        except MlflowException as error:
            # MLflow calls a file that its server has not an internal error, and says what the server answered.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST" and "404 Client Error" not in error.message:
                raise
            why = error.message.splitlines()[-1][:300]
            raise RegistryError("the files of a version are gone", where=uri, why=why) from error
        with contextlib.suppress(OSError):  # another process was faster
            fetched.rename(folder)
    if not (folder / artifact.MODEL).is_dir():
        raise RegistryError("the files of a version cannot be fetched", where=uri, why=f"no {artifact.MODEL} there")


def _cleaned(tags: dict[str, str], where: str) -> RegistryError:
    return RegistryError(
        "the files of this version were removed by `tidemill clean`",
        where=where,
        why=f"at {tags[CLEANED]}, by retention in params.yaml",
        fix="name another version; the same training registered again puts them back",
    )


def opened(version: Version) -> Shipped:
    """Load a version by its own code, after checking that its files are what was registered."""
    place = f"{version.pipeline} version {version.version}: {version.folder}"
    wanted = version.tags.get(f"{TAG}description_sha256")
    described = version.model_folder / model.DESCRIPTION
    if not described.is_file() and CLEANED in version.tags:
        raise _cleaned(version.tags, place)
    if not described.is_file() or model.sha256(described) != wanted:
        raise RegistryError(
            f"{model.DESCRIPTION} is absent or not what was registered", where=place, fix=way_out(version)
        )
    code = sorted(found.name for found in (version.folder / artifact.CODE).glob("*"))
    if code != [version.tags.get(f"{TAG}code")]:
        raise RegistryError("the model's code is absent or not what was registered", where=place, fix=way_out(version))
    try:
        return artifact.load(version.folder)
    except RegistryError as error:
        raise RegistryError(error.what, where=place, why=error.why, fix=way_out(version)) from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise RegistryError(
            "a registered model cannot be loaded", where=place, why=why, fix=way_out(version)
        ) from error


def way_out(version: Version) -> str:
    if version.fetched:
        return f"rm -r {version.folder}, to fetch it again"
    return (
        f"restore its files, or remove the alias {CHAMPION!r} from version {version.version} of {version.pipeline!r} "
        f"in the MLflow UI, then `tidemill run {version.pipeline}`"
    )


def find(workspace: Workspace, name: str) -> Version:
    """The version that `PIPELINE`, `PIPELINE@champion` or `PIPELINE/NUMBER` names.

    Raises ParamsError if it is no such name, RegistryError if there is no such version.
    """
    pipeline, number = split(name)
    if number is None:
        return champion(workspace, pipeline)
    store = open_store(workspace)
    with answering(store.uri):
        return local(workspace, store, numbered(store, pipeline, number))


def split(name: str) -> tuple[str, int | None]:
    """Pipeline and number that a version's name says; None for the champion. Raises ParamsError if it says neither."""
    pipeline, _, number = name.partition("/")
    if not number:
        pipeline, _, alias = name.partition("@")
        if alias in ("", CHAMPION):
            return pipeline, None
    if not number.isdigit():
        raise ParamsError(
            f"{name!r} names no version",
            fix=f"use PIPELINE/NUMBER such as {pipeline}/1, or {pipeline}@{CHAMPION}",
        )
    return pipeline, int(number)


def crown(store: Store, version: ModelVersion, before: ModelVersion | None, by: history.By, why: str) -> None:
    """Make a version the champion: its entry in the ledger, then the alias."""
    previous = int(before.version) if before else None
    history.append(store, version.name, int(version.version), previous, by, why)
    store.client.set_registered_model_alias(version.name, CHAMPION, version.version)
