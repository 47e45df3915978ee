"""cnn: a small convolutional net for images, in the manner of Simonyan & Zisserman 2015 (VGG): 3×3 convolutions with
batch norm (Ioffe & Szegedy 2015) that widen as the image halves.

How it differs: one convolution before each halving and two after the last, since early ones cost most; one linear
layer on the last features instead of three; training images are moved, turned, scaled and sheared a little, anew in
every epoch; the weights served are a running average. Images of any size are halved until 6 to 12 pixels are left.

Legend: B images of a batch, N rows of a split, C channels, H height, W width, D features
of an image, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from .. import images, metrics
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
from ..settings import configure
from ..states import unpack
from ..tables import class_columns, classified, truth
from ..training import Lesson, adam, cosine, learn

SCORING_ROWS = 256  # images that go through the net at once: their activations stay in the cache


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    width     channels of the first convolution, doubled at each halving
    augment   1: images move by up to a tenth of their size, turn by up to 12° and grow, shrink and shear by up
              to 15%; 0: they stay as they are
    flip      mirror half of the images
    average   decay of the weights' running average
    horizon   epochs over which the learning rate falls along a cosine; 0: it stays
    """

    width: int = 16
    dropout: float = 0.2
    augment: float = 1.0
    flip: bool = False
    lr: float = 2e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.0
    batch_rows: int = 64
    clip: float = 0.0
    average: float = 0.99
    horizon: int = 0


class Net(nn.Module):
    """K logits of images. `mean` and `deviation`: of the training images' pixels."""

    def __init__(self, spec: Spec, mean: float, deviation: float, settings: Settings) -> None:
        super().__init__()
        self.spec, self.mean, self.deviation = spec, mean, deviation
        channels, height, width = images.shape(images.column(spec))
        halvings = max(0, int(math.log2(min(height, width) / 6)))
        wide = [channels, *(settings.width * 2**i for i in range(halvings + 1))]
        layers = [layer for i in range(halvings) for layer in _convolution(wide[i], wide[i + 1], pool=True)]
        layers += _convolution(wide[-2], wide[-1])
        layers += _convolution(wide[-1], last := wide[-1] * 3 // 2, pool=True)
        cells = math.prod(math.ceil(side / 2 ** (halvings + 1)) for side in (height, width))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(settings.dropout))
        self.last = nn.Linear(last * cells, len(spec.classes))

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = ((x_BCHW - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        x_BD: torch.Tensor = self.layers(x_BCHW)
        return x_BD

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BK: torch.Tensor = self.last(self.features(x_BCHW))
        return y_BK


def _convolution(before: int, after: int, pool: bool = False) -> list[nn.Module]:
    """Pooled before the norm, where less is left to norm; the maximum is the same on either side."""
    smaller = [nn.MaxPool2d(2, ceil_mode=True)] if pool else []
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), *smaller, nn.BatchNorm2d(after), nn.ReLU()]


def _placed(net: Net) -> Net:
    """On the device, in the memory layout in which convolutions are quickest."""
    return net.to(device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Cnn:
    learning: ClassVar[Learning] = "supervised"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        """Log loss rather than accuracy: good nets get nearly the same few rows wrong."""
        return Objective("loss", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "dropout": Uniform(0.0, 0.3),
            "augment": Choice((0.5, 1.0)),
            "lr": Uniform(1e-3, 5e-3, log=True, mutable=True),
            "weight_decay": Uniform(1e-3, 0.1, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where = configure(Settings, hyper), data.spec, device()
        seeded(seed)
        x_NCHW, y_N = images.read(spec, data.splits["train"]).to(where), truth(spec, data.splits["train"], "train")
        mean, deviation = float(x_NCHW.float().mean()), float(x_NCHW.float().std()) or 1.0
        net = _placed(Net(spec, mean, deviation, settings))
        targets_N = torch.from_numpy(y_N).to(where)
        val, val_truth_N = images.read(spec, data.splits["val"]), truth(spec, data.splits["val"], "val")

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            x_BCHW = images.augmented(x_NCHW[rows_B].float(), settings.augment, settings.flip)
            return functional.cross_entropy(
                net(x_BCHW).float(), targets_N[rows_B], label_smoothing=settings.label_smoothing
            )

        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
            rows=len(y_N),
            batch_rows=settings.batch_rows,
            loss=loss,
            evaluate=lambda served: metrics.classification("val", _predict(served, val).numpy(), val_truth_N),
            objective=self.objective(spec),
            fitted=lambda _: {"mean": mean, "deviation": deviation},
            clip=settings.clip,
            average=settings.average,
            schedule=cosine(settings.horizon),
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        fitted = state.scalars["model"]
        net = Net(spec, fitted["mean"], fitted["deviation"], configure(Settings, hyper))
        unpack(state, {"model": net})
        return _placed(net).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        predicted = _predict(net, images.read(data.spec, data.splits[split]))
        return {"probability": predicted.numpy(), "truth": truth(data.spec, data.splits[split], split)}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return metrics.classification(split, outcomes["probability"], outcomes["truth"])

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """The shares of the classes among the training rows."""
        train_N, truth_N = (truth(data.spec, data.splits[name], name) for name in ("train", split))
        return metrics.class_shares(split, train_N, truth_N, len(data.spec.classes))

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        return classified(_predict(net, images.read(net.spec, batch)), net.spec.classes)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The last features, flattened: channel for channel the cells that are left of an image."""
        where = next(net.parameters()).device
        parts = torch.split(images.read(net.spec, batch), SCORING_ROWS)
        codes: Codes = torch.cat([net.features(x_BCHW.to(where).float()).cpu() for x_BCHW in parts]).numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:
        return class_columns(spec.classes)


@torch.inference_mode()
def _predict(net: Net, x_NCHW: torch.Tensor) -> torch.Tensor:
    """Probabilities (N × K) on the CPU."""
    net.eval()
    where = next(net.parameters()).device
    parts = [net(x_BCHW.to(where).float()).softmax(1).cpu() for x_BCHW in torch.split(x_NCHW, SCORING_ROWS)]
    return torch.cat(parts)
