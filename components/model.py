"""A trained model as a folder: weights.safetensors, model.json and profile.json, nothing pickled. The profile says what
the training inputs were like (components/profile.py); models that are older have none.

Written once by the train stage, registered as it is, and loaded again here or, with a copy of this package's
few modules that it needs, inside any process that has torch, safetensors and pyarrow.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .contract import MODEL, Codes, Data, Family, Generative, Hyper, Json, Latent, Metrics, Outcomes, Spec, State
from .errors import ParamsError, RegistryError

WEIGHTS, DESCRIPTION, PROFILE = "weights.safetensors", "model.json", "profile.json"
_ROOT = (__package__ or "").removesuffix("components")  # "", or the package that a copy of this one lies in


@dataclass(frozen=True)
class Model:
    """A net with the family that knows how to use it. `profile` is what profile.json holds, None without one."""

    family: Family[Any]
    spec: Spec
    hyper: Hyper
    net: Any
    weights_sha256: str
    profile: Json = None

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Output columns for input columns, row for row."""
        return self.family.score(self.net, batch)

    def outputs(self) -> pa.Schema:
        return self.family.outputs(self.spec)

    def encode(self, batch: pa.RecordBatch) -> Codes:
        """What the net makes of each row before its last layer, codes_BD."""
        return self.family.encode(self.net, batch)

    def sample(self, count: int, seed: int) -> pa.RecordBatch:
        """So many new rows of the input columns. Raises ParamsError if the family makes none."""
        if not isinstance(self.family, Generative):
            raise ParamsError(
                f"{type(self.family).__name__} makes no samples", fix="ask a pipeline of a generative family"
            )
        made: pa.RecordBatch = self.family.sample(self.net, count, seed)
        return made

    def decode(self, codes: Codes) -> pa.RecordBatch:
        """The rows that codes stand for. Raises ParamsError if the family cannot say."""
        if not isinstance(self.family, Latent):
            raise ParamsError(
                f"{type(self.family).__name__} makes no rows of codes", fix="ask a pipeline of a family that can decode"
            )
        made: pa.RecordBatch = self.family.decode(self.net, codes)
        return made

    def judge(self, splits: dict[str, pa.Table], split: str) -> Outcomes:
        """What comes of each row (or episode) of the same kind as the model was trained on."""
        return self.family.judge(self.net, Data(self.spec, splits), split)

    def measured_by(self, evaluation: Mapping[str, range]) -> Model:
        """The same model, which is judged on these episodes from now on, if on any."""
        return replace(self, spec=replace(self.spec, evaluation=evaluation))

    def measure(self, outcomes: Outcomes, split: str) -> Metrics:
        """split/metric of what came of rows."""
        return self.family.measure(self.spec, outcomes, split)

    def evaluate(self, splits: dict[str, pa.Table], split: str) -> Metrics:
        return self.measure(self.judge(splits, split), split)


def save(folder: Path, family_path: str, spec: Spec, hyper: Hyper, state: State) -> str:
    """Write the served part of a state; returns the weights' SHA-256. `family_path` is `module:Class`."""
    folder.mkdir(parents=True, exist_ok=True)
    served = state.served()
    tensors = {k.removeprefix(MODEL): v.detach().cpu().contiguous() for k, v in sorted(served.tensors.items())}
    save_file(tensors, str(folder / WEIGHTS))
    digest = sha256(folder / WEIGHTS)
    description = {
        "family": family_path,
        "hyper": dict(hyper),
        "scalars": served.scalars["model"],
        "spec": spec.to_json(),
        "weights_sha256": digest,
    }
    _write(folder / DESCRIPTION, description)
    return digest


def keep_profile(folder: Path, profile: Json) -> None:
    """Put a profile into a model's folder; its hash goes into model.json, which registered versions are known by."""
    _write(folder / PROFILE, profile)
    _write(folder / DESCRIPTION, describe(folder) | {"profile_sha256": sha256(folder / PROFILE)})


def _write(file: Path, value: Json) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def describe(folder: Path) -> dict[str, Json]:
    """What model.json says."""
    try:
        described: dict[str, Json] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RegistryError("not a model folder", where=str(folder), why=str(error)) from error
    return described


def load(folder: Path) -> Model:
    """Load a model folder after checking its weights and profile against the hashes they were saved with.

    Raises RegistryError if they are not the bytes that were saved.
    """
    described = describe(folder)
    profile, digest = None, described["weights_sha256"]
    _check(folder / WEIGHTS, digest, "the weights are not those that were saved")
    if "profile_sha256" in described:
        _check(folder / PROFILE, described["profile_sha256"], "the profile is not the one that was saved")
        profile = json.loads((folder / PROFILE).read_text(encoding="utf-8"))
    try:
        tensors = {MODEL + k: v for k, v in load_file(str(folder / WEIGHTS)).items()}
    except SafetensorError as error:
        raise RegistryError("the weights are no safetensors", where=str(folder / WEIGHTS), why=str(error)) from error
    spec = Spec.from_json(described["spec"])
    family = _family(described["family"])
    net = family.load(spec, described["hyper"], State(tensors, {"model": described["scalars"]}))
    return Model(family, spec, described["hyper"], net, digest, profile)


def _check(file: Path, wanted: str, what: str) -> None:
    digest = sha256(file) if file.is_file() else "absent"
    if digest != wanted:
        why, fix = f"SHA-256 is {digest}, was {wanted}", "restore the file, or register the model again"
        raise RegistryError(what, where=str(file), why=why, fix=fix)


def _family(path: str) -> Family[Any]:
    module, _, name = path.partition(":")
    found = importlib.import_module(_ROOT + module)  # beside this file, so a copy of the package uses its own copy
    made: Family[Any] = getattr(found, name)()
    return made


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
