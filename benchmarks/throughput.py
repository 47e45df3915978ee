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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.plain import Plain, supervised, unsupervised  # noqa: E402
from components import datasets, families, params  # noqa: E402
from components.contract import SPLITS, Data, Family, Hyper, Task  # noqa: E402
from components.training import Lesson  # noqa: E402
from components.workspace import Workspace  # noqa: E402

MARK = 1.0
SEED = 7


@dataclass(frozen=True)
class Entry:
    """A family on a dataset, with its default settings beside `hyper`.

    script   what a person writes of its net
    epochs   or their whole loop, where more than one net learns: each epoch, and the units of one
    rows     of each split at most; 0: all
    task     of the family on the dataset, if not the first that the data can serve
    """

    family: str
    dataset: str
    script: Callable[[Any, Data], Plain] | None = None
    unit: str = "rows"
    rows: int = 0
    hyper: Hyper = field(default_factory=dict)
    task: Task | None = None
    epochs: Callable[[Data], tuple[Iterator[float], int]] | None = None


ENTRIES = (
    Entry("mlp", "breast-cancer", supervised.mlp),
    Entry("cnn", "digits", supervised.cnn),
    Entry("cnn1d", "gunpoint", supervised.cnn1d),
    Entry("rnn", "movie-sentiment", supervised.recurrent, "tokens"),
    Entry("recommender", "movies", supervised.recommender),
    Entry("transformer", "spelling-to-sound", supervised.writer, "tokens", 400),
    Entry("seq2seq", "spelling-to-sound", supervised.writer, "tokens", 400),
    Entry("autoencoder", "digits", unsupervised.reconstruction, task="representation"),
    Entry("geom", "digits", unsupervised.views, hyper={"normal": "8"}),
    Entry("vae", "digits", unsupervised.evidence),
    Entry("diffusion", "digits", unsupervised.denoising, rows=600),
    Entry("gan", "digits", epochs=unsupervised.adversaries),
)


# ── turn about ──────────────────────────────────────────────────────────────────────────────────────────


def data_of(entry: Entry) -> Data:
    workspace = Workspace.find()
    block = params.load(workspace).datasets.get(entry.dataset, params.DatasetBlock())
    stated = datasets.expectations(workspace, entry.dataset, block)
    task = entry.task or next(task for task in families.family(entry.family).tasks if task in stated.tasks())
    data = datasets.load(workspace, entry.dataset, stated, task)
    most = entry.rows or sys.maxsize
    return Data(data.spec, {split: data.splits[split].slice(0, most) for split in SPLITS})


def lesson_of(family: Family[Any], data: Data, hyper: Hyper) -> Lesson:
    """What the family would learn."""
    found: list[Lesson] = []
    module = sys.modules[type(family).__module__]
    with mock.patch.object(module, "learn", lambda lesson, *_: iter(found.append(lesson) or ())):
        list(family.fit(data, hyper, SEED, None))
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


def written(entry: Entry, family: Family[Any], data: Data) -> tuple[Iterator[float], int]:
    """A person's epochs, and the units of one. Raises ValueError if nobody has written any."""
    if entry.epochs:
        return entry.epochs(data)
    if entry.script is None:
        raise ValueError(f"{entry.family}: neither a script nor epochs")
    lesson = lesson_of(family, data, entry.hyper)
    plain = entry.script(lesson.net, data)
    return plain_epochs(lesson, plain), plain.units


def compared(entry: Entry, seconds: float) -> dict[str, float]:
    """Processor seconds of an epoch of both, until both have had so many together, and at least five epochs each."""
    data, family = data_of(entry), families.family(entry.family)
    plain, units = written(entry, family, data)
    learners: dict[str, Iterator[Any]] = {"tidemill": family.fit(data, entry.hyper, SEED, None), "plain": plain}
    taken: dict[str, list[float]] = {name: [] for name in learners}
    for learning in learners.values():
        next(learning)
    while len(taken["plain"]) < 5 or sum(map(sum, taken.values())) < seconds:
        for name in sorted(learners, reverse=len(taken["plain"]) % 2 == 0):
            started = time.process_time()
            next(learners[name])
            taken[name].append(time.process_time() - started)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    speeds = {name: units / median for name, median in medians.items()}
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
