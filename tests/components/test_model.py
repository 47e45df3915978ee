"""A model folder predicts what its net predicted, is refused when damaged, and holds nothing that is pickled."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from components import families, model
from components.contract import Data
from components.errors import RegistryError

from .cases import evaluate
from .shelf import SPEC


@pytest.fixture
def folder(models: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(models["good"], tmp_path / "model"))


def batch(data: Data) -> pa.RecordBatch:
    return data.splits["test"].select([c.name for c in SPEC.columns]).combine_chunks().to_batches()[0]


def test_a_saved_model_predicts_as_the_net_that_was_saved(data: Data, tmp_path: Path) -> None:
    family, hyper = families.family("mlp"), {"width": 16, "depth": 1}
    *_, last = itertools.islice(family.fit(data, hyper, 3, None), 3)
    state = last.state()
    net = family.load(SPEC, hyper, state.served())
    digest = model.save(tmp_path, families.import_path("mlp"), SPEC, hyper, state)
    loaded = model.load(tmp_path)
    assert loaded.weights_sha256 == digest == model.sha256(tmp_path / model.WEIGHTS)
    assert loaded.score(batch(data)).equals(family.score(net, batch(data)))
    assert loaded.evaluate(dict(data.splits), "test") == evaluate(family, net, data, "test")
    assert loaded.score(batch(data)).schema.names == loaded.outputs().names
    assert (loaded.spec, loaded.hyper) == (SPEC, hyper)


def test_the_same_training_gives_the_same_files(data: Data, tmp_path: Path) -> None:
    from .shelf import train

    first, second = train(tmp_path / "a", data, 2), train(tmp_path / "b", data, 2)
    for name in (model.WEIGHTS, model.DESCRIPTION):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_only_what_is_served_is_kept_and_nothing_is_pickled(folder: Path) -> None:
    from safetensors import safe_open

    assert sorted(file.name for file in folder.iterdir()) == [model.DESCRIPTION, model.WEIGHTS]
    with safe_open(folder / model.WEIGHTS, "pt") as weights:
        assert weights.keys() and not any(name.startswith(("net/", "optimizer/")) for name in weights.keys())  # noqa: SIM118
    assert json.loads((folder / model.DESCRIPTION).read_text())["family"] == "components.families.mlp:Mlp"


def test_a_changed_byte_is_refused(folder: Path) -> None:
    weights = bytearray((folder / model.WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / model.WEIGHTS).write_bytes(weights)
    with pytest.raises(RegistryError, match="not those that were saved") as caught:
        model.load(folder)
    assert "SHA-256" in caught.value.why and caught.value.fix


def test_absent_weights_are_refused(folder: Path) -> None:
    (folder / model.WEIGHTS).unlink()
    with pytest.raises(RegistryError, match="not those that were saved"):
        model.load(folder)


def test_a_folder_that_is_no_model_is_refused(folder: Path) -> None:
    (folder / model.DESCRIPTION).write_text("{")
    for place in (folder, folder / "nowhere"):
        with pytest.raises(RegistryError, match="not a model folder"):
            model.load(place)
