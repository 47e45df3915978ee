"""What is said of codes: probes, clusters and maps that are right where the answer is known, and the same each time."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from components import codes, plots
from components.contract import Codes, Column, Data, Hyper, Metrics, Objective, Spec
from components.model import Model
from components.sweep import Trial

CLASSES = 4


def islands(rows: int = 400, spread: float = 0.5, seed: int = 0) -> codes.Rows:
    """Rows around four places of a space of five axes, as many around each."""
    draw = np.random.default_rng(seed)
    label_N = np.arange(rows) % CLASSES
    places = np.eye(CLASSES, 5) * 8
    return codes.Rows(places[label_N] + draw.normal(0, spread, (rows, 5)), label_N)


def test_a_probe_finds_what_is_linear_and_no_more() -> None:
    found = codes.probe(islands(), islands(200, seed=1), (8, 100, 0))
    assert list(found) == [8, 100, 400]
    assert found[100] == found[400] == 1.0
    chance = codes.probe(islands(spread=500), islands(200, spread=500, seed=1), (100, 0))
    assert all(accuracy < 0.45 for accuracy in chance.values())
    assert codes.probe(islands(), islands(200, seed=1), (8, 100, 0)) == found


def test_a_probe_leaves_out_sizes_that_there_are_not() -> None:
    assert list(codes.probe(islands(80), islands(40, seed=1), (2, 40, 100, 0))) == [40, 80]


def test_labels_are_drawn_evenly_over_the_classes() -> None:
    label_N = np.repeat([0, 1, 2], [500, 300, 4])
    for size in (10, 80):
        at = codes.subset(label_N, size, 3)
        assert len(np.unique(at)) == len(at) == size
        counts = np.bincount(label_N[at], minlength=3)
        assert counts.min() >= 1 and abs(counts[0] / size - 500 / 804) < 0.1
        assert np.array_equal(at, codes.subset(label_N, size, 3)) and not np.array_equal(
            at, codes.subset(label_N, size, 4)
        )


def test_clusters_agree_with_classes_that_lie_apart() -> None:
    rows = islands()
    assert codes.cluster(rows.inputs_ND, rows.label_N) == {"nmi": 1.0, "ari": 1.0}
    shuffled = np.random.default_rng(0).permutation(rows.label_N)
    assert all(abs(value) < 0.05 for value in codes.cluster(rows.inputs_ND, shuffled).values())


def test_rows_that_are_all_alike_are_one_cluster_and_have_a_map() -> None:
    same = np.ones((30, 3), np.float32)
    assert codes.clustered(same, 4).tolist() == [0] * 30
    assert np.isfinite(codes.map2(same)).all()


@pytest.mark.parametrize("rows", [1, 2, 9, 40, 200])
def test_a_map_keeps_neighbours_together_and_is_the_same_each_time(rows: int) -> None:
    seen = islands(rows)
    xy_N2 = codes.map2(seen.inputs_ND)
    assert xy_N2.shape == (rows, 2) and np.isfinite(xy_N2).all()
    assert codes.map2(seen.inputs_ND).tobytes() == xy_N2.tobytes()
    if rows == 200:
        assert codes.cluster(xy_N2, seen.label_N)["ari"] > 0.95


# ── the report ──────────────────────────────────────────────────────────────────────────────────────────


class Summing:
    """Its codes are the mean of each quarter of an image; its error is how bright that is."""

    def encode(self, net: None, batch: pa.RecordBatch) -> Codes:
        pixels = np.stack(batch.column("image").to_numpy_ndarray()).reshape(-1, 4, 16)
        found: Codes = pixels.mean(2).astype(np.float32)
        return found

    def score(self, net: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch({"reconstruction_error": pa.array(self.encode(net, batch).sum(1))})

    def outputs(self, spec: Spec) -> pa.Schema:
        return pa.schema([("reconstruction_error", pa.float32())])

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        return {f"{split}/reconstruction_error": 0.5}


def quarters(rows: int = 160) -> tuple[Model, Data]:
    """Images of one channel in which one row of four is bright."""
    draw, label_N = np.random.default_rng(0), np.arange(rows) % CLASSES
    pixels = draw.integers(0, 60, (rows, 1, 4, 16)).astype(np.uint8)
    pixels[np.arange(rows), 0, label_N] += 150
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels.reshape(rows, 1, 8, 8))
    table = pa.table({"image": image, "y": pa.array(label_N.astype(str))})
    names = tuple(str(i) for i in range(CLASSES))
    spec = Spec("rows", "representation", (Column("image", "tensor", "uint8", (1, 8, 8)),), "y", names)
    return Model(Summing(), spec, {}, None, ""), Data(spec, dict.fromkeys(("train", "val", "test"), table))


def drawn(folder: Path, model: Model, data: Data) -> dict[str, bytes]:
    trial = Trial("aaaa", {}, "finished", [{"val/reconstruction_error": 0.4, "train/loss": 0.5}], 0.4, 1)
    files = plots.draw(folder, model, data, [trial], Objective("reconstruction_error", "min"))
    return {file.name: file.read_bytes() for file in files}


def read(file: Path) -> list[list[str]]:
    with file.open(newline="") as opened:
        return list(csv.reader(opened))


def shades(file: Path) -> set[Any]:
    with Image.open(file) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}


def test_a_report_has_a_probe_and_a_map_the_same_bytes_each_time(tmp_path: Path) -> None:
    made = drawn(tmp_path / "one", *quarters())
    names = ["curves.csv", "learning_curves.png", "map.png", "probe.csv", "probe.png", "worst.csv", "worst.png"]
    assert list(made) == names and drawn(tmp_path / "two", *quarters()) == made
    head, some, every = read(tmp_path / "one" / "probe.csv")
    assert head == ["labels", "codes", "raw inputs"] and (some[0], every[0]) == ("100", "160")
    assert float(some[1]) == 1.0
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115), (230, 159, 0)} <= shades(tmp_path / "one" / "map.png")


def test_without_classes_there_is_a_map_by_cluster_and_no_probe(tmp_path: Path) -> None:
    model, data = quarters()
    spec = dataclasses.replace(data.spec, target=None, classes=())
    bare = Data(spec, {split: rows.drop(["y"]) for split, rows in data.splits.items()})
    made = drawn(tmp_path, dataclasses.replace(model, spec=spec), bare)
    assert "map.png" in made and not {"probe.csv", "probe.png"} & made.keys()
