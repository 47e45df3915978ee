"""Ratings learnt by three nets, on made-up users who like what suits their kind, and lists of what they will like."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import csv

from components import datasets, intake, model, profile, ratings, scoring
from components.contract import SPLITS, Column, Data, Spec
from components.datasets import parquet
from components.errors import BadInput, DataError, ParamsError
from components.families import family, import_path
from components.families.recommender import Recommender
from components.params import DatasetBlock
from components.ratings import Lists, Wanted
from components.scoring import Job, drift
from components.workspace import Workspace

from .cases import Case, learnt, one_thread  # noqa: F401

USERS, ITEMS = 60, 40


def taste(rows: int = 1500) -> Data:
    """A user of a kind likes the books of one group; some users are kinder, some books better. Ratings are 1 to 5, the
    age tells the kind, the weather nothing."""
    draw = np.random.default_rng(3)
    pairs = draw.permutation(USERS * ITEMS)[:rows]
    user, item = pairs // ITEMS, pairs % ITEMS
    kind, group = np.arange(USERS) % 3, np.arange(ITEMS) % 3
    kindness, quality = draw.normal(0, 0.5, USERS), draw.normal(0, 0.5, ITEMS)
    truth = 3 + kindness[user] + quality[item] + np.where(kind[user] == group[item], 1.3, -0.6)
    stars = np.clip(np.round(truth + draw.normal(0, 0.2, rows)), 1, 5)
    columns = {
        "id": pa.array(np.arange(rows)),
        "user": pa.array([f"u{u}" for u in user]),
        "item": pa.array([f"b{i}" for i in item]),
        "age": pa.array((20.0 + 10 * kind + np.arange(USERS) % 7)[user], mask=user == 5),
        "group": pa.array(np.array(["early", "late", "noon"])[group[item]]),
        "weather": pa.array(draw.normal(0, 1, rows)),
        "stars": pa.array(stars),
    }
    kinds = {"user": "category", "item": "category", "age": "number", "group": "category", "weather": "number"}
    inputs = tuple(Column(name, what) for name, what in kinds.items())  # type: ignore[arg-type]
    spec = Spec("taste", "regression", inputs, "stars", (), "id", user="user", item="item")
    table, cuts = pa.table(columns), (int(rows * 0.7), int(rows * 0.85))
    parts = (table.slice(0, cuts[0]), table.slice(cuts[0], cuts[1] - cuts[0]), table.slice(cuts[1]))
    return Data(spec, dict(zip(SPLITS, parts, strict=True)))


TASTE = taste()
HEART = {"penalty": 0.0, "forget": 0.0, "lr": 0.02}
SMALL: dict[str, dict[str, Any]] = {
    "factors": {"net": "factors", "width": 8, "batch_rows": 64, "lr": 0.01, "top_k": 3},
    "towers": {"net": "towers", "width": 8, "batch_rows": 64, "lr": 0.01, "top_k": 3},
    "autorec": {"net": "autorec", "width": 16, "batch_rows": 4, "lr": 0.01, "penalty": 0.1, "top_k": 3},
}
CASES = [
    Case(name, TASTE, small, small | HEART | {"batch_rows": 16}, reached=0.15, epochs=12, heart_epochs=150)
    for name, small in SMALL.items()
]


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    """Each net after some epochs."""
    made = {}
    for name, small in SMALL.items():
        state = learnt("recommender", TASTE, small, 12)[-1][1]
        made[name] = family("recommender").load(TASTE.spec, small, state.served())
    return made


each_net = pytest.mark.parametrize("name", SMALL)


def asked(**columns: Any) -> pa.RecordBatch:
    """Rows to score; columns that are not given are missing."""
    rows = len(next(iter(columns.values())))
    kinds = {c.name: pa.float64() if c.kind == "number" else pa.string() for c in TASTE.spec.columns}
    arrays = [pa.array(columns.get(n, [None] * rows), kind) for n, kind in kinds.items()]
    return pa.RecordBatch.from_arrays(arrays, list(kinds))


def scored(net: Any, **columns: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = Recommender().score(net, asked(**columns)).to_pydict()
    return found


def rated(user: str) -> set[str]:
    train = TASTE.splits["train"]
    return {i for u, i in zip(train["user"].to_pylist(), train["item"].to_pylist(), strict=True) if u == user}


# ── lists ───────────────────────────────────────────────────────────────────────────────────────────────


@each_net
def test_a_list_holds_the_best_items_that_the_user_has_not_rated(name: str, nets: dict[str, Any]) -> None:
    every = [f"b{i}" for i in range(ITEMS)]
    train = TASTE.splits["train"]
    group = dict(zip(train["item"].to_pylist(), train["group"].to_pylist(), strict=True))
    for user in ("u0", "u5", "u17"):
        found = scored(nets[name], user=[user] * ITEMS, item=every, group=[group[i] for i in every])
        worth = {i: p for i, p in zip(every, found["prediction"], strict=True) if i not in rated(user)}
        top, scores = found["top_items"][0], found["top_scores"][0]
        assert len(top) == 3 and not rated(user) & set(top)
        assert scores == sorted(scores, reverse=True) and scores == pytest.approx([worth[i] for i in top])
        assert min(scores) >= max(p for i, p in worth.items() if i not in top) - 1e-6
        assert all(row == top for row in found["top_items"]), "one user, one list"


@each_net
def test_a_row_without_an_item_gets_the_list_alone(name: str, nets: dict[str, Any]) -> None:
    found = scored(nets[name], user=["u1", "u1", None], item=[None, "b2", None])
    assert [p is None for p in found["prediction"]] == [True, False, True]
    assert found["top_items"][0] == found["top_items"][1] and len(found["top_items"][2]) == 3


@each_net
def test_the_unknown_get_what_is_known_of_the_other_side(name: str, nets: dict[str, Any]) -> None:
    """Never an error: a new user of a good book, a new book of a kind user, both new."""
    net = nets[name]
    found = scored(net, user=["new", "u3", "new"], item=["b4", "never seen", "never seen"])
    low, high = 1.0, 5.0
    assert all(low <= p <= high for p in found["prediction"])
    good, bad = (int(f(net.matcher.b_I[1:]) + 1) for f in (torch.argmax, torch.argmin))
    names = [net.items.known[n - 1] for n in (good, bad)]
    better, worse = scored(net, user=["new", "new"], item=names)["prediction"]
    assert better > worse
    if name != "towers":  # whose unknown ones have a vector of their own
        mean = TASTE.splits["train"]["stars"].to_numpy().mean()
        assert found["prediction"][2] == pytest.approx(mean, abs=0.6 if name == "factors" else 0.3)
    assert len(found["top_items"][0]) == 3


@each_net
def test_columns_of_a_known_user_need_not_be_given(name: str, nets: dict[str, Any]) -> None:
    rows = TASTE.splits["test"].slice(0, 20)
    whole = Recommender().score(
        nets[name], rows.select([c.name for c in TASTE.spec.columns]).combine_chunks().to_batches()[0]
    )
    bare = scored(nets[name], user=rows["user"].to_pylist(), item=rows["item"].to_pylist())
    assert whole.to_pydict() == bare


@pytest.mark.parametrize("name", ["factors", "towers"])
def test_a_new_user_is_known_by_its_columns(name: str, nets: dict[str, Any]) -> None:
    """Users of the first kind are in their twenties and like the early group."""
    train = TASTE.splits["train"]
    groups = dict(zip(train["item"].to_pylist(), train["group"].to_pylist(), strict=True))
    found = scored(nets[name], user=["new", "newer"], age=[22.0, 43.0], item=[None, None])
    net = nets[name]
    (young,), (old,) = ([groups[i] for i in top[:1]] for top in found["top_items"])
    assert (young, old) == ("early", "noon"), (found, net.users.encoder)


def test_a_list_is_as_long_as_what_is_left() -> None:
    small = SMALL["factors"] | {"top_k": 39}
    net = Recommender().load(TASTE.spec, small, learnt("recommender", TASTE, small, 1)[-1][1].served())
    found = scored(net, user=["u0", "new"], item=[None, None])
    assert set(found["top_items"][0]) == set(net.items.known) - rated("u0")
    assert len(found["top_items"][0]) == len(found["top_scores"][0]) < len(found["top_items"][1]) == 39


def test_without_top_k_lists_are_empty() -> None:
    small = SMALL["factors"] | {"top_k": 0}
    net = Recommender().load(TASTE.spec, small, learnt("recommender", TASTE, small, 1)[-1][1].served())
    found = scored(net, user=["u0"], item=["b1"])
    assert found["top_items"] == found["top_scores"] == [[]]


# ── what belongs to whom ────────────────────────────────────────────────────────────────────────────────


def test_columns_are_of_the_user_of_the_item_or_of_neither() -> None:
    users, items = ratings.fit_sides(TASTE.splits["train"], TASTE.spec, {"user": (), "item": ()})
    assert [s.name for s in users.encoder.scales] == ["age"] and not users.encoder.vocabularies
    assert [v.name for v in items.encoder.vocabularies] == ["group"] and not items.encoder.scales


def test_settings_overrule_what_the_rows_say() -> None:
    given = {"user": (), "item": ("weather",)}
    _, items = ratings.fit_sides(TASTE.splits["train"], TASTE.spec, given)
    assert [s.name for s in items.encoder.scales] == ["weather"]
    with pytest.raises(ParamsError, match=r"(?s)no input column 'wether'.*use some of age, group, weather"):
        ratings.fit_sides(TASTE.splits["train"], TASTE.spec, {"user": ("wether",), "item": ()})


def test_a_user_with_one_rating_is_known_and_a_missing_one_is_nobody() -> None:
    rows = pa.table({"user": ["a", "b", None, "a"], "item": ["x", "y", "x", None], "stars": [1.0, 2.0, 3.0, 4.0]})
    spec = Spec(
        "few", "regression", (Column("user", "category"), Column("item", "category")), "stars", user="user", item="item"
    )
    users, items = ratings.fit_sides(rows, spec, {"user": (), "item": ()})
    assert users.known == ("a", "b") and users.numbers(rows).tolist() == [1, 2, 0, 1]
    assert items.numbers(rows).tolist() == [1, 2, 1, 0]


def test_numbers_and_text_name_the_same_user() -> None:
    spec = Spec(
        "few", "regression", (Column("user", "category"), Column("item", "category")), "stars", user="user", item="item"
    )
    rows = pa.table({"user": [7, 12], "item": [1, 2], "stars": [1.0, 2.0]})
    users, _ = ratings.fit_sides(rows, spec, {"user": (), "item": ()})
    assert users.numbers(pa.table({"user": ["12", "7", "8"]})).tolist() == [1, 2, 0]


# ── how good lists are ──────────────────────────────────────────────────────────────────────────────────


def test_lists_are_measured_by_hand() -> None:
    """u likes 3 and 5, of which its list has 5 in the second place; v likes an item that nobody knows; w nothing."""
    rows = pa.table({"user": ["u", "u", "u", "v", "w"]})
    item_N, liked_N = np.array([3, 4, 5, 0, 3]), np.array([True, False, True, True, False])
    wanted = Wanted.among(rows, "user", item_N, liked_N)
    assert wanted.first_V.tolist() == [0, 3]
    told = wanted.measured(np.array([[9, 5, 8], [1, 2, 3]]), 5)
    assert np.nan_to_num(told["recall"], nan=-1).tolist() == [0.5, -1, -1, 0, -1]
    ideal = 1 + 1 / np.log2(3)
    assert told["ndcg"][0] == pytest.approx((1 / np.log2(3)) / ideal)


def test_figures_tell_new_users_apart() -> None:
    outcomes = {
        "predicted": np.array([3.0, 4.0, 2.0]),
        "truth": np.array([3.0, 3.0, 4.0]),
        "cold": np.array([False, False, True]),
        "recall": np.array([0.5, np.nan, 0.0]),
        "ndcg": np.array([0.25, np.nan, 1.0]),
    }
    told = ratings.figures(outcomes, "test")
    assert told == {
        "test/cold_rmse": 2.0,
        "test/cold_mae": 2.0,
        "test/recall_at_10": 0.5,
        "test/ndcg_at_10": 0.25,
        "test/cold_recall_at_10": 0.0,
        "test/cold_ndcg_at_10": 1.0,
    }
    warm = {name: values[:2] for name, values in outcomes.items()}
    assert set(ratings.figures(warm, "test")) == {"test/recall_at_10", "test/ndcg_at_10"}


def test_a_net_that_learnt_tastes_lists_better_than_what_is_popular(nets: dict[str, Any]) -> None:
    made, learner = nets["factors"], Recommender()
    reached = learner.measure(TASTE.spec, learner.judge(made, TASTE, "test"), "test")
    trivial = learner.baseline(TASTE, "test", {})
    assert reached["test/ndcg_at_10"] > trivial["test/ndcg_at_10"] + 0.05


def test_the_shrunken_means_are_those_of_the_formula() -> None:
    user, item, stars = np.array([1, 1, 2]), np.array([1, 2, 1]), np.array([5.0, 3.0, 4.0])
    mean, b_U, b_I = ratings.biases(user, item, stars, 3, 3)
    assert mean == 4 and b_U[0] == b_I[0] == 0
    left = stars - mean - b_I[item]
    assert b_U[1:] == pytest.approx([left[:2].sum() / 7, left[2] / 6])


def test_sums_over_lists_are_those_of_a_dense_product() -> None:
    draw = np.random.default_rng(0)
    of, other = torch.from_numpy(draw.integers(0, 6, 40)), torch.from_numpy(draw.integers(0, 5, 40))
    value, table = torch.from_numpy(draw.normal(size=40)).float(), torch.randn(5, 3)
    dense = torch.zeros(7, 5).index_put((of, other), value, accumulate=True)
    chosen = torch.tensor([3, 6, 0, 3])
    sums = Lists(of.int(), other.int(), value, 7).sums(table, chosen, weighed=True)
    torch.testing.assert_close(sums, (dense @ table)[chosen])


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> model.Model:
    """A model as the train stage leaves it."""
    folder, small = tmp_path_factory.mktemp("kept"), SMALL["factors"]
    state = learnt("recommender", TASTE, small, 3)[-1][1]
    model.save(folder, import_path("recommender"), TASTE.spec, small, state)
    model.keep_profile(folder, profile.measure(model.load(folder), TASTE.splits["train"]))
    return model.load(folder)


JOB = Job("1", "key", batch_rows=7, quarantine=0.5, drift=drift.Terms())


def test_a_file_of_users_alone_becomes_a_file_of_lists(kept: model.Model, tmp_path: Path) -> None:
    (tmp_path / "who.csv").write_text("user\n" + "".join(f"u{n % 25}\n" for n in range(300)) + "nobody\n")
    told = scoring.score(kept, tmp_path / "who.csv", tmp_path / "out.parquet", JOB)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["row", "prediction", "top_items", "top_scores", "model_version", "run_key"]
    assert table["prediction"].null_count == len(table) == 301
    by_hand = scored(kept.net, user=["u3"], item=[None])
    assert table["top_items"][28].as_py() == by_hand["top_items"][0] and len(by_hand["top_items"][0]) == 3
    assert table["top_scores"][28].as_py() == by_hand["top_scores"][0]
    assert told.drift["features"] == [], "neither what is not given is compared, nor whom it is about"


def test_rows_that_do_not_fit_go_aside_and_the_others_keep_their_lists(kept: model.Model, tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("user,item,age\nu1,b1,30\nu2,b2,old\nu3,,41\n")
    told = scoring.score(kept, tmp_path / "some.csv", tmp_path / "out.parquet", JOB)
    assert (told.rows_in, told.rows, told.quarantined) == (3, 2, 1)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {one["feature"] for one in told.drift["features"]} == {"age"}
    assert [row["row"] for row in rows] == [0, 2] and rows[1]["prediction"] is None
    assert rows[0]["top_items"] == scored(kept.net, user=["u1"], item=["b1"])["top_items"][0]
    (aside,) = pq.read_table(told.quarantine).to_pylist()
    assert aside["reason"] == "column 'age': got 'old', expected a number"


def test_a_file_without_users_is_refused(kept: model.Model, tmp_path: Path) -> None:
    (tmp_path / "what.csv").write_text("item,age\nb1,30\n")
    with pytest.raises(BadInput, match="missing columns: 'user'"):
        scoring.score(kept, tmp_path / "what.csv", tmp_path / "out.parquet", JOB)


def test_a_frame_of_users_alone_is_enough_for_mlflow() -> None:
    from components.registry import artifact, model_code

    rows = model_code.arrow(pd.DataFrame({"user": ["u1", "u2"]}), TASTE.spec)
    assert rows.schema.names == [c.name for c in TASTE.spec.columns] and rows.column("item").null_count == 2
    with pytest.raises(ValueError, match="the input lacks the columns user, "):
        model_code.arrow(pd.DataFrame({"item": ["b1"]}), TASTE.spec)
    signature = artifact._signature(TASTE.spec, TASTE.splits["test"].schema, Recommender().outputs(TASTE.spec))
    assert [c.required for c in signature.inputs] == [True, False, False, False, False]
    assert [str(c.type) for c in signature.outputs] == ["DataType.double", "Array(string)", "Array(float)"]


def test_a_table_of_ones_own_is_fetched_learnt_and_scored(tmp_path: Path) -> None:
    """As `table: ratings.csv, user: reader, item: book, target: stars` has it: readers are numbers, stars are whole."""
    train = TASTE.splits["train"]
    own = pa.table(
        {
            "reader": [1000 + int(u[1:]) for u in train["user"].to_pylist()],
            "book": train["item"],
            "stars": train["stars"].cast(pa.int64()),
        }
    )
    csv.write_csv(own, tmp_path / "ratings.csv")
    workspace = Workspace(tmp_path)
    block = DatasetBlock(table="ratings.csv", user="reader", item="book", target="stars")
    recipe = datasets.recipe(workspace, "books", block, lambda _: None)
    workspace.data("books").parent.mkdir()
    parquet.write(recipe.build(), workspace.data("books"), recipe.note)
    data = datasets.load(workspace, "books", datasets.expectations(workspace, "books", block), "regression")
    net = Recommender().load(
        data.spec, SMALL["factors"], learnt("recommender", data, SMALL["factors"], 2)[-1][1].served()
    )
    (tmp_path / "who.csv").write_text("reader\n1003\n7\n")
    (piece,) = intake.open_file(tmp_path / "who.csv", intake.Wanted(data.spec)).batches(10)
    found = Recommender().score(net, piece.inputs).to_pydict()
    assert [len(top) for top in found["top_items"]] == [3, 3] and net.users.numbers(piece.inputs)[0] > 0
    learnt_from = data.splits["train"].select(["reader", "book"]).to_pylist()
    seen = {row["book"] for row in learnt_from if row["reader"] == "1003"}
    assert seen and not seen & set(found["top_items"][0])


# ── what is no use ──────────────────────────────────────────────────────────────────────────────────────


def spoilt(change: dict[str, Any], split: str = "train", spec: Spec = TASTE.spec) -> Data:
    rows = TASTE.splits[split]
    for name, values in change.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values))
    return Data(spec, {**TASTE.splits, split: rows})


def begin(data: Data, **hyper: Any) -> None:
    next(itertools.islice(Recommender().fit(data, hyper, 1, None), 1))


def test_data_that_names_no_user_and_item_is_refused() -> None:
    spec = Spec("plain", "regression", TASTE.spec.columns, "stars")
    told = "(?s)dataset 'plain' does not say which columns are the user and the item.*add `user: COLUMN`"
    with pytest.raises(ParamsError, match=told):
        Recommender().objective(spec)
    with pytest.raises(ParamsError, match=told):
        begin(Data(spec, TASTE.splits))


def test_rows_that_say_nothing_are_refused() -> None:
    rows = TASTE.splits["train"].num_rows
    with pytest.raises(DataError, match="target 'stars' has rows without a finite number"):
        begin(spoilt({"stars": [float("nan"), *[3.0] * (rows - 1)]}))
    with pytest.raises(DataError, match="column 'user' is empty in the training rows"):
        begin(spoilt({"user": pa.nulls(rows, pa.string())}))
    half = ["u1" if n % 2 else None for n in range(rows)], [None if n % 2 else "b1" for n in range(rows)]
    with pytest.raises(DataError, match="no training row has a user and an item"):
        begin(spoilt({"user": half[0], "item": half[1]}))


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ParamsError, match=r"(?s)setting 'net' got 'trees'.*use one of factors, towers, autorec"):
        begin(TASTE, net="trees")
    with pytest.raises(ParamsError, match="setting 'top_k' got -1"):
        begin(TASTE, top_k=-1)
