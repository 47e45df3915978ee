"""Nets that match users with items: a rating is mean + bias of the user + bias of the item + product of their vectors.

A net learns what a constant part leaves over: mean and biases that are computed once (ratings.biases). So whoever it
knows nothing of gets the constant part, and where that is 0 the mean.

Legend: B rows of a batch or users or items chosen, U users, I items (number 0: unknown), P rated pairs, F number
features and C categories of a user or an item, D length of their vectors, E width of a tower's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .errors import DataError
from .ratings import Floats, Ints, Lists, Side, biases

Vectors: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # B × D, and the bias of each
STEPS = 80  # in an epoch, about, within what learns well and what runs fast


@dataclass(frozen=True)
class Pairs:
    """The rated pairs of the training rows in their order, and what the constant part leaves of each rating."""

    user_P: torch.Tensor
    item_P: torch.Tensor
    rest_P: torch.Tensor

    def by_user(self, users: int) -> Lists:
        return Lists(self.user_P, self.item_P, self.rest_P, users)

    def by_item(self, items: int) -> Lists:
        return Lists(self.item_P, self.user_P, self.rest_P, items)


@dataclass(frozen=True)
class Constant:
    """The part of a rating that is not learnt by steps."""

    mean: float
    b_U: Floats
    b_I: Floats


def begin(user_N: Ints, item_N: Ints, rating_N: Floats, sides: Sequence[Side]) -> tuple[Pairs, Constant]:
    """Pairs and constant part of training rows. Raises DataError if no row has both a user and an item."""
    users, items = (side.count for side in sides)
    mean, b_U, b_I = biases(user_N, item_N, rating_N, users, items)
    both_N = (user_N > 0) & (item_N > 0)
    if not both_N.any():
        raise DataError("no training row has a user and an item", fix="give rows that say who rated what")
    rest_N = rating_N - mean - b_U[user_N] - b_I[item_N]
    pairs = (torch.from_numpy(values[both_N]) for values in (user_N, item_N, rest_N))
    user_P, item_P, rest_P = pairs
    return Pairs(user_P.int(), item_P.int(), rest_P.float()), Constant(mean, b_U, b_I)


@dataclass(frozen=True)
class Ready:
    """The vectors of all users and items that the training rows knew, and their biases, the constant part in them."""

    p_UD: torch.Tensor
    b_U: torch.Tensor
    q_ID: torch.Tensor
    b_I: torch.Tensor


class Matcher(nn.Module):
    """What all nets have in common. `width`: their vectors' length, 0 for their own; `penalty`: how much it weighs."""

    width, penalty = 50, 0.1
    mean: torch.Tensor
    b_U: torch.Tensor
    b_I: torch.Tensor
    user_P: torch.Tensor
    item_P: torch.Tensor
    rest_P: torch.Tensor
    x_UF: torch.Tensor
    c_UC: torch.Tensor
    x_IF: torch.Tensor
    c_IC: torch.Tensor

    def __init__(self, sides: Sequence[Side], pairs: Pairs) -> None:
        super().__init__()
        for letter, side in zip("UI", sides, strict=True):
            self.register_buffer(f"b_{letter}", torch.zeros(side.count))
            self.register_buffer(f"x_{letter}F", torch.zeros(side.count, side.encoder.features))
            categories = torch.zeros(side.count, len(side.encoder.vocabularies), dtype=torch.int64)
            self.register_buffer(f"c_{letter}C", categories)
        self.register_buffer("mean", torch.zeros(()))
        for name, value in vars(pairs).items():
            self.register_buffer(name, value.clone())
        self._lists: dict[str, Lists] = {}

    def know(self, constant: Constant, users: Vectors, items: Vectors) -> None:
        """Take in what training knows before it begins; users and items come with their features x and c."""
        self.mean.fill_(constant.mean)
        self.b_U.copy_(torch.from_numpy(constant.b_U))
        self.b_I.copy_(torch.from_numpy(constant.b_I))
        for own, known in zip((self.x_UF, self.c_UC, self.x_IF, self.c_IC), (*users, *items), strict=True):
            own.copy_(known)

    def of_users(self, u_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:
        """Vectors, and what is added to the constant biases."""
        raise NotImplementedError

    def of_items(self, i_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:
        """Vectors, and what is added to the constant biases."""
        raise NotImplementedError

    def lessons(self, batch_rows: int) -> tuple[int, int]:
        """How many there are to learn from in an epoch, and in a batch: by default pairs."""
        pairs = len(self.rest_P)
        return pairs, batch_rows or int(2 ** np.clip(round(np.log2(pairs / STEPS)), 5, 13))

    def loss(self, rows_B: torch.Tensor, penalty: float) -> torch.Tensor:
        u_B, i_B = self.user_P[rows_B].long(), self.item_P[rows_B].long()
        (p_BD, b_B), (q_BD, c_B) = self._known_users(u_B), self._known_items(i_B)
        error_B = (p_BD * q_BD).sum(1) + b_B + c_B - self.rest_P[rows_B]
        sizes = (p_BD.square().sum(1) + q_BD.square().sum(1) + b_B.square() + c_B.square()).mean()
        return error_B.square().mean() + penalty * self.penalty * sizes

    def ready(self) -> Ready:
        """Everyone who is known, in float64, so that sums hardly depend on their order."""
        with torch.no_grad():
            where = self.mean.device
            p_UD, b_U = self.of_users(torch.arange(len(self.b_U), device=where), self.x_UF, self.c_UC)
            q_ID, b_I = self.of_items(torch.arange(len(self.b_I), device=where), self.x_IF, self.c_IC)
            return Ready(p_UD.double(), b_U.double() + self.b_U, q_ID.double(), b_I.double() + self.b_I)

    def by_user(self) -> Lists:
        if "user" not in self._lists:  # made where the net is, which it is not yet when it is built
            self._lists["user"] = Lists(self.user_P, self.item_P, self.rest_P, len(self.b_U))
        return self._lists["user"]

    def by_item(self) -> Lists:
        if "item" not in self._lists:
            self._lists["item"] = Lists(self.item_P, self.user_P, self.rest_P, len(self.b_I))
        return self._lists["item"]

    def _known_users(self, u_B: torch.Tensor) -> Vectors:
        """A user of several rows is looked at once."""
        found, back_B = torch.unique(u_B, return_inverse=True)
        vectors, added = self.of_users(found, self.x_UF[found], self.c_UC[found])
        return vectors[back_B], added[back_B]

    def _known_items(self, i_B: torch.Tensor) -> Vectors:
        found, back_B = torch.unique(i_B, return_inverse=True)
        vectors, added = self.of_items(found, self.x_IF[found], self.c_IC[found])
        return vectors[back_B], added[back_B]


# ── factors ─────────────────────────────────────────────────────────────────────────────────────────────


class Factors(Matcher):
    """A user is its own vector, those of the items that it rated, and those of its attributes."""

    def __init__(self, sides: Sequence[Side], pairs: Pairs, width: int, _: float) -> None:
        super().__init__(sides, pairs)
        width = width or self.width
        users, items = sides
        self.user, self.user_bias = _table(users.count, width, 0.1), _table(users.count, 1, 0.0)
        self.item, self.item_bias = _table(items.count, width, 0.5), _table(items.count, 1, 0.0)
        self.rated = _table(items.count, width, 0.1)
        self.user_attributes, self.item_attributes = Attributes(users, width), Attributes(items, width)

    def of_users(self, u_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:
        rated = self.by_user()
        implied_BD = rated.sums(self.rated.weight, u_B) * rated.lengths_U[u_B].clamp(min=1).rsqrt()[:, None]
        return self.user(u_B) + implied_BD + self.user_attributes(x_BF, c_BC), self.user_bias(u_B)[:, 0]

    def of_items(self, i_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:
        return self.item(i_B) + self.item_attributes(x_BF, c_BC), self.item_bias(i_B)[:, 0]


class Attributes(nn.Module):
    """The sum of a vector for each category and of one for each number, times the number; they begin at 0."""

    def __init__(self, side: Side, width: int) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(side.encoder.features, width))
        self.categories = nn.ModuleList(_table(v.codes, width, 0.0) for v in side.encoder.vocabularies)

    def forward(self, x_BF: torch.Tensor, c_BC: torch.Tensor) -> torch.Tensor:
        y_BD: torch.Tensor = x_BF @ self.numbers
        for at, table in enumerate(self.categories):
            y_BD = y_BD + table(c_BC[:, at])
        return y_BD


# ── towers ──────────────────────────────────────────────────────────────────────────────────────────────


class Towers(Matcher):
    width, penalty = 32, 0.1

    def __init__(self, sides: Sequence[Side], pairs: Pairs, width: int, forget: float) -> None:
        super().__init__(sides, pairs)
        self.user, self.item = (Tower(side, width or self.width, forget) for side in sides)

    def of_users(self, u_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:
        vectors: Vectors = self.user(u_B, x_BF, c_BC)
        return vectors

    def of_items(self, i_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:
        vectors: Vectors = self.item(i_B, x_BF, c_BC)
        return vectors


class Tower(nn.Module):
    """One hidden layer over the id and the columns. `forget`: the share of ids that it does without while it learns."""

    def __init__(self, side: Side, width: int, forget: float) -> None:
        super().__init__()
        self.forget = forget
        self.id = _table(side.count, width, 0.5)
        self.categories = nn.ModuleList(_table(v.codes, 8, 0.3) for v in side.encoder.vocabularies)
        inputs = width + side.encoder.features + 8 * len(side.encoder.vocabularies)
        self.hidden, self.out = nn.Linear(inputs, 2 * width), nn.Linear(2 * width, width + 1)
        with torch.no_grad():
            self.out.weight[-1].zero_()
            self.out.bias.zero_()

    def forward(self, n_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:
        if self.training and self.forget:
            n_B = n_B * (torch.rand(n_B.shape, device=n_B.device) >= self.forget)
        x_BE = torch.cat([self.id(n_B), x_BF, *(table(c_BC[:, at]) for at, table in enumerate(self.categories))], 1)
        y_B = self.out(functional.relu(self.hidden(x_BE)))
        return y_B[:, :-1], y_B[:, -1]


# ── autorec ─────────────────────────────────────────────────────────────────────────────────────────────


class AutoRec(Matcher):
    """An item's vector is the code of its ratings; a user's is the decoder's row for that user."""

    width, penalty = 300, 40.0
    batch_items = 64

    def __init__(self, sides: Sequence[Side], pairs: Pairs, width: int, _: float) -> None:
        super().__init__(sides, pairs)
        users, width = sides[0].count, width or self.width
        self.encoder, self.decoder = nn.Embedding(users, width), nn.Embedding(users, width)
        self.code_bias, self.user_bias = nn.Parameter(torch.zeros(width)), _table(users, 1, 0.0)
        with torch.no_grad():
            for table, inputs in ((self.encoder, users), (self.decoder, width)):
                table.weight.uniform_(-(inputs**-0.5), inputs**-0.5)
                table.weight[0].zero_()  # nobody's: it never learns, since no pair is the unknown user's

    def of_users(self, u_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:  # noqa: ARG002
        return self.decoder(u_B), self.user_bias(u_B)[:, 0]

    def of_items(self, i_B: torch.Tensor, x_BF: torch.Tensor, c_BC: torch.Tensor) -> Vectors:  # noqa: ARG002
        codes_BD = self.by_item().sums(self.encoder.weight, i_B, weighed=True) + self.code_bias
        return codes_BD.sigmoid(), torch.zeros(len(i_B), device=i_B.device)

    def lessons(self, batch_rows: int) -> tuple[int, int]:
        return len(self.b_I) - 1, batch_rows or self.batch_items

    def loss(self, rows_B: torch.Tensor, penalty: float) -> torch.Tensor:
        rated, i_B = self.by_item(), rows_B + 1
        places, lengths_B = rated.places(i_B), rated.lengths_U[i_B]
        q_BD, _ = self.of_items(i_B, self.x_IF[i_B], self.c_IC[i_B])
        u_P = rated.other_P[places]
        # Not q_BD.repeat_interleave: what it sends back is added up in any order on a GPU.
        q_PD = functional.embedding(torch.arange(len(i_B), device=i_B.device).repeat_interleave(lengths_B), q_BD)
        error_P = (self.decoder(u_P) * q_PD).sum(1) + self.user_bias(u_P)[:, 0] - rated.value_P[places]
        sizes = self.encoder.weight.square().sum() + self.decoder.weight.square().sum()
        loss: torch.Tensor = error_P.square().sum() / max(len(places), 1)
        return loss + penalty * self.penalty / len(self.rest_P) * sizes


MATCHERS: dict[str, type[Factors] | type[Towers] | type[AutoRec]] = {
    "factors": Factors,
    "towers": Towers,
    "autorec": AutoRec,
}


def _table(rows: int, width: int, scale: float) -> nn.Embedding:
    """Vectors of normal deviates; number 0, which says nothing, stays 0."""
    table = nn.Embedding(rows, width, padding_idx=0)
    with torch.no_grad():
        table.weight.mul_(scale / width**0.5)
    return table
