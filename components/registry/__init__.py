"""Versions of a pipeline's model in MLflow, and the gate that decides which of them is the champion.

A registered model has the pipeline's name. Its versions hold the model folder that the train stage left, as it
is, and the code that runs it. Files are written first, the version last: a version that can be seen is whole.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import model
from ..contract import Data, Json, Metrics, Objective
from ..errors import RegistryError
from ..params import Gate
from ..tracking.store import Store, answering, open_store
from ..workspace import Workspace
from . import artifact
from .bundle import Shipped
from .gate import Decision, Rival, Terms, decide

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
TAG = "tidemill."


@dataclass(frozen=True)
class Candidate:
    """A trained model that asks to be registered. `run_key` and `run_id` are those of its train stage; `baseline`
    holds what the family's trivial rival reaches on the same test rows."""

    pipeline: str
    folder: Path
    run_key: str
    run_id: str
    data_md5: str
    git_commit: str
    baseline: Metrics


@dataclass(frozen=True)
class Registered:
    version: int
    decision: Decision


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


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────


def champion(workspace: Workspace, pipeline: str) -> Version:
    """The version that scoring uses. Raises RegistryError if there is none."""
    store = open_store(workspace)
    with answering(store.uri):
        found = _champion(store, pipeline)
        if found is None:
            raise RegistryError(
                f"pipeline {pipeline!r} has no champion", where=store.uri, fix=f"tidemill run {pipeline}"
            )
        return _local(workspace, store, found)


def champion_identity(workspace: Workspace, pipeline: str) -> Json:
    """What says whether the champion is still the same; None if there is none."""
    store = open_store(workspace)
    with answering(store.uri):
        found = _champion(store, pipeline)
        if found is None:
            return None
        tags = _tags(found)
        names = ("weights_sha256", "description_sha256", "code")
        return {"version": int(found.version)} | {name: tags[TAG + name] for name in names}


def load_champion(workspace: Workspace, pipeline: str) -> Shipped:
    """The champion, run by the code that it was registered with. Raises RegistryError if there is none or its
    files are not what was registered."""
    return _open(champion(workspace, pipeline))


def load(workspace: Workspace, pipeline: str, version: int) -> Shipped:
    """The same for any version."""
    from mlflow.exceptions import MlflowException

    store = open_store(workspace)
    with answering(store.uri):
        try:
            found = store.client.get_model_version(pipeline, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise RegistryError(
                f"pipeline {pipeline!r} has no version {version}", where=store.uri, fix=f"tidemill run {pipeline}"
            ) from error
        return _open(_local(workspace, store, found))


def _champion(store: Store, pipeline: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version_by_alias(pipeline, CHAMPION)
    except MlflowException as error:
        # MLflow calls an absent model RESOURCE_DOES_NOT_EXIST and an absent alias INVALID_PARAMETER_VALUE.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _tags(found: ModelVersion) -> dict[str, str]:
    tags = dict(found.tags)
    if f"{TAG}gate" not in tags:
        raise RegistryError(
            "this version was not registered by Tidemill",
            where=f"{found.name} version {found.version}",
            fix=f"give the alias {CHAMPION!r} to another version in the MLflow UI, or remove it",
        )
    return tags


def _local(workspace: Workspace, store: Store, found: ModelVersion) -> Version:
    """The version with its files on this machine: where they lie, or fetched once beside the project's state."""
    name, number, tags = found.name, int(found.version), _tags(found)
    uri = store.client.get_model_version_download_uri(name, found.version)
    if place := artifact.local(uri):
        return Version(name, number, place, tags)
    folder = workspace.state / "models" / name / f"{number}-{tags[TAG + 'description_sha256'][:12]}"
    if not folder.is_dir():
        _fetch(store, uri, folder)
    return Version(name, number, folder, tags, fetched=True)


def _fetch(store: Store, uri: str, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        fetched = Path(download_artifacts(artifact_uri=uri, dst_path=place, tracking_uri=store.uri))
        with contextlib.suppress(OSError):  # another process was faster
            fetched.rename(folder)
    if not (folder / artifact.MODEL).is_dir():
        raise RegistryError("the files of a version cannot be fetched", where=uri, why=f"no {artifact.MODEL} there")


def _open(version: Version) -> Shipped:
    """Load a version by its own code, after checking that its files are what was registered."""
    place = f"{version.pipeline} version {version.version}: {version.folder}"
    wanted = version.tags.get(f"{TAG}description_sha256")
    described = version.model_folder / model.DESCRIPTION
    if not described.is_file() or model.sha256(described) != wanted:
        raise RegistryError(
            f"{model.DESCRIPTION} is absent or not what was registered", where=place, fix=_way_out(version)
        )
    try:
        return artifact.load(version.folder)
    except RegistryError as error:
        raise RegistryError(error.what, where=place, why=error.why, fix=_way_out(version)) from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise RegistryError(
            "a registered model cannot be loaded", where=place, why=why, fix=_way_out(version)
        ) from error


# ── registering ─────────────────────────────────────────────────────────────────────────────────────────


def register(workspace: Workspace, candidate: Candidate, data: Data, objective: Objective, gate: Gate) -> Registered:
    """Make the candidate a version, and champion if it passes the gate.

    The same run key, weights and gate again give the same version and the same decision. `objective` is the
    family's; the gate's own metric takes its direction. Raises RegistryError if the present champion cannot be
    loaded or measured: it is never replaced unseen.
    """
    store, terms = open_store(workspace), Terms.of(gate, objective, candidate.baseline)
    workspace.state.mkdir(parents=True, exist_ok=True)
    with answering(store.uri), tempfile.TemporaryDirectory(prefix="register-", dir=workspace.state) as place:
        present = _champion(store, candidate.pipeline)
        built = artifact.build(candidate.folder, data, Path(place))
        tags = _identity(candidate, built, gate)
        old = _earlier(store, candidate.pipeline, tags)
        if old:
            _mend(store, old, built)
        if old and (_same_gate(old, tags) or (present and present.version == old.version)):
            return _finish(store, old, present)
        rival = _rival(_local(workspace, store, present)) if present else None
        decision = decide(artifact.load(built), rival, dict(data.splits), terms)
        said = tags | _told(decision)
        if old:  # the same model before another gate
            return _finish(store, _say_again(store, old, said, decision), present)
        return _finish(store, _create(store, candidate, built, said, _sentence(decision)), present)


def _rival(version: Version) -> Rival:
    weights = version.tags.get(f"{TAG}weights_sha256", "")
    return Rival(version.version, weights, lambda: _open(version), _way_out(version))


def _way_out(version: Version) -> str:
    if version.fetched:
        return f"rm -r {version.folder}, to fetch it again"
    return (
        f"restore its files, or remove the alias {CHAMPION!r} from version {version.version} of {version.pipeline!r} "
        f"in the MLflow UI, then `tidemill run {version.pipeline}`"
    )


# ── a version's tags ────────────────────────────────────────────────────────────────────────────────────


def _identity(candidate: Candidate, built: Path, gate: Gate) -> dict[str, str]:
    described = model.describe(candidate.folder)
    facts = {
        "run_key": candidate.run_key,
        "weights_sha256": described["weights_sha256"],
        "description_sha256": model.sha256(built / artifact.MODEL / model.DESCRIPTION),
        "code": next((built / artifact.CODE).iterdir()).name,
        "data_md5": candidate.data_md5,
        "git_commit": candidate.git_commit,
        "family": described["family"],
        "run_id": candidate.run_id,
        "gate": json.dumps(gate.model_dump(mode="json"), sort_keys=True),
    }
    return {TAG + name: str(value) for name, value in facts.items()}


def _told(decision: Decision) -> dict[str, str]:
    facts = {name: json.dumps(value) for name, value in vars(decision).items() if name not in ("reason", "metric")}
    return {
        TAG + name: value for name, value in (facts | {"reason": decision.reason, "metric": decision.metric}).items()
    }


def _decision(tags: dict[str, str]) -> Decision:
    names = ("promoted", "value", "baseline", "champion_version", "champion_value")
    numbers = {name: json.loads(tags[TAG + name]) for name in names}
    return Decision(reason=tags[f"{TAG}reason"], metric=tags[f"{TAG}metric"], **numbers)


def _sentence(decision: Decision) -> str:
    return f"{'Promoted' if decision.promoted else 'Refused'}: {decision.reason}."


def _earlier(store: Store, name: str, tags: dict[str, str]) -> ModelVersion | None:
    """The version that an earlier call made of the same run key and weights."""
    wanted = {TAG + key: tags[TAG + key] for key in ("run_key", "weights_sha256")}
    clauses = [f"tags.`{key}` = '{value}'" for key, value in wanted.items()]
    found = store.client.search_model_versions(" and ".join([f"name = '{name}'", *clauses]))
    return max(found, key=lambda version: int(version.version), default=None)


def _same_gate(version: ModelVersion, tags: dict[str, str]) -> bool:
    return bool(version.tags.get(f"{TAG}gate") == tags[f"{TAG}gate"])


# ── what register does, step by step ───────────────────────────────────────────────────────────────────


def _say_again(store: Store, old: ModelVersion, tags: dict[str, str], decision: Decision) -> ModelVersion:
    """Record a later decision on a version that is there."""
    for key, value in sorted(tags.items(), key=lambda tag: tag[0] == f"{TAG}gate"):  # the gate last: it says "done"
        store.client.set_model_version_tag(old.name, old.version, key, value)
    store.client.update_model_version(old.name, old.version, description=_sentence(decision))
    return store.client.get_model_version(old.name, old.version)


def _finish(store: Store, version: ModelVersion, present: ModelVersion | None) -> Registered:
    """Do what the version's recorded decision says: once, or again where no champion is left."""
    decision, gate = _decision(version.tags), version.tags[f"{TAG}gate"]
    settled = version.tags.get(f"{TAG}settled") == gate
    if decision.promoted and (not settled or present is None):
        store.client.set_registered_model_alias(version.name, CHAMPION, version.version)
    if not settled:
        store.client.set_model_version_tag(version.name, version.version, f"{TAG}settled", gate)
    return Registered(int(version.version), decision)


def _create(store: Store, candidate: Candidate, built: Path, tags: dict[str, str], description: str) -> ModelVersion:
    """Files, then the version."""
    from mlflow.exceptions import MlflowException

    client, name = store.client, candidate.pipeline
    logged = _logged_model(store, candidate, tags)
    artifact.put(store, built, logged.model_id, logged.artifact_location)
    client.finalize_logged_model(logged.model_id, "READY")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags |= {f"{TAG}model_id": logged.model_id}
    place, number = logged.artifact_location, logged.model_id
    version = client.create_model_version(name, place, candidate.run_id, tags, description=description, model_id=number)
    shown = json.dumps([{"name": name, "version": version.version}])  # how MLflow's pages go from one to the other
    client.set_logged_model_tags(number, {"mlflow.modelVersions": shown})
    return version


def _logged_model(store: Store, candidate: Candidate, tags: dict[str, str]) -> Any:
    """The place for the files, tied to the run; the one that a dead process left, if there is one."""
    from mlflow.entities import LoggedModelOutput

    client = store.client
    experiment = client.get_run(candidate.run_id).info.experiment_id
    wanted = [f"tags.`{TAG}{key}` = '{tags[TAG + key]}'" for key in ("run_key", "weights_sha256", "code")]
    found = client.search_logged_models([experiment], " and ".join(wanted))
    if found:
        return found[0]
    made = client.create_logged_model(experiment, candidate.pipeline, candidate.run_id, tags, model_type="tidemill")
    client.log_outputs(candidate.run_id, [LoggedModelOutput(made.model_id, step=0)])
    return made


def _mend(store: Store, version: ModelVersion, built: Path) -> None:
    """Put back the files of a version that is registered again, where they are lost or damaged."""
    location = store.client.get_model_version_download_uri(version.name, version.version)
    if artifact.damaged(built, location):
        artifact.put(store, built, version.tags[f"{TAG}model_id"], location)
