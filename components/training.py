"""The shared learning loop: what families that learn by gradients on batches have in common.

`learn` is a ladder of small steps: an epoch is batches, a batch is one `_step`. Families with a way of their
own (two optimisers, an environment) write their own `fit` from the same pieces: `configure`, `seeded`,
`device`, `autocast`, `grad_scaler`, `adam`, `pack`, `unpack`. Nothing here knows who drives it.

Going on from a State is exact, bit for bit, on the same kind of device and number of threads: generators are
seeded anew for every epoch from (seed, epoch), so there is no generator's state to keep.

A batch that does not fit the device's memory is learnt in two halves, from then on and for good: gradients are added
up, so the step is the same but for its last bits. It is said in the log and by the metric train/micro_batches.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .contract import MODEL, Epoch, Hyper, Json, Metrics, Objective, State
from .errors import ParamsError

S = TypeVar("S")
Part: TypeAlias = nn.Module | torch.optim.Optimizer | torch.amp.GradScaler
Parts: TypeAlias = Mapping[str, Part]  # name in the State → what is packed under it
NOTHING: Mapping[str, Any] = MappingProxyType({})


# ── settings, seeds, devices ────────────────────────────────────────────────────────────────────────────


def configure(kind: type[S], hyper: Hyper) -> S:
    """The settings of a configuration: `hyper` over the defaults of the dataclass `kind`.

    Raises ParamsError for an unknown setting or one of the wrong type.
    """
    known = {f.name: f.default for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in hyper:
        if name not in known:
            raise ParamsError(f"unknown setting {name!r}", fix=f"use one of {', '.join(known)}")
    return kind(**{name: _typed(name, value, type(known[name])) for name, value in hyper.items()})


def _typed(name: str, value: Json, wanted: type[Any]) -> Any:
    """The value as the type of the setting's default: JSON and YAML know no tuples, and write 1.0 as 1."""
    if isinstance(value, bool) == (wanted is bool):
        if isinstance(value, wanted):
            return value
        if wanted is float and isinstance(value, int):
            return float(value)
        if wanted is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if wanted is tuple and isinstance(value, list):
            return tuple(value)
    raise ParamsError(f"setting {name!r} got {value!r}, expected {wanted.__name__}")


def seeded(seed: int, epoch: int = 0) -> np.random.Generator:
    """Seed torch's global generators (dropout takes no other) and return numpy's, for one epoch (0: before the first).

    Also puts back what an earlier trial of the same process may have left behind.
    """
    source = np.random.SeedSequence([seed % 2**63, epoch])
    torch.manual_seed(int(source.generate_state(1, np.uint64)[0] >> 1))
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return np.random.default_rng(source)


def device() -> torch.device:
    """CUDA where there is one, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision(where: torch.device) -> torch.dtype:
    """What a GPU computes in: bfloat16 where it is native, else float16. A CPU keeps float32."""
    if where.type == "cpu":
        return torch.float32
    native = where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def autocast(where: torch.device) -> contextlib.AbstractContextManager[object]:
    """Mixed precision on a GPU, nothing on a CPU."""
    dtype = precision(where)
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(where.type, dtype)


def grad_scaler(where: torch.device) -> torch.amp.GradScaler:
    """Keeps float16 gradients from vanishing; passes everything through in any other precision."""
    return torch.amp.GradScaler(where.type, enabled=precision(where) == torch.float16)


def adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW in its fused form (twice as fast for small models on a CPU); biases and norms do not decay."""
    owned = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in owned if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in owned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)


# ── states ──────────────────────────────────────────────────────────────────────────────────────────────


def pack(parts: Parts, scalars: Mapping[str, Json] = NOTHING, tensors: Mapping[str, torch.Tensor] = NOTHING) -> State:
    """A State of copies on the CPU: modules, optimisers and scalers under their names, further scalars, and
    further tensors (a replay buffer) under their full names.

    Learning rates and other settings are left out: they come from `hyper`, which may change on the way.
    """
    packed = {name: _copied(value) for name, value in tensors.items()}
    rest = dict(scalars)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            packed |= {f"{name}/{key}": _copied(value) for key, value in part.state_dict().items()}
        elif isinstance(part, torch.optim.Optimizer):
            for index, moments in part.state_dict()["state"].items():
                packed |= {
                    f"{name}/{index}/{key}": _copied(value) for key, value in moments.items() if value is not None
                }
        else:
            rest[name] = part.state_dict()
    return State(packed, rest)


def unpack(state: State, parts: Parts) -> None:
    """Copy what `pack` packed under these names into modules, optimisers and scalers of the same shape.

    Raises RuntimeError, as torch does, if names or shapes differ.
    """
    for name, part in parts.items():
        if isinstance(part, torch.amp.GradScaler):
            if part.is_enabled() and state.scalars.get(name):
                part.load_state_dict(state.scalars[name])
            continue
        under = {
            key.removeprefix(f"{name}/"): value for key, value in state.tensors.items() if key.startswith(f"{name}/")
        }
        if isinstance(part, nn.Module):
            part.load_state_dict(under)  # copies into the module's own tensors
        else:
            _unpack_optimizer(part, under)


def _unpack_optimizer(optimizer: torch.optim.Optimizer, under: Mapping[str, torch.Tensor]) -> None:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for path, value in under.items():
        index, _, key = path.partition("/")
        moments.setdefault(int(index), {})[key] = value.clone()  # load_state_dict keeps what it is given
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    for parameter, own in optimizer.state.items():
        for key, value in own.items():
            if key != "step" and value.shape == parameter.shape:
                # In the parameter's memory layout: fused steps go wrong, silently, with another.
                own[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


# ── the loop ────────────────────────────────────────────────────────────────────────────────────────────


def constant(_: float) -> float:
    return 1.0


def cosine(horizon_epochs: float, floor: float = 0.02) -> Callable[[float], float]:
    """Learning rate factor that falls from 1 to `floor` over the horizon along half a cosine, and stays there
    (Loshchilov & Hutter 2017, without restarts). The horizon is a setting: nobody knows when a driver stops asking."""

    def factor(epochs: float) -> float:
        done = min(1.0, epochs / horizon_epochs)
        return float(floor + (1 - floor) * 0.5 * (1 + np.cos(np.pi * done)))

    return factor


@dataclass(frozen=True)
class Lesson:
    """What a family tells the loop.

    loss       mean loss of a batch, with gradient, from the batch's row numbers rows_B (int64, on the device)
    evaluate   metrics of a net in evaluation mode on the val split, val/<objective> among them
    fitted     what a net needs beside its weights to serve (scalars["model"]), asked at each best epoch
    clip       highest norm of the gradient; 0: none
    average    decay of a running average of the weights, which is then what is evaluated and served; 0: none
               (Polyak & Juditsky 1992). It does for a constant learning rate what annealing does, without a horizon.
    schedule   factor on the learning rate, from the number of epochs done (a fraction inside an epoch)
    batches    the row numbers of each batch of an epoch, every row once, drawn from the epoch's generator; None: at
               random, batch_rows in each. For rows of many lengths: texts.buckets
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
    clip: float = 0.0
    average: float = 0.0
    schedule: Callable[[float], float] = constant
    batches: Callable[[np.random.Generator], Sequence[NDArray[np.int64]]] | None = None
    whole: Lesson | None = None


@dataclass
class _Progress:
    """How far a lesson has come: everything beside the net and optimiser that an epoch changes."""

    served: nn.Module  # the net itself, or the average of its weights
    scaler: torch.amp.GradScaler
    epoch: int = 0
    steps: int = 0
    micro_batches: int = 1  # that a batch is learnt in
    best: float = float("nan")
    best_tensors: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    fitted: Json = None
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
        progress.served.eval()
        metrics = {"train/loss": loss, **lesson.evaluate(progress.served)}
        if progress.micro_batches > 1:
            metrics["train/micro_batches"] = float(progress.micro_batches)
        _keep_best(lesson, progress, metrics)
        yield Epoch(progress.epoch, metrics, _keeper(lesson, progress))


def _begin(lesson: Lesson, state: State | None) -> _Progress:
    served = copy.deepcopy(lesson.net).requires_grad_(False) if lesson.average else lesson.net
    progress = _Progress(served, grad_scaler(_device_of(lesson.net)))
    progress.whole = _begin(lesson.whole, None) if lesson.whole else None
    if state is not None:
        unpack(state, _parts(lesson, progress))
        kept = state.scalars["progress"]
        progress.epoch, progress.steps, progress.best = kept["epoch"], kept["steps"], float(kept["best"])
        progress.micro_batches = kept.get("micro_batches", 1)
        if progress.whole:
            progress.whole.steps = kept["whole_steps"]
        progress.best_tensors = {k: v.clone() for k, v in state.served().tensors.items()}
        progress.fitted = state.scalars["model"]
    return progress


def _learn_epoch(lesson: Lesson, progress: _Progress, generator: np.random.Generator) -> float:
    """One pass over the rows; returns the mean training loss. Batches differ by one row at most, so that
    there is never a last one of a single row, which batch norm cannot take."""
    lesson.net.train()
    where = _device_of(lesson.net)
    base = [group.setdefault("base_lr", group["lr"]) for group in lesson.optimizer.param_groups]
    batches = lesson.batches(generator) if lesson.batches else at_random(lesson.rows, lesson.batch_rows, generator)
    total = torch.zeros((), dtype=torch.float64 if where.type != "mps" else torch.float32, device=where)
    for done, rows in enumerate(batches):
        factor = lesson.schedule(progress.epoch - 1 + done / len(batches))
        for group, lr in zip(lesson.optimizer.param_groups, base, strict=True):
            group["lr"] = lr * factor
        total += _step(lesson, progress, torch.from_numpy(rows).to(where)) * len(rows)
        progress.steps += 1
        _average(lesson, progress)
    return float(total) / lesson.rows


def at_random(rows: int, batch_rows: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Every row once, about `batch_rows` in each batch."""
    return np.array_split(generator.permutation(rows), max(1, round(rows / batch_rows)))


def _step(lesson: Lesson, progress: _Progress, rows_B: torch.Tensor) -> torch.Tensor:
    loss = _gradients(lesson, progress, rows_B)
    if loss is None:
        progress.micro_batches = 2
        logging.getLogger("tidemill").warning(
            "out of memory with a batch of %d rows: each batch is learnt in two halves from here on", len(rows_B)
        )
        if rows_B.is_cuda:
            torch.cuda.empty_cache()
        loss = _gradients(lesson, progress, rows_B)
        assert loss is not None  # a half that does not fit raises
    scaler = progress.scaler
    if lesson.clip:
        scaler.unscale_(lesson.optimizer)
        nn.utils.clip_grad_norm_(lesson.net.parameters(), lesson.clip)
    scaler.step(lesson.optimizer)
    scaler.update()
    return loss


def _gradients(lesson: Lesson, progress: _Progress, rows_B: torch.Tensor) -> torch.Tensor | None:
    """The mean loss of a batch, with its gradients in place; None if a whole batch is too large for the memory.

    Raises torch.OutOfMemoryError if half a batch is.
    """
    lesson.optimizer.zero_grad(set_to_none=True)
    parts = [rows_B] if progress.micro_batches == 1 else [part for part in rows_B.tensor_split(2) if len(part)]
    total = None
    try:
        for part in parts:
            with autocast(rows_B.device):
                loss = lesson.loss(part)
            share = len(part) / len(rows_B)
            loss = loss * share if len(parts) > 1 else loss
            progress.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
    except torch.OutOfMemoryError as error:
        if progress.micro_batches > 1 or len(rows_B) == 1:
            error.add_note(f"half of a batch of {len(rows_B)} rows does not fit either: give settings a smaller batch")
            raise
        return None  # only here, with the traceback gone, is the memory that its frames hold free again
    return total


@torch.no_grad()
def _average(lesson: Lesson, progress: _Progress) -> None:
    if not lesson.average:
        return
    # The first steps weigh more than the decay says, or the average would remember the initial weights for long.
    share = 1 - min(lesson.average, (1 + progress.steps) / (10 + progress.steps))
    for mean, value in zip(_tensors(progress.served), _tensors(lesson.net), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, share)
        else:
            mean.copy_(value)


def _tensors(net: nn.Module) -> list[torch.Tensor]:
    """Weights and buffers."""
    return [*net.parameters(), *net.buffers()]


def _keep_best(lesson: Lesson, progress: _Progress, metrics: Metrics) -> None:
    value = metrics[f"val/{lesson.objective.metric}"]
    better = lesson.objective.better(value, progress.best)
    if progress.whole:
        value = progress.whole.loss
        better = value < progress.best
    if not progress.best_tensors or better:
        progress.best = value
        served = (progress.whole or progress).served
        progress.best_tensors = pack({MODEL.rstrip("/"): served}).tensors
        progress.fitted = (lesson.whole or lesson).fitted(served)


def _keeper(lesson: Lesson, progress: _Progress) -> Callable[[], State]:
    number = progress.epoch

    def keep() -> State:
        if progress.epoch != number:
            raise RuntimeError(f"the state of epoch {number} is gone: ask for it before the next epoch")
        # As text: JSON has no NaN.
        kept: dict[str, Json] = {"epoch": progress.epoch, "steps": progress.steps, "best": repr(progress.best)}
        if progress.micro_batches > 1:
            kept["micro_batches"] = progress.micro_batches
        if progress.whole:
            kept["whole_steps"] = progress.whole.steps
        state = pack(_parts(lesson, progress), {"progress": kept, "model": progress.fitted})
        best = {name: tensor.clone() for name, tensor in progress.best_tensors.items()}
        return State({**state.tensors, **best}, state.scalars)

    return keep


def _parts(lesson: Lesson, progress: _Progress) -> dict[str, Part]:
    parts: dict[str, Part] = {"net": lesson.net, "optimizer": lesson.optimizer, "scaler": progress.scaler}
    parts |= {"average": progress.served} if lesson.average else {}
    if lesson.whole and progress.whole:
        parts |= {f"whole/{name}": part for name, part in _parts(lesson.whole, progress.whole).items()}
    return parts


def _device_of(net: nn.Module) -> torch.device:
    return next(net.parameters()).device
