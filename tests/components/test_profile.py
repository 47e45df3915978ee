"""A profile says what training rows were like; rows are counted in its bins, evenly, however they come."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components import families, model
from components.closure import closure
from components.contract import Column, Data, Spec
from components.errors import RegistryError
from components.model import Model
from components.profile import COMPARED, COMPARED_CODES, Tally, bin_of, measure, name_of
from components.scoring.drift import Terms, compare

from . import shelf
from .cases import (
    images,
    one_thread,  # noqa: F401
)
from .cases import table as mixed

MIXED = mixed("classification")


class Plain:
    """A model without a net: what a profile needs where there are no tensors."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def encode(self, batch: pa.RecordBatch) -> Any:
        raise AssertionError("a table has no codes")


def plain(**columns: Any) -> tuple[Plain, pa.Table]:
    table = pa.table(columns)
    kinds = {"double": "number", "int64": "number", "string": "category", "timestamp[us]": "date"}
    inputs = tuple(Column(f.name, kinds[str(f.type)]) for f in table.schema)  # type: ignore[arg-type]
    return Plain(Spec("d", "regression", inputs)), table


def counted(made: Any, told: Any, rows: pa.Table, batch_rows: int = 1000) -> dict[str, list[int]]:
    tally = Tally(made, told)
    for batch in rows.to_batches(batch_rows):
        tally.add(batch)
    return tally.counts()


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Data]:
    data = images("classification")
    return taught(tmp_path_factory.mktemp("bars"), "cnn", data, {"width": 4}), data


def taught(folder: Path, family: str, data: Data, hyper: dict[str, Any], epochs: int = 1) -> Model:
    learning = families.family(family).fit(data, hyper, 1, None)
    *_, last = itertools.islice(learning, epochs)
    model.save(folder, families.import_path(family), data.spec, hyper, last.state())
    return model.load(folder)


# ── the same again ──────────────────────────────────────────────────────────────────────────────────────


def test_the_same_rows_and_net_give_the_same_profile(bars: tuple[Model, Data]) -> None:
    made, data = bars
    told = measure(made, data.splits["train"])
    assert json.dumps(told) == json.dumps(measure(made, data.splits["train"]))
    assert told["format"] == 1 and told["rows"] == 216
    assert {f["of"] for f in told["features"].values()} == {"summary", "codes"}
    assert all(sum(f["counts"]) == 216 for f in told["features"].values())


def test_a_model_keeps_its_profile_and_refuses_another(tmp_path: Path) -> None:
    folder = shelf.train(tmp_path, shelf.tides(), 1)
    made = model.load(folder)
    assert made.profile is None, "as older versions have it"
    told = measure(made, shelf.tides().splits["train"])
    model.keep_profile(folder, told)
    assert model.load(folder).profile == told
    assert model.load(folder).weights_sha256 == made.weights_sha256
    (folder / model.PROFILE).write_text("{}")
    with pytest.raises(RegistryError, match="the profile is not the one that was saved"):
        model.load(folder)


def test_a_change_of_the_reader_trains_nothing_again() -> None:
    assert not any(
        name.startswith(("components.intake", "components.scoring")) for name in closure(["components.profile"])
    )


# ── bins ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_value_that_many_rows_have_gets_a_bin_of_its_own() -> None:
    made, rows = plain(x=[0.0] * 50 + list(np.linspace(1, 2, 50)), same=[7.0] * 100)
    told = measure(made, rows)["features"]
    assert bin_of(told["x"], np.array([-1e-9, 0.0, 1e-9, 1.5, np.nan])).tolist() == [0, 1, 2, 4, 7]
    names = [name_of(told["same"], at) for at in range(4)]
    assert names == ["below 7", "7", "from 7", "missing"]
    assert told["same"]["counts"] == [0, 100, 0, 0]


def test_missing_rare_and_unseen_have_bins() -> None:
    common = ["a"] * 120 + ["b"] * 60 + [None] * 19
    made, rows = plain(c=pa.array([*common, "rare"]), x=pa.array([1.0] * 199 + [None]))
    told = measure(made, rows)["features"]
    assert (told["c"]["values"], told["c"]["counts"]) == (["a", "b"], [120, 60, 1, 19])
    assert bin_of(told["c"], pa.array(["b", "never", None, "rare"])).tolist() == [1, 2, 3, 2]
    assert told["x"]["counts"][-1] == 1
    assert [name_of(told["c"], at) for at in range(4)] == ["a", "b", "other", "missing"]


def test_a_column_without_a_value_has_a_profile_too() -> None:
    made, rows = plain(x=pa.nulls(5, pa.float64()), c=pa.nulls(5, pa.string()))
    told = measure(made, rows)
    assert {name: f["counts"] for name, f in told["features"].items()} == {"x": [0, 5], "c": [0, 5]}
    assert counted(made, told, rows) == {"x": [0, 5], "c": [0, 5]}


# ── counting ────────────────────────────────────────────────────────────────────────────────────────────


def test_counts_do_not_depend_on_how_rows_come(bars: tuple[Model, Data]) -> None:
    for made, data in (bars, (Plain(MIXED.spec), MIXED)):
        told = measure(made, data.splits["train"])
        rows = data.splits["test"].select([c.name for c in data.spec.columns])
        if isinstance(made, Plain):
            rows = profile_rows(rows, data.spec)
        assert counted(made, told, rows, 7) == counted(made, told, rows, 1000)


def profile_rows(rows: pa.Table, spec: Spec) -> pa.Table:
    """As the reader of files hands them on."""
    from components.intake import columns

    fitted = [columns.fit(rows[c.name].combine_chunks(), c, Path("x"), 0) for c in spec.columns]
    return pa.table(fitted, names=[c.name for c in spec.columns])


def test_of_many_rows_a_bounded_evenly_spread_part_is_held() -> None:
    made, rows = plain(x=np.arange(1_000_000.0))
    told = measure(made, rows)
    small, large = (counted(made, told, rows, size)["x"] for size in (65536, 1_000_000))
    assert small == large
    assert COMPARED / 2 < sum(small) <= COMPARED
    assert max(small[:-1]) - min(small[:-1]) <= 2, "every tenth of the rows is there alike"


def test_of_many_images_few_are_encoded(bars: tuple[Model, Data]) -> None:
    made, data = bars
    told = measure(made, data.splits["train"])
    rows = pa.concat_tables([data.splits["train"].select(["image"])] * 25).combine_chunks()
    found = counted(made, told, rows, 512)
    coded = [sum(counts) for name, counts in found.items() if told["features"][name]["of"] == "codes"]
    assert len(coded) == 32 and len(set(coded)) == 1
    assert COMPARED_CODES / 2 < coded[0] <= COMPARED_CODES
    assert sum(found["image.mean"]) == rows.num_rows


# ── real data ───────────────────────────────────────────────────────────────────────────────────────────


def built_in(name: str) -> Data:
    from components import datasets
    from components.params import DatasetBlock
    from components.workspace import Workspace

    workspace = Workspace(Path(__file__).parents[2])
    task = "classification"
    return datasets.load(workspace, name, datasets.expectations(workspace, name, DatasetBlock()), task)  # type: ignore[arg-type]


def drifting(made: Model, told: Any, rows: pa.Table) -> dict[str, str]:
    """Feature → what it is of, of those that drift."""
    rows = profile_rows(rows.select([c.name for c in made.spec.columns]), made.spec)
    found = compare(told, counted(made, told, rows), Terms())
    return {one["feature"]: one["of"] for one in found["features"] if one["drifts"]}


def test_the_test_rows_of_breast_cancer_do_not_drift_and_others_do() -> None:
    data = built_in("breast-cancer")
    made = Plain(data.spec)
    told = measure(made, data.splits["train"])
    rows = data.splits["test"]
    assert drifting(made, told, rows) == {}  # type: ignore[arg-type]
    name = data.spec.columns[3].name
    shifted = rows.set_column(rows.schema.get_field_index(name), name, pa.array(rows[name].to_numpy() * 1.7))
    assert drifting(made, told, shifted) == {name: "column"}  # type: ignore[arg-type]


def test_the_test_images_of_digits_do_not_drift_and_inverted_ones_do(tmp_path: Path) -> None:
    data = built_in("digits")
    few = Data(data.spec, {name: rows.slice(0, 1000) for name, rows in data.splits.items()})
    made = taught(tmp_path, "cnn", few, {"width": 4})
    told = measure(made, data.splits["train"])
    rows = data.splits["test"]
    assert drifting(made, told, rows) == {}
    pixels = rows["image"].combine_chunks().to_numpy_ndarray()
    inverted = pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(255 - pixels)})
    found = drifting(made, told, inverted)
    assert "image.mean" in found
    assert set(found.values()) == {"summary", "codes"}
