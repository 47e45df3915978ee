"""cnn1d: the fully convolutional net (FCN) and the residual net of Wang, Yan & Oates 2017, "Time series classification
from scratch with deep neural networks: a strong baseline", for series of one or more channels.

Layers, widths and kernels are the paper's, and batches those of Fawaz et al. 2019, "Deep learning for time series
classification: a review": 128, 256, 128 filters of 8, 5, 3 steps (FCN); three blocks of 64, 128, 128 filters, each of
three convolutions of 8, 5, 3 steps beside a shortcut (ResNet); then the mean over all steps and one linear layer.

How it differs: channels are standardised; AdamW with a little decay and averaged weights, at a constant rate, instead
of Adam with a rate that falls on a plateau of the training loss; training series are augmented, and mixed if asked; the
epoch of the lowest loss on val rows is kept. With `whole` a second net learns beside the first, from train and val rows
together, and is served from the epoch of its lowest training loss: rows and epoch are then those of Fawaz et al.

Legend: B series of a batch, N rows of a split, C channels, T steps, D features of a series, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from .. import metrics, series
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
from ..settings import configure
from ..states import unpack
from ..tables import Rows, class_columns, classified, truth
from ..training import Lesson, adam, cosine, learn, lesson_of

SCORING_ROWS = 64  # series that go through the net at once: their activations stay in the cache
KERNELS = (8, 5, 3)


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    net       "fcn" or "resnet"
    width     filters of the FCN's first and last convolution; the other widths keep their ratio to it
    augment   1: noise of 5% of a deviation, up to 20% higher or lower, time warped by up to 10%; 0: as they are
    mixup     parameter of the Beta distribution that mixes pairs of series; 0: none are mixed
    batch_rows   0: a tenth of the training rows, between 4 and 16
    average   decay of the weights' running average
    horizon   epochs over which the learning rate falls along a cosine; 0: it stays
    whole     serve a second net that learns from val rows too; val then chooses settings only. Twice the work
    """

    net: str = "fcn"
    width: int = 128
    augment: float = 0.5
    mixup: float = 0.0
    lr: float = 2e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    batch_rows: int = 0
    average: float = 0.98
    horizon: int = 0
    whole: bool = False


class Block(nn.Module):
    """Three convolutions beside a shortcut, which is a convolution of one step where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        wide = (before, after, after)
        layers = [x for w, k in zip(wide, KERNELS, strict=True) for x in (*_convolution(w, after, k), nn.ReLU())]
        self.layers = nn.Sequential(*layers[:-1])  # the last ReLU comes after the sum
        self.shortcut = nn.Sequential(*(_convolution(before, after, 1) if before != after else [nn.BatchNorm1d(after)]))

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.layers(x_BCT) + self.shortcut(x_BCT))


class Net(nn.Module):
    """K logits of standardised series. `mean` and `deviation`: of each channel of the training series."""

    def __init__(self, spec: Spec, scale: tuple[list[float], list[float]], settings: Settings) -> None:
        super().__init__()
        self.spec, self.scale = spec, scale
        channels, width = series.shape(series.column(spec))[0], settings.width
        if settings.net == "fcn":
            wide = (channels, width, 2 * width, width)
            pairs = zip(wide, wide[1:], KERNELS, strict=False)
            self.layers = nn.Sequential(*(x for a, b, k in pairs for x in (*_convolution(a, b, k), nn.ReLU())))
        elif settings.net == "resnet":
            wide = (channels, max(1, width // 2), width, width)
            self.layers = nn.Sequential(*(Block(a, b) for a, b in itertools.pairwise(wide)))
        else:
            raise ParamsError(f"setting 'net' got {settings.net!r}, expected fcn or resnet")
        self.last = nn.Linear(width, len(spec.classes))

    def standardised(self, rows: Rows) -> torch.Tensor:
        """x_NCT where the net is."""
        mean_C1, deviation_C1 = (torch.tensor(values)[:, None] for values in self.scale)
        x_NCT = (series.read(self.spec, rows) - mean_C1) / deviation_C1
        return x_NCT.to(self.last.weight.device)

    def features(self, x_BCT: torch.Tensor) -> torch.Tensor:
        x_BD: torch.Tensor = self.layers(x_BCT).mean(2)
        return x_BD

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        y_BK: torch.Tensor = self.last(self.features(x_BCT))
        return y_BK


def _convolution(before: int, after: int, kernel: int) -> list[nn.Module]:
    """As many steps out as in."""
    padded = [nn.ZeroPad1d(((kernel - 1) // 2, kernel // 2))] if kernel > 1 else []
    return [*padded, nn.Conv1d(before, after, kernel, bias=False), nn.BatchNorm1d(after)]


class Cnn1d:
    learning: ClassVar[Learning] = "supervised"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        """Log loss rather than accuracy: few val rows tell nets apart by how sure they are."""
        return Objective("loss", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "net": Choice(("fcn", "resnet")),
            "augment": Choice((0.0, 0.5, 1.0)),
            "mixup": Choice((0.0, 0.2)),
            "lr": Uniform(1e-3, 5e-3, log=True, mutable=True),
            "weight_decay": Uniform(1e-3, 0.1, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings = configure(Settings, hyper)
        seeded(seed)
        lesson = lesson_of(data, settings.whole, lambda rows: _lesson(self, data, rows, settings))
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        mean, deviation = state.scalars["model"]["scale"]
        net = Net(spec, (mean, deviation), configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        predicted = _predict(net, net.standardised(data.splits[split]))
        return {"probability": predicted.numpy(), "truth": truth(data.spec, data.splits[split], split)}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return metrics.classification(split, outcomes["probability"], outcomes["truth"])

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """The shares of the classes among the training rows."""
        train_N, truth_N = (truth(data.spec, data.splits[name], name) for name in ("train", split))
        return metrics.class_shares(split, train_N, truth_N, len(data.spec.classes))

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        return classified(_predict(net, net.standardised(batch)), net.spec.classes)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The means of the last feature maps over all steps."""
        parts = torch.split(net.standardised(batch), SCORING_ROWS)
        codes: Codes = torch.cat([net.features(x_BCT).float().cpu() for x_BCT in parts]).numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:
        return class_columns(spec.classes)


def _lesson(learner: Cnn1d, data: Data, rows: pa.Table, settings: Settings) -> Lesson:
    """A new net that learns from these rows."""
    spec, scale = data.spec, series.scale(series.read(data.spec, rows))
    net = Net(spec, scale, settings).to(device())
    x_NCT = net.standardised(rows)
    targets_N = torch.from_numpy(truth(spec, rows, "train")).to(x_NCT.device)
    val, val_truth_N = net.standardised(data.splits["val"]), truth(spec, data.splits["val"], "val")

    def loss(rows_B: torch.Tensor) -> torch.Tensor:
        x_BCT, y_B = series.augmented(x_NCT[rows_B], settings.augment), targets_N[rows_B]
        x_BCT, other_B, share_B = series.mixed(x_BCT, settings.mixup)
        y_BK = net(x_BCT).float()
        own_B, others_B = (
            functional.cross_entropy(y_BK, y, reduction="none", label_smoothing=settings.label_smoothing)
            for y in (y_B, y_B[other_B])
        )
        return torch.lerp(others_B, own_B, share_B).mean()

    return Lesson(
        net=net,
        optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
        rows=len(targets_N),
        batch_rows=settings.batch_rows or min(max(len(targets_N) // 10, 4), 16),
        loss=loss,
        evaluate=lambda served: metrics.classification("val", _predict(served, val).numpy(), val_truth_N),
        objective=learner.objective(spec),
        fitted=lambda _: {"scale": [list(part) for part in scale]},
        average=settings.average,
        schedule=cosine(settings.horizon),
    )


@torch.inference_mode()
def _predict(net: Net, x_NCT: torch.Tensor) -> torch.Tensor:
    """Probabilities (N × K) on the CPU."""
    net.eval()
    return torch.cat([net(x_BCT).softmax(1).cpu() for x_BCT in torch.split(x_NCT, SCORING_ROWS)])
