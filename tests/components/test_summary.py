"""One row per sample, whatever the samples are made of."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components.contract import Data
from components.expectations import ColumnRule, Expectations
from components.tensors import BLOCK_ROWS, blocks
from components.validation import summary
from components.validation.summary import CONTENT, ROW, summarise

IMAGE = ColumnRule(kind="tensor", dtype="float32", shape=(2, 2))
LABEL = ColumnRule(role="target", kind="category", values=["a", "b"])


def tensors(rows: list[list[float | None] | None], shape: tuple[int, ...] = (2, 2)) -> pa.ExtensionArray:
    storage = pa.array(rows, pa.list_(pa.float32(), int(np.prod(shape))))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), shape), storage)


def look(columns: dict[str, ColumnRule], **splits: pa.Table) -> pd.DataFrame:
    expectations = Expectations(columns=columns)
    return summarise(Data(expectations.spec("d", "classification"), splits), expectations)


def test_a_tensor_is_described_by_hash_shape_type_range_and_what_is_no_number():
    images = tensors([[0, 1, 2, 3], [7, 7, 7, 7], None, [1, np.nan, 2, 5], [np.nan] * 4, [1, None, 2, 5], [0, 1, 2, 3]])
    rows = look({"image": IMAGE}, train=pa.table({"image": images}))
    assert set(rows["image.shape"]) == {"(2, 2)"}
    assert set(rows["image.dtype"]) == {"float32"}
    np.testing.assert_array_equal(rows["image.min"], [0, 7, np.nan, 1, np.nan, 1, 0])
    np.testing.assert_array_equal(rows["image.max"], [3, 7, np.nan, 5, np.nan, 5, 3])
    assert rows["image.nan"].tolist() == [0, 0, 0, 1, 4, 1, 0]
    assert rows["image.constant"].tolist() == [0, 2, 0, 0, 0, 0, 0]
    assert rows["image"].isna().tolist() == [False, False, True, False, False, False, False]
    assert rows["image"][0] == rows["image"][6] != rows["image"][1]


@pytest.mark.parametrize(("shape", "constant"), [((2, 4), [1, 2, 0]), ((8,), [0, 1, 0]), ((2, 2, 2), [0, 1, 0])])
def test_channels_of_one_value_are_counted_in_series_alone(shape: tuple[int, ...], constant: list[int]):
    values = tensors([[3, 3, 3, 3, 1, 2, 1, 2], [5] * 8, [1, 2, 3, 4, 1, 2, 3, np.nan]], shape)
    rule = ColumnRule(kind="tensor", dtype="float32", shape=shape)
    assert look({"x": rule}, train=pa.table({"x": values}))["x.constant"].tolist() == constant


def test_slices_and_chunks_of_tensors_are_read_as_they_stand():
    whole = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(24, dtype=np.int16).reshape(6, 2, 2))
    column = pa.chunked_array([whole.slice(1, 2), whole.slice(4)])
    ((first, _), (second, missing)) = blocks(column)
    assert first.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert second.tolist() == [[16, 17, 18, 19], [20, 21, 22, 23]]
    assert not missing.any()


def test_a_large_tensor_column_is_read_in_blocks_without_a_copy():
    values = np.zeros((3 * BLOCK_ROWS + 1, 1, 4, 4), np.uint8)
    column = pa.chunked_array([pa.FixedShapeTensorArray.from_numpy_ndarray(values)])
    found = [elements for elements, _ in blocks(column)]
    assert [len(f) for f in found] == [BLOCK_ROWS] * 3 + [1]
    assert all(np.shares_memory(f, values) for f in found)


def test_equal_samples_have_equal_content_in_every_split_whatever_their_ids():
    columns = {"id": ColumnRule(role="id", kind="number"), "image": IMAGE, "label": LABEL}
    table = pa.table({"id": [3, 4, 5], "image": tensors([[0, 1, 2, 3]] * 2 + [None]), "label": ["a", "b", "a"]})
    other = pa.table({"id": [9], "image": tensors([[0, 1, 2, 3]]), "label": ["a"]})
    rows = look(columns, train=table, test=other)
    assert rows[CONTENT][0] == rows[CONTENT][3]
    assert rows[CONTENT].nunique() == 3
    assert rows[ROW].tolist() == [3, 4, 5, 9]
    assert rows["split"].tolist() == ["train"] * 3 + ["test"]


def test_rows_without_an_id_are_numbered_within_their_split():
    rows = look({"x": ColumnRule(kind="number")}, train=pa.table({"x": [1, 2]}), val=pa.table({"x": [3]}))
    assert rows[ROW].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("kind", "given", "dtype", "seen"),
    [
        ("number", pa.array([1, None]), "float64", [1, np.nan]),
        ("number", pa.array([True, False]), "float64", [1, 0]),
        ("number", pa.array(["1", "x"]), "str", ["1", "x"]),
        ("category", pa.array([3, 4]), "str", ["3", "4"]),
        ("category", pa.array(["u", None]).dictionary_encode(), "str", ["u", np.nan]),
        ("category", pa.nulls(2), "float64", [np.nan, np.nan]),
        ("date", pa.array([0, None], pa.date32()), "datetime64[us]", [pd.Timestamp(0), pd.NaT]),
        ("date", pa.array(["soon", "late"]), "str", ["soon", "late"]),
    ],
)
def test_a_value_becomes_its_kind_or_stays_what_it_is(kind, given, dtype, seen):
    rows = look({"x": ColumnRule(kind=kind)}, train=pa.table({"x": given}))
    assert rows["x"].dtype == dtype
    pd.testing.assert_series_equal(rows["x"], pd.Series(seen, dtype=dtype, name="x"))


def test_columns_called_like_our_own_are_kept_apart():
    rows = look(
        {"row": ColumnRule(kind="number"), "content": ColumnRule(kind="number")},
        train=pa.table({"row": [5], "content": [6]}),
    )
    assert (rows["row"][0], rows["content"][0], rows[ROW][0]) == (5, 6, 0)


def test_an_empty_split_and_no_split_at_all_are_tables_too():
    table = pa.table({"image": tensors([[0, 1, 2, 3]]), "label": ["a"]})
    assert len(look({"image": IMAGE, "label": LABEL}, train=table, val=table.slice(0, 0))) == 1
    assert len(look({"image": IMAGE, "label": LABEL}, train=table.slice(0, 0))) == 0
    assert len(look({"image": IMAGE, "label": LABEL})) == 0


def test_recorded_episodes_are_held_to_every_column():
    columns = {"step": ColumnRule(role="ignored", kind="number"), "note": ColumnRule(role="ignored", kind="text")}
    assert list(summary.held(Expectations(columns=columns))) == []
    assert list(summary.held(Expectations(columns=columns, environment="CartPole-v1"))) == ["step", "note"]
