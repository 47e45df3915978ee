"""How fast an epoch is beside the plainest torch loop: python benchmarks/throughput.py [FAMILY…] [--seconds S].

Both learn the same net on the same rows, in as many steps, and then predict the val rows: Tidemill by the family's
`fit`, whose epochs are timed from the second on, the other as a person writes it who wants no more than that: torch's
AdamW as it comes, random batches, no clipping, no running average of the weights, no best epoch kept, two figures of
the val rows at most. They take turns, on one thread, as a trial has. What is measured is the processor's seconds, all
threads of the process together: what an epoch takes on a machine with nothing else to do. Medians are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import rnn

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from components import datasets, families, images, params, ratings, series, text_pairs  # noqa: E402
from components.contract import SPLITS, Data, Family  # noqa: E402
from components.tables import truth  # noqa: E402
from components.texts import PAD  # noqa: E402
from components.training import Lesson  # noqa: E402
from components.workspace import Workspace  # noqa: E402

MARK = 1.0
SEED = 7


@dataclass(frozen=True)
class Plain:
    """What a script holds beside its net: the loss of a batch's rows, and figures of the val rows. `units`: rows or
    tokens of an epoch."""

    loss: Callable[[torch.Tensor], torch.Tensor]
    validate: Callable[[], Any]
    units: int


@dataclass(frozen=True)
class Entry:
    """A family on a dataset, with its default settings. `rows`: of each split at most; 0: all."""

    family: str
    dataset: str
    script: Callable[[Any, Data], Plain]
    unit: str = "rows"
    rows: int = 0


# ── scripts, as a person writes them ────────────────────────────────────────────────────────────────────


def targets(data: Data, split: str) -> torch.Tensor:
    return torch.from_numpy(truth(data.spec, data.splits[split], split))


def judged(logits_NK: torch.Tensor, y_N: torch.Tensor) -> tuple[float, float]:
    """Log loss and accuracy."""
    return float(functional.cross_entropy(logits_NK, y_N)), float((logits_NK.argmax(1) == y_N).float().mean())


def mlp(net: Any, data: Data) -> Plain:
    (x_NF, c_NC), (val_NF, val_NC) = (net.encoder(data.splits[split]) for split in ("train", "val"))
    y_N, val_N = targets(data, "train"), targets(data, "val")

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(net.embed(x_NF[rows], c_NC[rows])), y_N[rows])

    return Plain(loss, lambda: judged(net(net.embed(val_NF, val_NC)), val_N), len(y_N))


def cnn(net: Any, data: Data) -> Plain:
    x_NCHW, val_NCHW = (images.read(data.spec, data.splits[split]) for split in ("train", "val"))
    y_N, val_N, settings = targets(data, "train"), targets(data, "val"), families.family("cnn").Settings()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(images.augmented(x_NCHW[rows].float(), settings.augment)), y_N[rows])

    def validate() -> tuple[float, float]:
        return judged(torch.cat([net(x_BCHW.float()) for x_BCHW in val_NCHW.split(256)]), val_N)

    return Plain(loss, validate, len(y_N))


def cnn1d(net: Any, data: Data) -> Plain:
    x_NCT, val_NCT = (net.standardised(data.splits[split]) for split in ("train", "val"))
    y_N, val_N, settings = targets(data, "train"), targets(data, "val"), families.family("cnn1d").Settings()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(series.augmented(x_NCT[rows], settings.augment)), y_N[rows])

    return Plain(loss, lambda: judged(torch.cat([net(x) for x in val_NCT.split(64)]), val_N), len(y_N))


def recurrent(net: Any, data: Data) -> Plain:
    """Texts of any length meet in a batch."""
    read = {split: net.read(data.splits[split]) for split in ("train", "val")}
    parts = {
        split: [list(torch.split(part.ids_T, part.lengths_N.tolist())) for part in (rows.tokens, rows.grams)]
        for split, rows in read.items()
    }
    y_N, val_N, settings = targets(data, "train"), targets(data, "val"), net.settings

    def logits(split: str, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, grams = ([part[row] for row in rows] for part in parts[split])
        ids_BT = rnn.pad_sequence(tokens, batch_first=True, padding_value=PAD)
        there_BT1 = (ids_BT != PAD)[:, :, None]
        if net.training:
            ids_BT = ids_BT.masked_fill((torch.rand(ids_BT.shape) < settings.token_dropout) & there_BT1[:, :, 0], 1)
        lengths = torch.tensor([len(ids) for ids in tokens])
        packed = rnn.pack_padded_sequence(net.dropout(net.embedding(ids_BT)), lengths, True, False)
        x_BTH, _ = rnn.pad_packed_sequence(net.rnn(packed)[0], batch_first=True)
        largest_BH = x_BTH.masked_fill(~there_BT1, -torch.inf).amax(1)
        x_BD = torch.cat([largest_BH, x_BTH.sum(1) / lengths[:, None]], 1)
        counts = torch.tensor([len(ids) for ids in grams])
        kept = functional.dropout(torch.ones(int(counts.sum())), settings.token_dropout, net.training)
        weight, starts = net.ratio_GK + net.linear_GK, counts.cumsum(0) - counts
        bags_BK = functional.embedding_bag(torch.cat(grams), weight, starts, mode="sum", per_sample_weights=kept)
        linear_BK = net.scale * bags_BK * counts.clamp(min=1).rsqrt()[:, None] + net.bias_K
        return net.last(net.dropout(x_BD)), linear_BK

    def loss(rows: torch.Tensor) -> torch.Tensor:
        both = logits("train", rows.tolist())
        smooth = settings.label_smoothing
        return sum(functional.cross_entropy(y_BK, y_N[rows], label_smoothing=smooth) for y_BK in both)  # type: ignore[return-value]

    def validate() -> tuple[float, float]:
        parts = [sum(logits("val", rows.tolist())) for rows in torch.arange(len(val_N)).split(256)]
        return judged(torch.cat(parts), val_N)  # type: ignore[arg-type]

    return Plain(loss, validate, int(read["train"].tokens.lengths_N.sum()))


def recommender(net: Any, data: Data) -> Plain:
    matcher, spec = net.matcher, data.spec
    user_N, item_N = (torch.from_numpy(side.numbers(data.splits["val"])) for side in (net.users, net.items))
    rating_N = torch.from_numpy(ratings.targets(data.splits["val"], spec, "val"))

    def vectors(u_B: torch.Tensor, i_B: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p_BD, b_B = matcher.of_users(u_B, matcher.x_UF[u_B], matcher.c_UC[u_B])
        q_BD, c_B = matcher.of_items(i_B, matcher.x_IF[i_B], matcher.c_IC[i_B])
        return p_BD, b_B, q_BD, c_B

    def loss(rows: torch.Tensor) -> torch.Tensor:
        p_BD, b_B, q_BD, c_B = vectors(matcher.user_P[rows].long(), matcher.item_P[rows].long())
        error_B = (p_BD * q_BD).sum(1) + b_B + c_B - matcher.rest_P[rows]
        sizes = (p_BD.square().sum(1) + q_BD.square().sum(1) + b_B.square() + c_B.square()).mean()
        return error_B.square().mean() + net.settings.penalty * matcher.penalty * sizes

    def validate() -> float:
        parts = []
        for u_B, i_B in zip(user_N.split(8192), item_N.split(8192), strict=True):
            p_BD, b_B, q_BD, c_B = vectors(u_B, i_B)
            parts.append((p_BD * q_BD).sum(1) + b_B + c_B + matcher.b_U[u_B] + matcher.b_I[i_B] + matcher.mean)
        return float((torch.cat(parts) - rating_N).square().mean().sqrt())

    return Plain(loss, validate, len(matcher.rest_P))


def writer(net: Any, data: Data) -> Plain:
    """Texts of any length meet in a batch."""
    train, val = (
        text_pairs.pairs(data.spec, data.splits[split], net.known, net.settings) for split in ("train", "val")
    )

    def loss(rows: torch.Tensor) -> torch.Tensor:
        logits_BTV, ids_BT = net.logits(train, rows)
        smooth = net.settings.label_smoothing
        return functional.cross_entropy(
            logits_BTV.flatten(0, 1), ids_BT.flatten(), ignore_index=PAD, label_smoothing=smooth
        )

    def validate() -> float:
        total = 0.0
        for rows in torch.arange(len(val)).split(256):
            logits_BTV, ids_BT = net.logits(val, rows)
            lost = functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT, ignore_index=PAD, reduction="sum")
            total += float(lost)
        return total / int(val.target.lengths_N.sum())

    return Plain(loss, validate, int(train.target.lengths_N.sum()))


ENTRIES = (
    Entry("mlp", "breast-cancer", mlp),
    Entry("cnn", "digits", cnn),
    Entry("cnn1d", "gunpoint", cnn1d),
    Entry("rnn", "movie-sentiment", recurrent, "tokens"),
    Entry("recommender", "movies", recommender),
    Entry("transformer", "spelling-to-sound", writer, "tokens", 400),
    Entry("seq2seq", "spelling-to-sound", writer, "tokens", 400),
)


# ── turn about ──────────────────────────────────────────────────────────────────────────────────────────


def data_of(entry: Entry) -> Data:
    workspace = Workspace.find()
    block = params.load(workspace).datasets.get(entry.dataset, params.DatasetBlock())
    stated = datasets.expectations(workspace, entry.dataset, block)
    task = next(task for task in families.family(entry.family).tasks if task in stated.tasks())
    data = datasets.load(workspace, entry.dataset, stated, task)
    most = entry.rows or sys.maxsize
    return Data(data.spec, {split: data.splits[split].slice(0, most) for split in SPLITS})


def lesson_of(family: Family[Any], data: Data) -> Lesson:
    """What the family would learn."""
    found: list[Lesson] = []
    module = sys.modules[type(family).__module__]
    with mock.patch.object(module, "learn", lambda lesson, *_: iter(found.append(lesson) or ())):
        list(family.fit(data, {}, SEED, None))
    return found[0]


def steps_of(lesson: Lesson) -> int:
    """Of an epoch."""
    if lesson.batches:
        return len(lesson.batches(lesson.batch_rows)(np.random.default_rng(0), 1))
    return max(1, round(lesson.rows / lesson.batch_rows))


def plain_epochs(lesson: Lesson, plain: Plain) -> Iterator[float]:
    """The mean training loss of each epoch."""
    net, settings = lesson.net, lesson.optimizer.param_groups[0]
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"])
    steps = steps_of(lesson)
    while True:
        net.train()
        total = 0.0
        for rows in torch.randperm(lesson.rows).tensor_split(steps):
            loss = plain.loss(rows)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(rows)
        net.eval()
        with torch.no_grad():
            plain.validate()
        yield total / lesson.rows


def compared(entry: Entry, seconds: float) -> dict[str, float]:
    """Processor seconds of an epoch of both, until both have had so many together, and at least five epochs each."""
    data, family = data_of(entry), families.family(entry.family)
    lesson = lesson_of(family, data)
    plain = entry.script(lesson.net, data)
    learners: dict[str, Iterator[Any]] = {
        "tidemill": family.fit(data, {}, SEED, None),
        "plain": plain_epochs(lesson, plain),
    }
    taken: dict[str, list[float]] = {name: [] for name in learners}
    for learning in learners.values():
        next(learning)
    while len(taken["plain"]) < 5 or sum(map(sum, taken.values())) < seconds:
        for name in sorted(learners, reverse=len(taken["plain"]) % 2 == 0):
            started = time.process_time()
            next(learners[name])
            taken[name].append(time.process_time() - started)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    speeds = {name: plain.units / median for name, median in medians.items()}
    return {**speeds, "ratio": medians["plain"] / medians["tidemill"], "epochs": len(taken["plain"])}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/throughput.py", description=__doc__.splitlines()[0])
    parser.add_argument("family", nargs="*", help="all that are in the table, unless named")
    parser.add_argument("--seconds", type=float, default=30, help="the processor's, for each family")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [entry for entry in ENTRIES if entry.family in (options.family or families.FAMILIES)]
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} cores; programs at work in the last 1, 5 and 15 minutes: {load}")
    print(f"{'family':12} {'dataset':18} {'tidemill':>12} {'plain torch':>12}      a second {'ratio':>7}  epochs")
    for entry in chosen:
        each = compared(entry, options.seconds)
        print(
            f"{entry.family:12} {entry.dataset:18} {each['tidemill']:12,.0f} {each['plain']:12,.0f} "
            f"{entry.unit:>13} {each['ratio']:7.2f}  {each['epochs']}",
            flush=True,
        )
    print(f"mark: a ratio of at least {MARK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
