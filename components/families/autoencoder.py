"""autoencoder: codes of images, of series, or of rows of numbers (Hinton & Salakhutdinov 2006), and what they are good
for. Task anomaly: one class is normal and learnt alone, and how far is a row from it? (As "DCAE" the rival in Ruff et
al. 2018, "Deep One-Class Classification", whose protocol this follows.) Task representation: a code of few elements
that keeps as much of a row as can be; codes to look at, to compare and to learn from (`tidemill encode`).

How it differs: nothing is trained layer by layer; batch norm, leaky ReLU. What the net must take away is not only noise
(Vincent et al. 2008) but, with `straighten`, that a row was moved, turned, scaled or stretched: rows that differ
by no more than that get codes near each other, so that codes fall into clusters. For anomaly what counts is not the
reconstruction error alone but how far a row lies, by Mahalanobis distance, from the normal training rows in the code
and the logarithm of that error together; the distance is fitted on rows that are changed a little, as those that the
net learns from are. No label but "normal" enters the weights, and none at all for representation. An anomaly's
configurations and epochs are chosen by AUROC on the val split; a rival must be chosen the same way.

Legend: B rows of a batch, N rows of a split, C channels, S sides (height × width, or steps), E numbers of a row,
Z elements of the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from .. import anomalies, coders, grids, metrics
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
from ..devices import device, in_blocks, seeded
from ..distances import Mahalanobis
from ..settings import configure, one_of
from ..states import unpack
from ..tables import Rows
from ..training import Lesson, adam, cosine, learn

SCORING_ROWS = 256


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    net           "convolutional" (over the image, or over the steps of the series) or "dense"
    width         channels of the first convolution; the hidden layers of a dense net are 32 and 16 times as wide
    code          elements of the code, Z
    augment       how far training rows are changed (of images 1 is: moved by a tenth, turned by 12°); 0: they stay
    straighten    rows that were changed must be reconstructed as they were. Half of the rows then stay as they are
    noise         standard deviation of the noise that the net must take away; pixels are 0 to 1
    passes        over the training rows in an epoch: of few rows, measuring takes longer than learning
    horizon       epochs over which the learning rate falls along a cosine; 0: it stays

    For anomaly alone:
    normal        the class that is normal; it has no default
    copies        changed copies of each training row that the distance is fitted on
    ridge         share of the mean variance that is added to every direction of the distance
    false_alarms  share of normal val rows that may be called anomalies: what the threshold is chosen by
    near          rows are windows of one series: the highest score hits an anomaly at most so many rows away
    """

    normal: str = ""
    width: int = 16
    code: int = 32
    augment: float = 0.5
    straighten: bool = False
    noise: float = 0.0
    lr: float = 2e-3
    weight_decay: float = 1e-3
    batch_rows: int = 32
    passes: int = 5
    copies: int = 4
    ridge: float = 0.02
    false_alarms: float = 0.05
    near: int = 0
    horizon: int = 12
    net: str = "convolutional"

    def __post_init__(self) -> None:
        one_of(self, "net", coders.NETS)


class Net(nn.Module):
    """Reconstruction and code of scaled rows, and the distance of both from what is normal."""

    threshold: torch.Tensor

    def __init__(self, spec: Spec, settings: Settings) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings
        channels, *sides = grids.shape(spec)
        self.encoder, self.decoder = coders.NETS[settings.net](channels, sides, settings.width, settings.code)
        if grids.is_image(spec):
            self.decoder.append(nn.Sigmoid())
        self.scale = grids.Scale(channels)
        self.normal = Mahalanobis(settings.code + 1)  # of (code, log error)
        self.register_buffer("threshold", torch.zeros(()))  # the score above which a row is an anomaly

    def forward(self, x_BCS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_BZ = self.encoder(x_BCS)
        return self.decoder(z_BZ), z_BZ

    def error(self, x_BCS: torch.Tensor) -> torch.Tensor:
        """Mean squared error of each row's reconstruction."""
        return _error(self(x_BCS)[0], x_BCS)

    def traits(self, x_BCS: torch.Tensor) -> torch.Tensor:
        """(code, log of the error), B × (Z + 1)."""
        y_BCS, z_BZ = self(x_BCS)
        return torch.cat([z_BZ, _error(y_BCS, x_BCS).clamp_min(1e-12).log()[:, None]], 1).float()

    def distance(self, x_BCS: torch.Tensor) -> torch.Tensor:
        distance_B: torch.Tensor = self.normal(self.traits(x_BCS))
        return distance_B


def _error(y_BCS: torch.Tensor, x_BCS: torch.Tensor) -> torch.Tensor:
    return (y_BCS - x_BCS).square().flatten(1).mean(1)


class Detection:
    """Task anomaly: how far a row lies from what is normal."""

    objective = anomalies.OBJECTIVE
    outputs = anomalies.OUTPUTS
    space: ClassVar[Mapping[str, Domain]] = {
        "augment": Choice((0.3, 0.5, 0.7)),
        "code": Choice((16, 24, 32)),
        "noise": Choice((0.0, 0.1)),
        "ridge": Choice((0.005, 0.01, 0.02, 0.05)),
        "lr": Uniform(1e-3, 6e-3, log=True, mutable=True),
        "weight_decay": Uniform(1e-4, 1e-2, log=True, mutable=True),
    }

    def learnable(self, data: Data, settings: Settings) -> pa.Table:
        return anomalies.learnable(data, settings.normal)

    def evaluation(self, data: Data, train_NCS: torch.Tensor, net: Net) -> Callable[[Net], Metrics]:
        """Metrics of val rows, once what is normal and the threshold are fitted."""
        settings = net.settings

        def scores(served: Net, x_NCS: torch.Tensor) -> Codes:
            _calibrate(served, train_NCS)
            return _said(served, served.distance, x_NCS)

        val_NCS = _rows(net, data.splits["val"])
        return anomalies.evaluation(data, settings.normal, settings.false_alarms, val_NCS, scores)

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        score_N, settings = _said(net, net.distance, _rows(net, data.splits[split])), net.settings
        anomalous_N = anomalies.anomalous(data, split, settings.normal)
        return anomalies.outcomes(score_N, anomalous_N, net.threshold.item(), settings.near)

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        return anomalies.measure(spec, outcomes, split)

    def baseline(self, data: Data, split: str, settings: Settings) -> Metrics:
        """The squared distance from the mean normal training row."""
        normal, rows = (grids.read(data.spec, rows) for rows in (self.learnable(data, settings), data.splits[split]))
        scale = grids.Scale(normal.shape[1])
        scale.fit(data.spec, normal)
        return anomalies.baseline(data, split, settings.normal, scale(rows), scale(normal))

    def score(self, net: Net, x_NCS: torch.Tensor) -> pa.RecordBatch:
        return anomalies.scored(_said(net, net.distance, x_NCS), net.threshold.item())


class Reconstruction:
    """Task representation: how much of a row its code keeps."""

    objective = Objective("reconstruction_error", "min")
    outputs = pa.schema([("reconstruction_error", pa.float32())])
    space: ClassVar[Mapping[str, Domain]] = {
        "augment": Choice((0.3, 0.5, 0.7)),
        "lr": Uniform(1e-3, 4e-3, log=True, mutable=True),
        "weight_decay": Uniform(1e-5, 1e-2, log=True, mutable=True),
    }

    def learnable(self, data: Data, settings: Settings) -> pa.Table:  # noqa: ARG002
        return data.splits["train"]

    def evaluation(self, data: Data, train_NCS: torch.Tensor, net: Net) -> Callable[[Net], Metrics]:  # noqa: ARG002
        val_NCS = _rows(net, data.splits["val"])
        return lambda served: metrics.reconstruction("val", _said(served, served.error, val_NCS))

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        return {"error": _said(net, net.error, _rows(net, data.splits[split]))}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return metrics.reconstruction(split, outcomes["error"])

    def baseline(self, data: Data, split: str, settings: Settings) -> Metrics:
        """Principal components, as many as a code has elements."""
        train, rows = (grids.read(data.spec, data.splits[name]) for name in ("train", split))
        scale = grids.Scale(train.shape[1])
        scale.fit(data.spec, train)
        train_NE, rows_NE = (scale(each).flatten(1).numpy() for each in (train, rows))
        return metrics.principal_components(split, train_NE, rows_NE, settings.code)

    def score(self, net: Net, x_NCS: torch.Tensor) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([pa.array(_said(net, net.error, x_NCS))], schema=self.outputs)


GOALS: Mapping[Task, Detection | Reconstruction] = {"anomaly": Detection(), "representation": Reconstruction()}


class Autoencoder:
    learning: ClassVar[Learning] = "unsupervised"
    tasks: ClassVar[tuple[Task, ...]] = tuple(GOALS)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:
        return GOALS[spec.task].objective

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:
        return GOALS[spec.task].space

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where, goal = configure(Settings, hyper), data.spec, device(), GOALS[data.spec.task]
        seeded(seed)
        raw = grids.read(spec, goal.learnable(data, settings))
        net = Net(spec, settings).to(where)
        net.scale.fit(spec, raw)
        train = net.scale(raw).to(where)

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            x_BCS = train[rows_B % len(train)]
            seen_BCS = wanted_BCS = grids.augmented(spec, x_BCS, settings.augment)
            if settings.straighten:
                half = len(x_BCS) // 2
                seen_BCS, wanted_BCS = torch.cat([x_BCS[:half], seen_BCS[half:]]), x_BCS
            y_BCS, _ = net(seen_BCS + settings.noise * torch.randn_like(x_BCS) if settings.noise else seen_BCS)
            return functional.mse_loss(y_BCS.float(), wanted_BCS)

        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
            rows=len(train) * settings.passes,
            batch_rows=settings.batch_rows,
            loss=loss,
            evaluate=goal.evaluation(data, train, net),
            objective=goal.objective,
            schedule=cosine(settings.horizon),
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(spec, configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        return GOALS[data.spec.task].judge(net, data, split)

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        return GOALS[spec.task].measure(spec, outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        return GOALS[data.spec.task].baseline(data, split, configure(Settings, hyper))

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        return GOALS[net.spec.task].score(net, _rows(net, batch))

    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The code itself."""
        return _said(net, net.encoder, _rows(net, batch))

    def outputs(self, spec: Spec) -> pa.Schema:
        return GOALS[spec.task].outputs


def _rows(net: Net, rows: Rows) -> torch.Tensor:
    """x_NCS, scaled, on the CPU."""
    x_NCS: torch.Tensor = net.scale(grids.read(net.spec, rows))
    return x_NCS


@torch.no_grad()
def _calibrate(net: Net, train_NCS: torch.Tensor) -> None:
    """Fit what is normal on the training rows and changed copies of them."""
    settings, changed = net.settings, grids.augmented
    parts = [train_NCS, *(changed(net.spec, train_NCS, settings.augment) for _ in range(settings.copies))]
    traits = [net.traits(part).cpu() for part in parts if settings.augment or part is train_NCS]
    net.normal.fit(torch.cat(traits), settings.ridge)


def _said(net: Net, what: Callable[[torch.Tensor], torch.Tensor], x_NCS: torch.Tensor) -> Codes:
    """What the net says of each row."""
    said: Codes = in_blocks(what, x_NCS, SCORING_ROWS, net.threshold.device).numpy()
    return said
