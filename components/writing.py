"""What families that write text share: the lesson, how good a text is, and the writing.

A net reads a source and says what comes next of its target (`Writer`). How it does that is the family's; how it is
taught (cross-entropy of each token given those before it), how it writes (decoding.py) and how it is measured
(wording.py) is the same for all.

Legend: N rows of a split, B rows of a batch, T tokens of the longest target of a batch, END included, V tokens of the
target's vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional

from . import decoding, texts, wording
from .contract import Data, Metrics, Objective, Outcomes, Spec
from .decoding import Cache, Text
from .text_pairs import Pairs, Settings, Vocabularies, pairs, sources, texts_of, train_and_val, vocabularies
from .texts import PAD, Ids, Tokens
from .training import Drawing, Lesson, adam, cosine, parted

WRITING_ROWS, JUDGING_ROWS = 64, 256  # that go through a net at once
OUTPUTS = pa.schema([("text", pa.string()), ("score", pa.float64())])


# ── nets ────────────────────────────────────────────────────────────────────────────────────────────────


class Writer(Protocol):
    """A net that writes, in evaluation mode unless it learns. `known` and `settings` are what it was made with."""

    spec: Spec
    known: Vocabularies
    settings: Any

    def logits(self, pairs: Pairs, rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """logits_BTV of each target token given the source and the target tokens before it, and those tokens ids_BT,
        PAD after each row's END. Both on the net's device."""

    def learnt(self, pairs: Pairs) -> torch.Tensor:
        """How many tokens of each row `logits` is about while it learns: tokens_N, whole numbers."""

    def begin(self, source: Tokens, rows_B: torch.Tensor) -> Cache:
        """What it remembers of sources, before it has written anything; as `decoding.Speaker` goes on with it."""

    def step(self, last_H: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]: ...


def lesson(net: Any, data: Data, settings: Settings, objective: Objective, sparse_lr: float = 0.0) -> Lesson:
    """Teaches a Writer that is an nn.Module, on its device, by the targets of the training rows. `sparse_lr` is that of
    its sparse weights, if it has any."""
    train, val = train_and_val(data, net.known, settings)

    def loss(rows_B: torch.Tensor) -> torch.Tensor:
        logits_BTV, ids_BT = net.logits(train, rows_B.cpu())
        return functional.cross_entropy(
            logits_BTV.flatten(0, 1).float(),
            ids_BT.flatten(),
            ignore_index=PAD,
            label_smoothing=settings.label_smoothing,
        )

    drawn = settings.epoch_rows if 0 < settings.epoch_rows < len(train) else len(train)
    lengths_N = (train.source.lengths_N + train.target.lengths_N).numpy()
    weights, sparse = parted(net)
    return Lesson(
        net=net,
        optimizer=adam(weights, settings.lr, settings.weight_decay),
        sparse=torch.optim.SparseAdam(sparse, sparse_lr) if sparse else None,
        rows=drawn,
        batch_rows=settings.batch_rows,
        loss=loss,
        evaluate=lambda served: told(_likelihood(served, val), "val"),
        objective=objective,
        fitted=lambda _: net.known.to_json(),
        clip=settings.clip,
        average=settings.average,
        schedule=_schedule(settings),
        batches=partial(_batches, lengths_N, drawn),
        weight_N=net.learnt(train).numpy(),
    )


def _schedule(settings: Settings) -> Callable[[float], float]:
    falling = cosine(settings.horizon) if settings.horizon else lambda _: 1.0

    def factor(epochs: float) -> float:
        rising = min(1.0, (epochs + 0.01) / settings.warmup) if settings.warmup else 1.0
        return rising * falling(epochs)

    return factor


def _batches(lengths_N: Ids, drawn: int, batch_rows: int) -> Drawing:
    """Rows of like length together, `drawn` of all rows in an epoch."""
    if drawn == len(lengths_N):
        return texts.buckets(lengths_N, batch_rows)
    parts = len(lengths_N) // drawn

    def some(generator: np.random.Generator, epoch: int) -> list[Ids]:
        turn, part = divmod(epoch - 1, parts)
        # Not from the epoch's generator: the epochs of a turn must agree.
        rows = np.random.default_rng(turn).permutation(len(lengths_N))[part * drawn : (part + 1) * drawn]
        return [rows[at] for at in texts.buckets(lengths_N[rows], batch_rows)(generator, epoch)]

    return some


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────


@torch.inference_mode()
def _likelihood(net: Any, given: Pairs) -> dict[str, NDArray[Any]]:
    """Of each row: `nats`, how unlikely its target is (natural logarithm), `tokens`, of how many tokens, END included,
    and `hits`, how many of these were the likeliest given those before them."""
    net.eval()
    nats_N, hits_N = np.zeros(len(given)), np.zeros(len(given))
    for rows_B in texts.in_order(given.source.lengths_N + given.target.lengths_N, JUDGING_ROWS):
        logits_BTV, ids_BT = net.logits(given, rows_B)
        there_BT = ids_BT != PAD
        nats_BT = functional.cross_entropy(logits_BTV.float().transpose(1, 2), ids_BT, reduction="none")
        nats_N[rows_B.numpy()] = nats_BT.masked_fill(~there_BT, 0).cpu().double().sum(1).numpy()
        hits_N[rows_B.numpy()] = ((logits_BTV.argmax(2) == ids_BT) & there_BT).sum(1).cpu().numpy()
    return {"nats": nats_N, "tokens": given.target.lengths_N.numpy().astype(np.float64), "hits": hits_N}


def judge(net: Any, data: Data, split: str) -> Outcomes:
    """Of all rows how likely their targets are; of some how near what the net writes is to them (wording.compared)."""
    rows = data.splits[split]
    likely = _likelihood(net, pairs(data.spec, rows, net.known, net.settings))
    chosen, read, references = asked(data, split, net.settings.judged)
    found = wording.compared([text for text, _ in written(net, read)], references)
    return likely | wording.spread(found, chosen, len(rows))


def told(outcomes: Outcomes, split: str) -> Metrics:
    """split/loss (nats a token), split/perplexity, split/accuracy (of tokens given those before them), and where texts
    were written the figures of wording.py."""
    tokens = float(outcomes["tokens"].sum())
    loss = float(outcomes["nats"].sum()) / tokens
    made = {
        "loss": loss,
        "perplexity": float(np.exp(min(loss, 700.0))),
        "accuracy": float(outcomes["hits"].sum()) / tokens,
    }
    beside = {name: values for name, values in outcomes.items() if name not in ("nats", "tokens", "hits")}
    return {f"{split}/{name}": value for name, value in made.items()} | (
        wording.figures(beside, split) if beside else {}
    )


def baseline(data: Data, split: str, settings: Settings) -> Metrics:
    """The trivial writer: tokens are as likely as they are common among the training targets, each once more than it is
    there; and what is written is the source itself."""
    known = vocabularies(data, settings)
    train, given = (pairs(data.spec, data.splits[name], known, settings).target for name in ("train", split))
    count_V = 1 + torch.bincount(train.ids_T, minlength=known.target.size).double()
    nats_V = -(count_V / count_V.sum()).log()
    chosen, read, references = asked(data, split, settings.judged)
    row_T = torch.arange(len(given)).repeat_interleave(given.lengths_N)
    likely = {
        "nats": torch.bincount(row_T, nats_V[given.ids_T], minlength=len(given)).numpy(),
        "tokens": given.lengths_N.double().numpy(),
        "hits": torch.bincount(row_T, (given.ids_T == count_V.argmax()).double(), minlength=len(given)).numpy(),
    }
    return told(likely | wording.spread(wording.compared(read, references), chosen, len(given)), split)


def asked(data: Data, split: str, most: int) -> tuple[list[int], list[str], list[list[str]]]:
    """Rows that are written for, `most` at most: the first of each source; their sources, and the targets of all rows
    with that source."""
    read, wanted = texts_of(data.spec, data.splits[split])
    first: dict[str, int] = {}
    targets: dict[str, list[str]] = {}
    for at, (source, target) in enumerate(zip(read, wanted, strict=True)):
        first.setdefault(source, at)
        targets.setdefault(source, []).append(target)
    each = list(first.values())
    chosen = [each[at] for at in np.linspace(0, len(each) - 1, min(most, len(each))).round().astype(int)]
    return chosen, [read[at] for at in chosen], [targets[read[at]] for at in chosen]


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────


@torch.inference_mode()
def written(net: Any, read: Sequence[str]) -> list[tuple[str, float]]:
    """The text written for each source, and its log-probability by token. A source that is there several times is
    written for once."""
    asked = sorted(set(read))
    source, settings = sources(asked, net.known, net.settings), net.settings
    found: dict[str, tuple[str, float]] = {}
    net.eval()
    for rows_B in texts.in_order(source.lengths_N, WRITING_ROWS):
        cache = net.begin(source, rows_B)
        names = [asked[at] for at in rows_B.tolist()]
        for name, text in zip(names, _written(net, cache, names, settings), strict=True):
            found[name] = net.known.target.decode(text.ids).strip(), text.score
    return [found[text] for text in read]


def _written(net: Writer, cache: Cache, names: Sequence[str], settings: Settings) -> list[Text]:
    if not settings.temperature:
        return decoding.beam(net, cache, settings.beams, settings.longest, settings.length_penalty)
    uniform_BT = decoding.uniforms(names, settings.draw, settings.longest).to(next(iter(cache.values())).device)
    return decoding.sample(net, cache, uniform_BT, settings.temperature, settings.top_k, settings.top_p)


def score(net: Any, batch: pa.RecordBatch) -> pa.RecordBatch:
    """What is written for each row, and its log-probability by token: the nearer to 0, the surer."""
    made = written(net, texts.read(net.spec, batch))
    return pa.record_batch(
        [pa.array([t for t, _ in made], pa.string()), pa.array([s for _, s in made], pa.float64())], schema=OUTPUTS
    )
