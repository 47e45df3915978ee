"""No name in params.yaml, in a table or in an artifact makes Tidemill write, or remove, outside its own folders."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from components import checkpoints, datasets, families, model, params, plots, validation, versioning
from components.contract import Objective, State
from components.datasets import packages
from components.errors import ParamsError, RegistryError
from components.registry import versions
from components.scoring import Job, score
from components.sweep import Trial
from components.tracking.store import Store
from components.tuning.archive import Archive
from components.workspace import Workspace
from flows import cli

from .sweeper import request
from .test_scoring import Gauge, rows

UP = [
    "..",
    "../../escape",
    "a/../../escape",
    "/tmp/escape",
    "a/b",
    "",
    ".hidden",
    "~",
    "a\nb",
    "a\n",
    "-x",
    "a\0b",
    "x" * 64,
]


@pytest.fixture
def deep(tmp_path: Path) -> Workspace:
    """A project some folders down, so that what climbs out of it is seen."""
    made = Workspace(tmp_path / "a" / "b" / "project")
    made.root.mkdir(parents=True)
    return made


def everything(folder: Path) -> dict[str, bytes]:
    """Every file, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ── params.yaml and the command line ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", UP)
def test_a_name_in_params_yaml_is_no_path(deep: Workspace, name: str) -> None:
    quoted = json.dumps(name)
    for text in (
        f"datasets: {{{quoted}: {{table: x.csv, target: y}}}}",
        f"datasets: {{digits: {{}}}}\npipelines: {{{quoted}: {{dataset: digits, family: cnn}}}}",
    ):
        deep.params.write_text(text + "\n")
        with pytest.raises(ParamsError):
            params.load(deep)


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape"])
def test_a_name_on_the_command_line_is_no_path(
    deep: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    deep.params.write_text("datasets: {digits: {}}\npipelines: {digits: {dataset: digits, family: cnn}}\n")
    pa_csv.write_csv(rows(), tmp_path / "rows.csv")
    before = everything(tmp_path)
    monkeypatch.chdir(deep.root)
    with pytest.raises(ParamsError, match="no pipeline"):
        cli.stage("validate", name)
    with pytest.raises(ParamsError, match="no name for a dataset"):
        versioning.add(deep, name, tmp_path / "rows.csv", {"target": "depth"}, print)
    assert everything(tmp_path) == before and not Path("/tmp/escape.lock").exists()


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────


def test_columns_and_classes_that_look_like_paths(
    deep: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expectations, Data Docs and plots are made of them; nor are they looked up in the environment."""
    monkeypatch.setenv("PLANTED", "planted-secret-5f1c")
    names = ["../../../climbs", f"{tmp_path}/outside/stands", "${PLANTED}", "$PLANTED", "<script>", "a.b/../c"]
    labels = ["../../yes", "/tmp/escape"]
    count = 240
    columns = {name: [float((i * (k + 3)) % 17) for i in range(count)] for k, name in enumerate(names)}
    columns["../target"] = [labels[(i * 7 % 17) > 8] for i in range(count)]  # type: ignore[assignment]
    pa_csv.write_csv(pa.table(columns), deep.root / "rows.csv")
    deep.params.write_text(
        "datasets: {odd: {table: rows.csv, target: ../target}}\npipelines: {odd: {dataset: odd, family: mlp}}\n"
    )
    read = params.load(deep)
    versioning.fetch(deep, read, ["odd"], print)
    promised = datasets.expectations(deep, "odd", read.datasets["odd"])
    data = datasets.load(deep, "odd", promised, "classification")
    validation.validate(data, promised, deep.docs("odd"))
    mlp, place = families.family("mlp"), deep.results("odd", "train")
    hyper = {"width": 8, "depth": 1}
    (epoch,) = itertools.islice(mlp.fit(data, hyper, 0, None), 1)
    model.save(place / "model", families.import_path("mlp"), data.spec, hyper, epoch.state())
    trial = Trial("0" * 12, hyper, "finished", [dict(epoch.metrics)], 1.0, 1)
    drawn = plots.draw(place / "plots", model.load(place / "model"), data, [trial], Objective("loss", "min"), "odd")
    assert {file.parent for file in drawn} == {place / "plots"}
    ours = ("data/", "expectations/", ".tidemill/", "results/", "params.yaml", "rows.csv")
    left = everything(tmp_path)
    assert not [name for name in left if not name.removeprefix("a/b/project/").startswith(ours)]
    assert not [name for name, content in left.items() if b"planted-secret-5f1c" in content]
    assert not Path("/tmp/escape").exists() and b"<script" not in (deep.docs("odd") / "index.html").read_bytes()


def test_links_in_what_is_scored_and_where(tmp_path: Path) -> None:
    source, outside, out = (tmp_path / name for name in ("source", "outside", "out"))
    for folder in (source / "sub", outside / "deep"):
        folder.mkdir(parents=True)
    pa_csv.write_csv(rows(), outside / "rows.csv")
    pa_csv.write_csv(rows(), outside / "deep" / "more.csv")
    pa_csv.write_csv(rows(), source / "sub" / "own.csv")
    (source / "linked.csv").symlink_to(outside / "rows.csv")
    (source / "elsewhere").symlink_to(outside)
    before = everything(outside)
    score(Gauge(), source, out, Job("7", "key"))
    assert set(everything(out)) == {"linked.csv.parquet", "sub/own.csv.parquet", "_receipt.json"}
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sub").symlink_to(outside)
    with pytest.raises(ParamsError, match="leads out of the output"):
        score(Gauge(), source, tmp_path / "planted", Job("7", "key"))
    single = tmp_path / "single.parquet"
    single.symlink_to(outside / "new.parquet")
    score(Gauge(), outside / "rows.csv", single, Job("7", "key"))
    assert {n: c for n, c in everything(outside).items() if n in before} == before


# ── artifacts ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_names_no_file_but_its_own(tmp_path: Path) -> None:
    place = Path(checkpoints.write(str(tmp_path / "trial"), 1, State({}, {}), {}))
    file = place / checkpoints.DESCRIPTION
    described = json.loads(file.read_text())
    (tmp_path / described["tensors"]).write_bytes((place / described["tensors"]).read_bytes())
    for name in (f"../../{described['tensors']}", str(tmp_path / described["tensors"]), ""):
        file.write_text(json.dumps(described | {"tensors": name}))
        with pytest.raises(checkpoints.Damaged, match="as its tensors"):
            checkpoints.read(str(place))
    for wrong in ([], {}, described | {"aliases": None}):
        file.write_text(json.dumps(wrong))
        assert checkpoints.newest_record(str(tmp_path / "trial")) is None


@pytest.mark.parametrize("key", ["../..", "{treasure}", "{key}"])
@pytest.mark.parametrize("checkpoint", ["../../treasure", "{treasure}", "000001/../../../treasure"])
def test_a_finished_sweep_that_names_other_folders_removes_none(tmp_path: Path, key: str, checkpoint: str) -> None:
    """What stands in finished.json was read, found damaged and removed, wherever it lay."""
    treasure, storage = tmp_path / "treasure", tmp_path / "storage" / "sweep"
    treasure.mkdir()
    (treasure / "file").touch()
    from components.tuning import configurations

    hyper = {"lr": 0.5}
    told = {"treasure": treasure, "key": configurations.key(hyper)}
    trial = Trial(key.format(**told), hyper, "finished", [], 1.0, 1, "")
    row = vars(trial) | {"checkpoint": checkpoint.format(**told)}
    storage.mkdir(parents=True)
    (storage / "finished.json").write_text(json.dumps([row]))
    assert Archive(request(str(storage))).finished() is None
    assert (treasure / "file").exists() and not (storage / "finished.json").exists()


def test_a_package_is_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(member: packages.Member, folder: str) -> None:
        with zipfile.ZipFile(Path(folder) / "shells-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("rows.csv", b"a,b\n")
            wheel.writestr("../../escape", b"no")

    monkeypatch.setattr(packages, "_pip", pip)
    member = packages.Member("shells", "1", "rows.csv", hashlib.sha256(b"a,b\n").hexdigest())
    assert packages.read(member, tmp_path / "cache", print) == b"a,b\n"
    assert list(everything(tmp_path)) == [f"cache/{member.sha256}"]


@pytest.fixture
def hostile() -> Iterator[str]:
    """The address of an MLflow server whose artifacts have names that climb."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            files = [{"path": "../../../escape", "is_dir": False, "file_size": 2}]
            self.wfile.write(json.dumps({"files": files}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_from_a_server_stay_below_their_folder(tmp_path: Path, hostile: str) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    store = Store(hostile, MlflowClient(hostile), None)
    with pytest.raises((MlflowException, RegistryError)):
        versions._fetch(store, "mlflow-artifacts:/model", tmp_path / "models" / "tides" / "1-0")
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("name", ["..", "../../x", "/tmp/x", "a/b", ""])
def test_names_from_a_server_are_names(name: str) -> None:
    with pytest.raises(RegistryError, match="no name of a folder"):
        versions._plain(name)
