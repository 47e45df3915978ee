"""Bad rows stop a pipeline with a message that says which, and leave a page that opens offline."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components import validation
from components.contract import Data
from components.errors import DataError, ValidationFailed
from components.expectations import ColumnRule, Duplicates, Expectations, Ratings
from components.validation import Failure, Validation, raise_for_failures, validate

Splits = dict[str, pa.Table]

PEOPLE = Expectations(
    columns={
        "person": ColumnRule(role="id", kind="number"),
        "age": ColumnRule(kind="number", min=0, max=120),
        "income": ColumnRule(kind="number", missing=0.2),
        "town": ColumnRule(kind="category", values=["Bonn", "Oslo", "Rome"]),
        "joined": ColumnRule(kind="date", min="2019-01-01", max="2025-01-01"),
        "left": ColumnRule(role="target", kind="category", values=["no", "yes"]),
    },
    class_share=0.1,
)
DIGITS = Expectations(
    columns={
        "image": ColumnRule(kind="tensor", dtype="float32", shape=(1, 4, 4), min=0, max=1),
        "digit": ColumnRule(role="target", kind="category", values=["0", "1"]),
    }
)
SIZES = {"train": 120, "val": 40, "test": 40}


@pytest.fixture
def people() -> Splits:
    """Sound rows: ids 0…119 in train, 120…159 in val, 160…199 in test; some incomes are missing."""
    rng = np.random.default_rng(0)
    whole = pa.table(
        {
            "person": np.arange(200),
            "age": rng.integers(18, 90, 200),
            "income": pa.array(rng.lognormal(8, 1, 200), mask=rng.random(200) < 0.05),
            "town": rng.choice(["Bonn", "Oslo", "Rome"], 200).tolist(),
            "joined": np.datetime64("2020-01-01", "us")
            + rng.integers(0, 1000, 200) * np.timedelta64(86_400_000_000, "us"),
            "left": rng.choice(["no", "yes"], 200).tolist(),
        }
    )
    return cut(whole)


@pytest.fixture
def digits() -> Splits:
    rng = np.random.default_rng(0)
    images = rng.random((200, 1, 4, 4)).astype(np.float32)
    labels = rng.choice(["0", "1"], 200).tolist()
    return cut(pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(images), "digit": labels}))


@pytest.fixture
def episodes() -> Splits:
    """Nine episodes of a cart that nobody pushed hard: 4, 5, 6, … steps."""
    rng = np.random.default_rng(0)
    lengths = np.arange(4, 13)
    episode = np.repeat(np.arange(9), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    states = rng.uniform(-0.2, 0.2, (len(step), 4)).astype(np.float32)
    whole = pa.table(
        {
            "id": [f"{e}-{s}" for e, s in zip(episode, step, strict=True)],
            "episode": episode,
            "step": step,
            "observation": pa.FixedShapeTensorArray.from_numpy_ndarray(states),
            "action": rng.integers(0, 2, len(step)),
            "reward": np.ones(len(step)),
            "terminated": (step == lengths[episode] - 1).astype(np.int64),
            "truncated": np.zeros(len(step), np.int64),
        }
    )
    parts = {"train": episode < 5, "val": (episode >= 5) & (episode < 7), "test": episode >= 7}
    return {split: whole.filter(pa.array(mask)) for split, mask in parts.items()}


CART = Expectations(
    columns={
        "id": ColumnRule(role="id", kind="text"),
        **{name: ColumnRule(role="ignored", kind="number") for name in ("episode", "step", "action")},
        "observation": ColumnRule(kind="tensor", dtype="float32", shape=(4,)),
        "reward": ColumnRule(role="ignored", kind="number", min=1, max=1),
        **{name: ColumnRule(role="ignored", kind="number") for name in ("terminated", "truncated")},
    },
    environment="CartPole-v1",
)


def cut(whole: pa.Table) -> Splits:
    starts = np.cumsum([0, *SIZES.values()])
    return {split: whole.slice(start, rows) for (split, rows), start in zip(SIZES.items(), starts, strict=False)}


def put(table: pa.Table, name: str, at: dict[int, object]) -> pa.Table:
    """The same rows with other values in a few places."""
    values = table[name].to_pylist()
    for row, value in at.items():
        values[row] = value
    return table.set_column(table.schema.names.index(name), name, pa.array(values, table.schema.field(name).type))


def everywhere(splits: Splits, name: str, make: Callable[[int], pa.Array]) -> Splits:
    return {
        split: table.set_column(table.schema.names.index(name), name, make(len(table)))
        for split, table in splits.items()
    }


def paint(table: pa.Table, row: int, value: float | list[float]) -> pa.Table:
    """The same images but for one."""
    images = table["image"].combine_chunks().to_numpy_ndarray().copy()
    images[row] = np.reshape(value, (1, 4, 4)) if isinstance(value, list) else value
    return table.set_column(0, "image", pa.FixedShapeTensorArray.from_numpy_ndarray(images))


def failures(splits: Splits, expectations: Expectations, tmp_path: Path) -> dict[tuple[str, str], Failure]:
    task = "control" if expectations.environment else "classification"
    found = validate(Data(expectations.spec("people", task), splits), expectations, tmp_path / "docs")
    assert found.passed == (not found.failures)
    assert "unexpected Exception" not in found.docs_page.read_text(encoding="utf-8")
    return {(f.column, f.rule): f for f in found.failures}


# ── sound rows ──────────────────────────────────────────────────────────────────────────────────────────


def test_sound_rows_pass_and_the_result_is_the_same_wherever_and_whenever(people, tmp_path, caplog):
    before = dict(os.environ)
    data = Data(PEOPLE.spec("people", "classification"), people)
    first, second = (validate(data, PEOPLE, tmp_path / place / "docs") for place in ("here", "there"))
    assert first.passed
    assert first.checks > 20
    raise_for_failures(first)
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    assert str(tmp_path) not in json.dumps(first.to_json())
    assert dict(os.environ) == before
    assert not caplog.records


@pytest.mark.parametrize("kind", ["digits", "episodes"])
def test_sound_images_and_episodes_pass(kind, request, tmp_path):
    expectations = DIGITS if kind == "digits" else CART
    assert failures(request.getfixturevalue(kind), expectations, tmp_path) == {}


def test_a_regression_target_needs_no_classes(people, tmp_path):
    columns = {n: r for n, r in PEOPLE.columns.items() if n != "left"}
    columns |= {"income": ColumnRule(role="target", kind="number", missing=0.2)}
    expectations = PEOPLE.model_copy(update={"columns": columns})
    assert failures(people, expectations, tmp_path) == {}
    flat = {split: table.set_column(2, "income", pa.array([5.0] * len(table))) for split, table in people.items()}
    found = failures(flat, expectations, tmp_path)
    assert found.keys() == {("income", "a target that varies")}
    dressed = everywhere(people, "age", lambda n: pa.array(np.zeros(n)))
    dressed = {split: t.set_column(1, "age", pa.array(np.log(t["income"].to_numpy()))) for split, t in dressed.items()}
    assert ("age", "target leakage") in failures(dressed, expectations, tmp_path)


# ── bad rows ────────────────────────────────────────────────────────────────────────────────────────────


def test_values_out_of_bounds_are_named_with_their_rows(people, tmp_path):
    people["train"] = put(put(people["train"], "age", {3: 500, 7: -1}), "town", {5: "Paris"})
    people["val"] = put(people["val"], "income", {2: float("inf")})
    people["test"] = put(people["test"], "joined", {0: np.datetime64("1999-01-01", "us").item()})
    found = failures(people, PEOPLE, tmp_path)
    assert found.keys() == {("age", "range"), ("town", "allowed values"), ("income", "range"), ("joined", "range")}
    age, town = found["age", "range"], found["town", "allowed values"]
    assert (age.count, age.rows, age.split, age.detail) == (2, (3, 7), "train", "got 500, -1, expected 0 to 120")
    assert (town.rows, town.detail) == ((5,), "got 'Paris', expected 'Bonn', 'Oslo', 'Rome'")
    assert (found["income", "range"].rows, found["income", "range"].split) == ((122,), "val")
    assert (found["joined", "range"].rows, found["joined", "range"].split) == ((160,), "test")


def test_missing_values_are_counted_in_each_split(people, tmp_path):
    people["val"] = put(people["val"], "income", dict.fromkeys(range(12)))
    people["test"] = put(people["test"], "town", {1: None})
    found = failures(people, PEOPLE, tmp_path)
    assert found.keys() == {("income", "missing values"), ("town", "missing values")}
    income = found["income", "missing values"]
    assert (income.split, income.rows) == ("val", (120, 121, 122, 123, 124))
    assert income.count >= 12


@pytest.mark.parametrize("nothing", [lambda n: pa.array(np.full(n, np.nan)), pa.nulls], ids=["NaN", "null"])
def test_a_column_of_nothing_is_missing_values(people, tmp_path, nothing):
    found = failures(everywhere(people, "age", nothing), PEOPLE, tmp_path)
    assert found.keys() == {("age", "missing values")}
    assert found["age", "missing values"].count == 200


def test_an_empty_split(people, tmp_path):
    people["val"] = people["val"].slice(0, 0)
    found = failures(people, PEOPLE, tmp_path)
    assert found.keys() == {("*", "rows")}
    assert (found["*", "rows"].split, found["*", "rows"].count) == ("val", 0)


def test_one_class_only_and_a_class_too_rare(people, tmp_path):
    one = failures(everywhere(people, "left", lambda n: pa.array(["no"] * n)), PEOPLE, tmp_path)
    assert one.keys() == {("left", "class balance")}
    assert "only 'no'" in one["left", "class balance"].detail
    people["train"] = put(people["train"], "left", {row: "yes" if row in (4, 9) else "no" for row in range(120)})
    rare = failures(people, PEOPLE, tmp_path)["left", "class balance"]
    assert (rare.count, rare.rows, rare.split) == (2, (4, 9), "train")


def test_columns_that_are_absent_or_of_another_type_are_held_to_nothing_else(people, tmp_path):
    broken = {split: t.drop(["joined"]) for split, t in people.items()}
    broken = everywhere(broken, "age", lambda n: pa.array(["old"] * n))
    broken = everywhere(broken, "town", lambda n: pa.array([["Bonn"]] * n))
    found = failures(broken, PEOPLE, tmp_path)
    assert found.keys() == {("joined", "column present"), ("age", "type"), ("town", "type")}
    assert found["age", "type"].detail == "values are str, expected a number"


def test_an_absent_target(people, tmp_path):
    found = failures({split: t.drop(["left"]) for split, t in people.items()}, PEOPLE, tmp_path)
    assert found.keys() == {("left", "column present")}


def test_one_column_that_gives_the_target_away(people, tmp_path):
    codes = {split: [{"no": 7, "yes": 3}[v] for v in t["left"].to_pylist()] for split, t in people.items()}
    leaking = {split: t.set_column(1, "age", pa.array(codes[split])) for split, t in people.items()}
    found = failures(leaking, PEOPLE, tmp_path)
    assert found.keys() == {("age", "target leakage")}
    assert (found["age", "target leakage"].count, found["age", "target leakage"].split) == (80, "val")
    assert failures(leaking, PEOPLE.model_copy(update={"leakage": 1.0}), tmp_path) == {}


def test_repeated_rows_and_ids(people, tmp_path):
    again = people["train"].slice(0, 2).set_column(0, "person", pa.array([900, 901]))
    twice = people["test"].slice(0, 1).set_column(0, "person", pa.array([120]))
    people["val"], people["test"] = pa.concat_tables([people["val"], again]), pa.concat_tables([people["test"], twice])
    found = failures(people, PEOPLE, tmp_path)
    assert found.keys() == {
        ("person", "unique id"),
        ("*", "duplicates within a split"),
        ("*", "duplicates across splits"),
    }
    across, within = found["*", "duplicates across splits"], found["*", "duplicates within a split"]
    assert (across.count, across.rows, across.split) == (2, (900, 901), "val")
    assert (within.count, within.rows, within.split) == (1, (120,), "test")
    lenient = PEOPLE.model_copy(update={"duplicates": Duplicates(within=0.1, across=0.1)})
    assert failures(people, lenient, tmp_path).keys() == {("person", "unique id")}


def test_images_that_are_no_images(digits, tmp_path):
    digits["train"] = paint(paint(digits["train"], 4, [float("nan")] + [0.5] * 14 + [0.1]), 6, 0.25)
    digits["val"] = paint(digits["val"], 1, [2.0] + [0.5] * 15)
    digits["test"] = paint(digits["test"], 3, [-float("inf")] + [0.5] * 15)
    digits["test"] = pa.concat_tables([digits["test"], digits["train"].slice(0, 1)])
    found = validate(Data(DIGITS.spec("digits", "classification"), digits), DIGITS, tmp_path / "docs").failures
    assert [(f.rule, f.split, f.rows) for f in found] == [
        ("elements that are no number", "train", (4,)),
        ("range", "test", (3,)),
        ("range", "val", (1,)),
        ("images of one value", "train", (6,)),
        ("duplicates across splits", "test", (40,)),
    ]
    assert found[0].detail == "got 0.498% of the rows, expected at most 0% of the rows with elements that are no number"


def test_series_that_are_no_series(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 2, 30)).astype(np.float32)
    values[6], values[9, 1], values[125, 1, 3], values[170, 0, 5] = 0.25, -1, np.nan, 99  # 9: one dead channel of two
    rule = ColumnRule(kind="tensor", dtype="float32", shape=(2, 30), min=-9, max=9, parts=("ax", "ay"))
    target = DIGITS.columns["digit"]
    promised = DIGITS.model_copy(update={"columns": {"series": rule, "digit": target}})
    labels = rng.choice(["0", "1"], 200).tolist()
    whole = cut(pa.table({"series": pa.FixedShapeTensorArray.from_numpy_ndarray(values), "digit": labels}))
    found = validate(Data(promised.spec("d", "classification"), whole), promised, tmp_path / "docs").failures
    assert {(f.rule, f.split, f.rows) for f in found} == {
        ("series with a channel of one value", "train", (6, 9)),
        ("elements that are no number", "val", (5,)),
        ("range", "test", (10,)),
    }
    longer = promised.model_copy(
        update={"columns": promised.columns | {"series": rule.model_copy(update={"shape": (2, 31)})}}
    )
    assert failures(whole, longer, tmp_path)["series", "tensor shape"].detail == "got '(2, 30)', expected '(2, 31)'"


@pytest.mark.parametrize(
    ("steps", "found"), [(30, {"series of one value"}), (7, set())], ids=["series", "a few counts"]
)
def test_series_without_a_side_for_channels_vary_unless_they_are_a_few_counts(tmp_path, steps, found):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, steps)).astype(np.float32)
    values[6] = 0
    rule = ColumnRule(kind="tensor", dtype="float32", shape=(steps,))
    promised = DIGITS.model_copy(update={"columns": {"series": rule, "digit": DIGITS.columns["digit"]}})
    labels = rng.choice(["0", "1"], 200).tolist()
    whole = cut(pa.table({"series": pa.FixedShapeTensorArray.from_numpy_ndarray(values), "digit": labels}))
    failed = validate(Data(promised.spec("d", "classification"), whole), promised, tmp_path / "docs").failures
    assert {f.rule for f in failed} == found
    assert all((f.split, f.rows) == ("train", (6,)) for f in failed)


def test_tensors_of_another_shape_or_type_and_rows_without_one(digits, tmp_path):
    other = DIGITS.columns["image"].model_copy(update={"shape": (16,), "dtype": "uint8"})
    expectations = DIGITS.model_copy(update={"columns": DIGITS.columns | {"image": other}})
    found = failures(digits, expectations, tmp_path)
    assert found.keys() == {("image", "tensor shape"), ("image", "tensor dtype")}
    assert found["image", "tensor shape"].detail == "got '(1, 4, 4)', expected '(16,)'"
    storage = digits["val"]["image"].combine_chunks().storage.to_pylist()
    holes = pa.array([None, *storage[1:]], pa.list_(pa.float32(), 16))
    kind = digits["val"].schema.field("image").type
    digits["val"] = digits["val"].set_column(0, "image", pa.ExtensionArray.from_storage(kind, holes))
    assert failures(digits, DIGITS, tmp_path)["image", "missing values"].rows == (0,)
    lists = everywhere(digits, "image", lambda n: pa.array([[0.5]] * n))
    assert failures(lists, DIGITS, tmp_path).keys() == {("image", "tensor shape"), ("image", "tensor dtype")}


def test_a_border_that_betrays_the_class_of_an_image(digits, tmp_path):
    for split, table in digits.items():
        images = table["image"].combine_chunks().to_numpy_ndarray().copy()
        images[:, 0, 0, 0] = np.where(np.array(table["digit"].to_pylist()) == "1", 1, 0.999)
        digits[split] = table.set_column(0, "image", pa.FixedShapeTensorArray.from_numpy_ndarray(images))
    assert failures(digits, DIGITS, tmp_path).keys() == {("image", "target leakage")}


# ── recorded episodes ───────────────────────────────────────────────────────────────────────────────────


def test_steps_out_of_their_spaces_and_rewards_out_of_range(episodes, tmp_path):
    train = put(put(episodes["train"], "action", {2: 2}), "reward", {6: 3.0})
    states = train["observation"].combine_chunks().to_numpy_ndarray().copy()
    states[5, 2], states[9, 0] = 0.5, np.nan  # the pole at 29°; a place that is none
    at = train.schema.names.index("observation")
    episodes["train"] = train.set_column(at, "observation", pa.FixedShapeTensorArray.from_numpy_ndarray(states))
    found = failures(episodes, CART, tmp_path)
    outside = "elements outside the environment's space"
    assert {key: f.rows for key, f in found.items()} == {
        ("action", outside): ("0-2",),
        ("observation", outside): ("1-1", "2-0"),
        ("observation", "elements that are no number"): ("2-0",),
        ("reward", "range"): ("1-2",),
    }


def test_an_action_of_several_floats_is_held_to_its_bounds(tmp_path):
    from components.datasets import pendulum

    whole = dataclasses.replace(pendulum.RECORDER, count=5).record().rows.drop(["split"])
    swings = {split: whole.slice(400 * i, 400 if i < 2 else 200) for i, split in enumerate(("train", "val", "test"))}
    assert failures(swings, pendulum.expectations(), tmp_path) == {}
    torque = swings["train"]["action"].combine_chunks().to_numpy_ndarray().copy()
    torque[3], torque[7] = 2.5, np.nan
    at = whole.schema.names.index("action")
    swings["train"] = swings["train"].set_column(at, "action", pa.FixedShapeTensorArray.from_numpy_ndarray(torque))
    found = failures(swings, pendulum.expectations(), tmp_path)
    assert found["action", "elements outside the environment's space"].rows == ("0-3", "0-7")
    assert found["action", "range"].rows == ("0-3",)
    assert found["action", "elements that are no number"].rows == ("0-7",)


def test_episodes_that_do_not_end_skip_a_step_or_stand_in_two_splits(episodes, tmp_path):
    train = put(episodes["train"], "terminated", {3: 0, 6: 1})  # 0-3 no longer ends, 1-2 does
    train = put(train, "step", {1: 2})
    astray = episodes["test"].slice(0, 1)
    episodes["train"], episodes["val"] = train, pa.concat_tables([episodes["val"], astray])
    episodes["test"] = episodes["test"].slice(1)
    found = failures(episodes, CART, tmp_path)
    assert {key: f.rows for key, f in found.items()} == {
        ("episode", "one split an episode"): ("7-1", "7-2", "7-3", "7-4", "7-5"),
        ("step", "contiguous steps"): ("0-1",),
        ("episode", "episodes end once"): ("0-3", "1-2"),
    }


def test_episodes_without_their_columns_and_an_environment_that_is_none(episodes, tmp_path):
    bare = {split: t.drop(["action", "terminated"]) for split, t in episodes.items()}
    assert failures(bare, CART, tmp_path).keys() == {("action", "column present"), ("terminated", "column present")}
    with pytest.raises(DataError, match="no environment 'CartPony-v1'"):
        failures(episodes, CART.model_copy(update={"environment": "CartPony-v1"}), tmp_path)
    assert not list((tmp_path / "docs").glob("*.tmp"))


@pytest.mark.parametrize(
    ("environment", "observation", "action", "outside"),
    [
        ("FrozenLake-v1", [0, 15, 16, 3], [0, 3, -1, 1], [[0, 0, 1, 0], [0, 0, 1, 0]]),
        (
            "Pendulum-v1",
            [[1, 0, 8], [1, 0, 9], [1, 2, 9], [0, 0, 0]],
            [[2.0], [-2.0], [2.5], [0]],
            [[0, 1, 2, 0], [0, 0, 1, 0]],
        ),
        ("CartPole-v1", [[0.0, 1.0]] * 4, [0.5, 1, 0, None], [[4] * 4, [1, 0, 0, 1]]),
    ],
)
def test_elements_outside_a_space_are_counted(environment, observation, action, outside):
    from components.validation.episodes import outside as counted

    def column(values):
        if not isinstance(values[0], list):
            return pa.array(values)
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(values, np.float32))

    table = pa.table({"observation": column(observation), "action": column(action)})
    stated = CART.model_copy(update={"environment": environment})
    found = counted(Data(stated.spec("d", "control"), {"train": table.slice(0, 1), "test": table.slice(1)}))
    assert found["observation.outside"].tolist() == outside[0]
    assert found["action.outside"].tolist() == outside[1]


# ── what is said, and where ─────────────────────────────────────────────────────────────────────────────


def test_ratings_of_nobody_twice_or_off_the_scale(tmp_path):
    draw = np.random.default_rng(1)
    pairs = draw.permutation(12 * 20)[:200]
    whole = {
        "row": np.arange(200),
        "reader": [f"r{p // 20}" for p in pairs],
        "book": [f"b{p % 20}" for p in pairs],
        "stars": draw.integers(1, 6, 200).astype(float),
    }
    stated = Expectations(
        columns={
            "row": ColumnRule(role="id", kind="number"),
            "reader": ColumnRule(kind="category"),
            "book": ColumnRule(kind="category"),
            "stars": ColumnRule(role="target", kind="number", min=1, max=5),
        },
        ratings=Ratings(user="reader", item="book", cold_users=0.03, cold_items=0.03),
    )
    splits = cut(pa.table(whole))
    assert validate(Data(stated.spec("books", "regression"), splits), stated, tmp_path / "sound").passed

    for row, like in ((5, 3), (125, 7), (190, 185)):  # within train, from train to val, within test
        whole["reader"][row], whole["book"][row] = whole["reader"][like], whole["book"][like]
    whole["reader"][130:132] = ["nobody", "no one"]
    whole["book"][170] = "unread"  # one row of 40 is within the bound
    whole["stars"][9] = 11.0
    splits = cut(pa.table(whole))
    failed = validate(Data(stated.spec("books", "regression"), splits), stated, tmp_path / "bad").failures
    told = {(f.column, f.rule): (f.count, f.rows, f.split) for f in failed}
    assert told == {
        ("stars", "range"): (1, (9,), "train"),
        ("book", "pairs within a split"): (2, (5,), "train"),
        ("book", "pairs across splits"): (1, (125,), "val"),
        ("reader", "cold start"): (2, (130, 131), "val"),
    }


def test_the_message_names_eight_failures_counts_the_rest_and_shows_the_way_out(tmp_path):
    broken = tuple(Failure(f"c{i}", "range", 9, (1, "b", 3, 4, 5), "val", "got 7, expected 0 to 5") for i in range(11))
    with pytest.raises(ValidationFailed) as raised:
        raise_for_failures(Validation("people", False, 40, broken, tmp_path / "index.html"))
    text = str(raised.value)
    assert text.startswith("data/people.parquet: 11 failures in 40 checks\n")
    assert "c0: range: 9 rows (val 1, b, 3, 4, 5, …): got 7, expected 0 to 5\n" in text
    assert "c7: range" in text
    assert "c8: range" not in text
    assert "and 3 more" in text
    assert "expectations/people.yaml" in text
    assert str(tmp_path / "index.html") in text


def test_data_docs_need_nothing_from_the_network_and_say_what_failed_first(people, tmp_path):
    people["train"] = put(people["train"], "town", {5: "<b>Paris</b>", 6: "$age & co"})
    people = {split: table.rename_columns({"income": "<i>income"}) for split, table in people.items()}
    columns = {"<i>income" if name == "income" else name: rule for name, rule in PEOPLE.columns.items()}
    expectations = PEOPLE.model_copy(update={"columns": columns})
    found = validate(Data(expectations.spec("people", "classification"), people), expectations, tmp_path / "docs")
    pages = sorted((tmp_path / "docs").rglob("*.html"))
    assert found.docs_page in pages
    assert len(pages) == 3  # ours, and Great Expectations' own with its index
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"https?://|<script|<link|<img|@import|url\(", text), page
        assert "<style>" in text
    text = found.docs_page.read_text(encoding="utf-8")
    assert re.search(
        r"<main><section class=.failures.><h2>1 failures in \d+ checks</h2><ul><li>town: allowed values", text
    )
    assert "&lt;b&gt;Paris&lt;/b&gt;" in text
    assert "<b>Paris" not in text
    assert "<i>income" not in text
    assert "at most 20% of the values of any split missing" in text
    assert len(json.dumps(found.to_json())) < 1000


def test_data_docs_take_the_place_of_those_before_and_of_what_a_dead_process_left(people, tmp_path):
    data = Data(PEOPLE.spec("people", "classification"), people)
    for folder in (tmp_path / "docs", tmp_path / ".docs.99999.tmp" / "gx"):
        folder.mkdir(parents=True)
        (folder / "great_expectations.yml").write_text("half a line")
    validate(data, PEOPLE, tmp_path / "docs")
    assert {p.name for p in tmp_path.iterdir()} == {"docs", "docs.lock"}
    assert {p.name for p in (tmp_path / "docs").iterdir()} == {"index.html", "gx"}


def test_pipelines_validate_at_the_same_time(people, digits, tmp_path):
    """Two datasets in folders of their own, and one dataset twice in one folder."""
    bad = dict(people, train=put(people["train"], "age", {3: 500}))
    work = {
        "good": (people, PEOPLE, tmp_path / "people"),
        "bad": (bad, PEOPLE, tmp_path / "people"),
        "images": (digits, DIGITS, tmp_path / "digits"),
    }
    found: dict[str, Validation | BaseException] = {}

    def run(name: str) -> None:
        splits, expectations, docs = work[name]
        try:
            found[name] = validate(Data(expectations.spec(name, "classification"), splits), expectations, docs)
        except BaseException as error:
            found[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: getattr(f, "passed", f) for name, f in found.items()} == {"good": True, "bad": False, "images": True}


def test_a_folder_that_another_process_fills_is_waited_for(people, tmp_path):
    data = Data(PEOPLE.spec("people", "classification"), people)
    done = threading.Event()

    def run() -> None:
        validate(data, PEOPLE, tmp_path / "docs")
        done.set()

    held = validation._alone(tmp_path / "docs")
    thread = threading.Thread(target=run)
    thread.start()
    assert not done.wait(1.5)
    held.close()
    thread.join()
    assert done.is_set()


def test_importing_the_module_does_not_import_great_expectations():
    code = "import sys, components.validation; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
