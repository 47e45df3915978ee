"""Versions of a pipeline's model in MLflow, and the gate that decides which of them is the champion.

A registered model has the pipeline's name. Its versions hold the model folder that the train stage left, as it
is, and the code that runs it. Files are written first, the version last: a version that can be seen is whole.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import model
from ..contract import Data, Json, Metrics, Objective, Spec
from ..params import Gate
from ..tracking.store import Store, answering, open_store
from ..workspace import Workspace
from . import artifact, history, versions
from .gate import Decision, Rival, Slice, Terms, decide
from .versions import CHAMPION, TAG, Version, champion, champion_identity, load, load_champion

__all__ = [
    "CHAMPION",
    "TAG",
    "Candidate",
    "Registered",
    "Version",
    "champion",
    "champion_identity",
    "load",
    "load_champion",
    "register",
]

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_TEXTS = ("reason", "metric")  # of a decision; the rest is JSON in its tags


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
        present = versions.present(store, candidate.pipeline)
        built = artifact.build(candidate.folder, data, Path(place))
        tags = _identity(candidate, built, gate)
        old = _earlier(store, candidate.pipeline, tags)
        if old:
            _mend(store, old, built)
        if old and (_same_gate(old, tags) or (present and present.version == old.version)):
            return _finish(store, old, present)
        rival = _rival(versions.local(workspace, store, present), data.spec) if present else None
        decision = decide(artifact.load(built), rival, dict(data.splits), terms)
        if barred := _rolled_back(store, candidate.pipeline, tags[f"{TAG}weights_sha256"]):
            decision = dataclasses.replace(decision, promoted=False, reason=barred)
        said = tags | _told(decision)
        if old:  # the same model before another gate
            return _finish(store, _say_again(store, old, said, decision), present)
        return _finish(store, _create(store, candidate, built, said, _sentence(decision)), present)


def _rolled_back(store: Store, pipeline: str, weights: str) -> str:
    """Why these weights are not promoted again, if somebody rolled back from them; "" otherwise."""
    for version, at in history.deposed(history.ledger(store, pipeline)).items():
        if versions.numbered(store, pipeline, version).tags.get(f"{TAG}weights_sha256") == weights:
            return f"version {version} with the same weights was rolled back at {at}; `tidemill promote` overrules this"
    return ""


def _rival(version: Version, spec: Spec) -> Rival:
    """The champion, judged on the episodes that the candidate is judged on."""
    weights = version.tags.get(f"{TAG}weights_sha256", "")
    return Rival(
        version.version,
        weights,
        lambda: versions.opened(version).measured_by(spec.evaluation),
        versions.way_out(version),
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
    told = dataclasses.asdict(decision)
    facts = {name: json.dumps(value) for name, value in told.items() if name not in _TEXTS}
    return {TAG + name: value for name, value in (facts | {name: told[name] for name in _TEXTS}).items()}


def decision_of(tags: dict[str, str]) -> Decision:
    names = [field.name for field in dataclasses.fields(Decision) if TAG + field.name in tags]  # older ones lack some
    told: dict[str, Json] = {n: tags[TAG + n] if n in _TEXTS else json.loads(tags[TAG + n]) for n in names}
    told["interval"] = told["interval"] and tuple(told["interval"])
    told["intervals"] = {name: tuple(ends) for name, ends in told.get("intervals", {}).items()}
    told["failed"] = tuple(Slice(**failed) for failed in told["failed"])
    return Decision(**told)


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
    decision, gate = decision_of(version.tags), version.tags[f"{TAG}gate"]
    settled = version.tags.get(f"{TAG}settled") == gate
    if decision.promoted and (not settled or present is None):
        versions.crown(store, version, present, "gate", decision.reason)
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
