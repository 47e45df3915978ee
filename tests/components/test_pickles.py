"""A pickle is planted in each place where one could be loaded. It is refused, or nobody looks at it; it never runs."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import marshal
import os
import pickle
import stat
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components import checkpoints, intake, lineage, model, params, receipts, registry
from components.contract import Column, Data, Spec, State
from components.datasets import parquet, promises
from components.errors import BadInput, DataError, ParamsError, RegistryError, TidemillError
from components.params import Gate
from components.tracking.store import open_store
from components.tuning.archive import Archive
from components.versioning import tracked
from components.workspace import Workspace
from flows import programs
from flows.roster import Roster

from .shelf import OBJECTIVE, candidate
from .sweeper import request

ROOT = Path(__file__).parents[2]


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture(params=["pickle", "torch"])
def payload(request: pytest.FixtureRequest, marker: Path) -> bytes:
    """What makes the marker when it is loaded, as pickle or as torch.save writes it."""
    if request.param == "pickle":
        return pickle.dumps(Trap(marker))
    file = marker.with_name("trap.pt")
    torch.save(Trap(marker), file)
    return file.read_bytes()


def test_the_traps_work(payload: bytes, marker: Path) -> None:
    file = marker.with_name("payload")
    file.write_bytes(payload)
    if payload[:2] == b"PK":
        torch.load(file, weights_only=False)
    else:
        pickle.loads(payload)
    assert marker.exists()


# ── checkpoints and models ──────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_of_a_shared_storage(tmp_path: Path, payload: bytes, marker: Path) -> None:
    place = Path(checkpoints.write(str(tmp_path / "trial"), 1, State({"w": torch.ones(2)}, {}), {}))
    described = json.loads((place / checkpoints.DESCRIPTION).read_text())
    (place / described["tensors"]).write_bytes(payload)
    with pytest.raises(checkpoints.Damaged, match="not the bytes"):
        checkpoints.read(str(place))
    described |= {"sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload)}
    (place / checkpoints.DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(checkpoints.Damaged):
        checkpoints.read(str(place))
    (place / checkpoints.DESCRIPTION).write_bytes(payload)
    assert checkpoints.latest(str(tmp_path / "trial")) is None
    assert not marker.exists()


def test_what_a_sweep_has_left(tmp_path: Path, payload: bytes, marker: Path) -> None:
    archive = Archive(request(str(tmp_path)))
    for name in ("finished.json", "sweep.json", "lease.json"):
        (tmp_path / name).write_bytes(payload)
    assert archive.finished() is None
    with archive.opened(fresh=False):  # nobody's sweep: it begins anew
        assert json.loads((tmp_path / "sweep.json").read_text())["planned"] == []
    assert not marker.exists()


def test_a_trained_model(tmp_path: Path, models: dict[str, Path], payload: bytes, marker: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    described = model.describe(models["poor"]) | {"weights_sha256": hashlib.sha256(payload).hexdigest()}
    (folder / model.WEIGHTS).write_bytes(payload)
    (folder / model.DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(RegistryError, match="no safetensors"):
        model.load(folder)
    (folder / model.DESCRIPTION).write_bytes(payload)
    with pytest.raises(RegistryError, match="not a model folder"):
        model.load(folder)
    assert not marker.exists()


# ── the registry ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def version(workspace: Workspace, models: dict[str, Path], data: Data) -> registry.Version:
    registry.register(workspace, candidate(workspace, models["poor"], data, "a"), data, OBJECTIVE, Gate())
    return registry.champion(workspace, "tides")


def test_a_version_is_loaded_by_its_sources_alone(
    workspace: Workspace, version: registry.Version, payload: bytes, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickles where MLflow keeps them, bytecode and an extension module where Python looks before it reads a source."""
    for name in ("python_model.pkl", "model.pkl", "data/model.pth", "artifacts/model/model.pt"):
        (version.folder / name).parent.mkdir(exist_ok=True)
        (version.folder / name).write_bytes(payload)
    (package,) = (version.folder / registry.artifact.CODE).iterdir()
    for source in list(package.rglob("*.py")):
        cache = Path(importlib.util.cache_from_source(str(source)))
        cache.parent.mkdir(exist_ok=True)
        code = compile(f"import pathlib; pathlib.Path({str(marker)!r}).touch()", str(source), "exec")
        unchecked = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
        cache.write_bytes(unchecked + marshal.dumps(code))
        source.with_suffix(".so").write_bytes(payload)
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        monkeypatch.delitem(sys.modules, name)
    assert registry.load_champion(workspace, "tides").spec.dataset == "tides"
    assert package.name in sys.modules and not marker.exists()


def test_code_that_fits_its_own_hash_but_is_not_what_was_registered(
    workspace: Workspace, version: registry.Version, marker: Path
) -> None:
    from components.registry.model_code import digest, sources

    (package,) = (version.folder / registry.artifact.CODE).iterdir()
    for source in package.rglob("*.py"):
        source.write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    package.rename(package.with_name(registry.bundle.PREFIX + digest(registry.bundle.UNNAMED, sources(package))))
    with pytest.raises(RegistryError, match="code is absent or not what was registered"):
        registry.load_champion(workspace, "tides")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["tidemill_model_", "tidemill_model_0"])
def test_a_hash_of_a_few_digits_is_none(tmp_path: Path, models: dict[str, Path], name: str) -> None:
    (tmp_path / "code" / name).mkdir(parents=True)
    with pytest.raises(ImportError, match="not what was registered"):
        registry.model_code.load(tmp_path / "code", models["poor"])


def test_mlflow_itself_refuses_a_model_that_names_a_pickle(
    workspace: Workspace, version: registry.Version, payload: bytes, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    open_store(workspace)  # whatever the environment said before
    import mlflow.pyfunc
    import yaml
    from mlflow.exceptions import MlflowException

    (version.folder / "python_model.pkl").write_bytes(payload)
    file = version.folder / "MLmodel"
    described = yaml.safe_load(file.read_text())
    flavour = described["flavors"]["python_function"]
    del flavour["model_code_path"]
    flavour |= {"python_model": "python_model.pkl", "cloudpickle_version": "3.1.1"}
    file.write_text(yaml.safe_dump(described))
    with pytest.raises(MlflowException, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        mlflow.pyfunc.load_model(str(version.folder))
    assert registry.load_champion(workspace, "tides").spec.dataset == "tides"  # who reads no MLmodel
    assert not marker.exists()


# ── tables, records, YAML ───────────────────────────────────────────────────────────────────────────────


def poisoned(file: Path, payload: bytes) -> Path:
    """A whole Parquet file that asks its reader to unpickle: as pyarrow's old extension types did, and for pandas."""
    told = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    schema = pa.schema([pa.field("height", pa.float64(), metadata=told)], metadata={b"pandas": payload})
    pq.write_table(pa.table({"height": [1.0, 2.0]}, schema), file)
    return file


def test_tables(tmp_path: Path, payload: bytes, marker: Path) -> None:
    file = poisoned(tmp_path / "rows.parquet", payload)
    assert parquet.read(file).column("height").to_pylist() == [1.0, 2.0]
    wanted = intake.Wanted(Spec("tides", "regression", (Column("height", "number"),)))
    piece, *_ = intake.open_file(file, wanted).batches(10)
    assert piece.inputs.column("height").to_pylist() == [1.0, 2.0]
    for name in ("rows.csv", "whole.parquet"):
        (tmp_path / name).write_bytes(payload)
        with pytest.raises(BadInput):
            list(intake.open_file(tmp_path / name, wanted).batches(10))
    with pytest.raises(DataError):
        parquet.read(tmp_path / "whole.parquet")
    assert not marker.exists()


def test_receipts_and_records(workspace: Workspace, payload: bytes, marker: Path) -> None:
    receipt = workspace.state / "receipts" / "tides" / "train.json"
    record = lineage.folder(workspace) / f"{'0' * 64}.json"
    for file in (receipt, record):
        file.parent.mkdir(parents=True)
        file.write_bytes(payload)
    with pytest.raises(TidemillError, match="not a receipt"):
        receipts.read(workspace, "tides", "train")
    receipt.unlink()
    with pytest.raises(TidemillError, match="not what was written"):
        lineage.read(workspace)
    assert not marker.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:pathlib.Path.touch", "!!python/name:os.system"])
def test_yaml_makes_no_objects(workspace: Workspace, marker: Path, tag: str) -> None:
    text = f"{tag} [!!python/object/apply:pathlib.PosixPath [{marker}]]\n"
    workspace.params.write_text(f"datasets: {text}")
    with pytest.raises(ParamsError):
        params.load(workspace)
    promised = workspace.root / "expectations.yaml"
    promised.write_text(f"columns: {text}")
    with pytest.raises(ParamsError):
        promises.read(promised)
    (workspace.root / tracked.FILE).write_text(f"outs: {text}")
    with pytest.raises(DataError):
        tracked.md5s(workspace)
    assert not marker.exists()


def test_what_dvc_unpickles_lies_where_only_its_owner_gets(workspace: Workspace) -> None:
    from dvc.repo import Repo

    workspace.root.mkdir(exist_ok=True)
    Repo.init(str(workspace.root), no_scm=True).close()
    with tracked.repository(workspace) as repo:
        assert Path(repo.site_cache_dir).is_relative_to(workspace.state / "dvc")
    assert stat.S_IMODE((workspace.state / "dvc").stat().st_mode) == 0o700


# ── every process, every source ─────────────────────────────────────────────────────────────────────────


def test_a_server_is_started_with_pickles_off(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the person's environment says. Ray's processes: test_tuning; flows and commands: open_project."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    say = "import os; print(os.environ['MLFLOW_ALLOW_PICKLE_DESERIALIZATION'])"
    roster = Roster(workspace.state)
    server = programs.Server("toy", (sys.executable, "-S", "-c", say), workspace.root)
    process = server.start(roster, "test")
    assert process.child is not None and process.child.wait() == 0
    assert roster.log("toy").read_text() == "false\n"


def test_opening_a_project_turns_pickles_off(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.project import open_project

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    workspace.params.write_text("seed: 1\n")
    open_project(workspace.root)
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


PICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "diskcache"}
LOADERS = {"read_pickle", "load_model", "unsafe_load", "full_load", "deserialize", "UnpicklingError", "Unpickler"}
OF_MODULES = {("torch", "load"), ("np", "load"), ("numpy", "load"), ("yaml", "load")}


def forbidden(tree: ast.AST) -> list[str]:
    """What a source does that could load a pickle or run text."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.partition(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {name.name for name in node.names}
            found += [str(node.module)] if (node.module or "").partition(".")[0] in PICKLERS else []
            found += [f"{node.module}.{n}" for n in names if n in LOADERS or (node.module, n) in OF_MODULES]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in LOADERS or (node.value.id, node.attr) in OF_MODULES - {("yaml", "load")}:
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Call):
            word = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if word in ("eval", "exec", "compile", "__import__") and isinstance(node.func, ast.Name):
                found.append(word)
            if keywords.get("allow_pickle") or keywords.get("weights_only") is False:
                found.append(f"{word}(allow_pickle)")
            if word == "YAML" and keywords.get("typ", "rt") not in ("rt", "safe"):
                found.append("YAML(unsafe)")
    return found


SOURCES = sorted([*(ROOT / "components").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])


def test_no_source_calls_what_loads_pickles_or_runs_text() -> None:
    assert len(SOURCES) > 100
    told = {str(file.relative_to(ROOT)): forbidden(ast.parse(file.read_text(encoding="utf-8"))) for file in SOURCES}
    assert {name: words for name, words in told.items() if words} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "from torch import load",
        "torch.load(f)",
        "np.load(f)",
        "pd.read_pickle(f)",
        "pyfunc.load_model(u)",
        "load(f, allow_pickle=True)",
        "YAML(typ='unsafe')",
        "eval(text)",
    ],
)
def test_the_scan_finds(source: str) -> None:
    assert forbidden(ast.parse(source))
