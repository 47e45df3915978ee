"""gan: two nets that learn from each other, a generator that makes images and a critic that tells them from real ones
(Goodfellow et al. 2014), built after Radford et al. 2016, "Unsupervised representation learning with deep convolutional
generative adversarial networks" (DCGAN), with one of two losses: hinge (Lim & Ye 2017) under spectral norm (Miyato et
al. 2018), or Wasserstein with gradient penalty (Gulrajani et al. 2017).

How it differs: two halvings in place of four, as small images want; the critic has no batch norm, which neither loss
goes with, and counts tenfold under spectral norm; real and made images are moved alike before the critic sees them
(Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", its translation), since training rows
are few: it sees by what comes in how far, so the generator need not make moved ones. Served are a running average of
the generator's weights (Yazıcı et al. 2019) and the critic as it stands, from the epoch with the lowest Fréchet
distance on val rows.

Legend: B images of a batch, N rows of a split, C channels, H height, W width, Z elements of what an image is made
from, D of a code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from .. import fidelity, images, imitations, progress
from ..averages import Average
from ..contract import (
    Choice,
    Codes,
    Data,
    Domain,
    Epoch,
    Hyper,
    Json,
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
from ..settings import configure, one_of
from ..states import unpack
from ..tables import Rows

SCORING_ROWS = 256
LOSSES = ("hinge", "wasserstein")
GAIN = 10.0  # of a critic under spectral norm: so few layers of norm 1 come nowhere near the margins of the hinge
OUTPUTS = pa.schema([("realness", pa.float32())])


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    loss          hinge or wasserstein
    width         channels of the layers next to the pixels; the inner ones have twice as many. Half of them make twice
                  the steps in the same time, and those are worth more
    latent        elements of what an image is made from, Z
    critic_lr     the critic's rate as a multiple of the generator's, `lr` (Heusel et al. 2017)
    critic_steps  the critic's for each of the generator's
    penalty       weight of the gradient penalty, with the Wasserstein loss alone
    augment       share of their sides by which images move before the critic sees them; 0: they stay
    passes        of the critic over the training rows in an epoch: they are few, and measuring takes a second
    average       decay of the running average of the generator's weights
    """

    loss: str = "hinge"
    width: int = 16
    latent: int = 64
    lr: float = 2e-3
    critic_lr: float = 2.0
    critic_steps: int = 1
    penalty: float = 10.0
    augment: float = 0.125
    batch_rows: int = 64
    passes: int = 6
    average: float = 0.995


# ── the nets ────────────────────────────────────────────────────────────────────────────────────────────


class Generator(nn.Module):
    """Images x_BCHW, pixels between -1 and 1, from z_BZ: made in whole cells of 4×4 pixels, then cut."""

    def __init__(self, shape: tuple[int, int, int], settings: Settings) -> None:
        super().__init__()
        self.shape, wide = shape, settings.width
        cells = [math.ceil(side / 4) for side in shape[1:]]
        self.layers = nn.Sequential(
            nn.Linear(settings.latent, 2 * wide * math.prod(cells), bias=False),
            nn.Unflatten(1, (2 * wide, *cells)),
            *(nn.BatchNorm2d(2 * wide), nn.ReLU()),
            nn.ConvTranspose2d(2 * wide, wide, 4, 2, 1, bias=False),
            *(nn.BatchNorm2d(wide), nn.ReLU()),
            nn.ConvTranspose2d(wide, shape[0], 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z_BZ: torch.Tensor) -> torch.Tensor:
        x_BCHW: torch.Tensor = self.layers(z_BZ)
        return x_BCHW[:, :, : self.shape[1], : self.shape[2]]


class Critic(nn.Module):
    """value_B of images x_BCHW: the higher, the more like a real one."""

    def __init__(self, shape: tuple[int, int, int], settings: Settings) -> None:
        super().__init__()
        held: Callable[[nn.Module], nn.Module] = spectral_norm if settings.loss == "hinge" else nn.Identity()
        wide, cells = settings.width, math.prod(math.ceil(side / 4) for side in shape[1:])
        self.shape = shape
        self.layers = nn.Sequential(
            *(held(nn.Conv2d(shape[0], wide, 4, 2, 1)), nn.LeakyReLU(0.2)),
            *(held(nn.Conv2d(wide, 2 * wide, 4, 2, 1)), nn.LeakyReLU(0.2)),
            nn.Flatten(),
        )
        self.last = held(nn.Linear(2 * wide * cells, 1))
        self.gain = GAIN if settings.loss == "hinge" else 1.0

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = self.shape[1:]
        x_BD: torch.Tensor = self.layers(functional.pad(x_BCHW, (0, -width % 4, 0, -height % 4)))
        return x_BD

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        value_B: torch.Tensor = self.last(self.features(x_BCHW))[:, 0]
        return self.gain * value_B


class Net(nn.Module):
    """Both nets; pixels are -1 to 1 within `bounds`."""

    bounds: torch.Tensor

    def __init__(self, spec: Spec, settings: Settings) -> None:
        super().__init__()
        one_of(settings, "loss", LOSSES)
        self.spec, self.settings = spec, settings
        shape = images.shape(images.column(spec))
        self.generator, self.critic = Generator(shape, settings), Critic(shape, settings)
        self.register_buffer("bounds", torch.tensor([0.0, 255.0]))

    def noise(self, count: int) -> torch.Tensor:
        """z_BZ of torch's global generator."""
        return torch.randn(count, self.settings.latent, device=self.bounds.device)


# ── learning ────────────────────────────────────────────────────────────────────────────────────────────


class Learner(progress.Learner):
    """One trial under way: Adam with the short memory that the papers use, for what each net is after moves. Served is
    the average's generator beside the critic. `steps` are the critic's, from the trial's beginning."""

    served: Net

    def __init__(self, net: Net, seed: int) -> None:
        settings = net.settings
        rates = {"critic": settings.lr * settings.critic_lr, "generator": settings.lr}
        self.optimizers = {
            name: torch.optim.Adam(getattr(net, name).parameters(), rate, (0.5, 0.99), fused=True)
            for name, rate in rates.items()
        }
        self.seed, self.net, self.steps = seed, net, 0
        self.average, served = Average(net.generator, settings.average), Net(net.spec, settings).to(net.bounds.device)
        served.add_module("generator", self.average.net)
        served.add_module("critic", net.critic)
        served.bounds.copy_(net.bounds)
        optimizers = {f"optimizer/{name}": optimizer for name, optimizer in self.optimizers.items()}
        super().__init__({"net": net, "average": self.average.net, **optimizers}, served, {})

    def learn_epoch(self, train_NCHW: torch.Tensor) -> Metrics:
        """Passes of the critic over the training images; the mean losses, the generator's if it had a step."""
        self.net.train()
        settings, generator, rows = self.net.settings, seeded(self.seed, self.epoch), len(train_NCHW)
        losses: dict[str, list[torch.Tensor]] = {"train/loss": [], "train/generator_loss": []}
        order_N = np.concatenate([generator.permutation(rows) for _ in range(settings.passes)])
        for rows_B in np.array_split(order_N, max(1, round(len(order_N) / settings.batch_rows))):
            real_BCHW = train_NCHW[torch.from_numpy(rows_B).to(train_NCHW.device)]
            losses["train/loss"].append(self._teach("critic", self._critic_loss(real_BCHW)))
            self.steps += 1
            if self.steps % settings.critic_steps == 0:
                loss = -self.net.critic(images.moved(self._made(len(rows_B)), settings.augment)).mean()
                losses["train/generator_loss"].append(self._teach("generator", loss))
                self.average.follow(self.steps // settings.critic_steps)
        return {name: float(torch.stack(each).mean()) for name, each in losses.items() if each}

    def _teach(self, name: str, loss: torch.Tensor) -> torch.Tensor:
        """One step of one of the nets down its loss."""
        optimizer = self.optimizers[name]
        weights = list(getattr(self.net, name).parameters())
        gradients = torch.autograd.grad(loss, weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        return loss.detach()

    def _made(self, count: int) -> torch.Tensor:
        x_BCHW: torch.Tensor = self.net.generator(self.net.noise(count))
        return x_BCHW

    def _critic_loss(self, real_BCHW: torch.Tensor) -> torch.Tensor:
        settings = self.net.settings
        with torch.no_grad():
            made_BCHW = images.moved(self._made(len(real_BCHW)), settings.augment)
        real_BCHW = images.moved(real_BCHW, settings.augment)
        real_B, made_B = self.net.critic(torch.cat([real_BCHW, made_BCHW])).chunk(2)
        if settings.loss == "hinge":
            margins: torch.Tensor = functional.relu(1 - real_B) + functional.relu(1 + made_B)
            return margins.mean()
        apart: torch.Tensor = made_B.mean() - real_B.mean()
        return apart + settings.penalty * self._steepness(real_BCHW, made_BCHW)

    def _steepness(self, real_BCHW: torch.Tensor, made_BCHW: torch.Tensor) -> torch.Tensor:
        """How far the critic's slope is from 1 between real and made images."""
        share_B111 = torch.rand(len(real_BCHW), 1, 1, 1, device=real_BCHW.device)
        between_BCHW = torch.lerp(real_BCHW, made_BCHW, share_B111).requires_grad_()
        slope_BCHW: torch.Tensor
        (slope_BCHW,) = torch.autograd.grad(self.net.critic(between_BCHW).sum(), between_BCHW, create_graph=True)
        steep_B = torch.linalg.vector_norm(slope_BCHW.flatten(1), dim=1)
        penalty: torch.Tensor = (steep_B - 1).square().mean()
        return penalty

    def counts(self) -> dict[str, Json]:
        return {"steps": self.steps}

    def recall(self, counts: Mapping[str, Json], state: State) -> None:  # noqa: ARG002
        self.steps = counts["steps"]


# ── the family ──────────────────────────────────────────────────────────────────────────────────────────


class Gan:
    learning: ClassVar[Learning] = "unsupervised"
    tasks: ClassVar[tuple[Task, ...]] = ("generation",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        return Objective("frechet", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "loss": Choice(LOSSES),
            "lr": Uniform(5e-4, 4e-3, log=True, mutable=True),
            "critic_lr": Choice((1.0, 2.0)),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where = configure(Settings, hyper), data.spec, device()
        seeded(seed)
        raw = images.read(spec, data.splits["train"])
        net = Net(spec, settings)
        net.bounds.copy_(images.bounds(raw))
        train_NCHW = _scaled(net, raw).to(where)
        learner = Learner(net.to(where), seed)

        def learn() -> Metrics:
            metrics = learner.learn_epoch(train_NCHW)
            return metrics | self.measure(spec, self.judge(learner.served.eval(), data, "val"), "val")

        yield from learner.epochs(learn, self.objective(spec), state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(spec, configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """Of the split's images and as many made ones, always from the same noise."""
        return imitations.judged(data, split, lambda count, seed: self.sample(net, count, seed))

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return fidelity.measure(outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """Images whose pixels are each drawn from those of the training images there, on their own."""
        return imitations.baseline(data, split)

    def sample(self, net: Net, count: int, seed: int) -> pa.RecordBatch:
        z_NZ = torch.randn(count, net.settings.latent, generator=torch.Generator().manual_seed(seed % 2**63))
        made_NCHW = in_blocks(net.generator, z_NZ, SCORING_ROWS, net.bounds.device)
        return images.rows(net.spec, (made_NCHW + 1) / 2, net.bounds)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What the critic says of each image: comparable within one model alone."""
        return pa.RecordBatch.from_arrays([pa.array(_said(net, net.critic, batch))], schema=OUTPUTS)

    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The critic's last features."""
        return _said(net, net.critic.features, batch)

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return OUTPUTS


def _scaled(net: Net, x_NCHW: torch.Tensor) -> torch.Tensor:
    """Pixels -1 to 1, on the CPU."""
    return images.scaled(x_NCHW, net.bounds) * 2 - 1


def _said(net: Net, what: Callable[[torch.Tensor], torch.Tensor], rows: Rows) -> Codes:
    """What one of the nets says of each image."""
    said: Codes = in_blocks(what, _scaled(net, images.read(net.spec, rows)), SCORING_ROWS, net.bounds.device).numpy()
    return said
