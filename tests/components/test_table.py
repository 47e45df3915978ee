"""A table that the project has never seen: what its columns are, what they promise, and every way it can be no use."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components import datasets, intake
from components.contract import Data, Spec
from components.datasets import parquet, promises, splits, table
from components.errors import DataError, ParamsError, TidemillError
from components.expectations import Expectations
from components.params import DatasetBlock
from components.workspace import Workspace

ROWS = 500
Columns = Mapping[str, Sequence[Any]]


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def customers(rows: int = ROWS, seed: int = 0) -> dict[str, Sequence[Any]]:
    """Every kind of column that people have, as a csv spells them."""
    draw = draws(seed)
    day = dt.date(2022, 1, 1)
    return {
        "customer_id": [f"C-{seed}{i:05d}" for i in range(rows)],
        "age": draw.integers(18, 90, rows).tolist(),
        "income": ["" if draw.random() < 0.1 else f"{x:.2f}" for x in draw.lognormal(10, 1, rows)],
        "plan": draw.choice(["basic", "pro", " team", " ?"], rows, p=[0.5, 0.3, 0.15, 0.05]).tolist(),
        "joined": [(day + dt.timedelta(days=int(d))).isoformat() for d in draw.integers(0, 900, rows)],
        "seen": [(day + dt.timedelta(days=int(d))).strftime("%d/%m/%Y") for d in draw.integers(0, 900, rows)],
        "note": [f"caller {i} said {x}" for i, x in enumerate(draw.integers(0, 10**6, rows))],
        "country": ["FR"] * rows,
        "zip": draw.choice(["01234", "02345", "13000"], rows).tolist(),
        "active": draw.choice(["True", "False"], rows).tolist(),
        "left": draw.choice(["yes", "no"], rows, p=[0.3, 0.7]).tolist(),
    }


def write_csv(file: Path, columns: Columns) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(dict(columns)).to_csv(file, index=False)


class Project:
    """A workspace with one table."""

    def __init__(self, root: Path, columns: Columns | None = None, target: str = "left", **block: Any) -> None:
        self.workspace = Workspace(root)
        self.file = root / "table.csv"
        self.block = DatasetBlock(table="table.csv", target=target, **block)
        if columns is not None:
            write_csv(self.file, columns)

    def promised(self) -> Expectations:
        return datasets.expectations(self.workspace, "mine", self.block)

    def build(self) -> pa.Table:
        return table.build(table.find(self.workspace, "mine", self.block), self.promised())

    def load(self) -> Data:
        recipe = datasets.recipe(self.workspace, "mine", self.block, lambda _: None)
        self.workspace.data("mine").parent.mkdir(exist_ok=True)
        parquet.write(recipe.build(), self.workspace.data("mine"), recipe.note)
        promised = self.promised()
        return datasets.load(self.workspace, "mine", promised, promised.tasks()[0])

    @property
    def stated(self) -> Path:
        return self.workspace.expectations("mine")

    def edit(self, old: str, new: str) -> None:
        text = self.stated.read_text()
        assert old in text
        self.stated.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"), customers())
    made.load()
    return made


# ── kinds and roles ─────────────────────────────────────────────────────────────────────────────────────


def test_kinds_and_roles_are_inferred(project: Project) -> None:
    found = {name: (rule.role, rule.kind) for name, rule in project.promised().columns.items()}
    assert found == {
        "customer_id": ("id", "text"),
        "age": ("input", "number"),
        "income": ("input", "number"),
        "plan": ("input", "category"),
        "joined": ("input", "date"),
        "seen": ("input", "date"),
        "note": ("ignored", "text"),
        "country": ("ignored", "text"),
        "zip": ("input", "category"),
        "active": ("input", "category"),
        "left": ("target", "category"),
    }


def test_values_are_read_by_their_kind(project: Project) -> None:
    built, source = parquet.read(project.workspace.data("mine")), customers()
    types = {field.name: str(field.type) for field in built.schema}
    assert types == dict.fromkeys(types, "string") | {
        "age": "double",
        "income": "double",
        "joined": "timestamp[us]",
        "seen": "timestamp[us]",
    }
    assert built.column_names == [*source, "split"]
    assert built["age"].to_pylist() == source["age"]
    assert built["zip"].to_pylist() == source["zip"]  # no zero is lost
    assert built["active"].to_pylist() == [str(x).lower() for x in source["active"]]
    assert built["plan"].to_pylist() == [None if x == " ?" else x.strip() for x in source["plan"]]
    assert [f"{x:%d/%m/%Y}" for x in built["seen"].to_pylist()] == source["seen"]
    assert [f"{x:%Y-%m-%d}" for x in built["joined"].to_pylist()] == source["joined"]
    assert [x == "" for x in source["income"]] == built["income"].is_null().to_pylist()


def test_splits_are_even_over_classes(project: Project) -> None:
    built = parquet.read(project.workspace.data("mine"))
    for name in ("yes", "no"):
        counts = splits.counts(built.filter(pc.field("left") == name)["split"].combine_chunks())
        assert counts["test"] == counts["val"] == round(sum(counts.values()) * 0.2)


def test_a_family_sees_inputs_alone(project: Project) -> None:
    promised = project.promised()
    data = datasets.load(project.workspace, "mine", promised, "classification")
    assert promised.tasks() == ("classification", "anomaly")
    assert data.spec.id == "customer_id" and data.spec.target == "left" and data.spec.classes == ("no", "yes")
    inputs = ["age", "income", "plan", "joined", "seen", "zip", "active"]
    assert [c.name for c in data.spec.columns] == inputs
    assert data.splits["val"].column_names == ["customer_id", *inputs, "left"]


def test_scoring_reads_a_value_as_training_did(project: Project) -> None:
    """The same csv through the scorer's reader: what a model learnt from is what it is asked about."""
    spec = datasets.load(project.workspace, "mine", project.promised(), "classification").spec
    known = ["note", "country"]
    (read,) = intake.open_file(project.file, intake.Wanted(spec, known=known)).batches(ROWS)
    built = parquet.read(project.workspace.data("mine"))
    assert read.ids.to_pylist() == built["customer_id"].to_pylist()
    for column in spec.columns:
        assert read.inputs.column(column.name).equals(built[column.name].combine_chunks()), column.name


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("codes", [i % 3 for i in range(ROWS)], "category"),
        ("counts", [i % 30 for i in range(ROWS)], "number"),
        ("rare_codes", [0] * (ROWS - 3) + [1, 2, 3], "number"),
        ("gaps_in_codes", [None if i % 7 == 0 else i % 3 for i in range(ROWS)], "category"),
        ("store_id", [i % 25 for i in range(ROWS)], "category"),
        ("floats", [i / 7 for i in range(ROWS)], "number"),
        ("words", [f"w{i % 60}" for i in range(ROWS)], "category"),
        ("names", [f"w{i // 2}" for i in range(ROWS)], "text"),
        ("us_dates", [f"{1 + i % 12}/{1 + i % 28}/2024" for i in range(ROWS)], "date"),
        ("stamps", [f"2024-01-{1 + i % 28:02d}T10:00:00Z" for i in range(ROWS)], "date"),
        ("times", [f"2024-01-{1 + i % 28:02d} 10:{i % 60:02d}" for i in range(ROWS)], "date"),
        ("months", [f"{1 + i % 28} Mar 2024 10:00" for i in range(ROWS)], "date"),
        ("short_years", [f"{1 + i % 28}.12.24" for i in range(ROWS)], "date"),
        ("hours", [f"{i % 24:02d}:00" for i in range(ROWS)], "category"),
    ],
)
def test_one_columns_kind(tmp_path: Path, name: str, values: list[Any], kind: str) -> None:
    project = Project(
        tmp_path,
        {
            name: pd.array(values) if None in values else values,
            "x": draws().normal(size=ROWS),
            "left": customers()["left"],
        },
    )
    assert project.promised().columns[name].kind == kind
    built = project.build()[name]
    if kind == "date":
        assert {x.year for x in built.to_pylist()} == {2024}
    if name == "gaps_in_codes":
        assert pc.unique(built).to_pylist() == [None, "1", "2", "0"]


def test_day_and_month_are_told_apart_where_the_values_do(tmp_path: Path) -> None:
    draw = draws()
    either = [f"{a}/{b}/2024" for a, b in draw.integers(1, 13, (ROWS, 2))]
    project = Project(tmp_path, {"either": either, "left": customers()["left"]})
    assert project.promised().columns["either"].dtype == "%m/%d/%Y"
    assert "kind: date # or '%d/%m/%Y'? no day is above 12" in project.stated.read_text().replace("  #", " #")
    project.edit("dtype: '%m/%d/%Y'", "dtype: '%d/%m/%Y'")
    assert [f"{x.day}/{x.month}/2024" for x in project.build()["either"].to_pylist()] == either


@pytest.mark.parametrize(
    ("columns", "id"),
    [
        ({"PassengerId": range(ROWS)}, "PassengerId"),
        ({"code": [f"k{i}" for i in range(ROWS)]}, "code"),
        ({"code": [f"k{i}" for i in range(ROWS)], "row id": range(ROWS)}, "row id"),
        ({"customer_id": [i // 2 for i in range(ROWS)]}, None),
        ({"said": [f"text {i}" for i in range(ROWS)]}, None),
        ({"paid": range(ROWS)}, None),
    ],
)
def test_what_names_a_row(tmp_path: Path, columns: Columns, id: str | None) -> None:
    project = Project(tmp_path, {**columns, "x": draws().normal(size=ROWS), "left": customers()["left"]})
    assert project.promised().column("id") == id


def test_an_id_keeps_its_spelling(tmp_path: Path) -> None:
    project = Project(tmp_path, {"id": [f"{i:05d}" for i in range(ROWS)], **customers()}, id="id")
    assert project.build()["id"].to_pylist()[:2] == ["00000", "00001"]
    assert project.promised().columns["id"].kind == "text"


def test_what_is_ignored_is_kept_but_never_learnt_from(tmp_path: Path) -> None:
    project = Project(tmp_path, {**customers(), "nothing": [""] * ROWS}, ignore=["age", "nothing"])
    data = project.load()
    assert "age" not in data.splits["train"].column_names
    assert parquet.read(project.workspace.data("mine"))["age"].to_pylist() == customers()["age"]
    assert project.promised().columns["age"].role == "ignored"


def test_the_index_that_pandas_writes_is_no_input(tmp_path: Path) -> None:
    project = Project(tmp_path)
    pd.DataFrame(customers()).to_csv(project.file)
    assert project.promised().columns[""].role == "ignored"
    assert project.load().spec.columns[0].name == "age"


# ── target ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (customers()["left"], ["no", "yes"]),
        ([i % 3 for i in range(ROWS)], ["0", "1", "2"]),
        ([float(i % 2) for i in range(ROWS)], ["0", "1"]),
        ([i % 2 == 0 for i in range(ROWS)], ["false", "true"]),
        (draws().normal(size=ROWS).tolist(), None),
        ([i % 40 for i in range(ROWS)], None),
    ],
)
def test_a_target_is_classes_or_a_number(tmp_path: Path, target: list[Any], classes: list[str] | None) -> None:
    project = Project(tmp_path, {"x": draws(1).normal(size=ROWS), "left": target})
    promised = project.promised()
    assert promised.columns["left"].values == classes
    assert promised.tasks() == (("regression",) if classes is None else ("classification", "anomaly"))
    values = project.load().splits["train"]["left"]
    assert values.type == (pa.float64() if classes is None else pa.string())
    assert classes is None or sorted(pc.unique(values).to_pylist()) == classes


def test_a_target_may_be_told_to_be_a_number(tmp_path: Path) -> None:
    project = Project(tmp_path, {"x": draws(1).normal(size=ROWS), "left": [i % 3 for i in range(ROWS)]})
    project.promised()
    project.edit("kind: category\n    values: ['0', '1', '2']", "kind: number")
    assert project.load().spec.task == "regression"


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────


def broken(promised: Expectations, rows: pa.Table) -> set[str]:
    """Columns of rows that do not keep a promise: an own reading of the rules."""
    found = set()
    for name, rule in promised.columns.items():
        values = rows[name].combine_chunks()
        there = values.drop_null()
        if rule.role == "ignored":
            continue
        if values.null_count / len(values) > rule.missing:
            found.add(name)
        if rule.values is not None and not set(pc.unique(there).to_pylist()) <= set(rule.values):
            found.add(name)
        if rule.min is not None:
            low, high = (dt.datetime.fromisoformat(str(x)) if rule.kind == "date" else x for x in (rule.min, rule.max))
            if pc.min(there).as_py() < low or pc.max(there).as_py() > high:
                found.add(name)
    return found


def test_other_splits_and_tomorrows_file_keep_the_promises(tmp_path: Path) -> None:
    for seed in range(8):
        project = Project(tmp_path / str(seed), customers(120 + 40 * seed, seed))
        promised = project.promised()
        built = project.build()
        for split in ("train", "val", "test"):
            assert not broken(promised, built.filter(pc.field("split") == split))
        write_csv(project.file, customers(400, seed + 100))
        assert not broken(promised, project.build())


@pytest.mark.parametrize(
    ("column", "spoil"),
    [
        ("age", lambda v: [*v[:-1], -1]),
        ("age", lambda v: [*v[:-1], 999]),
        ("income", lambda v: [*v[:-1], "1e9"]),
        ("income", lambda v: [*v[:-1], "inf"]),
        ("income", lambda v: [""] * (len(v) // 2) + list(v[len(v) // 2 :])),
        ("plan", lambda v: [*v[:-1], "free"]),
        ("joined", lambda v: [*v[:-1], "1900-01-01"]),
        ("joined", lambda v: [*v[:-1], "2222-01-01"]),
        ("left", lambda v: [*v[:-1], "maybe"]),
    ],
)
def test_nonsense_breaks_them(tmp_path: Path, column: str, spoil: Callable[[Any], list[Any]]) -> None:
    project = Project(tmp_path, customers())
    promised = project.promised()
    write_csv(project.file, {**customers(), column: spoil(customers()[column])})
    assert broken(promised, project.build()) == {column}


def test_bounds_are_learnt_from_training_rows_alone(tmp_path: Path) -> None:
    columns = customers()
    project = Project(tmp_path, columns)
    before = project.promised()
    held_out = project.build()["split"].to_pylist().index("test")
    # A value far away in a held-out row: no bound moves, though the row may now fall into another split.
    ages = list(columns["age"])
    ages[held_out] = 10_000
    write_csv(project.file, {**columns, "age": ages})
    project.stated.unlink()
    split, after = None, project.promised()
    split = project.build()["split"][held_out].as_py()
    assert (after.columns["age"].max == before.columns["age"].max) == (split != "train")


# ── duplicates and splits ───────────────────────────────────────────────────────────────────────────────


def test_repeated_rows_fall_into_one_split_whatever_their_id(tmp_path: Path) -> None:
    columns = customers(300)
    twice = {name: [*values, *values[:40]] for name, values in columns.items()}
    twice["customer_id"] = [f"D{i}" for i in range(340)]
    twice["note"] = [f"note no {i}" for i in range(340)]  # not learnt from: no difference
    project = Project(tmp_path, twice)
    split = project.build()["split"].to_pylist()
    assert split[300:] == split[:40]
    assert project.promised().duplicates.across == 0


def test_coarse_tables_are_split_row_by_row(tmp_path: Path) -> None:
    draw = draws()
    columns = {f"q{i}": draw.choice(["a", "b"], ROWS) for i in range(3)} | {"left": customers()["left"]}
    project = Project(tmp_path, columns)
    counts = splits.counts(project.build()["split"].combine_chunks())
    assert counts == {"train": 300, "val": 100, "test": 100}
    assert project.promised().duplicates.across == 1
    assert project.promised().duplicates.within >= 0.9


def test_the_split_does_not_change_when_bounds_are_edited_or_the_file_is_written_again(tmp_path: Path) -> None:
    project = Project(tmp_path, customers())
    first = project.build()
    project.edit("    max: 160\n", "    max: 7\n")
    assert project.build().equals(first)
    project.stated.unlink()
    assert project.build().equals(first)


def test_a_table_may_bring_its_own_split(tmp_path: Path) -> None:
    own = ["test" if i % 4 == 0 else "train" for i in range(ROWS)]
    project = Project(tmp_path, {**customers(), "split": own})
    split = project.build()["split"].to_pylist()
    assert [s == "test" for s in split] == [s == "test" for s in own]
    assert 0.15 < split.count("val") / own.count("train") < 0.25
    write_csv(project.file, {**customers(), "split": ["left", "right"] * (ROWS // 2)})
    with pytest.raises(DataError, match=r"column 'split' holds 'left', expected train, val, test"):
        project.build()


# ── Parquet and folders ─────────────────────────────────────────────────────────────────────────────────


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    draw = draws()
    rows = pa.table(
        {
            "id": pa.array(range(ROWS), pa.int32()),
            "price": pa.array([f"{x:.2f}" for x in draw.random(ROWS)]).cast(pa.float64()).cast(pa.decimal128(8, 2)),
            "when": pa.array(draw.integers(0, 10**9, ROWS)).cast(pa.timestamp("s")).cast(pa.timestamp("s", "UTC")),
            "kind": pa.array(draw.choice(["a", "b"], ROWS)).dictionary_encode(),
            "on": pa.array(draw.integers(0, 2, ROWS).astype(bool)),
            "shape": pa.FixedShapeTensorArray.from_numpy_ndarray(draw.random((ROWS, 2, 3), np.float32)),
            "left": pa.array(draw.choice(["yes", "no"], ROWS)).cast(pa.large_string()),
        }
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    project = Project(tmp_path)
    project.block = DatasetBlock(table="rows.parquet", target="left")
    data = project.load()
    kinds = {c.name: (c.kind, c.dtype, c.shape) for c in data.spec.columns}
    assert kinds == {
        "price": ("number", "", ()),
        "when": ("date", "", ()),
        "kind": ("category", "", ()),
        "on": ("category", "", ()),
        "shape": ("tensor", "float32", (2, 3)),
    }
    assert data.spec.id == "id"
    assert data.splits["train"].schema.field("shape").type == pa.fixed_shape_tensor(pa.float32(), [2, 3])
    assert data.splits["train"].schema.field("price").type == pa.float64()


def test_a_folder_is_one_table_whatever_its_files_disagree_on(tmp_path: Path) -> None:
    parts = [customers(200, 1), customers(200, 2)]
    parts[0]["age"] = [float(x) for x in parts[0]["age"]]  # 41.0 here, 41 there
    parts[0]["zip"] = ["12"] * 200
    parts[1]["zip"] = ["x1"] * 200
    for i, part in enumerate(parts):
        write_csv(tmp_path / "parts" / f"{i}.csv", part)
    project = Project(tmp_path)
    project.block = DatasetBlock(table="parts", target="left")
    built = project.build()
    assert built.num_rows == 400
    assert pc.unique(built["zip"]).to_pylist() == ["12", "x1"]
    assert built["customer_id"].to_pylist() == [*parts[0]["customer_id"], *parts[1]["customer_id"]]
    write_csv(tmp_path / "parts" / "2.csv", {"age": [1]})
    with pytest.raises(DataError, match=r"2\.csv: other columns than 0\.csv: 'active', 'country'"):
        project.build()


def test_the_note_changes_with_the_source_and_with_kinds_not_with_bounds(tmp_path: Path) -> None:
    project = Project(tmp_path, customers())

    def note() -> Any:
        return datasets.recipe(project.workspace, "mine", project.block, lambda _: None).note

    first = note()
    project.edit("    max: 160", "    max: 180")
    assert note() == first
    project.edit("  age:\n    kind: number", "  age:\n    role: ignored\n    kind: number")
    assert note() != first
    second = note()
    write_csv(project.file, customers(seed=1))
    assert note() != second


def test_a_new_column_is_left_out_and_said(tmp_path: Path) -> None:
    project = Project(tmp_path, customers())
    project.promised()
    write_csv(project.file, {**customers(), "mood": ["good"] * ROWS})
    recipe = datasets.recipe(project.workspace, "mine", project.block, lambda _: None)
    assert recipe.remark.endswith("does not name them: mood")
    assert "mood" not in recipe.build().column_names


# ── expectations/NAME.yaml ──────────────────────────────────────────────────────────────────────────────


def test_the_file_says_how_to_edit_it_and_is_never_written_again(tmp_path: Path) -> None:
    project = Project(tmp_path, customers())
    project.promised()
    text = project.stated.read_text()
    assert text.startswith("# What mine promises") and "tidemill data fetch mine" in text
    assert "always 'FR' in the training rows" in text and "free text: kept, not learnt from" in text
    project.stated.write_text("# mine now\n" + text)
    write_csv(project.file, customers(seed=3))
    project.promised()
    assert project.stated.read_text() == "# mine now\n" + text


def test_kinds_in_the_file_win(tmp_path: Path) -> None:
    project = Project(tmp_path, customers())
    assert project.build()["age"].type == pa.float64()
    rule = project.stated.read_text().partition("  age:\n")[2].partition("  income:")[0]
    project.edit(rule, "    kind: category\n")
    data = project.load()
    assert data.splits["train"]["age"].type == pa.string()
    assert next(c.kind for c in data.spec.columns if c.name == "age") == "category"
    assert parquet.read(project.workspace.data("mine"))["age"].to_pylist() == [str(x) for x in customers()["age"]]


FAULTS = [
    (
        "kind: number",
        "kind: numbr",
        r"^expectations/mine\.yaml:28 columns\.age\.kind: got 'numbr', expected one of .*; did you mean 'number'\?",
    ),
    ("    max: ", "    maks: ", r"columns\.age\.maks: got an unknown key; did you mean 'max'\?"),
    ("    missing: 0.", "    missing: 7.", r"columns\.age\.missing: got 7\.\d+, expected less than or equal to 1"),
    ("role: target", "role: input", r"columns: got no target, expected a column with `role: target`"),
    (
        "role: ignored",
        "role: target",
        r"columns\.left\.role: got a second target, expected one; 'note' is the first",
    ),
    ("values: [no, yes]", "values: [no]", r"columns\.left\.values: got \['no'\], expected two classes at least"),
    ("values: [no, yes]\n", "\n", r"columns\.left\.kind: got category without values, expected a target of kind"),
    ("min: '2019-07-24'", "min: soon", r"columns\.joined\.min: got 'soon', expected a date such as 2024-01-31"),
    ("    min: 0\n", "    min: 500\n", r"columns\.age\.max: got 1\d0\.0, expected no less than min, 500\.0"),
    ("values: [basic", "values: [1, basic", r"columns\.plan\.values\.0: got 1, expected text"),
    ("class_share: 0.01", "class_share: much", r"class_share: got 'much', expected a number"),
    ("columns:\n", "columns: [\n", r"not YAML"),
]


@pytest.mark.parametrize(("old", "new", "fault"), FAULTS)
def test_a_mistyped_file_is_told_with_its_line(
    project: Project, tmp_path: Path, old: str, new: str, fault: str
) -> None:
    file = tmp_path / "mine.yaml"
    text = project.stated.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError, match=fault) as caught:
        promises.read(file)
    assert str(caught.value).startswith("expectations/mine.yaml:")
    line = int(str(caught.value).split(":")[1].split()[0])
    near = "\n".join(file.read_text().splitlines()[max(line - 4, 0) : line + 3])
    assert new.strip().split("\n")[0][:8] in near or "target" in fault


def test_a_bare_date_is_a_date(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(project.stated.read_text().replace("min: '2019-07-24'", "min: 2021-02-03"))
    assert promises.read(file).columns["joined"].min == "2021-02-03"


def test_params_and_file_must_agree(tmp_path: Path) -> None:
    project = Project(tmp_path, customers())
    project.promised()
    for block, says in (
        ({"target": "active"}, r"'active' is target, expectations/mine\.yaml says input"),
        ({"target": "left", "id": "note"}, r"'note' is id, expectations/mine\.yaml says ignored"),
        ({"target": "left", "ignore": ["age"]}, r"'age' is ignored, expectations/mine\.yaml says input"),
    ):
        project.block = DatasetBlock(table="table.csv", **block)
        with pytest.raises(ParamsError, match=says):
            project.promised()


# ── no use ──────────────────────────────────────────────────────────────────────────────────────────────


def spoilt(**columns: Any) -> dict[str, Any]:
    return {**customers(), **columns}


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (spoilt(left=["yes"] * ROWS), r"target has one value only, 'yes'"),
        (spoilt(left=["", *["yes", "no"] * 249, ""][:ROWS]), r"target 'left' is missing in 2 rows: 0, 499"),
        (
            spoilt(left=customers()["note"]),
            r"target has 500 different values in 500 rows(.|\n)*neither numbers nor classes",
        ),
        (spoilt(left=customers()["joined"]), r"target is a date"),
        (spoilt(left=[""] * ROWS), r"target 'left' has no value|no value in column 'left'"),
        (
            spoilt(empty=["NaN"] * ROWS, void=[" ?"] * ROWS),
            r"no value in column 'empty', 'void'(.|\n)*ignore: \[empty, void\]",
        ),
        ({name: list(values)[:3] for name, values in customers().items()}, r"leave no row for split|one value only"),
    ],
)
def test_a_table_that_is_no_use_says_why(tmp_path: Path, columns: Columns, fault: str) -> None:
    project = Project(tmp_path, columns)
    with pytest.raises(DataError, match=fault) as caught:
        project.promised()
    assert len(str(caught.value).splitlines()) <= 3 and "fix: " in str(caught.value)
    assert not project.stated.exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("a,b,left\n", r"an empty table"),
        ("", r"an empty file"),
        ("a,a,left\n1,2,yes\n", r"columns that are there twice: 'a'"),
        ("a;left\n1;yes\n", r"one column only, 'a;left'(.|\n)*separated by ';'"),
        ("a,left\n1,yes\n2\n", r"does not read(.|\n)*Expected 2 columns, got 1"),
        ("a,Left\n1,yes\n", r"params\.yaml datasets\.mine\.target: no column 'left' in(.|\n)*did you mean 'Left'\?"),
    ],
)
def test_a_file_that_is_no_table_says_why(tmp_path: Path, content: str, fault: str) -> None:
    project = Project(tmp_path)
    project.file.write_text(content)
    with pytest.raises(DataError, match=fault):
        project.promised()
    assert not project.stated.exists()


def test_absent_and_damaged_sources_say_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with pytest.raises(DataError, match=r"table\.csv: no such file or folder"):
        project.promised()
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    project.block = DatasetBlock(table="rows.parquet", target="left")
    with pytest.raises(DataError, match=r"rows\.parquet: not a whole Parquet file"):
        project.promised()
    project.file.write_bytes("name,left\nJosé,yes\n".encode("latin-1"))
    project.block = DatasetBlock(table="table.csv", target="left")
    with pytest.raises(DataError, match=r"save (it|the file) as UTF-8"):
        project.promised()
    project.block = DatasetBlock(table="table.csv")
    with pytest.raises(ParamsError, match=r"datasets\.mine: got no target"):
        project.promised()


def test_types_that_no_family_reads_are_named(tmp_path: Path) -> None:
    rows = pa.table({**{k: pa.array(v) for k, v in customers().items()}, "tags": [["a"]] * ROWS})
    pq.write_table(rows, tmp_path / "rows.parquet")
    project = Project(tmp_path)
    project.block = DatasetBlock(table="rows.parquet", target="left")
    with pytest.raises(DataError, match=r"column 'tags' is list<.*>, which no family reads(.|\n)*ignore: \[tags\]"):
        project.promised()
    project.block = DatasetBlock(table="rows.parquet", target="left", ignore=["tags"])
    assert "tags" not in project.build().column_names


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (spoilt(age=["old", *customers()["age"][1:]]), r"column 'age', row 0: got 'old', expected a number"),
        ({k: v for k, v in customers().items() if k != "age"}, r"missing columns: 'age'"),
        (spoilt(left=["", *customers()["left"][1:]]), r"target 'left' is missing in 1 rows: 0"),
        (spoilt(left=["no"] * ROWS), r"target 'left' has one value only, 'no'"),
    ],
)
def test_tomorrows_file_that_does_not_fit_says_why(tmp_path: Path, columns: Columns, fault: str) -> None:
    project = Project(tmp_path, customers())
    project.promised()
    write_csv(project.file, columns)
    with pytest.raises(TidemillError, match=fault):
        project.build()


def test_an_id_that_repeats_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path, spoilt(customer_id=["C1"] * ROWS), id="customer_id")
    with pytest.raises(DataError, match=r"id column 'customer_id' does not name each row(.|\n)*499 repeat one"):
        project.promised()


def test_a_spec_survives_its_way_into_a_model(project: Project) -> None:
    spec = project.promised().spec("mine", "classification")
    assert Spec.from_json(spec.to_json()) == spec
    assert next(c for c in spec.columns if c.name == "seen").dtype == "%d/%m/%Y"


# ── ratings ─────────────────────────────────────────────────────────────────────────────────────────────


def stars(rows: int = 900, seed: int = 0) -> dict[str, Sequence[Any]]:
    """Whole stars that numbered readers gave to books; the tenth pair comes twice, with other stars."""
    draw = draws(seed)
    pairs = draw.permutation(60 * 40)[:rows]
    pairs[rows // 10] = pairs[0]
    return {
        "reader": (pairs // 40 + 1000).tolist(),
        "book": [f"b{p % 40}" for p in pairs],
        "stars": draw.integers(1, 6, rows).tolist(),
        "shelf": np.array(["a", "b"])[pairs % 40 % 2].tolist(),
    }


RATED = {"target": "stars", "user": "reader", "item": "book"}


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("ratings"), stars(), **RATED)
    made.load()
    return made


def test_ratings_are_numbers_on_their_scale_and_anybody_may_come(ratings: Project) -> None:
    """Whole numbers with five values would be classes, and readers numbers, if nobody said what they are."""
    promised = ratings.promised()
    target, reader = promised.columns["stars"], promised.columns["reader"]
    assert (target.kind, target.values, target.min, target.max) == ("number", None, 1, 5)
    assert (reader.role, reader.kind, reader.values) == ("input", "category", None)
    assert promised.tasks() == ("regression",)
    assert (promised.ratings.user, promised.ratings.item) == ("reader", "book")
    assert 0.05 <= promised.ratings.cold_users < 0.2 and 0 < promised.ratings.repeats < 0.1
    data = ratings.load()
    assert (data.spec.user, data.spec.item) == ("reader", "book")
    assert Spec.from_json(data.spec.to_json()) == data.spec


def test_a_pair_that_comes_again_stays_in_its_split(tmp_path: Path) -> None:
    columns = stars(400)
    again = {name: [*values, *values] for name, values in columns.items()}
    again["stars"][400:] = [6 - s for s in columns["stars"]]
    data = Project(tmp_path, again, **RATED).load()
    seen: dict[tuple[str, str], str] = {}
    for split, part in data.splits.items():
        for pair in zip(part["reader"].to_pylist(), part["book"].to_pylist(), strict=True):
            assert seen.setdefault(pair, split) == split


def test_ratings_need_only_their_user_to_be_scored(ratings: Project) -> None:
    spec = ratings.load().spec
    write_csv(ratings.workspace.root / "who.csv", {"reader": [1000, 7]})
    opened = intake.open_file(ratings.workspace.root / "who.csv", intake.Wanted(spec))
    (piece,) = opened.batches(10)
    assert opened.absent == ("book", "shelf")
    assert piece.inputs.to_pydict() == {"reader": ["1000", "7"], "book": [None, None], "shelf": [None, None]}
    write_csv(ratings.workspace.root / "what.csv", {"book": ["b1"]})
    with pytest.raises(TidemillError, match="missing columns: 'reader'"):
        intake.open_file(ratings.workspace.root / "what.csv", intake.Wanted(spec))


@pytest.mark.parametrize(
    ("block", "columns", "said"),
    [
        (RATED | {"user": "reeder"}, {}, "(?s)no column 'reeder'.*did you mean 'reader'"),
        (RATED | {"item": "reader"}, {}, "column 'reader' has two roles"),
        (RATED | {"item": "stars"}, {}, "column 'stars' has two roles"),
        (RATED, {"stars": ["good", "bad"] * 450}, "target 'stars' holds no numbers"),
        (RATED, {"book": [""] * 900}, "no value in column 'book'"),
    ],
)
def test_ratings_that_are_none(tmp_path: Path, block: dict[str, str], columns: Columns, said: str) -> None:
    with pytest.raises(TidemillError, match=said):
        Project(tmp_path, stars() | columns, **block).promised()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("user: reader", "user: redder", "got 'redder', expected an input of kind category; no column of that name"),
        ("item: book", "item: stars", "got 'stars', expected an input of kind category; its role is target"),
        ("item: book", "item: reader", "got 'reader' for both, expected another column than the user's"),
        ("item: book", "item: shelf", "params.yaml says that 'book' is rated by 'reader', .* says shelf by reader"),
        ("repeats:", "repeat:", "repeat"),
    ],
)
def test_what_is_said_of_ratings_must_agree(tmp_path: Path, old: str, new: str, said: str) -> None:
    made = Project(tmp_path, stars(), **RATED)
    made.promised()
    made.edit(old, new)
    with pytest.raises(ParamsError, match=said):
        made.promised()
