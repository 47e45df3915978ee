"""Rivals of the recommender, on made-up users: the same lists and figures as the family's, and who is new."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import trained
from benchmarks.rows import movies
from components import ratings
from components.contract import Data
from tests.components.test_recommender import TASTE

NEW = trained.folded(TASTE, 0, 5, new_users=True)


def sides(data: Data) -> movies.Sides:
    return ratings.fit_sides(data.splits["train"], data.spec, {"user": (), "item": ()})


def test_a_rival_knows_users_and_items_by_their_means() -> None:
    found = movies.measured(TASTE, sides(TASTE), movies.biases(TASTE, sides(TASTE)), 4.0)
    assert found["test/rmse"] < 0.95 * TASTE.splits["test"]["stars"].to_numpy().std()
    assert not any("cold" in name for name in found)


def test_ratings_stay_within_what_was_given() -> None:
    users, items = sides(TASTE)
    found = movies.measured(TASTE, (users, items), np.full((users.count, items.count), 99.0), 4.0)
    assert found["test/mae"] == pytest.approx((5 - TASTE.splits["test"]["stars"].to_numpy()).mean())


def test_who_foretells_what_is_liked_has_the_best_list_and_who_shuns_it_the_worst() -> None:
    users, items = sides(TASTE)
    rows = TASTE.splits["test"]
    table_UI = np.zeros((users.count, items.count))
    table_UI[users.numbers(rows), items.numbers(rows)] = rows["stars"].to_numpy()
    best, worst = (movies.measured(TASTE, (users, items), sign * table_UI, 4.0) for sign in (1, -1))
    assert best["test/recall_at_10"] == best["test/ndcg_at_10"] == 1
    assert worst["test/recall_at_10"] < 0.5


def test_figures_of_new_users_are_cold_and_by_items_alone() -> None:
    known = sides(NEW)
    table_UI = movies.biases(NEW, known)
    found = movies.measured(NEW, known, table_UI, 4.0)
    assert found["test/cold_rmse"] == found["test/rmse"]
    assert 0 < found["test/cold_recall_at_10"] < 1 and "test/recall_at_10" not in found
    table_UI[1:] = 0  # what known users think plays no part
    assert movies.measured(NEW, known, table_UI, 4.0)["test/cold_ndcg_at_10"] == found["test/cold_ndcg_at_10"]


def test_rivals_have_a_figure_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "settings", lambda _: SimpleNamespace(liked=4.0))
    monkeypatch.setattr(movies, "surprise_svd", lambda data, both, _: movies.biases(data, both))
    for data, new in ((TASTE, False), (NEW, True)):
        found = movies.rivals(data, 0)
        assert set(found) == {movies.MEANS, movies.SVD, movies.POPULAR}
        wanted = {row.metric for row in movies.ROWS if row.new_users == new}
        assert all(wanted <= set(each) for each in found.values())


def test_the_library_s_table_is_what_it_predicts() -> None:
    surprise = pytest.importorskip("surprise", reason="rivals live in .venv-benchmark")
    known = sides(TASTE)
    table_UI = movies.surprise_svd(TASTE, known, 3)
    user_P, item_P, rating_P = (
        side.numbers(TASTE.splits["train"]) if isinstance(side, ratings.Side) else side
        for side in (*known, TASTE.splits["train"]["stars"].to_numpy())
    )
    frame = pytest.importorskip("pandas").DataFrame({"user": user_P, "item": item_P, "rating": rating_P})
    reader = surprise.Reader(rating_scale=(-99, 99))
    rival = surprise.SVD(random_state=3).fit(surprise.Dataset.load_from_df(frame, reader).build_full_trainset())
    for user, item in ((1, 1), (60, 40), (7, 0), (0, 9), (0, 0)):
        asked = (user or "nobody", item or "nothing")
        assert table_UI[user, item] == pytest.approx(rival.predict(*asked).est)
