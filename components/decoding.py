"""Writing token by token: beam search with a length penalty, and sampling, for any net that says what comes next.

A net remembers what it has read and written in a Cache: named tensors whose first axis is the row, so hypotheses are
kept, dropped and doubled by their rows alone. Both ways of writing leave rows that are done behind.

Legend: B rows, K hypotheses of a row (beams), H = B × K, V tokens of the vocabulary, T tokens written so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch

from .texts import END, PAD, START, UNKNOWN

Cache: TypeAlias = Mapping[str, torch.Tensor]
NEVER = (PAD, UNKNOWN, START)  # what is never written


class Speaker(Protocol):
    """What can write: `step` reads last_H, the token that each hypothesis ends with (START at first), and gives the
    logits of the next, logits_HV, with the cache that goes on from there."""

    def step(self, last_H: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]: ...


@dataclass(frozen=True)
class Text:
    """The tokens of a text, without START and END, and its log-probability (natural), END included, by token."""

    ids: list[int]
    score: float


def beam(speaker: Speaker, cache: Cache, beams: int, most: int, penalty: float) -> list[Text]:
    """The likeliest text of each row, `most` tokens at most: a hypothesis's log-probability over ((5 + T) / 6)^penalty
    is what is compared (Wu et al. 2016, "Google's neural machine translation system", equation 14, without its coverage
    term). A row is done when its best text beats its best open hypothesis. One beam: the likeliest token at each step.
    """
    rows, where = _rows(cache), next(iter(cache.values())).device
    best: list[Text | None] = [None] * rows
    value_B = torch.full((rows,), -torch.inf, device=where)  # of the best text, by what is compared
    open_B = torch.arange(rows, device=where)  # the rows that are not done
    cache = _take(cache, open_B.repeat_interleave(beams))
    total_BK = torch.full((rows, beams), -torch.inf, device=where)
    total_BK[:, 0] = 0.0
    ids_BKT = torch.full((rows, beams, 1), START, device=where)
    for length in range(1, most + 2):
        logits_HV, cache = speaker.step(ids_BKT[:, :, -1].flatten(), cache)
        log_HV = _log_allowed(logits_HV)
        if length > most:  # to stop here costs what it costs, or going round in circles would be the surest text
            log_HV[:, :END] = log_HV[:, END + 1 :] = -torch.inf
        vocabulary = log_HV.shape[1]
        next_BN = (total_BK.flatten()[:, None] + log_HV).view(len(open_B), -1)
        # Twice as many as are kept: K of them may be ends.
        top_BN, at_BN = next_BN.topk(min(2 * beams, next_BN.shape[1]), 1)
        from_BN, token_BN = at_BN // vocabulary, at_BN % vocabulary
        worth_BN = top_BN / ((5 + length) / 6) ** penalty
        ends_BN = token_BN == END
        ended_BN = worth_BN.masked_fill(~ends_BN, -torch.inf)[:, :beams]
        newly_B, which_B = ended_BN.max(1)
        for at in (newly_B > value_B[open_B]).nonzero()[:, 0].tolist():
            beam_at = int(from_BN[at, which_B[at]])
            best[int(open_B[at])] = Text(ids_BKT[at, beam_at, 1:].tolist(), float(top_BN[at, which_B[at]]) / length)
        value_B[open_B] = torch.maximum(value_B[open_B], newly_B)
        kept_BK = (ends_BN.long() * 2 * beams + torch.arange(top_BN.shape[1], device=where)).argsort(1)[:, :beams]
        total_BK = top_BN.masked_fill(ends_BN, -torch.inf).gather(1, kept_BK)
        going_B = value_B[open_B] < worth_BN.masked_fill(ends_BN, -torch.inf).gather(1, kept_BK)[:, 0]
        if not going_B.any():
            break
        parent_BK, token_BK = from_BN.gather(1, kept_BK), token_BN.gather(1, kept_BK)
        grown = ids_BKT.gather(1, parent_BK[:, :, None].expand(-1, -1, ids_BKT.shape[2]))
        ids_BKT = torch.cat([grown, token_BK[:, :, None]], 2)[going_B]
        row_BK = torch.arange(len(open_B), device=where)[:, None] * beams + parent_BK
        cache, total_BK, open_B = _take(cache, row_BK[going_B].flatten()), total_BK[going_B], open_B[going_B]
    return [text or Text([], float("-inf")) for text in best]


def sample(
    speaker: Speaker, cache: Cache, uniform_BT: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> list[Text]:
    """A text of each row drawn token by token, as many tokens at most as `uniform_BT` has columns: its numbers in
    [0, 1) decide, so a row gets the same text in whatever company.

    Logits are divided by `temperature`; the `top_k` likeliest tokens are left (0: all), and of these the likeliest
    that hold `top_p` of the probability together (Holtzman et al. 2020, "The curious case of neural text
    degeneration"). The score is the log-probability under the net itself, not under what was left of it.
    """
    rows, where = _rows(cache), uniform_BT.device
    ids: list[list[int]] = [[] for _ in range(rows)]
    total_B = torch.zeros(rows, device=where)
    open_B = torch.arange(rows, device=where)
    last_B = torch.full((rows,), START, device=where)
    for at in range(uniform_BT.shape[1] + 1):
        logits_BV, cache = speaker.step(last_B, cache)
        log_BV = _log_allowed(logits_BV)
        last_B = (
            _drawn(log_BV / temperature, uniform_BT[open_B, at], top_k, top_p)
            if at < uniform_BT.shape[1]
            else torch.full_like(open_B, END)
        )
        total_B[open_B] += log_BV.gather(1, last_B[:, None])[:, 0]
        for row, token in zip(open_B.tolist(), last_B.tolist(), strict=True):
            if token != END:
                ids[row].append(token)
        going_B = last_B != END
        if not going_B.any():
            break
        kept_B = going_B.nonzero()[:, 0]
        cache, last_B, open_B = _take(cache, kept_B), last_B[kept_B], open_B[kept_B]
    return [Text(each, float(total) / (len(each) + 1)) for each, total in zip(ids, total_B.tolist(), strict=True)]


def _drawn(logits_BV: torch.Tensor, uniform_B: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """A token of each row: the first, from the likeliest on, where the summed probability exceeds the row's number."""
    most = min(top_k or logits_BV.shape[1], logits_BV.shape[1])
    sorted_BV, token_BV = logits_BV.sort(stable=True, dim=1, descending=True)
    share_BV = sorted_BV[:, :most].softmax(1)
    before_BV = share_BV.cumsum(1) - share_BV
    share_BV[:, 1:] = share_BV[:, 1:].masked_fill(before_BV[:, 1:] >= top_p, 0.0)  # the likeliest always stays
    reached_BV = share_BV.cumsum(1)
    wanted_B1 = uniform_B[:, None] * reached_BV[:, -1:]
    chosen_B1 = torch.searchsorted(reached_BV, wanted_B1, right=True).clamp(max=most - 1)
    last_B1 = (share_BV > 0).sum(1, keepdim=True) - 1  # rounding may reach beyond what is left
    return token_BV.gather(1, torch.minimum(chosen_B1, last_B1))[:, 0]


def _log_allowed(logits_HV: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of what may come next: of the special tokens only END."""
    made = logits_HV.float().clone()
    made[:, list(NEVER)] = -torch.inf
    return made.log_softmax(1)


def uniforms(texts: Sequence[str], seed: int, most: int) -> torch.Tensor:
    """uniform_BT in [0, 1), float32, drawn from each text and `seed` alone."""
    drawn = [np.random.default_rng([seed, *text.encode()]).random(most, np.float32) for text in texts]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, most)


def _rows(cache: Cache) -> int:
    return len(next(iter(cache.values())))


def _take(cache: Cache, rows_H: torch.Tensor) -> Cache:
    return {name: values.index_select(0, rows_H) for name, values in cache.items()}
