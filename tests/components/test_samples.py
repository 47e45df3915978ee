"""Samples of a champion: rows of the dataset's kind, named after what made them, the same bytes each time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components import families, model, plan, registry, samples
from components.contract import Data, Objective
from components.errors import ParamsError, RegistryError, TidemillError
from components.params import Gate
from components.registry import Candidate, gate
from components.tracking.store import open_store
from components.workspace import Workspace

from .cases import images, one_thread  # noqa: F401
from .shelf import OBJECTIVE, candidate

BARS = images("generation")
HYPER = {"width": 4, "hidden": 16, "code": 3, "draws": 2, "val_draws": 2, "lr": 1e-2, "augment": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, family = tmp_path_factory.mktemp("model"), families.family("vae")
    *_, epoch = itertools.islice(family.fit(BARS, HYPER, 0, None), 2)
    model.save(made, families.import_path("vae"), BARS.spec, HYPER, epoch.state())
    return made


@pytest.fixture
def project(workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project whose pipeline `bars` has a champion; `empty` has none."""
    monkeypatch.setattr(gate, "RESAMPLES", 5)
    store = open_store(workspace)
    run = store.client.create_run(store.experiment("bars"))
    asks = Candidate("bars", folder, "feed" * 16, run.info.run_id, "0" * 32, "c0ffee", {"test/nll": 1e6})
    assert registry.register(workspace, asks, BARS, Objective("nll", "min"), Gate()).decision.promoted
    monkeypatch.setattr(plan, "resolve", lambda project, name: SimpleNamespace(workspace=project.workspace, name=name))
    return SimpleNamespace(workspace=workspace)


def ask(project: Any, output: Path, count: int = 7, seed: int = 0, pipeline: str = "bars") -> dict[str, Any]:
    told: dict[str, Any] = samples.write(project, pipeline, count, output, seed)
    return told


def test_rows_are_the_datasets_and_say_what_made_them(project: Any, tmp_path: Path) -> None:
    output = tmp_path / "new" / "made.parquet"
    told = ask(project, output)
    rows = pq.read_table(output)
    assert rows.column_names == ["image", "model_version", "run_key"]
    assert rows.schema.field("image").type == BARS.splits["test"].schema.field("image").type
    assert set(rows["model_version"].to_pylist()) == {"1"} and set(rows["run_key"].to_pylist()) == {"feed" * 16}
    assert (told["rows"], rows.num_rows, told["model_version"], told["run_key"]) == (7, 7, "1", "feed" * 16)
    facts = json.loads(pq.read_schema(output).metadata[b"tidemill.samples"])
    assert (facts["rows"], facts["seed"], facts["model_version"]) == (7, 0, "1")
    with Image.open(told["picture"]) as picture:
        assert min(picture.size) > 200
    assert sorted(file.name for file in output.parent.iterdir()) == ["made.parquet", "made.png"]


def test_champion_number_and_seed_say_every_byte(project: Any, tmp_path: Path) -> None:
    def left(name: str, **how: Any) -> tuple[bytes, bytes]:
        output = tmp_path / name
        ask(project, output, **how)
        return output.read_bytes(), output.with_suffix(".png").read_bytes()

    first = left("a.parquet")
    assert left("b.parquet") == first == left("a.parquet"), "in another file, and in the place of its own"
    for other in (left("c.parquet", seed=1), left("d.parquet", count=8)):
        assert other[0] != first[0] and other[1] != first[1]


def test_many_rows_are_made_in_blocks_none_like_another(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "BLOCK_ROWS", 20)
    ask(project, tmp_path / "made.parquet", count=130)
    rows = pq.read_table(tmp_path / "made.parquet")["image"].combine_chunks().to_numpy_ndarray()
    assert len({row.tobytes() for row in rows}) == 130
    with Image.open(tmp_path / "made.png") as whole:
        shape = whole.size
    ask(project, tmp_path / "few.parquet", count=20)
    with Image.open(tmp_path / "few.png") as few:
        assert few.size[1] < shape[1], "a picture shows up to 100 of all rows, whatever the blocks"


@pytest.mark.parametrize("count", [0, -3])
def test_there_must_be_a_row_to_make(project: Any, tmp_path: Path, count: int) -> None:
    with pytest.raises(ParamsError, match=f"got {count} rows, expected at least 1"):
        ask(project, tmp_path / "made.parquet", count=count)


def test_without_a_champion_nothing_is_made(project: Any, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="'empty' has no champion"):
        ask(project, tmp_path / "made.parquet", pipeline="empty")
    assert not (tmp_path / "made.parquet").exists()


def test_a_family_that_makes_no_samples_says_so(
    project: Any, models: dict[str, Path], data: Data, tmp_path: Path
) -> None:
    registry.register(
        project.workspace, candidate(project.workspace, models["good"], data, "k"), data, OBJECTIVE, Gate()
    )
    with pytest.raises(ParamsError, match="version 1 of tides makes no samples"):
        ask(project, tmp_path / "made.parquet", pipeline="tides")


def test_an_output_that_cannot_be_is_told_before_anything_is_made(project: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    with pytest.raises(TidemillError, match="the samples cannot be written"):
        ask(project, blocked / "made.parquet")
    with pytest.raises(ParamsError, match="got a folder"):
        ask(project, tmp_path)
    with pytest.raises(ParamsError, match="got a picture's name"):
        ask(project, tmp_path / "made.png")


def test_files_of_others_are_not_replaced(project: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": np.arange(3)}), theirs)
    (tmp_path / "plain.parquet").write_text("no Parquet")
    (tmp_path / "photo.png").write_text("a photo")
    for name, harmed in (("rows", "rows.parquet"), ("plain", "plain.parquet"), ("photo", "photo.png")):
        with pytest.raises(ParamsError, match="holds no samples, and is not replaced") as told:
            ask(project, tmp_path / f"{name}.parquet")
        assert harmed in str(told.value)
    assert pq.read_table(theirs)["x"].to_pylist() == [0, 1, 2] and (tmp_path / "photo.png").read_text() == "a photo"


def test_what_fails_half_way_leaves_what_stood_there(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "made.parquet"
    ask(project, output)
    stood = output.read_bytes(), output.with_suffix(".png").read_bytes()
    monkeypatch.setattr(samples, "BLOCK_ROWS", 4)
    shipped = type(registry.load(project.workspace, "bars", 1))
    whole = shipped.sample
    monkeypatch.setattr(shipped, "sample", lambda self, count, seed: whole(self, min(count, 3), seed))
    with pytest.raises(TidemillError, match="does not make what it was asked for"):
        ask(project, output, seed=9)
    assert (output.read_bytes(), output.with_suffix(".png").read_bytes()) == stood
    assert sorted(file.name for file in tmp_path.glob("*made*")) == ["made.parquet", "made.png"]
