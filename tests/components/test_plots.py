"""Plots follow from the task, say the truth of the test rows, and are the same bytes each time."""

from __future__ import annotations

import csv
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from components import plots
from components.contract import Column, Data, Hyper, Metrics, Objective, Outcomes, Spec, Task
from components.model import Model
from components.plots import figures, samples
from components.sweep import Trial

ROWS = 60
IMAGE, SERIES = (1, 8, 8), (2, 32)
OBJECTIVE = Objective("loss", "min")


class Knowing:
    """A family that answers what its net, a table of answers by the column `x`, holds."""

    def score(self, net: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        at = batch.column("x").to_numpy().astype(int)
        return net.take(pa.array(at)).combine_chunks().to_batches()[0]

    def outputs(self, spec: Spec) -> pa.Schema:
        return OUTPUTS[spec.task, len(spec.classes)]

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        return {f"{split}/loss": 0.7}


def _probabilities(classes: int) -> pa.Schema:
    return pa.schema([("class", pa.string()), *((f"probability_{i}", pa.float32()) for i in range(classes))])


OUTPUTS: dict[tuple[Task, int], pa.Schema] = {
    ("classification", 2): _probabilities(2),
    ("classification", 3): _probabilities(3),
    ("regression", 0): pa.schema([("prediction", pa.float64())]),
    ("anomaly", 2): pa.schema([("anomaly_score", pa.float32())]),
    ("control", 0): pa.schema([("action", pa.int64())]),
    ("text2text", 0): pa.schema([("text", pa.string()), ("score", pa.float64())]),
}


def made(
    task: Task, target: Any, answers: dict[str, Any], classes: int = 0, shape: tuple[int, ...] = ()
) -> tuple[Model, Data]:
    """A model with these answers, and data whose splits are all the same rows."""
    names = tuple(str(i) for i in range(classes))
    columns: tuple[Column, ...] = (Column("x", "number"),)
    table = pa.table({"x": np.arange(ROWS, dtype=np.float64), "name": [f"r{i}" for i in range(ROWS)], "y": target})
    if shape:
        columns += (Column("image", "tensor", "uint8", shape),)
        pixels = np.arange(ROWS * 64, dtype=np.uint8).reshape(ROWS, *shape)
        table = table.append_column("image", pa.FixedShapeTensorArray.from_numpy_ndarray(pixels))
    spec = Spec("rows", task, columns, "y", names, "name")
    net = pa.table(answers, OUTPUTS[task, classes])
    return Model(Knowing(), spec, {}, net, ""), Data(spec, dict.fromkeys(("train", "val", "test"), table))


def classifier(classes: int, shape: tuple[int, ...] = ()) -> tuple[Model, Data]:
    """Right and sure of itself, but for row 17, of which it is surest, and row 23."""
    truth = np.arange(ROWS) % classes
    probability = np.full((ROWS, classes), 0.1 / (classes - 1))
    probability[np.arange(ROWS), truth] = 0.9
    for row, sure in ((17, 0.99), (23, 0.6)):
        probability[row] = (1 - sure) / (classes - 1)
        probability[row, (truth[row] + 1) % classes] = sure
    answers = {"class": probability.argmax(1).astype(str)} | {
        f"probability_{i}": probability[:, i] for i in range(classes)
    }
    return made("classification", truth.astype(str), answers, classes, shape)


def trials() -> list[Trial]:
    def curve(start: float, epochs: int) -> list[Metrics]:
        return [{"train/loss": start / e, "val/loss": start / e + 0.01 * e} for e in range(1, epochs + 1)]

    best, other = curve(0.5, 6), curve(0.9, 3)
    failed = Trial("cccc", {}, "failed", [], error="NaN")
    return [
        Trial("aaaa", {}, "finished", best, best[5]["val/loss"], 6),
        Trial("bbbb", {}, "stopped", other, 0.33, 3),
        failed,
    ]


def read(file: Path) -> list[list[str]]:
    with file.open(newline="") as opened:
        return list(csv.reader(opened))


def looks_drawn(file: Path) -> bool:
    """Whether the picture is large enough and holds more than a few shades."""
    with Image.open(file) as picture:
        assert not {"Software", "Creation Time", "date"} & set(picture.info)
        return min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 20) or []) > 50


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("binary")
    files = plots.draw(folder, *classifier(2), trials(), OBJECTIVE, "pipeline")
    assert files == sorted(folder.iterdir())
    return folder


def test_a_classifier_with_two_classes(binary: Path) -> None:
    names = ["calibration.png", "confusion.csv", "confusion.png", "curves.csv", "learning_curves.png", "worst.csv"]
    assert sorted(file.name for file in binary.iterdir()) == names
    assert all(looks_drawn(file) for file in binary.glob("*.png"))
    head, *rows = read(binary / "confusion.csv")
    assert head == ["actual", "predicted"] and len(rows) == ROWS
    assert [i for i, (actual, predicted) in enumerate(rows) if actual != predicted] == [17, 23]


def test_the_worst_rows_come_first(binary: Path) -> None:
    head, first, second, *_ = read(binary / "worst.csv")
    assert head == ["row", "name", "actual", "predicted", "loss", "x"]
    assert first[:4] == ["17", "r17", "1", "0"] and second[:4] == ["23", "r23", "1", "0"]
    assert float(first[4]) == pytest.approx(-np.log(0.01), rel=1e-5) and float(first[5]) == 17


def test_curves_are_those_of_the_best_trial(binary: Path) -> None:
    head, *rows = read(binary / "curves.csv")
    assert head == ["step", "train/loss", "val/loss"]
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5, 6] and float(rows[1][1]) == 0.25


@pytest.mark.parametrize("shape", [IMAGE, SERIES])
def test_images_and_series_get_a_grid(tmp_path: Path, shape: tuple[int, ...]) -> None:
    files = plots.draw(tmp_path, *classifier(3, shape), trials(), OBJECTIVE)
    assert "worst.png" in {f.name for f in files} and "calibration.png" not in {f.name for f in files}
    assert looks_drawn(tmp_path / "worst.png")


STRANGE = {"a long one": "a $5 film, ^ and _ and all: " * 30, "signs of other kinds": "日本語\x00\n", "none": None}


@pytest.mark.parametrize("said", STRANGE.values(), ids=STRANGE)
def test_texts_are_shown_as_they_are(tmp_path: Path, said: str | None) -> None:
    model, data = classifier(2)
    texts = pa.array([f"text {i}" if i != 17 else said for i in range(ROWS)])
    rows = {split: table.append_column("said", texts) for split, table in data.splits.items()}
    data = Data(dataclasses.replace(data.spec, columns=(*data.spec.columns, Column("said", "text"))), rows)
    plots.draw(tmp_path, model, data, trials(), OBJECTIVE)
    assert looks_drawn(tmp_path / "worst.png")
    head, first, second, *_ = read(tmp_path / "worst.csv")
    assert (first[head.index("said")], second[head.index("said")]) == (said or "", "text 23")


class Writing(Knowing):
    """Writes as it was told to, and counts for how many rows."""

    asked = 0

    def score(self, net: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        Writing.asked += len(batch)
        at = pa.array([int(said.removeprefix("text ")) for said in batch.column("said").to_pylist()])
        return net.take(at).combine_chunks().to_batches()[0]

    def judge(self, net: pa.Table, data: Data, split: str) -> Outcomes:
        right = np.array(net["text"].to_pylist()[: len(data.splits[split])]) == data.splits[split]["y"].to_pylist()
        return {"loss": np.where(right, 0.5, 3.0)}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        return {f"{split}/loss": float(outcomes["loss"].mean())}


def test_text_to_text_shows_what_was_read_wanted_and_written(tmp_path: Path) -> None:
    rows, bad = 700, (17, 600)
    table = pa.table({"said": [f"text {i}" for i in range(rows)], "y": [f"Text {i}" for i in range(rows)]})
    written = pa.table(
        {"text": [f"{'T' if i not in bad else 't'}ext {i}" for i in range(rows)], "score": [-0.25] * rows},
        OUTPUTS["text2text", 0],
    )
    spec = Spec("texts", "text2text", (Column("said", "text", longest=40),), "y")
    Writing.asked = 0
    model, data = Model(Writing(), spec, {}, written, ""), Data(spec, dict.fromkeys(("train", "val", "test"), table))
    files = plots.draw(tmp_path, model, data, trials(), OBJECTIVE)
    assert [f.name for f in files] == ["curves.csv", "learning_curves.png", "worst.csv", "worst.png"]
    assert Writing.asked == 512, "the rest of the test rows is not written for"
    head, first, second, *_ = read(tmp_path / "worst.csv")
    assert head == ["row", "said", "wanted", "written", "loss", "score"]
    assert first == ["17", "text 17", "Text 17", "text 17", "3", "-0.25"] and second[0] == "0"
    assert looks_drawn(tmp_path / "worst.png")


def test_series_with_gaps_and_of_one_value_are_drawn(tmp_path: Path) -> None:
    made = figures.figure(9.6, 7.2, "series")
    gap = np.array([[1, np.nan, 3], [2, 2, 2]])
    figures.strips(made, [gap, np.full((1, 3), np.nan), np.ones((1, 3))], ["a", "b", "c"], columns=2)
    assert looks_drawn(figures.save(made, tmp_path / "strips.png"))


def test_regression(tmp_path: Path) -> None:
    truth = np.linspace(0, 10, ROWS)
    predicted = truth + 0.1
    predicted[9] += 5
    files = plots.draw(tmp_path, *made("regression", truth, {"prediction": predicted}), trials(), OBJECTIVE)
    assert [f.name for f in files] == ["curves.csv", "learning_curves.png", "residuals.png", "worst.csv"]
    assert looks_drawn(tmp_path / "residuals.png")
    assert read(tmp_path / "worst.csv")[1][:2] == ["9", "r9"]


def test_anomaly(tmp_path: Path) -> None:
    truth = (np.arange(ROWS) % 2).astype(str)
    score = np.where(truth == "1", 3.0, 1.0) + np.arange(ROWS) / 100
    files = plots.draw(tmp_path, *made("anomaly", truth, {"anomaly_score": score}, 2), trials(), OBJECTIVE)
    assert [f.name for f in files] == ["curves.csv", "learning_curves.png", "scores.png", "worst.csv"]
    assert looks_drawn(tmp_path / "scores.png") and read(tmp_path / "worst.csv")[1][0] == "59"


def test_the_same_bytes_again_and_from_threads(tmp_path: Path) -> None:
    def drawn(number: int) -> dict[str, bytes]:
        files = plots.draw(tmp_path / str(number), *classifier(3, IMAGE), trials(), OBJECTIVE)
        return {file.name: file.read_bytes() for file in files}

    first = drawn(0)
    with ThreadPoolExecutor(2) as pool:
        assert all(again == first for again in pool.map(drawn, (1, 2)))


def test_the_best_with_other_seeds_is_drawn_beside_it_and_not_among_its_rivals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    real = figures.curves
    monkeypatch.setattr(figures, "curves", lambda *some: (given.append(some[1:]), real(*some))[1])
    best, *others = trials()
    again = [
        dataclasses.replace(best, key="aaaa-8", curve=trials()[1].curve, seed=8),
        dataclasses.replace(best, key="aaaa-9", status="failed", seed=9),
    ]
    plots.draw(tmp_path / "one", *classifier(2), [best, *others], OBJECTIVE)
    plots.draw(tmp_path / "two", *classifier(2), [best, *others, *again], OBJECTIVE)
    (*alone, none), (*beside, by_seed) = given
    assert alone == beside and none == [] and by_seed == [[m["val/loss"] for m in again[0].curve]]
    one, two = ((tmp_path / name / "learning_curves.png").read_bytes() for name in ("one", "two"))
    assert one != two
    assert (tmp_path / "one" / "curves.csv").read_bytes() == (tmp_path / "two" / "curves.csv").read_bytes()


def test_no_curve_at_all_is_no_fault(tmp_path: Path) -> None:
    one = [Trial("aaaa", {}, "finished", [{"val/loss": float("nan")}], float("nan"), 0)]
    files = plots.draw(tmp_path, *classifier(2), one, OBJECTIVE)
    assert (tmp_path / "learning_curves.png") in files


# ── made rows ───────────────────────────────────────────────────────────────────────────────────────────


class Making(Knowing):
    """Makes rows of one shade each; scores are of no use to these plots."""

    learning, tasks, kinds, Settings = "unsupervised", ("generation",), ("tensor",), dict

    def objective(self, spec: Spec) -> Objective:
        return OBJECTIVE

    def search_space(self, spec: Spec) -> dict[str, Any]:
        return {}

    def fit(self, data: Data, hyper: Hyper, seed: int, state: Any) -> Any: ...

    def load(self, spec: Spec, hyper: Hyper, state: Any) -> Any: ...

    def judge(self, net: Any, data: Data, split: str) -> Any: ...

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Any: ...

    def score(self, net: Any, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch({"score": np.zeros(len(batch))})

    def outputs(self, spec: Spec) -> pa.Schema:
        return pa.schema([("score", pa.float64())])

    def encode(self, net: Any, batch: pa.RecordBatch) -> Any:
        return batch.column("image").to_numpy_ndarray().reshape(len(batch), -1).astype(np.float32)

    def sample(self, net: tuple[int, ...], count: int, seed: int) -> pa.RecordBatch:
        shades = np.random.default_rng(seed).integers(0, 255, (count, *[1] * len(net)))
        return self._rows(net, np.broadcast_to(shades, (count, *net)))

    def _rows(self, net: tuple[int, ...], values: Any) -> pa.RecordBatch:
        column = np.ascontiguousarray(values.reshape(-1, *net).astype(np.uint8))
        return pa.record_batch({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(column)})


class Walking(Making):
    seen: Any = None

    def decode(self, net: tuple[int, ...], codes: Any) -> pa.RecordBatch:
        type(self).seen = codes
        return self._rows(net, codes)


def maker(family: Any, shape: tuple[int, ...], rows: int = 100) -> tuple[Model, Data]:
    column = Column("image", "tensor", "uint8", shape)
    pixels = np.random.default_rng(0).integers(0, 256, (rows, *shape)).astype(np.uint8)
    table = pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)})
    spec = Spec("rows", "generation", (column,))
    return Model(family(), spec, {}, shape, ""), Data(spec, dict.fromkeys(("train", "val", "test"), table))


@pytest.mark.parametrize("shape", [IMAGE, (3, 9, 8), (8, 8), SERIES])
def test_made_rows_stand_beside_real_ones(tmp_path: Path, shape: tuple[int, ...]) -> None:
    files = plots.draw(tmp_path, *maker(Making, shape), trials(), OBJECTIVE)
    assert {f.name for f in files} == {"curves.csv", "learning_curves.png", "samples.png"}
    assert looks_drawn(tmp_path / "samples.png")
    few = plots.draw(tmp_path / "few", *maker(Making, shape, rows=3), trials(), OBJECTIVE)
    assert "samples.png" in {f.name for f in few}


def test_who_can_decode_shows_walks_between_rows(tmp_path: Path) -> None:
    model, data = maker(Walking, IMAGE)
    plots.draw(tmp_path, model, data, trials(), OBJECTIVE)
    assert looks_drawn(tmp_path / "walk.png")
    rows = samples.spread(data.splits["test"])["image"].combine_chunks().to_numpy_ndarray()
    assert len(rows) == samples.SHOWN
    first, second = (rows[i].ravel() for i in (0, samples.SHOWN // 2))
    steps = Walking.seen[: samples.STEPS]
    assert len(Walking.seen) == samples.WALKS * samples.STEPS
    assert np.allclose(steps[0], first) and np.allclose(steps[-1], second), "from one row's code to the other's"
    assert np.allclose(np.diff(steps, axis=0), (second.astype(float) - first) / (samples.STEPS - 1), atol=1e-4)
    again = tmp_path / "again"
    plots.draw(again, *maker(Walking, IMAGE), trials(), OBJECTIVE)
    for name in ("samples.png", "walk.png"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()
    assert "walk.png" not in {
        f.name for f in plots.draw(tmp_path / "one", *maker(Walking, IMAGE, 1), trials(), OBJECTIVE)
    }


def test_rows_that_nobody_can_look_at_have_no_picture(tmp_path: Path) -> None:
    files = plots.draw(tmp_path, *maker(Making, (5,)), trials(), OBJECTIVE)
    assert {f.name for f in files} == {"curves.csv", "learning_curves.png"}
