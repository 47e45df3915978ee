"""Interpolated Kneser–Ney smoothing over tokens (Chen & Goodman 1999), in numpy: a language model without a net.

What is counted are events, a token and the N - 1 tokens before it. An order n takes part with the grams of n tokens
that events end with: the highest with how often each is there, a lower one with how many different tokens each is there
after. Every order has one discount, n1 / (n1 + 2 n2) of its grams that count once and twice; what it takes from grams
goes to the order below, and from the lowest to all V tokens alike. So every token has some probability, and those of
all V add up to 1.

Legend: E events, N the highest order, G grams of an order, C contexts of an order, V tokens of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """The grams of one length.

    context_C   sorted; a context is its oldest token and the shorter context behind it
    gram_G      sorted; a gram is its context's place in context_C and its last token
    count_G     how much each counts; total_C and kinds_C: the sum and the number of the grams with each context
    """

    context_C: Ids
    gram_G: Ids
    count_G: Ids
    total_C: Ids
    kinds_C: Ids
    discount: float


@dataclass(frozen=True)
class KneserNey:
    """`orders` from the lowest up."""

    orders: tuple[Order, ...]
    vocabulary: int

    @classmethod
    def fitted(cls, events_EN: Ids, vocabulary: int, discounts: tuple[float, ...] | None = None) -> KneserNey:
        """`discounts` of the orders from the lowest up, in place of those that the counts give."""
        contexts = [np.zeros(1, np.int64)]
        place_E = np.zeros(len(events_EN), np.int64)
        grams = []
        for n in range(1, events_EN.shape[1] + 1):
            if n > 1:
                codes_E = events_EN[:, -n] * len(contexts[-1]) + place_E
                context_C, place_E = np.unique(codes_E, return_inverse=True)
                contexts.append(context_C)
            grams.append(np.unique(place_E * vocabulary + events_EN[:, -1], return_inverse=True, return_counts=True))
        orders = []
        for n, (context_C, (gram_G, of_E, count_G)) in enumerate(zip(contexts, grams, strict=True)):
            if n + 1 < len(grams):  # each longer gram is there once
                longer = np.unique(grams[n + 1][1], return_index=True)[1]
                count_G = np.bincount(of_E[longer], minlength=len(gram_G))  # noqa: PLW2901
            of_G = gram_G // vocabulary
            total_C = np.bincount(of_G, count_G, len(context_C)).astype(np.int64)
            kinds_C = np.bincount(of_G, minlength=len(context_C))
            discount = discounts[n] if discounts else _discount(count_G)
            orders.append(Order(context_C, gram_G, count_G, total_C, kinds_C, discount))
        return cls(tuple(orders), vocabulary)

    def probabilities(self, events_EN: Ids) -> NDArray[np.float64]:
        """Of the last token of each event after the others."""
        found_E = np.full(len(events_EN), 1 / self.vocabulary)
        place_E = np.zeros(len(events_EN), np.int64)
        shorter = 1
        for n, order in enumerate(self.orders, 1):
            known_E = place_E >= 0
            if n > 1:
                place_E = np.where(known_E, _places(order.context_C, events_EN[:, -n] * shorter + place_E), -1)
                known_E = place_E >= 0
                shorter = len(order.context_C)
            gram_E = _places(order.gram_G, place_E * self.vocabulary + events_EN[:, -1])
            count_E = np.where(gram_E >= 0, order.count_G[gram_E], 0)
            left_E = order.discount * order.kinds_C[place_E] * found_E
            mixed_E = (np.maximum(count_E - order.discount, 0) + left_E) / order.total_C[place_E]
            found_E = np.where(known_E, mixed_E, found_E)
        return found_E


def _places(sorted_: Ids, wanted: Ids) -> Ids:
    """Where each is; -1 where it is not."""
    at = np.searchsorted(sorted_, wanted).clip(max=len(sorted_) - 1)
    return np.where(sorted_[at] == wanted, at, -1)


def _discount(count_G: Ids) -> float:
    """A half where no gram counts once: something must be left for what was never seen."""
    once, twice = (int((count_G == n).sum()) for n in (1, 2))
    return once / (once + 2 * twice) if once else 0.5
