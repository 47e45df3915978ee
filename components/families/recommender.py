"""recommender: what a user will think of an item, and the items that the user will like best.

Three nets, chosen by the setting `net`. All of them rate by mean + bias of the user + bias of the item + product of a
vector of the user and one of the item, so that lists and cold starts are the same for all:

factors    matrix factorisation with biases, implicit feedback and attributes (Koren, Bell & Volinsky 2009, "Matrix
           factorization techniques for recommender systems", equation 6; SVD++ of Koren 2008)
towers     a net for the user and a net for the item, ids and columns in, vectors out (Covington et al. 2016, "Deep
           neural networks for YouTube recommendations"; Yi et al. 2019, "Sampling-bias-corrected neural modeling")
autorec    an autoencoder of each item's ratings (Sedhain et al. 2015, "AutoRec", the item-based one)

How it differs: Adam in place of stochastic gradients or resilient propagation; biases begin as shrunken means. factors
gives items attributes as well, and its penalty is on whole vectors, not on their parts. towers learns ratings by
squared error, not clicks by a softmax over the batch, and forgets some ids at random, so that it can do without them
(DropoutNet, Volkovs et al. 2017). autorec encodes what is left of a rating after mean and biases, so a missing one is a
plain 0.

Legend: N rows, B some of them, U users, I items (number 0: unknown), F number features and C categories of a user or an
item, D length of their vectors, V users whose lists are measured, K items in a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from .. import matching, metrics, ratings
from ..contract import (
    Choice,
    Codes,
    Data,
    Domain,
    Epoch,
    Hyper,
    Kind,
    Learning,
    Metrics,
    Objective,
    Outcomes,
    Spec,
    State,
    Task,
    Uniform,
)
from ..devices import device, seeded
from ..errors import ParamsError
from ..matching import Matcher, Pairs, Ready, Vectors
from ..ratings import Floats, Ints, Side, Wanted
from ..settings import configure
from ..states import unpack
from ..tables import Rows, text
from ..training import Lesson, adam, constant, learn


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    width         length of the vectors; 0: the net's own
    penalty       on the vectors, as a multiple of the net's own
    forget        share of ids in a batch that towers does without
    liked         ratings from here on are what lists should hold
    top_k         items in the list of each row's user; 0: lists are empty
    user_columns, item_columns   what the rows say, unless named here: see components/ratings.py
    """

    net: str = "factors"
    width: int = 0
    lr: float = 3e-3
    penalty: float = 1.0
    forget: float = 0.1
    batch_rows: int = 0
    liked: float = 4.0
    top_k: int = 10
    user_columns: tuple[str, ...] = ()
    item_columns: tuple[str, ...] = ()


class Net(nn.Module):
    """A matcher with what it must know of the training rows. `reach`: their lowest and highest rating."""

    def __init__(self, spec: Spec, sides: tuple[Side, Side], pairs: Pairs, settings: Settings) -> None:
        super().__init__()
        if settings.net not in matching.MATCHERS:
            raise ParamsError(f"setting 'net' got {settings.net!r}", fix=f"use one of {', '.join(matching.MATCHERS)}")
        if settings.top_k < 0:
            raise ParamsError(f"setting 'top_k' got {settings.top_k}, expected 0 or more")
        self.spec, self.users, self.items, self.settings = spec, *sides, settings
        self.reach = (-np.inf, np.inf)
        self.matcher: Matcher = matching.MATCHERS[settings.net](sides, pairs, settings.width, settings.forget)
        self.ready: Ready | None = None  # made once for a net that is served; one that learns changes with each step


class Recommender:
    learning: ClassVar[Learning] = "supervised"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)
    kinds: ClassVar[tuple[Kind, ...]] = ("number", "category", "date")
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:
        ratings.pair(spec)
        return Objective("rmse", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "net": Choice(tuple(matching.MATCHERS)),
            "lr": Uniform(1.5e-3, 6e-3, log=True, mutable=True),
            "penalty": Uniform(0.6, 1.8, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, train = configure(Settings, hyper), data.spec, data.splits["train"]
        seeded(seed)
        named = {"user": settings.user_columns, "item": settings.item_columns}
        sides = users, items = ratings.fit_sides(train, spec, named)
        rating_N = ratings.targets(train, spec, "train")
        pairs, part = matching.begin(users.numbers(train), items.numbers(train), rating_N, sides)
        net = Net(spec, sides, pairs, settings)
        net.reach = (float(rating_N.min()), float(rating_N.max()))
        net.matcher.know(part, ratings.features(users, train), ratings.features(items, train))
        net.to(device())
        val, truth_N = data.splits["val"], ratings.targets(data.splits["val"], spec, "val")
        rows, batch_rows = net.matcher.lessons(settings.batch_rows)
        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr),
            rows=rows,
            batch_rows=batch_rows,
            loss=lambda rows_B: net.matcher.loss(rows_B, settings.penalty),
            evaluate=lambda served: metrics.regression("val", _predict(served, val), truth_N),
            objective=self.objective(spec),
            fitted=lambda _: {"users": users.to_json(), "items": items.to_json(), "reach": list(net.reach)},
            schedule=constant,
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        fitted, tensors = state.scalars["model"], state.tensors
        sides = Side.from_json(fitted["users"]), Side.from_json(fitted["items"])
        pairs = Pairs(*(tensors[f"model/matcher.{name}"] for name in ("user_P", "item_P", "rest_P")))
        net = Net(spec, sides, pairs, configure(Settings, hyper))
        net.reach = tuple(fitted["reach"])
        unpack(state, {"model": net})
        net.to(device()).eval()
        net.ready = net.matcher.ready()
        return net

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """Beside each row's rating: whether its user is new, and, on one row of each user, how good the list is."""
        rows = data.splits[split]
        truth_N = ratings.targets(rows, data.spec, split)
        wanted = Wanted.among(rows, net.users.name, net.items.numbers(rows), truth_N >= net.settings.liked)
        top_VK, _ = _best(net, rows.take(pa.array(wanted.first_V)), ratings.SHORT)
        told = {"predicted": _predict(net, rows), "truth": truth_N, "cold": net.users.numbers(rows) == 0}
        return told | wanted.measured(top_VK, len(rows))

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return metrics.regression(split, outcomes["predicted"], outcomes["truth"]) | ratings.figures(outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        """The training rows' mean rating, and for a list the items that were rated most often."""
        train, rows, settings = data.splits["train"], data.splits[split], configure(Settings, hyper)
        users, items = ratings.fit_sides(train, data.spec, {"user": (), "item": ()})
        truth_N, rating_N = ratings.targets(rows, data.spec, split), ratings.targets(train, data.spec, "train")
        pairs, _ = matching.begin(users.numbers(train), items.numbers(train), rating_N, (users, items))
        counts_I = torch.bincount(pairs.item_P.long(), minlength=items.count).float()
        wanted = Wanted.among(rows, users.name, items.numbers(rows), truth_N >= settings.liked)
        user_V = torch.from_numpy(users.numbers(rows)[wanted.first_V])
        popular = lambda part: counts_I.repeat(part.stop - part.start, 1)  # noqa: E731
        top_VK, _ = ratings.best(popular, items.count, user_V, pairs.by_user(users.count), ratings.SHORT)
        predicted_N = np.full(len(truth_N), rating_N.mean())
        told = {"predicted": predicted_N, "truth": truth_N, "cold": users.numbers(rows) == 0}
        return self.measure(data.spec, told | wanted.measured(top_VK, len(rows)), split)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`prediction` is missing where the item is. The list of a user is made once, whatever the number of rows."""
        absent_N = text(batch, net.items.name).is_null().to_numpy(zero_copy_only=False)
        predicted = pa.array(_predict(net, batch), mask=absent_N)
        lists = _lists(net, batch)
        return pa.record_batch([predicted, *lists], schema=self.outputs(net.spec))

    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The terms that a rating is the sum of: each element of the product, and the two biases."""
        with torch.inference_mode():
            ready = net.ready or net.matcher.ready()
            (p_ND, b_N), (q_ND, c_N) = _vectors(net, ready, batch, 0), _vectors(net, ready, batch, 1)
            return torch.cat([p_ND * q_ND, b_N[:, None], c_N[:, None]], 1).float().cpu().numpy()

    def outputs(self, spec: Spec) -> pa.Schema:
        """The rating, and the list of the row's user: the best items, and the rating that each would get."""
        ratings.pair(spec)
        return pa.schema(
            [("prediction", pa.float64()), ("top_items", pa.list_(pa.string())), ("top_scores", pa.list_(pa.float32()))]
        )


def _vectors(net: Net, ready: Ready, rows: Rows, side: int) -> Vectors:
    """p_ND (0) or q_ND (1) and biases, in float64: of the known as they are known, of the others by their columns."""
    of = (net.users, net.items)[side]
    known, added = ((ready.p_UD, ready.b_U), (ready.q_ID, ready.b_I))[side]
    number_N = torch.from_numpy(of.numbers(rows)).to(known.device)
    vectors_ND, bias_N = known[number_N], added[number_N]
    new = (number_N == 0).nonzero()[:, 0]
    if len(new) and (of.encoder.features or of.encoder.vocabularies):
        x_BF, c_BC = (each.to(known.device) for each in of.encoder(rows.take(pa.array(new.cpu().numpy()))))
        told = (net.matcher.of_users, net.matcher.of_items)[side](torch.zeros_like(new), x_BF, c_BC)
        vectors_ND[new], bias_N[new] = told[0].double(), told[1].double()
    return vectors_ND, bias_N


@torch.no_grad()
def _predict(net: Net, rows: Rows) -> Floats:
    """The rating of each row, within what the training rows have, on the CPU."""
    net.eval()
    ready = net.ready or net.matcher.ready()
    (p_ND, b_N), (q_ND, c_N) = _vectors(net, ready, rows, 0), _vectors(net, ready, rows, 1)
    predicted: Floats = ((p_ND * q_ND).sum(1) + b_N + c_N + net.matcher.mean).clamp(*net.reach).cpu().numpy()
    return predicted


@torch.no_grad()
def _best(net: Net, rows: Rows, most: int) -> tuple[Ints, Floats]:
    """The list of each row's user: numbers of items, and their ratings, as ratings.best gives them."""
    net.eval()
    ready = net.ready or net.matcher.ready()
    p_ND, b_N = _vectors(net, ready, rows, 0)
    number_N = torch.from_numpy(net.users.numbers(rows)).to(p_ND.device)

    def scores(part: slice) -> torch.Tensor:
        return p_ND[part] @ ready.q_ID.T + b_N[part, None] + ready.b_I + net.matcher.mean

    top_NK, value_NK = ratings.best(scores, net.items.count, number_N, net.matcher.by_user(), most)
    return top_NK, np.clip(value_NK, *net.reach)


def _lists(net: Net, batch: pa.RecordBatch) -> list[pa.Array]:
    """`top_items` and `top_scores` of each row, made once for each different user: one that training knew, or one whose
    columns are the same."""
    number_N = net.users.numbers(batch)
    x_NF, c_NC = net.users.encoder(batch)
    looks_N = np.concatenate([number_N[:, None], np.where(number_N[:, None], 0, torch.cat([x_NF, c_NC], 1))], 1)
    _, first, back_N = np.unique(looks_N, axis=0, return_index=True, return_inverse=True)
    some = batch.take(pa.array(first))
    top_VK, value_VK = _best(net, some, net.settings.top_k)
    there_VK = top_VK > 0
    starts = pa.array(np.concatenate([[0], there_VK.sum(1).cumsum()]), pa.int32())
    names = pa.array(net.items.known, pa.string()).take(pa.array(top_VK[there_VK] - 1))
    lists = names, pa.array(value_VK[there_VK].astype(np.float32))
    return [pa.ListArray.from_arrays(starts, values).take(pa.array(back_N)) for values in lists]
