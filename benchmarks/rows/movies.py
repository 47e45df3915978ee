"""MovieLens 100k beside a model of biases, a well-kept library's matrix factorisation, and what is most rated.

Five folds of all ratings, as the figures that people quote have them: Surprise's own page gives SVD 0.934 and SVD++
0.919 by RMSE, 0.737 and 0.721 by MAE. Figures of new users (`cold_…`) are of five folds of all users. No rival looks at
the columns of users and films; to a new user each rates by what it knows of the film alone. Lists of ten, recall and
NDCG are those of components/ratings.py for all.

Legend: N test rows, U users and I items of the training rows (number 0: unknown), D length of their vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from components import families, matching, metrics, ratings
from components.contract import Data, Metrics
from components.ratings import Floats, Side

from .. import trained
from . import Figures, Row

MEANS, SVD, POPULAR = "user and item means", "Surprise SVD", "mean rating, most rated"
Sides = tuple[Side, Side]


def rivals(data: Data, seed: int) -> Figures:
    liked = trained.settings("movies").liked
    sides = ratings.fit_sides(data.splits["train"], data.spec, {"user": (), "item": ()})
    tables = {MEANS: biases(data, sides), SVD: surprise_svd(data, sides, seed)}
    found = {name: measured(data, sides, table_UI, liked) for name, table_UI in tables.items()}
    found[POPULAR] = families.family("recommender").baseline(data, "test", {"liked": liked})
    return {name: {key.removeprefix("test/"): value for key, value in each.items()} for name, each in found.items()}


def measured(data: Data, sides: Sides, table_UI: Floats, liked: float) -> Metrics:
    """What the family measures, of a rival's rating of every item by every user."""
    (user_P, item_P, rating_P), (user_N, item_N, truth_N) = (
        _numbered(data, sides, split) for split in ("train", "test")
    )
    predicted_N = np.clip(table_UI[user_N, item_N], rating_P.min(), rating_P.max())
    pairs, _ = matching.begin(user_P, item_P, rating_P, sides)
    wanted = ratings.Wanted.among(data.splits["test"], sides[0].name, item_N, truth_N >= liked)
    user_V = user_N[wanted.first_V]
    top_VK, _ = ratings.best(
        lambda part: torch.from_numpy(table_UI[user_V[part]]),
        sides[1].count,
        torch.from_numpy(user_V),
        pairs.by_user(sides[0].count),
        ratings.SHORT,
    )
    told = {"predicted": predicted_N, "truth": truth_N, "cold": user_N == 0} | wanted.measured(top_VK, len(truth_N))
    return metrics.regression("test", predicted_N, truth_N) | ratings.figures(told, "test")


def biases(data: Data, sides: Sides) -> Floats:
    """The mean, and by how much a user and an item are above it, each a shrunken mean given the other."""
    mean, b_U, b_I = ratings.biases(*_numbered(data, sides, "train"), *(side.count for side in sides))
    table_UI: Floats = mean + b_U[:, None] + b_I
    return table_UI


def surprise_svd(data: Data, sides: Sides, seed: int) -> Floats:
    """Matrix factorisation with biases by stochastic gradients, as Surprise sets it by default. What it predicts for
    the unknown is what is left of the sum."""
    from surprise import SVD as Rival
    from surprise import Dataset, Reader

    import pandas as pd  # isort: skip

    user_P, item_P, rating_P = _numbered(data, sides, "train")
    given = pd.DataFrame({"user": user_P, "item": item_P, "rating": rating_P})
    reader = Reader(rating_scale=(rating_P.min(), rating_P.max()))
    train: Any = Dataset.load_from_df(given, reader).build_full_trainset()
    rival: Any = Rival(random_state=seed).fit(train)
    at_U, at_I = (
        [inner(n) for n in range(1, side.count)]
        for inner, side in zip((train.to_inner_uid, train.to_inner_iid), sides, strict=True)
    )
    b_U, p_UD, b_I, q_ID = (
        _after_unknown(each) for each in (rival.bu[at_U], rival.pu[at_U], rival.bi[at_I], rival.qi[at_I])
    )
    table_UI: Floats = train.global_mean + b_U[:, None] + b_I + p_UD @ q_ID.T
    return table_UI


def _after_unknown(values: Floats) -> Floats:
    return np.concatenate([np.zeros_like(values[:1]), values])


def _numbered(data: Data, sides: Sides, split: str) -> tuple[ratings.Ints, ratings.Ints, Floats]:
    """User, item and rating of each row."""
    rows = data.splits[split]
    return sides[0].numbers(rows), sides[1].numbers(rows), ratings.targets(rows, data.spec, split)


LISTS = ("recall_at_10", "ndcg_at_10")
ROWS = [
    Row("movies", "rmse", "min", rivals, mark=0.92, above=(MEANS, SVD), folds=5),
    Row("movies", "mae", "min", rivals, above=(MEANS, SVD), folds=5),
    *(Row("movies", metric, "max", rivals, folds=5) for metric in LISTS),
    Row("movies", "cold_rmse", "min", rivals, folds=5, new_users=True),
    *(Row("movies", f"cold_{metric}", "max", rivals, folds=5, new_users=True) for metric in LISTS),
]
