"""A user's own series: a wide table or a folder of files becomes one column of tensors, in training and in scoring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import datasets, intake, model, params
from components.contract import SPLITS, Column, Data, Spec
from components.datasets import parquet, series
from components.errors import BadInput, DataError, ParamsError, TidemillError
from components.families.cnn1d import Cnn1d
from components.params import DatasetBlock
from components.registry import artifact, model_code
from components.workspace import Workspace

ROWS, STEPS = 60, 12


def values() -> np.ndarray:
    """[rows, steps], each number rounded as a csv has it."""
    return np.random.default_rng(0).normal(size=(ROWS, STEPS)).round(4)


def wide(order: Sequence[int] = range(STEPS), **more: Any) -> pd.DataFrame:
    """A table with the columns name, pace, t0 … t11 in some order."""
    names = {"name": [f"N{i}" for i in range(ROWS)], "pace": ["fast", "slow"] * (ROWS // 2)}
    return pd.DataFrame(names | {f"t{i}": values()[:, i] for i in order} | more)


class Project:
    """A workspace with one dataset of series."""

    def __init__(self, root: Path, **block: Any) -> None:
        self.workspace = Workspace(root)
        self.block = DatasetBlock(**block)

    def load(self) -> Data:
        recipe = datasets.recipe(self.workspace, "mine", self.block, lambda _: None)
        assert recipe.remark == ""
        self.workspace.data("mine").parent.mkdir(exist_ok=True)
        parquet.write(recipe.build(), self.workspace.data("mine"), recipe.note)
        promised = datasets.expectations(self.workspace, "mine", self.block)
        return datasets.load(self.workspace, "mine", promised, "classification")


def of_table(root: Path, frame: pd.DataFrame, pattern: str = "t*", **block: Any) -> Project:
    frame.to_csv(root / "table.csv", index=False)
    return Project(root, **{"table": "table.csv", "target": "pace", "series": pattern} | block)


def of_files(root: Path, **block: Any) -> Project:
    """fast/N0.csv, slow/N1.csv, …: two channels."""
    for row, one in enumerate(values()):
        file = root / "folder" / ("fast", "slow")[row % 2] / f"N{row}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, one)
    return Project(root, **{"table": "folder", "series": "files"} | block)


def write(file: Path, one: Any, names: str = "up,down") -> None:
    file.write_text("\n".join([names, *(f"{x},{-x}" for x in one)]) + "\n")


def by_id(data: Data) -> dict[str, np.ndarray]:
    found = {}
    for part in data.splits.values():
        tensors = part["series"].combine_chunks().to_numpy_ndarray()
        found |= dict(zip(part[data.spec.id].to_pylist(), tensors, strict=True))
    return found


# ── a column for each step ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("pattern", "order"), [("t*", range(STEPS)), ("*", (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9))])
def test_a_wide_table_becomes_one_column_of_series(tmp_path: Path, pattern: str, order: Sequence[int]) -> None:
    data = of_table(tmp_path, wide(order), pattern).load()
    names = tuple(f"t{i}" for i in range(STEPS))
    assert data.spec.columns == (Column("series", "tensor", "float32", (1, STEPS), names),)
    assert (data.spec.id, data.spec.target, data.spec.classes) == ("name", "pace", ("fast", "slow"))
    found = by_id(data)
    assert len(found) == ROWS
    for row, one in enumerate(values().astype(np.float32)):
        assert np.array_equal(found[f"N{row}"], one[None])
    again = Spec.from_json(data.spec.to_json())
    assert again == data.spec and again.columns[0].is_wide and not again.columns[0].is_file


def test_a_star_leaves_out_what_is_named_otherwise_and_numbers_that_name_rows(tmp_path: Path) -> None:
    frame = wide(run_id=range(ROWS), lot=range(ROWS, 0, -1)).drop(columns="name")
    data = of_table(tmp_path, frame, "*", ignore=["lot"]).load()
    assert data.spec.id == "run_id" and len(data.spec.columns[0].parts) == STEPS


def test_other_columns_stay_inputs_beside_the_series(tmp_path: Path) -> None:
    data = of_table(tmp_path, wide(size=values()[:, 0] * 3)).load()
    assert [(c.name, c.kind) for c in data.spec.columns] == [("size", "number"), ("series", "tensor")]


def test_steps_come_by_their_number_or_as_the_file_has_them() -> None:
    assert series.ordered(["t10", "t9", "t1"]) == ("t1", "t9", "t10")
    assert series.ordered(["x1", "y0", "x0"]) == ("x1", "y0", "x0")
    assert series.ordered(["mar", "jan"]) == ("mar", "jan")


def test_parts_may_be_given_another_shape(tmp_path: Path) -> None:
    project = of_table(tmp_path, wide())
    project.load()
    stated = project.workspace.expectations("mine")
    text = stated.read_text()
    stated.write_text(text.replace(f"shape: [1, {STEPS}]", f"shape: [3, {STEPS // 3}]"))
    assert by_id(project.load())["N5"].shape == (3, 4)
    stated.write_text(text.replace("parts: [t0, t1,", "parts: [t0,"))
    with pytest.raises(ParamsError, match=r"mine\.yaml:\d+ columns\.series\.parts: got 11 parts for shape \[1, 12\]"):
        project.load()


def test_a_pattern_that_comes_later_than_the_expectations_is_told(tmp_path: Path) -> None:
    plain = of_table(tmp_path, wide(), None)
    plain.load()
    with pytest.raises(ParamsError, match=r"'series' is input, expectations/mine\.yaml says nothing of it"):
        Project(tmp_path, table="table.csv", target="pace", series="t*").load()


@pytest.mark.parametrize(
    ("frame", "block", "words"),
    [
        (wide(), {"series": "x*"}, r"`series: 'x\*'`: 0 columns of numbers match"),
        (wide(t12=["?", "word"] * 30), {}, "'t12' hold no numbers"),
        (wide(series=1.5), {}, "a column 'series' is there already"),
        (wide().mask(lambda f: f == f["t3"][7]), {}, r"column 'series', row 7: got nothing in 't3', expected a number"),
    ],
)
def test_a_wide_table_that_is_no_use_is_told_why(
    tmp_path: Path, frame: pd.DataFrame, block: dict[str, Any], words: str
) -> None:
    with pytest.raises(TidemillError, match=words):
        of_table(tmp_path, frame, **block).load()


# ── a file for each series ──────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_files_becomes_one_column_of_series(tmp_path: Path) -> None:
    data = of_files(tmp_path).load()
    (column,) = data.spec.columns
    assert column == Column("series", "tensor", "float32", (2, STEPS), ("up", "down"))
    assert column.is_file and not column.is_wide
    assert (data.spec.id, data.spec.target, data.spec.classes) == ("id", "class", ("fast", "slow"))
    for row, one in enumerate(values().astype(np.float32)):
        assert np.array_equal(by_id(data)[f"N{row}"], np.stack([one, -one]))


def test_files_of_one_name_are_named_by_their_class_too_and_columns_can_be_left_out(tmp_path: Path) -> None:
    project = of_files(tmp_path, ignore=["when"], target="kind")
    for name in ("fast", "slow"):
        lines = [f"noon,{x},{-x}" for x in values()[0 if name == "fast" else 1]]
        (tmp_path / "folder" / name / "N77.csv").write_text("\n".join(["when,up,down", *lines]) + "\n")
    data = project.load()
    assert data.spec.target == "kind" and {"fast/N77", "slow/N77", "fast/N0"} <= by_id(data).keys()
    assert data.spec.columns[0].parts == ("up", "down")


@pytest.mark.parametrize(
    ("file", "lines", "words"),
    [
        ("slow/N9.csv", ["up,down", "1,2", "3,4"], r"N9\.csv: column 'series', row 0: got 2 steps, expected 12"),
        ("slow/N9.csv", ["up,left"] + ["1,2"] * STEPS, r"N9\.csv: other channels than the first file"),
        (
            "slow/N9.csv",
            ["up,down", "1,"] + ["1,2"] * 11,
            r"N9\.csv: .*got nothing in 'down', step 0, expected a number",
        ),
        ("slow/N9.csv", ["up,down", "1,2"] + ["1,x"] * 11, r"N9\.csv: .*got 'x' in 'down', step 1, expected a number"),
        ("slow/N9.csv", ["up,down", "1,2,3"] + ["1,2"] * 11, r"N9\.csv: not readable as csv"),
        ("slow/N9.csv", ["0.5,1"] * STEPS, r"N9\.csv: no line of column names"),
        ("N9.csv", ["up,down"] + ["1,2"] * STEPS, r"N9\.csv: not one series in the folder of its class"),
        ("fast/N0.csv", ["up,down", "1,2"], r"N0\.csv: a series of 1 steps"),
    ],
)
def test_a_file_that_is_no_use_is_named(tmp_path: Path, file: str, lines: list[str], words: str) -> None:
    project = of_files(tmp_path)
    (tmp_path / "folder" / file).write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=words):
        project.load()


# ── scoring ─────────────────────────────────────────────────────────────────────────────────────────────

WIDE = Spec(
    "d", "classification", (Column("series", "tensor", "float32", (1, 3), ("a", "b", "c")),), "y", ("0", "1"), "name"
)
FILES = Spec(
    "d", "classification", (Column("series", "tensor", "float32", (2, 3), ("up", "down")),), "y", ("0", "1"), "id"
)


def pieces(file: Path, spec: Spec, aside: bool = False, rows: int = 2) -> list[intake.Piece]:
    return list(intake.open_file(file, intake.Wanted(spec, aside=aside)).batches(rows))


def read(found: Sequence[intake.Piece]) -> list[list[float]]:
    return [row for piece in found for row in piece.inputs.column("series").to_numpy_ndarray().reshape(-1, 3).tolist()]


@pytest.mark.parametrize("aside", [False, True])
def test_a_wide_table_is_read_whatever_the_order_and_form(tmp_path: Path, aside: bool) -> None:
    frame = pd.DataFrame({"c": [3, 6, 9], "name": ["x", "y", "z"], "y": "0", "a": [1.0, 4, 7], "b": ["2", "5", " 8"]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    for name in ("in.csv", "in.parquet"):
        found = pieces(tmp_path / name, WIDE, aside)
        assert read(found) == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        assert [i for piece in found for i in piece.ids.to_pylist()] == ["x", "y", "z"]


def test_a_table_that_holds_the_tensor_is_read_as_ever(tmp_path: Path) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(6, dtype=np.float32).reshape(2, 1, 3))
    pq.write_table(pa.table({"series": tensors}), tmp_path / "in.parquet")
    assert read(pieces(tmp_path / "in.parquet", WIDE)) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("aside", [False, True])
def test_a_table_that_holds_the_tensors_of_many_files_is_read_row_by_row(tmp_path: Path, aside: bool) -> None:
    """So lie the test rows that a pipeline scores, whose series came in files."""
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(18, dtype=np.float32).reshape(3, 2, 3))
    pq.write_table(pa.table({"id": ["x", "y", "z"], "series": tensors}), tmp_path / "in.parquet")
    found = pieces(tmp_path / "in.parquet", FILES, aside)
    assert read(found) == np.arange(18).reshape(-1, 3).tolist()
    assert [i for piece in found for i in piece.ids.to_pylist()] == ["x", "y", "z"]


@pytest.mark.parametrize("aside", [False, True])
def test_one_series_as_parquet_is_refused_with_what_is_read_instead(tmp_path: Path, aside: bool) -> None:
    pd.DataFrame({"up": [1.0, 3, 5], "down": [2.0, 4, 6]}).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(BadInput, match="'series' is a tensor, or a csv for each row"):
        pieces(tmp_path / "in.parquet", FILES, aside)


def test_rows_with_gaps_or_words_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("name,a,b,c\nx,1,2,3\ny,4,,6\nz,7,8,word\nw,NaN,1,1\nv,1,1\nu,9,9,9\n")
    found = pieces(tmp_path / "in.csv", WIDE, aside=True)
    assert read(found) == [[1, 2, 3], [9, 9, 9]]
    faults = {fault.id: fault.reason for piece in found for fault in piece.faults}
    gap = "expected a number: a series has no gaps"
    assert faults == {
        "y": f"column 'series': got nothing in 'b', {gap}",
        "z": f"column 'series': got 'word' in 'c', {gap}",
        "w": f"column 'series': got nothing in 'a', {gap}",
        None: "expected 4 values in the line, got 3",
    }
    assert '"b": "8"' in next(f.raw for piece in found for f in piece.faults if f.id == "z")


def test_not_a_number_in_parquet_is_a_gap(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0, 4], "b": [2.0, np.nan], "c": [3.0, 6]}).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(BadInput, match=r"column 'series', row 1: got nothing in 'b', expected a number"):
        pieces(tmp_path / "in.parquet", WIDE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,a,b\nx,1,2\n", "missing columns: 'c'"),
        ("name,a,b,c,d\nx,1,2,3,4\n", "columns that the model does not know: 'd'"),
        ("name,a,b,c\nx,1,2,oops\n", r"column 'c', row 0: got 'oops', expected a number(.|\n)*fix: correct the value$"),
    ],
)
def test_a_wide_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(BadInput, match=words):
        pieces(tmp_path / "in.csv", WIDE)


def test_a_file_is_one_row_named_by_the_file(tmp_path: Path) -> None:
    write(tmp_path / "N5.csv", [-1, -2, -3], "down,up")
    (piece,) = pieces(tmp_path / "N5.csv", FILES)
    assert read([piece]) == [[1, 2, 3], [-1, -2, -3]] and piece.ids.to_pylist() == ["N5"] and piece.read == 1


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["up,down", "1,2"], "column 'series': got 1 steps, expected 3"),
        (["up,down", "1,2", "1,2", ",2"], "column 'series': got nothing in 'up', step 2, expected a number"),
        (["up,down", "1,2", "1", "1,2"], "Expected 2 columns, got 1"),
    ],
)
def test_a_file_that_does_not_fit_is_set_aside(tmp_path: Path, lines: list[str], reason: str) -> None:
    (tmp_path / "N5.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match=r"N5\.csv"):
        pieces(tmp_path / "N5.csv", FILES)
    (piece,) = pieces(tmp_path / "N5.csv", FILES, aside=True)
    (fault,) = piece.faults
    assert piece.read == 1 and piece.inputs.num_rows == 0 and (fault.row, fault.id) == (0, "N5")
    assert reason in fault.reason


def test_a_file_with_other_channels_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "N5.csv", [1, 2, 3], "up,left")
    with pytest.raises(BadInput, match="missing columns: 'down'"):
        pieces(tmp_path / "N5.csv", FILES)


def test_a_registered_model_takes_a_wide_frame() -> None:
    frame = pd.DataFrame({"c": [3.0, 6], "a": [1.0, 4], "b": [2, 5]})
    batch = model_code.arrow(frame, WIDE)
    assert batch.column("series").to_numpy_ndarray().tolist() == [[[1, 2, 3]], [[4, 5, 6]]]
    with pytest.raises(ValueError, match="the input lacks the columns series"):
        model_code.arrow(frame.drop(columns="b"), SimpleNamespace(columns=WIDE.columns))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_registered_model_scores_a_wide_frame_without_this_repository(tmp_path: Path) -> None:
    import mlflow

    tensors = values()[:, :3].astype(np.float32).reshape(ROWS, 1, 3)
    labels = ["0", "1"] * (ROWS // 2)
    rows = pa.table({"series": pa.FixedShapeTensorArray.from_numpy_ndarray(tensors), "y": labels, "name": labels})
    data = Data(WIDE, dict.fromkeys(SPLITS, rows))
    state = next(Cnn1d().fit(data, {"width": 4}, 0)).state()
    for folder in ("model", "built"):
        (tmp_path / folder).mkdir()
    model.save(tmp_path / "model", "components.families.cnn1d:Cnn1d", WIDE, {"width": 4}, state)
    loaded = mlflow.pyfunc.load_model(str(artifact.build(tmp_path / "model", data, tmp_path / "built")))
    whole = loaded.predict(pd.DataFrame({"series": list(tensors[:4])}))
    pd.testing.assert_frame_equal(whole, loaded.predict(pd.DataFrame(tensors[:4, 0], columns=["a", "b", "c"])))


# ── params.yaml ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ('{series: "t*"}', r"datasets\.digits\.series: got a pattern without a table"),
        ("{table: x, series: files, id: name}", r"datasets\.digits\.id: got 'name', expected none"),
        ('{table: x, target: y, series: ""}', r"datasets\.digits\.series: got '', expected a pattern"),
    ],
)
def test_faults_in_a_block_of_series_are_told(tmp_path: Path, block: str, words: str) -> None:
    (tmp_path / "params.yaml").write_text(f"datasets:\n  digits: {block}\n")
    with pytest.raises(ParamsError, match=words):
        params.load(Workspace(tmp_path))
