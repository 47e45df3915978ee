"""MovieLens 100k beside a model of biases and a well-kept library's matrix factorisation.

Five folds of all ratings, as the figures that people quote have them: Surprise's own page gives SVD 0.934 and SVD++
0.919 by RMSE, 0.737 and 0.721 by MAE. The rivals do not look at the columns of users and films.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import metrics, tables
from components.contract import Data

from . import Figures, Row

SHRUNK = 5.0  # ratings that a bias of nothing weighs
ROUNDS = 10


def rivals(data: Data, seed: int) -> Figures:
    truth = tables.numbers(data.splits["test"], str(data.spec.target))
    predicted = {"user and item means": biases(data), "Surprise SVD": surprise_svd(data, seed)}
    found = {name: metrics.regression("test", each, truth) for name, each in predicted.items()}
    return {name: {metric: each[f"test/{metric}"] for metric in ("rmse", "mae")} for name, each in found.items()}


def biases(data: Data) -> NDArray[np.float64]:
    """The mean, and by how much a user and an item are above it, each a shrunken mean given the other."""
    (user, item, rating), (asked_user, asked_item, _) = _numbered(data)
    mean, users, items = rating.mean(), 1 + max(user.max(), asked_user.max()), 1 + max(item.max(), asked_item.max())
    of_user, of_item = np.zeros(users), np.zeros(items)
    for _ in range(ROUNDS):
        left = rating - mean - of_user[user]
        of_item = np.bincount(item, left, items) / (np.bincount(item, minlength=items) + SHRUNK)
        left = rating - mean - of_item[item]
        of_user = np.bincount(user, left, users) / (np.bincount(user, minlength=users) + SHRUNK)
    return np.clip(mean + of_user[asked_user] + of_item[asked_item], rating.min(), rating.max())


def surprise_svd(data: Data, seed: int) -> NDArray[np.float64]:
    """Matrix factorisation with biases by stochastic gradients, as Surprise sets it by default."""
    from surprise import SVD, Dataset, Reader

    import pandas as pd  # isort: skip

    train, asked = _numbered(data)
    given = pd.DataFrame(dict(zip(("user", "item", "rating"), train, strict=True)))
    reader = Reader(rating_scale=(train[2].min(), train[2].max()))
    rival: Any = SVD(random_state=seed).fit(Dataset.load_from_df(given, reader).build_full_trainset())
    return np.array([rival.predict(user, item).est for user, item, _ in zip(*asked, strict=True)])


def _numbered(data: Data) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
    """(user, item, rating) of the training rows and of the test rows, users and items as numbers."""
    parts = [data.splits[split] for split in ("train", "test")]
    columns = [
        [tables.text(rows, str(name)).to_numpy(zero_copy_only=False).astype(str) for rows in parts]
        for name in (data.spec.user, data.spec.item)
    ]
    numbered = [np.split(np.unique(np.concatenate(c), return_inverse=True)[1], [len(c[0])]) for c in columns]
    ratings = [tables.numbers(rows, str(data.spec.target)) for rows in parts]
    train, test = (tuple(each) for each in zip(*numbered, ratings, strict=True))
    return train, test


ROWS = [
    Row("movies", "rmse", "min", rivals, mark=0.92, above=("user and item means", "Surprise SVD"), folds=5),
    Row("movies", "mae", "min", rivals, above=("user and item means", "Surprise SVD"), folds=5),
]
