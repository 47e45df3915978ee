"""Versions in a real store: loadable without this project, promoted only by merit, whole or not there."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components import families, model, registry
from components.contract import EVALUATION, Column, Data, Spec
from components.errors import BadInput, RegistryError, Unreachable
from components.params import Gate
from components.registry import Registered, artifact, bundle
from components.registry.bundle import Shipped
from components.registry.model_code import arrow
from components.tracking.store import open_store
from components.workspace import Workspace

from . import shelf
from .cases import reviews
from .shelf import OBJECTIVE, candidate

ROOT = Path(__file__).parents[2]


def put(workspace: Workspace, folder: Path, data: Data, run_key: str, **gate: Any) -> Registered:
    """Register a model folder under a run key."""
    return registry.register(workspace, candidate(workspace, folder, data, run_key), data, OBJECTIVE, Gate(**gate))


def inputs(data: Data) -> pa.RecordBatch:
    return data.splits["test"].select([c.name for c in data.spec.columns]).combine_chunks().to_batches()[0]


def tags(workspace: Workspace, version: int) -> dict[str, str]:
    return dict(open_store(workspace).client.get_model_version("tides", str(version)).tags)


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────


def test_champions_come_and_go_by_merit(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    first = put(workspace, models["poor"], data, "a")
    assert (first.version, first.decision.promoted) == (1, True)
    better = put(workspace, models["good"], data, "b")
    assert (better.version, better.decision.promoted, better.decision.champion_version) == (2, True, 1)
    assert better.decision.champion_value == first.decision.value  # measured again by its own code
    worse = put(workspace, models["poor"], data, "c")
    assert (worse.version, worse.decision.promoted, worse.decision.champion_version) == (3, False, 2)
    same = put(workspace, models["good"], data, "d")
    assert (same.version, same.decision.promoted) == (4, False) and "its weights are those" in same.decision.reason
    assert registry.champion(workspace, "tides").version == 2
    client = open_store(workspace).client
    refused = client.get_model_version("tides", "3")
    assert refused.description == f"Refused: {worse.decision.reason}."
    assert json.loads(refused.tags["tidemill.promoted"]) is False
    assert (
        refused.tags["tidemill.reason"] == worse.decision.reason and refused.run_id == refused.tags["tidemill.run_id"]
    )
    wanted = {"run_key": "b", "data_md5": "0" * 32, "git_commit": "c0ffee", "family": "components.families.mlp:Mlp"}
    wanted |= {"metric": "test/loss", "weights_sha256": model.sha256(models["good"] / model.WEIGHTS)}
    assert {name: tags(workspace, 2)[f"tidemill.{name}"] for name in wanted} == wanted
    assert float(tags(workspace, 2)["tidemill.value"]) == better.decision.value
    assert list(Path.cwd().iterdir()) == []  # nothing written where the process happens to stand


def test_registering_again_changes_nothing(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    asking = candidate(workspace, models["good"], data, "a")
    first = registry.register(workspace, asking, data, OBJECTIVE, Gate())
    assert registry.register(workspace, asking, data, OBJECTIVE, Gate()) == first
    client = open_store(workspace).client
    assert len(client.search_model_versions("name = 'tides'")) == 1
    experiment = client.get_run(asking.run_id).info.experiment_id
    assert len(client.search_logged_models([experiment])) == 1
    assert len(client.get_run(asking.run_id).outputs.model_outputs) == 1


def test_a_decision_of_an_earlier_version_of_tidemill_is_read(
    workspace: Workspace, models: dict[str, Path], data: Data
) -> None:
    said = put(workspace, models["good"], data, "a")
    client = open_store(workspace).client
    tags = client.get_model_version("tides", "1").tags
    assert registry.decision_of(tags) == said.decision and said.decision.intervals
    older = {name: value for name, value in tags.items() if name != "tidemill.intervals"}
    assert registry.decision_of(older) == replace(said.decision, intervals={})


def test_another_gate_decides_anew_on_the_same_version(
    workspace: Workspace, models: dict[str, Path], data: Data
) -> None:
    put(workspace, models["poor"], data, "a")
    refused = put(workspace, models["good"], data, "b", margin=10)
    assert (refused.version, refused.decision.promoted) == (2, False)
    promoted = put(workspace, models["good"], data, "b")
    assert (promoted.version, promoted.decision.promoted) == (2, True)
    assert registry.champion(workspace, "tides").version == 2
    assert open_store(workspace).client.get_model_version("tides", "2").description.startswith("Promoted")
    kept = put(workspace, models["good"], data, "b", margin=10)  # it is the champion: nothing to decide
    assert kept.decision.promoted and registry.champion(workspace, "tides").version == 2


def test_below_the_baseline_nothing_is_champion(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    asking = replace(candidate(workspace, models["poor"], data, "a"), baseline={"test/loss": 0.01})
    said = registry.register(workspace, asking, data, OBJECTIVE, Gate())
    assert not said.decision.promoted and "baseline" in said.decision.reason
    assert registry.champion_identity(workspace, "tides") is None
    with pytest.raises(RegistryError, match="no champion") as caught:
        registry.load_champion(workspace, "tides")
    assert caught.value.fix == "tidemill run tides"


@pytest.mark.parametrize("moment", ["log_model_artifacts", "create_model_version", "set_registered_model_alias"])
def test_a_death_on_the_way_leaves_nothing_half_done(
    workspace: Workspace, models: dict[str, Path], data: Data, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from mlflow import MlflowClient

    asking = candidate(workspace, models["good"], data, "a")
    with monkeypatch.context() as patch:

        def die(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(MlflowClient, moment, die)
        with pytest.raises(KeyboardInterrupt):
            registry.register(workspace, asking, data, OBJECTIVE, Gate())
    assert registry.champion_identity(workspace, "tides") is None
    again = registry.register(workspace, asking, data, OBJECTIVE, Gate())
    assert (again.version, again.decision.promoted) == (1, True)
    assert registry.champion(workspace, "tides").version == 1
    experiment = open_store(workspace).client.get_run(asking.run_id).info.experiment_id
    (logged,) = open_store(workspace).client.search_logged_models([experiment])
    assert str(logged.status) == "READY"


def test_what_says_that_the_champion_is_the_same(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    put(workspace, models["good"], data, "a")
    identity = registry.champion_identity(workspace, "tides")
    assert (
        identity["version"] == 1 and identity["weights_sha256"] == registry.load(workspace, "tides", 1).weights_sha256
    )
    put(workspace, models["poor"], data, "b")
    assert registry.champion_identity(workspace, "tides") == identity


def test_a_version_or_pipeline_that_is_not_there(workspace: Workspace) -> None:
    with pytest.raises(RegistryError, match="no version 7"):
        registry.load(workspace, "tides", 7)
    with pytest.raises(RegistryError, match="no champion"):
        registry.champion(workspace, "tides")


def test_a_version_that_somebody_else_registered(workspace: Workspace, tmp_path: Path) -> None:
    client = open_store(workspace).client
    client.create_registered_model("tides")
    client.create_model_version("tides", str(tmp_path))
    client.set_registered_model_alias("tides", "champion", "1")
    with pytest.raises(RegistryError, match="not registered by Tidemill"):
        registry.load_champion(workspace, "tides")


def test_an_unreachable_registry(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        registry.load_champion(workspace, "tides")


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("what", ["weights.safetensors", "model.json", "mlp.py", "gone"])
def test_a_damaged_champion_is_refused_not_replaced_and_can_be_mended(
    workspace: Workspace, models: dict[str, Path], data: Data, what: str
) -> None:
    asking = candidate(workspace, models["poor"], data, "a")
    registry.register(workspace, asking, data, OBJECTIVE, Gate())
    folder = registry.champion(workspace, "tides").folder
    if what == "gone":
        shutil.rmtree(folder)
    else:
        (file,) = folder.rglob(what)
        _flip(file)
    with pytest.raises(RegistryError) as caught:
        registry.load_champion(workspace, "tides")
    assert "tides version 1" in caught.value.where and "MLflow UI" in caught.value.fix
    with pytest.raises(RegistryError):  # a better challenger does not replace what it cannot be measured against
        put(workspace, models["good"], data, "b")
    assert registry.champion(workspace, "tides").version == 1
    registry.register(workspace, asking, data, OBJECTIVE, Gate())  # the same again puts the files back
    assert registry.load_champion(workspace, "tides").score(inputs(data)).num_rows == 60


def test_the_way_out_of_a_lost_champion(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    put(workspace, models["poor"], data, "a")
    shutil.rmtree(registry.champion(workspace, "tides").folder)
    open_store(workspace).client.delete_registered_model_alias("tides", "champion")
    assert put(workspace, models["good"], data, "b").decision.champion_version is None
    assert registry.champion(workspace, "tides").version == 2


# ── models away from home ───────────────────────────────────────────────────────────────────────────────

STRANGER = """
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("components", "flows", "tests", "strange"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
import mlflow.pyfunc, pandas as pd

loaded = mlflow.pyfunc.load_model("models:/tides@champion")
frame = pd.read_parquet(sys.argv[1])
answer = loaded.predict(frame)
assert list(answer.index) == list(frame.index), answer.index
answer.to_parquet(sys.argv[2])
example = loaded.predict(loaded.input_example)
assert len(example) == 3, example
made = loaded.unwrap_python_model().model
print(json.dumps({"type": type(made).__module__, "modules": sorted(m for m in sys.modules if m.startswith("prefect"))}))
"""


def away(workspace: Workspace, frame: pd.DataFrame, place: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What a process that has never heard of this project predicts with the champion, and what it says."""
    frame.to_parquet(place / "given.parquet")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": workspace.tracking_uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-c", STRANGER, str(place / "given.parquet"), str(place / "answer.parquet")]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pd.read_parquet(place / "answer.parquet"), json.loads(done.stdout)


def test_plain_mlflow_loads_the_champion_without_this_project(
    workspace: Workspace, models: dict[str, Path], data: Data, tmp_path: Path
) -> None:
    put(workspace, models["good"], data, "a")
    frame = data.splits["test"].to_pandas().set_index("station", drop=False)
    answer, said = away(workspace, frame, tmp_path)
    ours = registry.load_champion(workspace, "tides").score(inputs(data)).to_pandas()
    pd.testing.assert_frame_equal(answer.reset_index(drop=True), ours)
    assert said["type"].startswith("tidemill_model_") and said["type"].endswith(".components.model")
    folder = registry.champion(workspace, "tides").folder
    needed = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    assert needed == {"mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch"}
    assert not list(folder.rglob("*.pkl"))


def test_a_text_model_names_the_tokenizers_and_scores_without_this_project(
    workspace: Workspace, tmp_path: Path
) -> None:
    said = reviews("classification")
    hyper = {"embedding": 8, "width": 4}
    state = next(families.family("rnn").fit(said, hyper, 0, None)).state()
    model.save(tmp_path / "model", families.import_path("rnn"), said.spec, hyper, state)
    asking = replace(candidate(workspace, tmp_path / "model", said, "a"), baseline={"test/loss": 9.0})
    assert registry.register(workspace, asking, said, OBJECTIVE, Gate()).decision.promoted
    folder = registry.champion(workspace, "tides").folder
    assert (
        f"tokenizers=={importlib.metadata.version('tokenizers')}" in (folder / "requirements.txt").read_text().split()
    )
    answer, _ = away(workspace, said.splits["test"].to_pandas(), tmp_path)
    ours = registry.load_champion(workspace, "tides").score(inputs(said)).to_pandas()
    pd.testing.assert_frame_equal(answer.reset_index(drop=True), ours)


OWN = '''
"""A family in a package of its own, as a user would write one."""
import components.errors
from components.contract import MODEL, Epoch, State
from components.errors import BadInput
from strange import scale as scaling
import numpy as np
import torch, strange.scale
import pyarrow as pa


class Mean:
    """Says of a tensor whether its mean is high."""

    learning, tasks, Settings = "supervised", ("classification",), None

    def fit(self, data, hyper, seed, state=None):
        while True:
            yield Epoch(1, {"val/loss": 0.1}, lambda: State({MODEL + "bias": torch.tensor([0.5])}, {"model": {}}))

    def load(self, spec, hyper, state):
        return spec, float(state.tensors[MODEL + "bias"])

    def judge(self, net, data, split):
        said = self.score(net, data.splits[split].combine_chunks().to_batches()[0]).column("class").to_pylist()
        return {"right": np.array([a == b for a, b in zip(said, data.splits[split]["y"].to_pylist())])}

    def measure(self, spec, outcomes, split):
        return {split + "/loss": 1 - float(outcomes["right"].mean())}

    def baseline(self, data, split, hyper):
        return {split + "/loss": 0.9}

    def score(self, net, batch):
        (spec, bias), values = net, batch.column("image").to_numpy_ndarray()
        if values.max() > 1:
            raise BadInput("too bright", where="image", why="why", fix="dim it")
        assert components.errors.BadInput is BadInput and strange.scale is scaling
        return pa.record_batch({"class": ["yes" if scaling.mean(v) * FACTOR > bias else "no" for v in values]})

    def encode(self, net, batch):
        return batch.column("image").to_numpy_ndarray().reshape(len(batch), -1)

    def outputs(self, spec):
        return pa.schema([("class", pa.string())])
'''


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a user's own, in a folder of its own."""
    package = tmp_path / "mine" / "strange"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "scale.py").write_text("def mean(x):\n    return float(x.mean())\n")
    (package / "family.py").write_text(OWN + "\n\nFACTOR = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    for name in [n for n in sys.modules if n.partition(".")[0] == "strange"]:
        monkeypatch.delitem(sys.modules, name)
    return package


def glow() -> Data:
    images = np.random.default_rng(0).random((40, 2, 3, 3), np.float32)
    names = np.where(images.mean((1, 2, 3)) > 0.5, "yes", "no")
    table = pa.table({"y": names}).append_column("image", pa.FixedShapeTensorArray.from_numpy_ndarray(images))
    spec = Spec("glow", "classification", (Column("image", "tensor", "float32", (2, 3, 3)),), "y", ("no", "yes"))
    return Data(spec, dict.fromkeys(("train", "val", "test"), table))


def own_model(folder: Path, data: Data) -> Path:
    path = "strange.family:Mean"
    state = next(families.family(path).fit(data, {}, 0, None)).state()
    model.save(folder, path, data.spec, {}, state)
    return folder


def test_a_family_of_ones_own_and_tensors_travel_as_well(workspace: Workspace, strange: Path, tmp_path: Path) -> None:
    data = glow()
    put_own(workspace, own_model(tmp_path / "model", data), data)
    images = data.splits["test"]["image"].combine_chunks().to_numpy_ndarray()
    truth = data.splits["test"]["y"].to_pylist()
    nested, _ = away(workspace, pd.DataFrame({"image": images.tolist()}), tmp_path)
    assert nested["class"].tolist() == truth
    shipped = artifact.load(registry.champion(workspace, "tides").folder)
    for cells in (list(images), [image.ravel() for image in images]):
        frame = pd.DataFrame({"image": cells})
        assert shipped.score(arrow(frame, shipped.spec)).column("class").to_pylist() == truth


def put_own(workspace: Workspace, folder: Path, data: Data, run_key: str = "a") -> Registered:
    asking = replace(candidate(workspace, folder, shelf.tides(), run_key), baseline={"test/loss": 0.9})
    return registry.register(workspace, asking, data, OBJECTIVE, Gate())


def test_two_versions_keep_each_its_own_code_in_one_process(
    workspace: Workspace, strange: Path, tmp_path: Path
) -> None:
    data = glow()
    put_own(workspace, own_model(tmp_path / "old", data), data, "old")
    (strange / "family.py").write_text(OWN + "\n\nFACTOR = -1\n")  # newer code says no to everything
    sys.modules.pop("strange.family")
    said = put_own(workspace, own_model(tmp_path / "new", data), data, "new")
    assert said.decision.promoted is False  # the champion was measured by its own code, and is perfect
    old, new = registry.load(workspace, "tides", 1), registry.load(workspace, "tides", 2)
    assert type(old.own).__module__ != type(new.own).__module__
    assert set(new.score(inputs(data)).column("class").to_pylist()) == {"no"}
    assert old.score(inputs(data)).column("class").to_pylist() == data.splits["test"]["y"].to_pylist()
    assert old.evaluate(dict(data.splits), "test") == {"test/loss": 0.0}


def test_a_champion_is_measured_by_the_candidate_s_episodes(
    workspace: Workspace, strange: Path, tmp_path: Path
) -> None:
    """Its loss is 0.5 on the usual ones, on which it became champion."""
    mine = (strange / "family.py").read_text()
    rows = 'a == b for a, b in zip(said, data.splits[split]["y"].to_pylist())'
    assert rows in mine
    (strange / "family.py").write_text(mine.replace(rows, "seed % 4 > 1 for seed in data.spec.evaluation[split]"))
    usual = glow()
    first = put_own(workspace, own_model(tmp_path / "old", usual), usual, "old")
    assert first.decision.value == 0.5
    spec = replace(usual.spec, evaluation=EVALUATION | {"test": range(8, 11)})
    (strange / "family.py").write_text((strange / "family.py").read_text().replace("[0.5]", "[0.4]"))
    sys.modules.pop("strange.family")
    data = Data(spec, usual.splits)
    said = put_own(workspace, own_model(tmp_path / "new", data), data, "new").decision
    assert said.champion_value == said.value == pytest.approx(2 / 3)
    assert registry.load(workspace, "tides", 1).spec.evaluation == EVALUATION, "which stays as it was registered"


def test_a_champion_that_knows_only_its_own_episodes_is_measured_by_those() -> None:
    own = SimpleNamespace(judge=lambda splits, split: {"return": np.zeros(100)})
    old = Shipped(own, glow().spec, {}, None, "", own=own)  # type: ignore[arg-type]
    assert len(old.measured_by({"test": range(3)}).judge({}, "test")["return"]) == 100


def test_errors_of_shipped_code_can_be_caught_here(workspace: Workspace, strange: Path, tmp_path: Path) -> None:
    data = glow()
    put_own(workspace, own_model(tmp_path / "model", data), data)
    bright = pa.FixedShapeTensorArray.from_numpy_ndarray(np.full((1, 2, 3, 3), 7, np.float32))
    with pytest.raises(BadInput) as caught:
        registry.load_champion(workspace, "tides").score(pa.record_batch({"image": bright}))
    assert (caught.value.what, caught.value.where, caught.value.fix) == ("too bright", "image", "dim it")


def test_the_code_that_travels_is_small_and_changes_with_its_sources(strange: Path, tmp_path: Path) -> None:
    package = bundle.write("strange.family:Mean", tmp_path / "a")
    found = sorted(file.relative_to(package).as_posix() for file in package.rglob("*.py"))
    ours = [f"components/{name}.py" for name in ("__init__", "contract", "errors", "model")]
    assert found == ["__init__.py", *ours, "strange/__init__.py", "strange/family.py", "strange/scale.py"]
    for name in ("contract", "errors", "model"):  # relative imports need no rewriting
        assert (package / f"components/{name}.py").read_bytes() == (ROOT / f"components/{name}.py").read_bytes()
    assert bundle.write("strange.family:Mean", tmp_path / "b").name == package.name
    (strange / "scale.py").write_text("def mean(x):\n    return 0.0\n")
    assert bundle.write("strange.family:Mean", tmp_path / "c").name != package.name


def test_a_built_in_family_ships_without_params_or_trackers(tmp_path: Path) -> None:
    package = bundle.write("components.families.mlp:Mlp", tmp_path)
    names = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    assert "components/families/mlp.py" in names
    strangers = ("params", "tracking", "registry", "store", "workspace", "tuning", "families/cnn", "families/dqn")
    assert not names & {f"components/{name}.py" for name in strangers}


# ── a team's server ─────────────────────────────────────────────────────────────────────────────────────


def test_a_server_keeps_the_versions(
    team_server: str, models: dict[str, Path], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server)
    here = Workspace(tmp_path / "here")
    first = put(here, models["poor"], data, "a")
    assert first.decision.promoted and put(here, models["poor"], data, "a") == first
    assert put(here, models["good"], data, "b").decision.champion_version == first.version
    there = Workspace(tmp_path / "there")  # a colleague's machine
    loaded = registry.load_champion(there, "tides")
    assert loaded.weights_sha256 == model.sha256(models["good"] / model.WEIGHTS)
    fetched = registry.champion(there, "tides")
    assert fetched.folder.is_relative_to(there.state)
    _flip(fetched.model_folder / model.WEIGHTS)
    with pytest.raises(RegistryError) as caught:
        registry.load_champion(there, "tides")
    assert caught.value.fix == f"rm -r {fetched.folder}, to fetch it again"
    shutil.rmtree(fetched.folder)
    assert registry.load_champion(there, "tides").score(inputs(data)).num_rows == 60
