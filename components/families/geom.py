"""geom: anomaly detection on images by geometric transformations (Golan & El-Yaniv 2018, "Deep anomaly detection using
geometric transformations"). A net learns from the normal class alone to tell which way an image was turned and whether
it was mirrored; what it has to see for that in normal images is not to be seen in others.

How it differs: a row's score is not the probability of the right transformation but how far the features of each view
lie from those of normal training rows in the same view, by Mahalanobis distance, on average: a centre for each
transformation as in Bergman & Hoshen 2020, "Classification-based anomaly detection for general data", with a covariance
of its own. So a class that looks the same when turned (0, 8) is told from others too. The transformations are the eight
of a square, without translations (images are moved at random instead), four where an image is no square; the net is
small and has no residuals. Configurations and epochs are chosen by AUROC on val (anomalies.py).

Legend: B images of a batch, N rows of a split, C channels, H height, W width, K transformations, D features of a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from .. import anomalies, images
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
from ..settings import configure
from ..states import unpack
from ..tables import Rows
from ..training import Lesson, adam, cosine, learn

SCORING_ROWS = 64  # images whose views go through the net at once


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    normal     the class that is normal; it has no default
    width      channels of the first convolution, doubled at each of the next two
    features   of a view, D
    augment    how far training images are moved, turned, scaled and sheared before they are transformed; 0: they stay
    passes     over the normal training rows in an epoch: they are few, and measuring takes longer than learning
    copies     changed copies of each training image that the distances are fitted on
    ridge      share of its variance that is added to every feature of a distance
    false_alarms  share of normal val rows that may be called anomalies: what the threshold is chosen by
    horizon    epochs over which the learning rate falls along a cosine; 0: it stays
    """

    normal: str = ""
    width: int = 16
    features: int = 64
    augment: float = 0.5
    lr: float = 2e-3
    weight_decay: float = 1e-3
    batch_rows: int = 32
    passes: int = 4
    copies: int = 3
    ridge: float = 0.05
    false_alarms: float = 0.05
    horizon: int = 12


class Net(nn.Module):
    """K logits of each view of images in [0, 1], and the distance of its features from what is normal."""

    bounds: torch.Tensor
    threshold: torch.Tensor

    def __init__(self, spec: Spec, settings: Settings) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings
        channels, height, width = images.shape(images.column(spec))
        wide, self.turns = settings.width, (0, 1, 2, 3) if height == width else (0, 2)
        cells = 4 * wide * -(-height // 8) * -(-width // 8)
        self.body = nn.Sequential(
            *_layer(nn.Conv2d(channels, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide)),
            *_layer(nn.Conv2d(wide, 2 * wide, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * wide)),
            *_layer(nn.Conv2d(2 * wide, 4 * wide, 3, 2, 1, bias=False), nn.BatchNorm2d(4 * wide)),
            nn.Flatten(),
            *_layer(nn.Linear(cells, settings.features, bias=False), nn.BatchNorm1d(settings.features)),
        )
        self.head = nn.Linear(settings.features, self.views)
        self.register_buffer("bounds", torch.tensor([0.0, 255.0]))  # the pixel values that become 0 and 1
        self.normal = nn.ModuleList(Mahalanobis(settings.features) for _ in range(self.views))
        self.register_buffer("threshold", torch.zeros(()))  # the score above which a row is an anomaly

    @property
    def views(self) -> int:
        """K."""
        return 2 * len(self.turns)

    def transformed(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Every view of each image, K × B × C × H × W: turned by so many quarters, as it is and mirrored."""
        return torch.stack([x.rot90(turn, (2, 3)) for x in (x_BCHW, x_BCHW.flip(3)) for turn in self.turns])

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BK: torch.Tensor = self.head(self.body(x_BCHW))
        return y_BK

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Of every view, K × B × D."""
        views_KBCHW = self.transformed(x_BCHW)
        z_KBD: torch.Tensor = self.body(views_KBCHW.flatten(0, 1)).float()
        return z_KBD.reshape(self.views, len(x_BCHW), self.settings.features)

    def distance(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Squared Mahalanobis distance a feature, the mean over the views: about 1 for normal images."""
        z_KBD = self.features(x_BCHW)
        return torch.stack([normal(z_BD) for normal, z_BD in zip(self.normal, z_KBD, strict=True)]).mean(0)

    def code(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The features of the image as it is."""
        z_BD: torch.Tensor = self.body(x_BCHW)
        return z_BD


def _layer(weights: nn.Module, norm: nn.Module) -> tuple[nn.Module, ...]:
    return weights, norm, nn.LeakyReLU(0.1)


class Geom:
    learning: ClassVar[Learning] = "unsupervised"
    tasks: ClassVar[tuple[Task, ...]] = ("anomaly",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        return anomalies.OBJECTIVE

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "augment": Choice((0.3, 0.5, 0.7)),
            "ridge": Choice((0.02, 0.05, 0.2)),
            "lr": Uniform(1e-3, 4e-3, log=True, mutable=True),
            "weight_decay": Uniform(1e-4, 1e-2, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where = configure(Settings, hyper), data.spec, device()
        seeded(seed)
        raw = images.read(spec, anomalies.learnable(data, settings.normal))
        net = Net(spec, settings).to(where)
        net.bounds.copy_(images.bounds(raw))
        train = images.scaled(raw, net.bounds).to(where)

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            views_KBCHW = net.transformed(images.augmented(train[rows_B % len(train)], settings.augment))
            which_KB = torch.arange(net.views, device=where).repeat_interleave(len(rows_B))
            return functional.cross_entropy(net(views_KBCHW.flatten(0, 1)).float(), which_KB)

        def scores(served: Net, x_NCHW: torch.Tensor) -> Codes:
            _calibrate(served, train)
            return _said(served, served.distance, x_NCHW)

        val_NCHW = _images(net, data.splits["val"])
        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
            rows=len(train) * settings.passes,
            batch_rows=settings.batch_rows,
            loss=loss,
            evaluate=anomalies.evaluation(data, settings.normal, settings.false_alarms, val_NCHW, scores),
            objective=self.objective(spec),
            schedule=cosine(settings.horizon),
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(spec, configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        score_N = _said(net, net.distance, _images(net, data.splits[split]))
        return anomalies.outcomes(score_N, anomalies.anomalous(data, split, net.settings.normal), net.threshold.item())

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        return anomalies.measure(spec, outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        """The squared distance from the mean normal training image."""
        settings = configure(Settings, hyper)
        normal, rows = (
            images.read(data.spec, rows) for rows in (anomalies.learnable(data, settings.normal), data.splits[split])
        )
        bounds = images.bounds(normal)
        x_NCHW, normal_NCHW = (images.scaled(raw, bounds) for raw in (rows, normal))
        return anomalies.baseline(data, split, settings.normal, x_NCHW, normal_NCHW)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        return anomalies.scored(_said(net, net.distance, _images(net, batch)), net.threshold.item())

    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The features of each image as it is."""
        return _said(net, net.code, _images(net, batch))

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return anomalies.OUTPUTS


def _images(net: Net, rows: Rows) -> torch.Tensor:
    """x_NCHW, scaled, on the CPU."""
    return images.scaled(images.read(net.spec, rows), net.bounds)


@torch.no_grad()
def _calibrate(net: Net, train_NCHW: torch.Tensor) -> None:
    """Fit what is normal in each view on the training images and changed copies of them."""
    settings = net.settings
    copies = settings.copies if settings.augment else 0
    parts = [train_NCHW, *(images.augmented(train_NCHW, settings.augment) for _ in range(copies))]
    z_KND = torch.cat([net.features(x).cpu() for part in parts for x in torch.split(part, SCORING_ROWS)], 1)
    for normal, z_ND in zip(net.normal, z_KND, strict=True):
        normal.fit(z_ND, settings.ridge)  # type: ignore[operator]


def _said(net: Net, what: Callable[[torch.Tensor], torch.Tensor], x_NCHW: torch.Tensor) -> Codes:
    """What the net says of each image."""
    said: Codes = in_blocks(what, x_NCHW, SCORING_ROWS, net.threshold.device).numpy()
    return said
