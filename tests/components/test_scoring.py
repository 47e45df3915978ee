"""Scoring as its user meets it: what comes out, what is kept, what is refused, and what a death leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components import model as models
from components import scoring
from components.contract import Column, Spec
from components.errors import BadInput, Busy, ParamsError, TidemillError
from components.scoring import Job, Scored, score

from . import shelf

SPEC = Spec(
    "tides",
    "regression",
    (Column("height", "number"), Column("port", "category"), Column("day", "date")),
    target="depth",
    id="station",
)
JOB = Job("7", "run-key", batch_rows=4)
REPOSITORY = Path(__file__).parents[2]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@dataclasses.dataclass
class Gauge:
    """A model made by hand: a number that depends on every input, so that any mix-up of rows shows."""

    spec: Spec = SPEC
    weights_sha256: str = "w" * 64
    before: Callable[[int], None] = lambda _: None  # told the number of batches so far
    batches: int = 0
    profile: Any = None

    def encode(self, batch: pa.RecordBatch) -> Any:
        raise AssertionError("a table has no codes to compare")

    def outputs(self) -> pa.Schema:
        return pa.schema([("level", pa.float64())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.before(self.batches)
        self.batches += 1
        return pa.record_batch([level(batch)], schema=self.outputs())


def level(rows: Any) -> Any:
    height = pc.fill_null(pc.cast(rows["height"], pa.float64()), -1.0)
    port = pc.cast(pc.utf8_length(pc.fill_null(rows["port"], "")), pa.float64())
    day = pc.cast(pc.day(pc.fill_null(rows["day"], datetime.datetime(2000, 1, 31))), pa.float64())
    return pc.add(pc.add(height, pc.multiply(port, 100.0)), pc.multiply(day, 1e4))


def rows(count: int = 10, first: int = 0) -> pa.Table:
    numbers = range(first, first + count)
    day = datetime.datetime(2024, 5, 1)
    return pa.table(
        {
            "station": [f"s{i}" for i in numbers],
            "height": pa.array([None if i % 5 == 4 else i / 2 for i in numbers], pa.float64()),
            "port": pa.array([None if i % 7 == 3 else "x" * (i % 4 + 1) for i in numbers], pa.string()),
            "day": pa.array([day + datetime.timedelta(days=i % 20) for i in numbers], pa.timestamp("us")),
            "depth": pa.array(numbers, pa.int64()),
        }
    )


def write(file: Path, table: pa.Table) -> Path:
    """The table as a file of the kind that its name says; a csv spells missing values in several ways."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
        return file
    with file.open("w", newline="", encoding="utf-8") as opened:
        out = csv.writer(opened)
        out.writerow(table.column_names)
        for i, row in enumerate(zip(*(c.to_pylist() for c in table.columns), strict=True)):
            out.writerow([("", "NA", "?")[i % 3] if v is None else v for v in row])
    return file


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in" / "rows.parquet", rows())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "scores.parquet"


# ── what comes out ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_every_row_has_its_id_its_score_and_where_that_came_from(tmp_path: Path, output: Path, name: str) -> None:
    table = rows(11)
    scored = score(Gauge(), write(tmp_path / "in" / name, table), output, JOB)
    found = pq.read_table(output)
    assert found.column_names == ["station", "level", "model_version", "run_key"]
    assert found["station"].to_pylist() == table["station"].to_pylist()
    assert found["level"].to_pylist() == level(table).to_pylist()
    assert set(found["model_version"].to_pylist()) == {"7"}
    assert set(found["run_key"].to_pylist()) == {"run-key"}
    assert (scored.rows, scored.files, scored.unchanged, scored.output) == (11, 1, False, output)


def test_rows_without_an_id_are_numbered(tmp_path: Path, output: Path) -> None:
    score(Gauge(), write(tmp_path / "in.parquet", rows(9).drop("station")), output, JOB)
    assert pq.read_table(output)["row"].to_pylist() == list(range(9))


def test_another_id_or_none_can_be_asked_for(source: Path, output: Path) -> None:
    score(Gauge(), source, output, dataclasses.replace(JOB, id="depth"))
    assert pq.read_table(output)["depth"].to_pylist() == list(range(10))
    score(Gauge(), source, output, dataclasses.replace(JOB, id="row"))
    assert pq.read_table(output)["row"].to_pylist() == list(range(10))


@pytest.mark.parametrize(("ids", "kind"), [(["1", "20", "300"], "int64"), (["1", "020", "300"], "string")])
def test_ids_of_a_csv_keep_their_spelling(tmp_path: Path, output: Path, ids: list[str], kind: str) -> None:
    table = rows(3).set_column(0, "station", pa.array(ids))
    score(Gauge(), write(tmp_path / "in.csv", table), output, JOB)
    found = pq.read_table(output)["station"]
    assert str(found.type) == kind
    assert [str(v) for v in found.to_pylist()] == ids


def test_repeated_ids_are_no_fault(tmp_path: Path, output: Path) -> None:
    table = rows(3).set_column(0, "station", pa.array(["a", "a", "b"]))
    score(Gauge(), write(tmp_path / "in.parquet", table), output, JOB)
    assert pq.read_table(output)["station"].to_pylist() == ["a", "a", "b"]


def test_a_target_is_not_needed_and_a_split_not_read(tmp_path: Path, output: Path) -> None:
    score(Gauge(), write(tmp_path / "a.parquet", rows().drop("depth")), output, JOB)
    with_split = rows().append_column("split", pa.array(["test"] * 10))
    score(Gauge(), write(tmp_path / "b.parquet", with_split), output.with_name("b.parquet"), JOB)
    assert pq.read_table(output) == pq.read_table(output.with_name("b.parquet"))


def test_other_columns_are_let_through_when_known_or_ignored(tmp_path: Path, output: Path) -> None:
    source = write(tmp_path / "in.parquet", rows().append_column("note", pa.array(["n"] * 10)))
    for job in (dataclasses.replace(JOB, known=("note",)), dataclasses.replace(JOB, ignore_extra=True)):
        assert score(Gauge(), source, output, job).rows == 10
        output.unlink()


def test_values_are_read_as_the_spec_says_whatever_the_file_calls_them(tmp_path: Path, output: Path) -> None:
    table = pa.table(
        {
            "height": ["1", " 2.5 ", "?"],
            "port": pa.array([1.0, 2.0, None]),
            "day": pa.array([datetime.date(2024, 5, 2), None, datetime.date(2024, 5, 4)]),
        }
    )
    read: list[pa.RecordBatch] = []
    gauge = Gauge()
    plain, gauge.score = gauge.score, lambda batch: (read.append(batch), plain(batch))[1]  # type: ignore[method-assign]
    score(gauge, write(tmp_path / "in.parquet", table), output, JOB)
    assert read[0]["height"].to_pylist() == [1.0, 2.5, None]
    assert read[0]["port"].to_pylist() == ["1", "2", None]
    assert read[0]["day"].type == pa.timestamp("us")


@pytest.mark.parametrize("kind", ["tensor", "fixed list", "list"])
def test_tensors_arrive_in_the_shape_of_the_spec(tmp_path: Path, output: Path, kind: str) -> None:
    values = np.arange(5 * 6, dtype=np.uint8)
    storage = pa.FixedSizeListArray.from_arrays(pa.array(values), 6)
    tensor_type = pa.fixed_shape_tensor(pa.uint8(), (2, 3))
    given = {
        "tensor": pa.ExtensionArray.from_storage(tensor_type, storage),
        "fixed list": storage,
        "list": pa.array(values.reshape(5, 6).astype(np.int64).tolist()),
    }[kind]

    class Sums(Gauge):
        def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            assert batch["image"].type == tensor_type
            sums = batch["image"].to_numpy_ndarray().sum(axis=(1, 2)).astype(np.float64)
            return pa.record_batch([pa.array(sums)], schema=self.outputs())

    model = Sums(Spec("d", "regression", (Column("image", "tensor", "uint8", (2, 3)),)))
    score(model, write(tmp_path / "in.parquet", pa.table({"image": given})), output, JOB)
    assert pq.read_table(output)["level"].to_pylist() == values.reshape(5, 6).sum(1).tolist()


def test_an_mlp_scores_in_batches_as_it_does_at_once(tmp_path: Path) -> None:
    data = shelf.tides()
    model = models.load(shelf.train(tmp_path / "model", data, epochs=1))
    table = data.splits["test"]
    source = write(tmp_path / "in.csv", table)
    score(model, source, tmp_path / "out.parquet", dataclasses.replace(JOB, batch_rows=16))
    found = pq.read_table(tmp_path / "out.parquet")
    wanted = model.score(table.select([c.name for c in data.spec.columns]).combine_chunks().to_batches()[0])
    assert found["station"].to_pylist() == table["station"].to_pylist()
    assert found["class"].to_pylist() == wanted["class"].to_pylist()
    assert np.allclose(found["probability_yes"].to_numpy(), wanted["probability_yes"].to_numpy(), atol=1e-6)


def test_progress_is_told_in_rows(source: Path, output: Path) -> None:
    told: list[int] = []
    score(Gauge(), source, output, JOB, told.append)
    assert told == [4, 8, 10, 10]


def test_no_more_than_a_few_batches_are_in_memory_at_once(tmp_path: Path, output: Path) -> None:
    """Constant memory: the reader waits for the model. The figures for real are in benchmarks/scoring.py."""
    read = 0

    class Counting(scoring.Table):
        def batches(self, rows: int) -> Any:
            nonlocal read
            for item in super().batches(rows):
                read += 1
                yield item

    source = write(tmp_path / "in.parquet", rows(400))
    gauge = Gauge(before=lambda done: seen.append(read - done))
    seen: list[int] = []
    opened = scoring.intake.open_file
    counting = lambda *given: Counting(**vars(opened(*given)))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring.intake, "open_file", counting)
        assert score(gauge, source, output, JOB).rows == 400
    assert read == 100
    assert max(seen) <= 5


# ── folders ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    write(place / "a.parquet", rows(5))
    write(place / "b.csv", rows(6, 5))
    write(place / "more" / "c.parquet", rows(7, 11))
    (place / "_SUCCESS").touch()
    return place


def test_a_folder_becomes_a_folder_that_reads_as_one_table(tmp_path: Path, folder: Path) -> None:
    scored = score(Gauge(), folder, tmp_path / "out", JOB)
    assert sorted(files(tmp_path / "out")) == ["_receipt.json", "a.parquet", "b.csv.parquet", "more/c.parquet"]
    assert pq.read_table(tmp_path / "out")["station"].to_pylist() == [f"s{i}" for i in range(18)]
    assert (scored.rows, scored.files, scored.kept) == (18, 3, 0)
    told = json.loads((tmp_path / "out" / "_receipt.json").read_text())
    assert told["rows"] == 18
    assert told["files"]["b.csv.parquet"]["source"] == "b.csv"


def test_only_what_changed_in_a_folder_is_scored_again(tmp_path: Path, folder: Path) -> None:
    score(Gauge(), folder, tmp_path / "out", JOB)
    write(folder / "d.parquet", rows(2, 18))
    write(folder / "a.parquet", rows(4))
    (folder / "b.csv").unlink()
    scored = score(Gauge(), folder, tmp_path / "out", JOB)
    assert (scored.rows, scored.files, scored.kept, scored.unchanged) == (13, 3, 1, False)
    assert sorted(files(tmp_path / "out")) == ["_receipt.json", "a.parquet", "d.parquet", "more/c.parquet"]


def test_an_empty_file_among_others_gives_an_empty_one(tmp_path: Path, folder: Path) -> None:
    write(folder / "e.csv", rows(0))
    assert score(Gauge(), folder, tmp_path / "out", JOB).rows == 18
    assert pq.read_table(tmp_path / "out" / "e.csv.parquet").num_rows == 0


# ── committed once ──────────────────────────────────────────────────────────────────────────────────────


def again(model: Gauge, source: Path, output: Path, job: Job = JOB) -> tuple[Scored, dict[str, bytes]]:
    return score(model, source, output, job), files(output if output.is_dir() else output.parent)


@pytest.mark.parametrize("whole", ["rows.parquet", ""])
def test_the_same_again_does_nothing(tmp_path: Path, source: Path, whole: str) -> None:
    output = tmp_path / "out" / "scores.parquet" if whole else tmp_path / "out"
    gauge = Gauge()
    first, left = again(gauge, source.parent / whole, output)
    batches = gauge.batches
    second, stands = again(gauge, source.parent / whole, output)
    assert (first.unchanged, second.unchanged, second.kept) == (False, True, 1)
    assert (gauge.batches, stands, second.key) == (batches, left, first.key)


@pytest.mark.parametrize(
    ("model", "job"),
    [
        (Gauge(weights_sha256="v" * 64), JOB),
        (Gauge(), dataclasses.replace(JOB, model_version="8")),
        (Gauge(), dataclasses.replace(JOB, run_key="other")),
        (Gauge(), dataclasses.replace(JOB, batch_rows=5)),
        (Gauge(), dataclasses.replace(JOB, id="row")),
    ],
)
def test_another_key_replaces_the_output(source: Path, output: Path, model: Gauge, job: Job) -> None:
    first, _ = again(Gauge(), source, output)
    second, _ = again(model, source, output, job)
    assert (second.unchanged, second.key != first.key) == (False, True)
    assert set(pq.read_table(output)["model_version"].to_pylist()) == {job.model_version}


def test_other_rows_replace_the_output(source: Path, output: Path) -> None:
    first, _ = again(Gauge(), source, output)
    write(source, rows(3))
    second, _ = again(Gauge(), source, output)
    assert (second.rows, second.unchanged, second.key != first.key) == (3, False, True)
    assert pq.read_table(output).num_rows == 3


def test_the_same_key_gives_the_same_bytes(tmp_path: Path, source: Path) -> None:
    _, left = again(Gauge(), source, tmp_path / "a" / "scores.parquet")
    _, right = again(Gauge(), source, tmp_path / "b" / "scores.parquet")
    assert left == right


def altered(content: bytes) -> bytes:
    """One bit of a page is other than it was; the footer is whole."""
    return content[:20] + bytes([content[20] ^ 1]) + content[21:]


@pytest.mark.parametrize("harm", ["altered", "cut", "gone", "no receipt", "broken receipt"])
def test_an_output_that_was_tampered_with_is_made_again(source: Path, output: Path, harm: str) -> None:
    scored, left = again(Gauge(), source, output)
    whole = output.read_bytes()
    if harm == "altered":
        output.write_bytes(altered(whole))
    elif harm == "cut":
        output.write_bytes(whole[:-30])
    elif harm == "gone":
        output.unlink()
    elif harm == "no receipt":
        scored.receipt.unlink()
    else:
        scored.receipt.write_text('{"files": 1}')
    second, stands = again(Gauge(), source, output)
    assert (second.unchanged, stands) == (False, left)


def test_a_file_of_a_folder_that_was_tampered_with_is_made_again(tmp_path: Path, folder: Path) -> None:
    _, left = again(Gauge(), folder, tmp_path / "out")
    harmed = tmp_path / "out" / "more" / "c.parquet"
    harmed.write_bytes(altered(harmed.read_bytes()))
    scored, stands = again(Gauge(), folder, tmp_path / "out")
    assert (scored.kept, stands) == (2, left)


def test_the_receipt_names_what_came_in_and_what_went_out(source: Path, output: Path) -> None:
    scored, _ = again(Gauge(), source, output)
    told = json.loads(scored.receipt.read_text())
    part = told["files"]["scores.parquet"]
    assert part["source_sha256"] == models.sha256(source)
    assert part["sha256"] == models.sha256(output)
    assert (told["key"], told["model"]) == (scored.key, {"version": "7", "weights_sha256": "w" * 64})
    assert told["versions"]["pyarrow"] == pa.__version__


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────


def cut(file: Path) -> None:
    file.write_bytes(write(file, rows()).read_bytes()[:-50])


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda file: (file.parent.mkdir(exist_ok=True), file.write_bytes(_bytes(content)))[0]


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


def with_column(name: str, values: Any) -> Callable[[Path], object]:
    return lambda file: write(file, rows(5).drop(name).append_column(name, pa.array(values)))


HEADER = "station,height,port,day\n"
BAD: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "absent": ("in.parquet", lambda file: None, ["no such file"]),
    "folder without files": ("in", lambda file: file.mkdir(), ["empty folder"]),
    "another kind of file": ("in.xlsx", text("x"), ["neither csv nor Parquet", "'in.xlsx'"]),
    "no rows": ("in.parquet", lambda file: write(file, rows(0)), ["without rows"]),
    "csv header alone": ("in.csv", text(HEADER), ["without rows"]),
    "csv without a byte": ("in.csv", text(""), ["empty file"]),
    "cut short": ("in.parquet", cut, ["not readable as Parquet"]),
    "a csv named parquet": ("in.parquet", text(HEADER), ["not readable as Parquet"]),
    "missing columns": (
        "in.parquet",
        lambda file: write(file, rows().drop("day").rename_columns(["station", "hieght", "port", "depth"])),
        ["'height', 'day'", "'hieght' meant for 'height'"],
    ),
    "semicolons": ("in.csv", text("station;height;port;day\ns0;1;x;2024-05-01\n"), ["commas", "';'"]),
    "extra columns": (
        "in.parquet",
        lambda file: write(file, rows().append_column("note", rows()["port"]).append_column("tide", rows()["port"])),
        ["'note', 'tide'", "--ignore-extra"],
    ),
    "a column twice": ("in.csv", text("height,port,day,port\n1,x,2024-05-01,y\n"), ["twice", "'port'"]),
    "a type that never fits": ("in.parquet", with_column("height", [{"a": 1}] * 5), ["'height' is struct", "a number"]),
    "a date that is a number": ("in.parquet", with_column("day", [1, 2, 3, 4, 5]), ["'day' is int64", "a date"]),
    "a word for a number": (
        "in.parquet",
        with_column("height", ["1", "2", "NA", "tall", "5"]),
        ["'height'", "row 3", "'tall'", "a number"],
    ),
    "a word for a number in a csv": (
        "in.csv",
        text(HEADER + "s,1,x,2024-05-01\n" * 9 + "s,tall,x,2024-05-01\n"),
        ["'height'", "row 9", "'tall'", "a number"],
    ),
    "no date in a csv": (
        "in.csv",
        text(HEADER + "s,1,x,2024-05-01\n" * 6 + "s,1,x,tomorrow\n"),
        ["'day'", "row 6", "'tomorrow'", "a date"],
    ),
    "a short line": ("in.csv", text(HEADER + "s,1,x,2024-05-01\ns,1\n"), ["row 1", "Expected 4 columns, got 2"]),
    "not UTF-8": ("in.csv", text(HEADER.encode() + b"s,1,caf\xe9,2024-05-01\n"), ["UTF-8"]),
    "a header that is not UTF-8": ("in.csv", text(b"caf\xe9,height\n1,2\n"), ["UTF-8"]),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_refused_in_few_lines_and_nothing_is_written(tmp_path: Path, output: Path, fault: str) -> None:
    name, make, wanted = BAD[fault]
    make(tmp_path / name)
    with pytest.raises(BadInput) as raised:
        score(Gauge(), tmp_path / name, output, JOB)
    message = str(raised.value)
    assert all(part in message for part in wanted), message
    assert str(tmp_path / name) in message
    assert "fix: " in message
    assert len(message.splitlines()) <= 4
    assert not output.parent.exists() or files(output.parent) == {}


IMAGE = Spec("d", "regression", (Column("image", "tensor", "uint8", (2, 2)),))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pa.FixedSizeListArray.from_arrays(pa.array(range(9)), 3), "expected uint8 tensors of shape 2×2"),
        (pa.array([[1, 2, 3, 4], [1, 2, 3]]), "row 1: got [1, 2, 3]"),
        (pa.array([[1, 2, 3, 4], [1, 2, 3, 256]]), "row 1: got [1, 2, 3, 256]"),
        (pa.array([[0.5, 0.5, 0.5, 0.5]]), "row 0: got [0.5"),
        (pa.array([[1, 2, 3, 4], None]), "row 1: got nothing"),
        (pa.array(["1234"]), "'image' is string"),
    ],
)
def test_tensors_of_another_shape_or_type_are_refused(tmp_path: Path, output: Path, given: Any, wanted: str) -> None:
    with pytest.raises(BadInput) as raised:
        score(Gauge(IMAGE), write(tmp_path / "in.parquet", pa.table({"image": given})), output, JOB)
    assert wanted in str(raised.value)


def test_a_csv_holds_no_tensors(tmp_path: Path, output: Path) -> None:
    text("image\n1\n")(tmp_path / "in.csv")
    with pytest.raises(BadInput, match="csv cannot hold"):
        score(Gauge(IMAGE), tmp_path / "in.csv", output, JOB)


def test_an_id_that_is_not_there_or_takes_an_output_name_is_refused(tmp_path: Path, source: Path, output: Path) -> None:
    with pytest.raises(BadInput, match=r"no id column 'statoin'(.|\n)*did you mean 'station'"):
        score(Gauge(), source, output, dataclasses.replace(JOB, id="statoin"))
    table = rows().rename_columns(["level", "height", "port", "day", "depth"])
    with pytest.raises(BadInput, match="--id"):
        score(Gauge(), write(tmp_path / "b.parquet", table), output, dataclasses.replace(JOB, id="level"))


def test_a_bad_file_in_a_folder_is_found_before_anything_is_written(tmp_path: Path, folder: Path) -> None:
    cut(folder / "z.parquet")
    with pytest.raises(BadInput, match=r"z\.parquet"):
        score(Gauge(), folder, tmp_path / "out", JOB)
    assert not (tmp_path / "out").exists()


def test_an_input_that_changes_while_it_is_read_is_refused(source: Path, output: Path) -> None:
    gauge = Gauge(before=lambda done: os.utime(source, ns=(1, 1)) if done == 1 else None)
    with pytest.raises(BadInput, match="changed while it was read"):
        score(gauge, source, output, JOB)
    assert files(output.parent) == {}


def test_places_where_the_output_cannot_be_are_refused(tmp_path: Path, folder: Path) -> None:
    source = folder / "a.parquet"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "theirs.parquet").write_bytes(source.read_bytes())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    before = files(tmp_path)
    for given, place, wanted in [
        (source, source, "replace the input"),
        (folder, folder / "out", "lie in the input"),
        (folder / "more", folder, "input lies in the output"),
        (source, tmp_path / "full", "name a file"),
        (folder, tmp_path / "file", "name a folder"),
        (source, tmp_path / "out.csv", "out.parquet"),
        (source, tmp_path / "theirs.parquet", "did not write"),
        (folder, tmp_path / "full", "notes.txt"),
    ]:
        with pytest.raises(ParamsError) as raised:
            score(Gauge(), given, place, JOB)
        assert wanted in str(raised.value)
    with pytest.raises(TidemillError, match="cannot be written"):
        score(Gauge(), source, tmp_path / "file" / "out.parquet", JOB)
    assert files(tmp_path) == before


def test_a_model_that_loses_rows_is_found_out(source: Path, output: Path) -> None:
    class Losing(Gauge):
        def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            return super().score(batch).slice(1)

    with pytest.raises(TidemillError, match="does not return what it promises"):
        score(Losing(), source, output, JOB)
    assert files(output.parent) == {}


def test_a_model_that_fails_stops_everything(source: Path, output: Path) -> None:
    def fail(done: int) -> None:
        if done == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        score(Gauge(before=fail), source, output, JOB)
    assert files(output.parent) == {}
    assert not [t for t in threading.enumerate() if t.name == "scoring"]


# ── two at once, and death ──────────────────────────────────────────────────────────────────────────────


def test_of_two_that_write_one_output_the_second_stops(source: Path, output: Path) -> None:
    inside, go = threading.Event(), threading.Event()
    slow = Gauge(before=lambda _: (inside.set(), go.wait(30))[0])
    done: list[Scored] = []
    first = threading.Thread(target=lambda: done.append(score(slow, source, output, JOB)))
    first.start()
    assert inside.wait(30)
    with pytest.raises(Busy, match=r"scores\.parquet"):
        score(Gauge(), source, output, JOB)
    go.set()
    first.join()
    assert done[0].rows == 10
    assert sorted(files(output.parent)) == ["scores.parquet", "scores.parquet.receipt.json"]


CHILD = """
import sys, time
from pathlib import Path
from components.scoring import score
from tests.components.test_scoring import Gauge, JOB
def wait(done):
    if done == int(sys.argv[3]):
        print("waiting", flush=True)
        time.sleep(60)
score(Gauge(before=wait), Path(sys.argv[1]), Path(sys.argv[2]), JOB)
"""


def killed(source: Path, output: Path, batch: int) -> None:
    """A real process that scores and is killed by -9 while the model has batch number `batch`."""
    command = [sys.executable, "-c", CHILD, str(source), str(output), str(batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, env=ONE_THREAD, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        deadline = time.monotonic() + 10
        while not list(output.parent.rglob(".*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)


def test_a_killed_scoring_leaves_no_half_output_and_the_next_succeeds(
    tmp_path: Path, source: Path, output: Path
) -> None:
    killed(source, output, 2)
    left = files(output.parent)
    assert any(name.endswith(".tmp") for name in left)
    assert not any(name.endswith((".parquet", ".json")) for name in left)
    scored, stands = again(Gauge(), source, output)
    assert (scored.rows, scored.unchanged) == (10, False)
    _, wanted = again(Gauge(), source, tmp_path / "whole" / "scores.parquet")
    assert stands == wanted


def test_a_killed_scoring_of_a_folder_goes_on_where_it_was(tmp_path: Path, folder: Path) -> None:
    score(Gauge(), folder, tmp_path / "out", dataclasses.replace(JOB, model_version="6"))
    killed(folder, tmp_path / "out", 3)  # in the second file
    left = [name for name in files(tmp_path / "out") if not name.endswith(".tmp")]
    old = ["_receipt.json", "a.parquet", "b.csv.parquet", "more/c.parquet"]
    assert left == [".a.parquet.whole", *old]
    assert set(pq.read_table(tmp_path / "out")["model_version"].to_pylist()) == {"6"}, "what stood there stands"
    scored, stands = again(Gauge(), folder, tmp_path / "out")
    assert (scored.rows, scored.files, scored.kept, scored.unchanged) == (18, 3, 1, False)
    _, wanted = again(Gauge(), folder, tmp_path / "whole")
    assert stands == wanted


def test_the_benchmark_runs(tmp_path: Path) -> None:
    """A smoke test; the figures that count come from the benchmark at full size on a quiet machine."""
    command = [sys.executable, "benchmarks/scoring.py", "--quick", "--json", str(tmp_path / "figures.json")]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=ONE_THREAD, capture_output=True, timeout=240)
    assert json.loads((tmp_path / "figures.json").read_text())["ratio"] > 0
