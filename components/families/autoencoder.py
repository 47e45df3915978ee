"""autoencoder: anomaly detection on images. A convolutional autoencoder (Hinton & Salakhutdinov 2006; as "DCAE" the
rival in Ruff et al. 2018, "Deep One-Class Classification", whose protocol this follows: one class is normal, the
rest are not) learns the normal class alone.

How it differs: what counts is not the reconstruction error alone but how far an image lies, by Mahalanobis distance,
from the normal training images in the latent code and the logarithm of that error together; the distance is fitted on
images that are moved, turned, scaled and sheared a little, as those that the net learns from are. No label but
"normal" enters the weights. Configurations and epochs are chosen by AUROC on the val split, which needs labelled
anomalies there; a rival must be chosen the same way.

Legend: B images of a batch, N rows of a split, C channels, H height, W width, Z elements of the code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from .. import grids, metrics
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
from ..distances import Mahalanobis
from ..errors import DataError, ParamsError
from ..settings import configure, one_of
from ..states import unpack
from ..tables import Rows, labels
from ..training import Lesson, adam, constant, cosine, learn

SCORING_ROWS = 256
Mask: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]
OUTPUTS = pa.schema([("anomaly_score", pa.float32()), ("anomaly", pa.bool_())])


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    normal     the class that is normal; it has no default
    code       elements of the latent code, Z
    augment    how far training images are moved, turned, scaled and sheared (1: a tenth, 10°); 0: they stay
    noise      standard deviation of the noise that the net must take away (Vincent et al. 2008); pixels are 0 to 1
    passes     over the normal training rows in an epoch: they are few, and measuring takes longer than learning
    copies     changed copies of each training image that the distance is fitted on
    ridge      share of the mean variance that is added to every direction of the distance
    flagged    share of normal val rows whose score is an anomaly's
    horizon    epochs over which the learning rate falls along a cosine; 0: it stays
    net        "convolutional" (over the image, or over the steps of the series) or "dense"
    """

    normal: str = ""
    width: int = 16
    code: int = 32
    augment: float = 0.5
    noise: float = 0.0
    lr: float = 2e-3
    weight_decay: float = 1e-3
    batch_rows: int = 32
    passes: int = 5
    copies: int = 4
    ridge: float = 0.02
    flagged: float = 0.05
    horizon: int = 12
    net: str = "convolutional"

    def __post_init__(self) -> None:
        one_of(self, "net", NETS)


class Net(nn.Module):
    """Reconstruction and code of scaled rows, and the distance of both from what is normal."""

    threshold: torch.Tensor

    def __init__(self, spec: Spec, settings: Settings) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings
        channels, *sides = grids.shape(spec)
        self.encoder, self.decoder = NETS[settings.net](channels, sides, settings)
        if grids.is_image(spec):
            self.decoder.append(nn.Sigmoid())
        self.scale = grids.Scale(channels)
        self.normal = Mahalanobis(settings.code + 1)  # of (code, log error)
        self.register_buffer("threshold", torch.zeros(()))  # the score above which a row is an anomaly

    def forward(self, x_BCS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_BZ = self.encoder(x_BCS)
        return self.decoder(z_BZ), z_BZ

    def traits(self, x_BCS: torch.Tensor) -> torch.Tensor:
        """(code, log of the mean squared error), B × (Z + 1)."""
        y_BCS, z_BZ = self(x_BCS)
        error_B = (y_BCS - x_BCS).square().flatten(1).mean(1)
        return torch.cat([z_BZ, error_B.clamp_min(1e-12).log()[:, None]], 1).float()

    def distance(self, x_BCS: torch.Tensor) -> torch.Tensor:
        distance_B: torch.Tensor = self.normal(self.traits(x_BCS))
        return distance_B


def _convolutional(channels: int, sides: list[int], settings: Settings) -> tuple[nn.Sequential, nn.Sequential]:
    """Strides halve the sides twice, nearest neighbours double them again."""
    axes, wide, half, quarter = len(sides), settings.width, grids.halves(sides, 1), grids.halves(sides, 2)
    convolution, norm, kernel = grids.CONVOLUTION[axes], grids.BATCH_NORM[axes], grids.KERNEL[axes]
    cells, pad = 2 * wide * math.prod(quarter), kernel // 2
    encoder = nn.Sequential(
        *_layer(convolution(channels, wide, kernel, 2, pad, bias=False), norm(wide)),
        *_layer(convolution(wide, 2 * wide, kernel, 2, pad, bias=False), norm(2 * wide)),
        nn.Flatten(),
        nn.Linear(cells, settings.code),
    )
    decoder = nn.Sequential(
        *_layer(nn.Linear(settings.code, cells, bias=False), nn.BatchNorm1d(cells)),
        nn.Unflatten(1, (2 * wide, *quarter)),
        nn.Upsample(half),
        *_layer(convolution(2 * wide, wide, kernel, 1, pad, bias=False), norm(wide)),
        nn.Upsample(tuple(sides)),
        convolution(wide, channels, kernel, 1, pad),
    )
    return encoder, decoder


def _dense(channels: int, sides: list[int], settings: Settings) -> tuple[nn.Sequential, nn.Sequential]:
    """Two hidden layers on either side of the code."""
    wide = [channels * math.prod(sides), 32 * settings.width, 16 * settings.width]
    down = [
        layer for a, b in itertools.pairwise(wide) for layer in _layer(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b))
    ]
    encoder = nn.Sequential(nn.Flatten(), *down, nn.Linear(wide[-1], settings.code))
    back = [settings.code, *wide[:0:-1]]
    up = [
        layer for a, b in itertools.pairwise(back) for layer in _layer(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b))
    ]
    return encoder, nn.Sequential(*up, nn.Linear(wide[1], wide[0]), nn.Unflatten(1, (channels, *sides)))


def _layer(weights: nn.Module, norm: nn.Module) -> tuple[nn.Module, ...]:
    return weights, norm, nn.LeakyReLU(0.1)


NETS = {"convolutional": _convolutional, "dense": _dense}


class Autoencoder:
    learning: ClassVar[Learning] = "unsupervised"
    tasks: ClassVar[tuple[Task, ...]] = ("anomaly",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        return Objective("auroc", "max")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "augment": Choice((0.3, 0.5, 0.7)),
            "code": Choice((16, 24, 32)),
            "noise": Choice((0.0, 0.1)),
            "ridge": Choice((0.005, 0.01, 0.02, 0.05)),
            "lr": Uniform(1e-3, 6e-3, log=True, mutable=True),
            "weight_decay": Uniform(1e-4, 1e-2, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where = configure(Settings, hyper), data.spec, device()
        seeded(seed)
        raw, val_normal_N = _normal(data, settings), _is_normal(data, "val", settings)
        net = Net(spec, settings).to(where)
        net.scale.fit(spec, raw)
        train, val = net.scale(raw).to(where), _rows(net, data.splits["val"])

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            x_BCS = grids.augmented(spec, train[rows_B % len(train)], settings.augment)
            y_BCS, _ = net(x_BCS + settings.noise * torch.randn_like(x_BCS) if settings.noise else x_BCS)
            return functional.mse_loss(y_BCS.float(), x_BCS)

        def evaluate(served: Net) -> Metrics:
            _calibrate(served, train)
            score_N = _distances(served, val)
            measured = self.measure(spec, {"score": score_N, "anomalous": ~val_normal_N}, "val")
            served.threshold.fill_(float(np.quantile(score_N[val_normal_N], 1 - settings.flagged)))
            return measured

        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
            rows=len(train) * settings.passes,
            batch_rows=settings.batch_rows,
            loss=loss,
            evaluate=evaluate,
            objective=self.objective(spec),
            schedule=cosine(settings.horizon) if settings.horizon else constant,
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(spec, configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        score_N = _distances(net, _rows(net, data.splits[split]))
        return {"score": score_N, "anomalous": ~_is_normal(data, split, net.settings)}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        """split/auroc and split/average_precision, and split/loss: the mean score of normal rows. Raises DataError
        unless there are rows of both kinds."""
        score_N, anomalous_N = outcomes["score"], outcomes["anomalous"]
        if not anomalous_N.any() or anomalous_N.all():
            fault = f"split {split!r} holds {(~anomalous_N).sum()} normal rows and {anomalous_N.sum()} anomalies"
            raise DataError(fault, where=spec.dataset, fix="it needs both: name another class as `normal`, or add rows")
        loss = {f"{split}/loss": float(score_N[~anomalous_N].mean())}
        return metrics.detection(split, score_N, anomalous_N) | loss

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        """The squared distance from the mean normal training image."""
        settings = configure(Settings, hyper)
        normal, rows = _normal(data, settings), grids.read(data.spec, data.splits[split])
        scale = grids.Scale(normal.shape[1])
        scale.fit(data.spec, normal)
        score_N = (scale(rows) - scale(normal).mean(0)).square().flatten(1).mean(1)
        return {f"{split}/auroc": metrics.auroc(score_N.numpy(), ~_is_normal(data, split, settings))}

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        score_N = _distances(net, _rows(net, batch))
        anomalous_N = score_N > net.threshold.item()
        return pa.RecordBatch.from_arrays([pa.array(score_N), pa.array(anomalous_N)], schema=OUTPUTS)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The latent code."""
        where, parts = net.threshold.device, torch.split(_rows(net, batch), SCORING_ROWS)
        codes: Codes = torch.cat([net.encoder(x_BCS.to(where)).float().cpu() for x_BCS in parts]).numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return OUTPUTS


def _is_normal(data: Data, split: str, settings: Settings) -> Mask:
    """Which rows are of the normal class. Raises ParamsError if no class of the data is named as normal."""
    spec = data.spec
    if settings.normal not in spec.classes or spec.target is None:
        raise ParamsError(
            f"setting 'normal' got {settings.normal!r}, expected a class of {spec.dataset}",
            fix=f"settings: {{normal: …}}, one of {', '.join(spec.classes)}",
        )
    found: Mask = labels(data.splits[split], spec.target, spec.classes) == spec.classes.index(settings.normal)
    return found


def _normal(data: Data, settings: Settings) -> torch.Tensor:
    """The normal training images, as they are. Raises DataError if there are fewer than two."""
    found = grids.read(data.spec, data.splits["train"])[torch.from_numpy(_is_normal(data, "train", settings))]
    if len(found) < 2:
        raise DataError(f"{len(found)} training rows of class {settings.normal!r}", where=data.spec.dataset)
    return found


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


@torch.inference_mode()
def _distances(net: Net, x_NCS: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    net.eval()
    where = net.threshold.device
    parts = [net.distance(x_BCS.to(where)).cpu() for x_BCS in torch.split(x_NCS, SCORING_ROWS)]
    found: np.ndarray[tuple[int], np.dtype[np.float32]] = torch.cat(parts).numpy()
    return found
