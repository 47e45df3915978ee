"""From columns of every kind to tensors, whatever they look like when they come to be scored."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import tables
from components.contract import Column
from components.errors import BadInput, DataError
from components.tables import Encoder, fit_encoder

NUMBER, CATEGORY, DATE = Column("x", "number"), Column("x", "category"), Column("x", "date")


def rows(values: Any, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"x": values if isinstance(values, pa.Array) else pa.array(values, kind)})


def encoded(column: Column, taught: Any, asked: Any) -> list[list[float]]:
    """Features, or category codes, of what is asked after learning from what is taught."""
    given = taught if isinstance(taught, pa.Table) else rows(taught)
    encoder = Encoder.from_json(json.loads(json.dumps(fit_encoder(given, [column]).to_json(), allow_nan=False)))
    x_NF, c_NC = encoder(asked if isinstance(asked, pa.Table) else rows(asked))
    assert x_NF.dtype == torch.float32 and x_NF.shape[1] == encoder.features
    found: list[list[float]] = (c_NC if column.kind == "category" else x_NF).tolist()
    return found


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_are_scaled_by_median_and_quartiles_and_squashed() -> None:
    deviates = np.random.default_rng(0).normal(100, 20, 50_001)
    values = [x for (x,) in encoded(NUMBER, deviates, [100.0, 120.0, 1e300, -math.inf, math.inf])]
    assert values[0] == pytest.approx(0, abs=0.03)
    assert values[1] == pytest.approx(1 / math.sqrt(1 + 1 / 9), abs=0.03)
    assert values[2:] == pytest.approx([3, -3, 3], abs=1e-5)


def test_large_numbers_that_differ_little_stay_apart() -> None:
    start = 1_700_000_000.0
    values = encoded(NUMBER, [start + i for i in range(11)], [start + 4.0, start + 5.0, start + 6.0])
    assert values[0][0] < values[1][0] == 0 < values[2][0]


def test_missing_numbers_are_the_median_with_an_indicator_if_training_knew_them() -> None:
    assert encoded(NUMBER, [1.0, 2.0, None, 3.0], [None, math.nan, 2.0]) == [[0, 1], [0, 1], [0, 0]]
    assert encoded(NUMBER, [1.0, 2.0, 3.0], [None, 2.0]) == [[0], [0]]


@pytest.mark.parametrize("taught", [[None, None], [5.0, 5.0], [math.inf, math.nan]])
def test_a_column_that_says_nothing_does_no_harm(taught: list[Any]) -> None:
    values = encoded(NUMBER, rows(taught, pa.float64()), rows([None, 5.0, 1e9], pa.float64()))
    assert [value[0] for value in values] == [0, 0, 0]


def test_a_column_that_is_mostly_one_value_is_scaled_by_its_range() -> None:
    values = encoded(NUMBER, [0.0] * 20 + [8.0], [0.0, 8.0])
    assert values[0] == [0] and values[1][0] == pytest.approx(2 / math.sqrt(1 + 4 / 9))


@pytest.mark.parametrize(
    "asked",
    [
        pa.array([1, 2, None, 4], pa.int32()),
        pa.array(["1", "2.0", None, "4"]),
        pa.array([1, 2, None, 4], pa.float32()),
        pa.array(["1", "2", None, "4"]).dictionary_encode(),
        pa.array([9, 1, 2, None, 4, 9], pa.float64()).slice(1, 4),
        pa.array([1, 2, None, 4], pa.decimal128(10, 2)),
    ],
)
def test_whatever_reads_as_numbers_will_do(asked: pa.Array) -> None:
    usual = encoded(NUMBER, [1.0, 2.0, None, 4.0], rows([1.0, 2.0, None, 4.0]))
    assert encoded(NUMBER, [1.0, 2.0, None, 4.0], rows(asked)) == usual


def test_truth_values_are_numbers() -> None:
    assert encoded(NUMBER, [0, 1, 1, 0], [True, False]) == encoded(NUMBER, [0, 1, 1, 0], [1, 0])


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(BadInput, match=r"column 'x' is string, and does not read as a number"):
        encoded(NUMBER, [1.0], ["1", "many"])
    with pytest.raises(BadInput, match="no column 'x'"):
        encoded(NUMBER, [1.0], pa.table({"y": [1.0]}))


# ── categories ──────────────────────────────────────────────────────────────────────────────────────────

COLOURS = ["red", "red", "red", "blue", "blue", "blue", "once"]


def test_categories_have_codes_and_strangers_share_one() -> None:
    codes = [code for (code,) in encoded(CATEGORY, COLOURS, ["blue", "red", "once", "green", None])]
    assert codes == [tables.FIRST, tables.FIRST + 1, tables.UNKNOWN, tables.UNKNOWN, tables.UNKNOWN]


def test_missing_is_a_category_of_its_own_if_training_knew_it() -> None:
    codes = [code for (code,) in encoded(CATEGORY, [*COLOURS, None], [None, "green", "blue"])]
    assert codes == [tables.MISSING, tables.UNKNOWN, tables.FIRST]


@pytest.mark.parametrize("asked", [[3, 4], [3.0, 4.0], ["3", "4"], pa.array(["3", "4"]).dictionary_encode()])
def test_a_number_as_category_is_the_same_in_every_spelling(asked: Any) -> None:
    assert encoded(CATEGORY, [3, 3, 3, 4, 4, 4], asked) == [[tables.FIRST], [tables.FIRST + 1]]


def test_a_vocabulary_keeps_the_most_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST", 2)
    (vocabulary,) = fit_encoder(rows(["a"] * 3 + ["b"] * 5 + ["c"] * 4), [CATEGORY]).vocabularies
    assert vocabulary.values == ("b", "c")


# ── dates ───────────────────────────────────────────────────────────────────────────────────────────────

DAYS = [f"2024-01-{day:02}" for day in range(1, 22)]


def test_dates_have_a_trend_a_weekday_and_a_month() -> None:
    monday, next_monday, july = encoded(DATE, DAYS, ["2024-01-08", "2024-01-15", "2024-07-01"])
    assert len(monday) == 5 and monday[0] < next_monday[0] < july[0]
    assert monday[1:] == next_monday[1:] == pytest.approx([0, 1, 0, 1], abs=1e-6)
    assert july[1:] == pytest.approx([0, 1, 0, -1], abs=1e-6)


def test_times_of_day_count_where_training_had_them() -> None:
    (features,) = encoded(DATE, [f"{day} 06:00:00" for day in DAYS], ["2024-01-08 06:00:00"])
    assert features[5:] == pytest.approx([1, 0], abs=1e-6)


def test_missing_dates_say_nothing_but_that_they_are_missing() -> None:
    assert encoded(DATE, [*DAYS, None], rows([None], pa.timestamp("us"))) == [[0, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    "kind", [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.string()]
)
def test_every_kind_of_date_will_do(kind: pa.DataType) -> None:
    asked = pa.array(["2024-02-03"]).cast(pa.timestamp("s")).cast(pa.timestamp("us"))
    text = pa.array(["2024-02-03"]) if kind == pa.string() else asked.cast(kind)
    assert encoded(DATE, DAYS, rows(text)) == encoded(DATE, DAYS, rows(asked))


def test_a_time_with_an_offset_is_that_moment() -> None:
    given = encoded(DATE, [f"{day} 06:30:00" for day in DAYS], ["2024-01-08T08:00:00+02:00"])
    assert given == encoded(DATE, [f"{day} 06:30:00" for day in DAYS], ["2024-01-08 06:00:00"])


def test_what_is_no_date_is_named() -> None:
    with pytest.raises(BadInput, match="does not read as a date"):
        encoded(DATE, DAYS, ["soon"])


def test_tensors_are_flattened_and_standardised_behind_the_other_features() -> None:
    values = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.float32)
    taught = pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(values), "n": [1.0, 3.0]})
    columns = [Column("x", "tensor", "float32", (2, 2), ("a", "b", "c", "d")), Column("n", "number")]
    plain = json.loads(json.dumps(fit_encoder(taught, columns).to_json(), allow_nan=False))
    x_NF, _ = Encoder.from_json(plain)(taught)
    assert x_NF.shape == (2, 5)
    np.testing.assert_allclose(x_NF[:, 1:].numpy(), (values.reshape(2, 4) - 4.5) / values.std(), rtol=1e-5)
    far = pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(values * 1e6), "n": [1.0, 3.0]})
    assert Encoder.from_json(plain)(far)[0].max() == 10
    values[1, 0, 1] = math.nan
    with pytest.raises(BadInput, match="column 'x' holds tensors with elements that are not finite"):
        Encoder.from_json(plain)(pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(values), "n": [1.0, 3.0]}))


def test_tensors_that_say_nothing_do_no_harm() -> None:
    x = pa.FixedShapeTensorArray.from_numpy_ndarray(np.full((3, 1, 2), 7, np.uint8))
    x_NF, _ = fit_encoder(pa.table({"x": x}), [Column("x", "tensor", "uint8", (1, 2))])(pa.table({"x": x}))
    assert x_NF.tolist() == [[0, 0]] * 3


def test_a_table_without_tensors_is_encoded_as_ever() -> None:
    assert fit_encoder(rows([1.0, 2.0]), [NUMBER]).to_json().keys() == {"scales", "calendars", "vocabularies"}


# ── targets, tensors, scores ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("target", "classes"),
    [([2, 10, 2], ("10", "2")), (["b", "a", "b"], ("a", "b")), ([True, False, True], ("false", "true"))],
)
def test_labels_are_the_numbers_of_their_classes(target: list[Any], classes: tuple[str, ...]) -> None:
    assert tables.labels(rows(target), "x", classes).tolist() == [1, 0, 1]


@pytest.mark.parametrize("target", [["a", None], ["a", "c"]])
def test_a_target_of_no_known_class_is_named(target: list[Any]) -> None:
    with pytest.raises(DataError, match="target 'x' has 1 rows of no known class"):
        tables.labels(rows(target), "x", ("a", "b"))


PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 1, 2, 3)
IMAGE = Column("x", "tensor", "uint8", (1, 2, 3))


@pytest.mark.parametrize(
    "column",
    [
        pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS),
        pa.array(PIXELS.reshape(4, 6).tolist(), pa.list_(pa.uint8())),
        pa.array(PIXELS.reshape(4, 6).tolist(), pa.list_(pa.int64(), 6)),
        pa.array(PIXELS.reshape(4, 6).tolist(), pa.large_list(pa.float32())),
    ],
)
def test_tensors_come_in_several_shapes_of_list(column: pa.Array) -> None:
    whole = tables.tensors(rows(column), IMAGE)
    assert whole.dtype == torch.uint8 and np.array_equal(whole.numpy(), PIXELS)
    assert np.array_equal(tables.tensors(rows(column.slice(1, 2)), IMAGE).numpy(), PIXELS[1:3])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[1, 2], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]], "expected tensors of shape 1×2×3"),
        ([[1, 2, 3, 4, 5, 6], None], "1 rows without a tensor"),
        ([[1, 2, 3, 4, 5, 300]], "does not fit uint8"),
    ],
)
def test_tensors_of_another_kind_are_named(values: list[Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        tables.tensors(rows(values, pa.list_(pa.int64())), IMAGE)


def test_a_column_that_holds_no_tensors_is_named() -> None:
    with pytest.raises(BadInput, match="column 'x' is int64, expected tensors"):
        tables.tensors(rows([1, 2]), IMAGE)


def test_classified_rows_name_the_likeliest_class() -> None:
    scored = tables.classified(torch.tensor([[0.25, 0.75], [0.5, 0.25]]), ("a", "b"))
    assert scored.to_pylist() == [
        {"class": "b", "probability_a": 0.25, "probability_b": 0.75},
        {"class": "a", "probability_a": 0.5, "probability_b": 0.25},
    ]
    assert scored.schema == tables.class_columns(("a", "b"))
