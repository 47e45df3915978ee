"""The shared learning loop: what families that learn by gradients on batches have in common.

`learn` is a ladder of small steps: an epoch is batches, a batch is one `_step`. Families with a way of their
own (two optimisers, an environment) write their own `fit` from the same pieces: `settings`, `devices`, `progress`,
and `adam`. Nothing here knows who drives it.

Going on from a State is exact, bit for bit, on the same kind of device and number of threads: generators are
seeded anew for every epoch from (seed, epoch), so there is no generator's state to keep.

Batches and learning rate scale with the device (`devices.batch_rows`). K times the rows in a batch, so 1/K of the
steps, go with √K of the learning rate (Krizhevsky 2014, "One weird trick"; for Adam: Malladi et al. 2022, "On the SDEs
and scaling rules for adaptive gradient algorithms") and of the weight decay, so that an epoch pulls at the weights as
before, and with the K-th power of an average's decay (Busbridge et al. 2023, "How to scale your EMA"). Adam's own two
decays stay. Where K is not 1 it is said in the log and by the metrics train/batch_rows and train/lr_factor.

A batch that does not fit the device's memory is learnt in two halves, from then on and for good: gradients are added
up, so the step is the same but for its last bits. A batch that was scaled up is halved again, down to half of what the
configuration asks for. It is said in the log and by the metric train/micro_batches.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from . import gradients
from .averages import Average
from .contract import Data, Epoch, Json, Metrics, Objective, State
from .devices import autocast, batch_rows, grad_scaler, seeded
from .progress import Progress
from .states import Part

LOG = logging.getLogger("tidemill")
LOWEST_LOSS = Objective("loss", "min")


def adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW in its fused form (twice as fast for small models on a CPU). Biases and norms do not decay: a group of
    their own, or, where nothing decays, the end of the only one: a call less a step. A State numbers parameters in
    their order, and that is the same either way."""
    owned = sorted((p for p in parameters if p.requires_grad), key=lambda p: p.ndim <= 1)
    decaying = len([p for p in owned if p.ndim > 1]) if weight_decay else len(owned)
    groups: list[dict[str, Any]] = [
        {"params": owned[:decaying], "weight_decay": weight_decay},
        {"params": owned[decaying:], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)


def parted(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """A net's weights, and those of embeddings whose gradients name the few rows that a batch has touched
    (nn.Embedding(sparse=True)): a step through all of a large table would take longer than the rest of it."""
    tables = {part.weight for part in net.modules() if isinstance(part, nn.Embedding) and part.sparse}
    weights = list(net.parameters())
    return [weight for weight in weights if weight not in tables], [weight for weight in weights if weight in tables]


def constant(_: float) -> float:
    return 1.0


def cosine(horizon_epochs: float, floor: float = 0.02) -> Callable[[float], float]:
    """Learning rate factor that falls from 1 to `floor` over the horizon along half a cosine, and stays there
    (Loshchilov & Hutter 2017, without restarts); over none it stays at 1. The horizon is a setting: nobody knows when a
    driver stops asking."""
    if not horizon_epochs:
        return constant

    def factor(epochs: float) -> float:
        done = min(1.0, epochs / horizon_epochs)
        return float(floor + (1 - floor) * 0.5 * (1 + np.cos(np.pi * done)))

    return factor


Drawing: TypeAlias = Callable[[np.random.Generator, int], Sequence[NDArray[np.int64]]]


@dataclass(frozen=True)
class Lesson:
    """What a family tells the loop.

    batch_rows rows of a batch before they scale with the device, and with them learning rate, decay and average
    loss       mean loss of a batch, with gradient, from the batch's row numbers rows_B (int64, on the device)
    weight_N   what each row counts in that mean (its tokens, say), whole numbers; None: all the same
    evaluate   metrics of a net in evaluation mode on the val split, val/<objective> among them
    fitted     what a net needs beside its weights to serve (scalars["model"]), asked at each best epoch
    sparse     the optimiser of sparse weights (`parted`), if there are any. They are not clipped: Adam steps as far for
               a small gradient as for a large one
    clip       highest norm of the gradient; 0: none
    average    decay of a running average of the weights, which is then what is evaluated and served; 0: none
               (Polyak & Juditsky 1992). It does for a constant learning rate what annealing does, without a horizon.
    schedule   factor on the learning rate, from the number of epochs done (a fraction inside an epoch)
    batches    for so many rows in a batch, what draws the row numbers of each batch of an epoch, every row once, from
               the epoch's generator and its number; None: at random. For rows of many lengths: texts.buckets
    whole      a lesson of its own, on train and val rows, learnt epoch by epoch beside this one. Its net is served,
               from the epoch of its own lowest training loss. So val, honest as ever, chooses settings, and neither
               a row is lost to it nor the epoch left to a handful of rows
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    rows: int
    batch_rows: int
    loss: Callable[[torch.Tensor], torch.Tensor]
    evaluate: Callable[[Any], Metrics]
    objective: Objective
    fitted: Callable[[Any], Json] = lambda _: {}
    sparse: torch.optim.Optimizer | None = None
    clip: float = 0.0
    average: float = 0.0
    schedule: Callable[[float], float] = constant
    batches: Callable[[int], Drawing] | None = None
    whole: Lesson | None = None
    weight_N: NDArray[np.int64] | None = None

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer, *([self.sparse] if self.sparse else [])]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Of parameters, of all optimisers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def weight(self, rows: NDArray[np.int64]) -> int:
        """What these rows count together."""
        return len(rows) if self.weight_N is None else int(self.weight_N[rows].sum())


def lesson_of(data: Data, whole: bool, made: Callable[[pa.Table], Lesson]) -> Lesson:
    """The lesson `made` of the train rows, with one on train and val rows together as its `whole` if asked."""
    train = data.splits["train"]
    lesson = made(train)
    if not whole:
        return lesson
    return dataclasses.replace(lesson, whole=made(pa.concat_tables([train, data.splits["val"]])))


@dataclass(kw_only=True)
class _Progress(Progress):
    """How far a lesson has come: everything beside the net and optimiser that an epoch changes."""

    scaler: torch.amp.GradScaler
    batch_rows: int
    draw: Drawing
    average: Average | None
    weights: Sequence[nn.Parameter]  # the net's, and the optimiser's if it has others
    steps: int = 0
    micro_batches: int = 1  # that a batch is learnt in
    whole: _Progress | None = None
    loss: float = float("nan")  # of a whole's last epoch


def learn(lesson: Lesson, seed: int, state: State | None = None) -> Iterator[Epoch]:
    """Learn for ever, one epoch an item, from scratch or from `state`."""
    progress = _begin(lesson, state)
    while True:
        progress.epoch += 1
        loss = _learn_epoch(lesson, progress, seeded(seed, progress.epoch))
        if lesson.whole and progress.whole:
            progress.whole.epoch = progress.epoch
            progress.whole.loss = _learn_epoch(lesson.whole, progress.whole, seeded(seed, progress.epoch))
        metrics = {"train/loss": loss, **lesson.evaluate(_served(lesson, progress).eval())}
        if (scale := _scale(lesson, progress)) > 1:
            metrics |= {"train/batch_rows": float(progress.batch_rows), "train/lr_factor": math.sqrt(scale)}
        if progress.micro_batches > 1:
            metrics["train/micro_batches"] = float(progress.micro_batches)
        _keep_best(lesson, progress, metrics)
        yield Epoch(progress.epoch, metrics, _keeper(lesson, progress))


def _begin(lesson: Lesson, state: State | None) -> _Progress:
    owned = [weight for group in lesson.groups for weight in group["params"]]
    weights = list(dict.fromkeys([*lesson.net.parameters(), *owned]))
    where = weights[0].device
    rows = batch_rows(lesson.batch_rows, lesson.rows, where)
    draw = lesson.batches(rows) if lesson.batches else at_random(lesson.rows, rows)
    average = Average(lesson.net, lesson.average ** (rows / lesson.batch_rows)) if lesson.average else None
    progress = _Progress(scaler=grad_scaler(where), batch_rows=rows, draw=draw, average=average, weights=weights)
    if (scale := _scale(lesson, progress)) > 1:
        _scale_groups(lesson, math.sqrt(scale))
        LOG.info(
            "batches of %d rows on this device instead of %d, learning rate × %.2f",
            *(rows, lesson.batch_rows, math.sqrt(scale)),
        )
    progress.whole = _begin(lesson.whole, None) if lesson.whole else None
    if state is not None:
        counts = progress.go_on(state, _parts(lesson, progress))
        progress.steps, progress.micro_batches = counts["steps"], counts.get("micro_batches", 1)
        if progress.whole:
            progress.whole.steps = counts["whole_steps"]
    return progress


def _served(lesson: Lesson, progress: _Progress) -> nn.Module:
    """The net itself, or the average of its weights."""
    return progress.average.net if progress.average else lesson.net


def _scale(lesson: Lesson, progress: _Progress) -> float:
    return progress.batch_rows / lesson.batch_rows


def _scale_groups(lesson: Lesson, factor: float) -> None:
    for group in lesson.groups:
        group["lr"] *= factor
        group["weight_decay"] = factor * group.get("weight_decay", 0.0)


def _learn_epoch(lesson: Lesson, progress: _Progress, generator: np.random.Generator) -> float:
    """One pass over the rows; returns the mean training loss. Batches differ by one row at most, so that
    there is never a last one of a single row, which batch norm cannot take."""
    lesson.net.train()
    base = [group.setdefault("base_lr", group["lr"]) for group in lesson.groups]
    batches = progress.draw(generator, progress.epoch)
    losses = []
    for done, rows in enumerate(batches):
        factor = lesson.schedule(progress.epoch - 1 + done / len(batches))
        for group, lr in zip(lesson.groups, base, strict=True):
            group["lr"] = lr * factor
        losses.append(_step(lesson, progress, torch.from_numpy(rows).to(progress.weights[0].device)))
        progress.steps += 1
        if progress.average:
            progress.average.follow(progress.steps)
    loss_S = torch.stack(losses)  # of each step
    weights = [lesson.weight(rows) for rows in batches]
    return float(np.cumsum((loss_S * loss_S.new_tensor(weights)).tolist())[-1]) / sum(weights)


def at_random(rows: int, batch_rows: int) -> Drawing:
    """Every row once, about `batch_rows` in each batch."""
    return lambda generator, _: np.array_split(generator.permutation(rows), max(1, round(rows / batch_rows)))


def _step(lesson: Lesson, progress: _Progress, rows_B: torch.Tensor) -> torch.Tensor:
    while (loss := _gradients(lesson, progress, rows_B)) is None:
        progress.micro_batches *= 2
        LOG.warning(
            "out of memory with a batch of %d rows: each batch is learnt in %d parts from here on",
            *(len(rows_B), progress.micro_batches),
        )
        if rows_B.is_cuda:
            torch.cuda.empty_cache()
    if lesson.clip:
        progress.scaler.unscale_(lesson.optimizer)
        gradients.clip(progress.weights, lesson.clip)
    for optimizer in lesson.optimizers:
        progress.scaler.step(optimizer)
    progress.scaler.update()
    return loss


def _gradients(lesson: Lesson, progress: _Progress, rows_B: torch.Tensor) -> torch.Tensor | None:
    """The mean loss of a batch, with its gradients in place; None if its parts are too large for the memory.

    Raises torch.OutOfMemoryError if half of the batch that the lesson asks for is too large.
    """
    gradients.drop(progress.weights)
    parts = [part for part in rows_B.tensor_split(progress.micro_batches) if len(part)]
    total = None
    try:
        for part in parts:
            with autocast(rows_B.device):
                loss = lesson.loss(part)
            if len(parts) > 1:
                loss = loss * (lesson.weight(part.cpu().numpy()) / lesson.weight(rows_B.cpu().numpy()))
            progress.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
    except torch.OutOfMemoryError as error:
        if progress.micro_batches >= 2 * _scale(lesson, progress) or len(parts) == len(rows_B):
            error.add_note(
                f"a batch of {len(rows_B)} rows does not fit in {len(parts)} parts: give settings a smaller batch"
            )
            raise
        return None  # only here, with the traceback gone, is the memory that its frames hold free again
    return total


def _keep_best(lesson: Lesson, progress: _Progress, metrics: Metrics) -> None:
    value = metrics[f"val/{lesson.objective.metric}"]
    better: Callable[[float, float], bool] = lesson.objective.better
    if progress.whole:
        value, better = progress.whole.loss, LOWEST_LOSS.better
    chosen = lesson.whole or lesson
    served = _served(chosen, progress.whole or progress)
    if progress.keep_best(value, better, served):
        progress.model = chosen.fitted(served)


def _keeper(lesson: Lesson, progress: _Progress) -> Callable[[], State]:
    counts: dict[str, Json] = {"steps": progress.steps}
    if progress.micro_batches > 1:
        counts["micro_batches"] = progress.micro_batches
    if progress.whole:
        counts["whole_steps"] = progress.whole.steps
    return progress.keeper(_parts(lesson, progress), counts)


def _parts(lesson: Lesson, progress: _Progress) -> dict[str, Part]:
    parts: dict[str, Part] = {"net": lesson.net, "optimizer": lesson.optimizer, "scaler": progress.scaler}
    parts |= {"sparse": lesson.sparse} if lesson.sparse else {}
    parts |= {"average": progress.average.net} if progress.average else {}
    if lesson.whole and progress.whole:
        parts |= {f"whole/{name}": part for name, part in _parts(lesson.whole, progress.whole).items()}
    return parts
