"""Who rated what: users and items as numbers, what is known of them, lists of items for users, and how good those are.

Users and items of the training rows have numbers from 1, in the order of their names; 0 is anybody else, and whoever is
missing. There is no rarest one to leave out, as the categories of tables.py do: a user with one rating is a user.

Legend: N rows, B some of them, U users, I items (both with the unknown one), P pairs that were rated, F number features
and C categories of a user or an item, K items in a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .contract import Column, Json, Metrics, Spec
from .errors import DataError, ParamsError
from .tables import Encoder, Rows, column, fit_encoder, numbers, text

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

STRAY = 0.01  # rows that may differ from what is known of their user or item
SHRINK = 5.0  # ratings that a bias of nothing weighs (Koren 2010, "Factor in the neighbors", section 2.1)
ROUNDS = 10  # of the two biases in turn; they settle in fewer
SHORT = 10  # items in the lists that are measured
RANKED = 5000  # users whose lists are measured at most
_CELLS = 1 << 22  # users × items that are ranked at once


# ── users and items ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Side:
    """The users, or the items: their column, the names of those of the training rows, what is known of each."""

    name: str
    known: tuple[str, ...]
    encoder: Encoder = field(default_factory=Encoder)

    @property
    def count(self) -> int:
        return 1 + len(self.known)

    def numbers(self, rows: Rows) -> Ints:
        """Which one each row is about, 0 for the unknown and the missing."""
        found = pc.index_in(text(rows, self.name), value_set=pa.array(self.known, pa.string()), skip_nulls=True)
        numbered: Ints = pc.fill_null(pc.add(found, 1), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return numbered

    def to_json(self) -> Json:
        return {"name": self.name, "known": list(self.known), "encoder": self.encoder.to_json()}

    @classmethod
    def from_json(cls, value: Json) -> Side:
        return cls(value["name"], tuple(value["known"]), Encoder.from_json(value["encoder"]))


def pair(spec: Spec) -> tuple[str, str]:
    """The columns of the user and of the item. Raises ParamsError if the data does not say which they are."""
    if spec.user is None or spec.item is None:
        raise ParamsError(
            f"dataset {spec.dataset!r} does not say which columns are the user and the item of a rating",
            where=f"params.yaml datasets.{spec.dataset}",
            fix="add `user: COLUMN` and `item: COLUMN` to its block, or `ratings:` to what it promises",
        )
    return spec.user, spec.item


def fit_sides(rows: Rows, spec: Spec, given: Mapping[str, Sequence[str]]) -> tuple[Side, Side]:
    """Users and items of the training rows. A further column is of the user, or of the item, if it hardly varies among
    the rows of one; of both, it is of those of whom there are fewer; of neither, it is not learnt from.

    `given`: "user" and "item" → columns that are theirs whatever the rows say. Raises ParamsError if there are none of
    that name, DataError if there is no user or no item at all.
    """
    bare = [_bare(rows, name) for name in pair(spec)]
    further = {c.name: c for c in spec.columns if c.name not in pair(spec)}
    for name in (*given["user"], *given["item"]):
        if name not in further:
            raise ParamsError(f"no input column {name!r}", fix=f"use some of {', '.join(further) or 'none'}")
    owned: tuple[list[Column], list[Column]] = ([], [])
    for name, stated in further.items():
        owner = next((n for n, key in enumerate(("user", "item")) if name in given[key]), None)
        owner = _owner(rows, stated, bare) if owner is None else owner
        if owner is not None:
            owned[owner].append(stated)
    users, items = (_fit_side(rows, side, columns) for side, columns in zip(bare, owned, strict=True))
    return users, items


def features(side: Side, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """x_UF and c_UC of everyone known, from the first of their rows; nothing of the unknown."""
    numbers_N = side.numbers(rows)
    found, first = np.unique(numbers_N, return_index=True)
    x_UF = torch.zeros(side.count, side.encoder.features)
    c_UC = torch.zeros(side.count, len(side.encoder.vocabularies), dtype=torch.int64)
    x_BF, c_BC = side.encoder(_some(rows, first[found > 0]))
    at = torch.from_numpy(found[found > 0])
    x_UF[at], c_UC[at] = x_BF, c_BC
    return x_UF, c_UC


def targets(rows: Rows, spec: Spec, split: str) -> Floats:
    """The ratings. Raises DataError if one is missing or not finite."""
    assert spec.target is not None  # a task of ratings has one
    found = numbers(rows, spec.target).astype(np.float64)
    if not np.isfinite(found).all():
        raise DataError(f"target {spec.target!r} has rows without a finite number", where=f"{spec.dataset}, {split}")
    return found


def _bare(rows: Rows, name: str) -> Side:
    known = sorted(pc.unique(text(rows, name)).drop_null().to_pylist())
    if not known:
        raise DataError(f"column {name!r} is empty in the training rows", fix="give rows with users and items")
    return Side(name, tuple(known))


def _owner(rows: Rows, stated: Column, sides: Sequence[Side]) -> int | None:
    """0 for the users, 1 for the items, None for neither."""
    if stated.kind == "tensor":
        return 1  # the encoder says what is wrong with it
    values = pc.dictionary_encode(column(rows, stated.name), null_encoding="encode").indices.to_numpy()
    steady: list[tuple[int, int]] = []
    for place, side in enumerate(sides):
        numbers_N = side.numbers(rows)
        _, first, back = np.unique(numbers_N, return_index=True, return_inverse=True)
        strays = (values != values[first][back])[numbers_N > 0]
        if strays.mean() <= STRAY:
            steady.append((side.count, place))
    return min(steady)[1] if steady else None


def _fit_side(rows: Rows, side: Side, columns: Sequence[Column]) -> Side:
    found, first = np.unique(side.numbers(rows), return_index=True)
    return Side(side.name, side.known, fit_encoder(_some(rows, first[found > 0]), columns))


def _some(rows: Rows, chosen: Ints) -> Rows:
    return rows.take(pa.array(chosen))


# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────


class Lists:
    """For each of U (or I) the others that it was rated with, and how: P pairs, ordered."""

    def __init__(self, of_P: torch.Tensor, other_P: torch.Tensor, value_P: torch.Tensor, count: int) -> None:
        order = torch.argsort(of_P.long(), stable=True)
        self.of_P, self.other_P, self.value_P = of_P[order].long(), other_P[order].long(), value_P[order]
        self.lengths_U = torch.bincount(self.of_P, minlength=count)
        self.starts_U = self.lengths_U.cumsum(0) - self.lengths_U

    def places(self, chosen_B: torch.Tensor) -> torch.Tensor:
        """Where the pairs of those chosen are, one after the other."""
        lengths_B = self.lengths_U[chosen_B]
        before = lengths_B.cumsum(0) - lengths_B
        total = int(lengths_B.sum())
        return torch.repeat_interleave(self.starts_U[chosen_B] - before, lengths_B) + torch.arange(
            total, device=before.device
        )

    def sums(self, table: torch.Tensor, chosen_B: torch.Tensor, weighed: bool = False) -> torch.Tensor:
        """For each of those chosen the sum of the others' rows in `table`, weighed by the ratings if so."""
        places, lengths_B = self.places(chosen_B), self.lengths_U[chosen_B]
        weights = self.value_P[places] if weighed else None
        offsets_B = lengths_B.cumsum(0) - lengths_B
        return functional.embedding_bag(self.other_P[places], table, offsets_B, mode="sum", per_sample_weights=weights)


def biases(user_N: Ints, item_N: Ints, rating_N: Floats, users: int, items: int) -> tuple[float, Floats, Floats]:
    """The mean rating, by how much each user rates above it, and each item is rated above it: shrunken means, each
    of the two given the other. 0 for the unknown."""
    mean = float(rating_N.mean())
    b_U, b_I = np.zeros(users), np.zeros(items)
    for _ in range(ROUNDS):
        b_I = _shrunken(item_N, rating_N - mean - b_U[user_N], items)
        b_U = _shrunken(user_N, rating_N - mean - b_I[item_N], users)
    return mean, b_U, b_I


def _shrunken(of_N: Ints, value_N: Floats, count: int) -> Floats:
    found: Floats = np.bincount(of_N, value_N, count) / (np.bincount(of_N, minlength=count) + SHRINK)
    found[0] = 0
    return found


# ── lists of items ──────────────────────────────────────────────────────────────────────────────────────

Scores: TypeAlias = Callable[[slice], torch.Tensor]  # of some users: their scores of every item, B × I


def best(scores: Scores, items: int, user_B: torch.Tensor, rated: Lists, most: int) -> tuple[Ints, Floats]:
    """The `most` items of the highest score for each user, without those that the user rated among the training rows:
    their numbers (0 where there is none left) and scores, B × K. Ties go to the lower number.

    Scores are compared as float32, so that the last bits of a product, which depend on how many users are ranked at
    once, decide nothing.
    """
    step, most = max(1, _CELLS // items), min(most, items - 1)
    top_BK, value_BK = np.zeros((len(user_B), most), np.int64), np.zeros((len(user_B), most))
    for start in range(0, len(user_B), step):
        part = slice(start, min(start + step, len(user_B)))
        scores_BI, lengths_B = scores(part).float(), rated.lengths_U[user_B[part]]
        scores_BI[:, 0] = -torch.inf  # the unknown item is nobody's best
        row_P = torch.repeat_interleave(torch.arange(len(lengths_B), device=lengths_B.device), lengths_B)
        scores_BI[row_P, rated.other_P[rated.places(user_B[part])]] = -torch.inf
        values, found = (each.cpu().numpy() for each in torch.topk(scores_BI, most))
        order = np.lexsort((found, -values))
        values, found = np.take_along_axis(values, order, 1), np.take_along_axis(found, order, 1)
        top_BK[part], value_BK[part] = np.where(np.isfinite(values), found, 0), values
    return top_BK, value_BK


@dataclass(frozen=True)
class Wanted:
    """Users whose lists are measured, and what they liked. `first_V` is the first of each one's rows; `row_L`, `of_L`
    and `item_L` are the rows that they liked, whose each is, and its item."""

    first_V: Ints
    row_L: Ints
    of_L: Ints
    item_L: Ints

    @classmethod
    def among(cls, rows: Rows, user: str, item_N: Ints, liked_N: NDArray[np.bool_]) -> Wanted:
        """Those with a liked item among the rows: RANKED of them at most, evenly spread over their names."""
        names = text(rows, user)
        named_N = ~names.is_null().to_numpy(zero_copy_only=False)
        codes_N = pc.dictionary_encode(pc.fill_null(names, "")).indices.to_numpy().astype(np.int64)
        liked_N = liked_N & named_N
        found = np.unique(codes_N[liked_N])
        chosen = found[np.unique(np.linspace(0, len(found) - 1, min(len(found), RANKED)).astype(np.int64))]
        row_L = np.flatnonzero(liked_N & np.isin(codes_N, chosen))
        of_L = np.searchsorted(chosen, codes_N[row_L])
        # A pair that comes twice is one; items that nobody has seen are each their own, and never found.
        key_L = np.where(item_N[row_L] > 0, item_N[row_L], -1 - np.arange(len(row_L)))
        _, once = np.unique(np.stack([of_L, key_L]), axis=1, return_index=True)
        once.sort()
        order = np.argsort(codes_N, kind="stable")
        first_V = order[np.searchsorted(codes_N[order], chosen)]
        return cls(first_V, row_L[once], of_L[once], item_N[row_L[once]])

    def measured(self, top_VK: Ints, rows: int) -> dict[str, Floats]:
        """`recall` and `ndcg` of each user's list: on the first of the user's rows, NaN on all others. So whoever draws
        rows anew draws users anew, each with all of the figures or none, as a bootstrap over users would."""
        hits_LK = (top_VK[self.of_L] == self.item_L[:, None]) & (self.item_L > 0)[:, None]
        discount_K = 1 / np.log2(np.arange(top_VK.shape[1]) + 2)
        ideal = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(SHORT) + 2))])
        count_V = np.bincount(self.of_L, minlength=len(self.first_V))
        found_V = np.bincount(self.of_L, hits_LK.any(1), len(self.first_V))
        gain_V = np.bincount(self.of_L, (hits_LK * discount_K).sum(1), len(self.first_V))
        told = {"recall": found_V / count_V, "ndcg": gain_V / ideal[np.minimum(count_V, SHORT)]}
        carried = {name: np.full(rows, np.nan) for name in told}
        for name, value_V in told.items():
            carried[name][self.first_V] = value_V
        return carried


def figures(outcomes: Mapping[str, NDArray[Any]], split: str) -> Metrics:
    """split/recall_at_10 and split/ndcg_at_10, means over the users that training knew; of the others, split/cold_rmse,
    split/cold_mae and the same of their lists. What no row defines is left out."""
    cold_N, told = outcomes["cold"].astype(bool), {}
    error_N = outcomes["predicted"] - outcomes["truth"]
    if cold_N.any():
        told[f"{split}/cold_rmse"] = float(np.sqrt(np.mean(error_N[cold_N] ** 2)))
        told[f"{split}/cold_mae"] = float(np.mean(np.abs(error_N[cold_N])))
    for prefix, chosen_N in (("", ~cold_N), ("cold_", cold_N)):
        for name in ("recall", "ndcg"):
            values = outcomes[name][chosen_N & ~np.isnan(outcomes[name])]
            if len(values):
                told[f"{split}/{prefix}{name}_at_{SHORT}"] = float(values.mean())
    return told
