"""vae: a variational autoencoder of images (Kingma & Welling 2014, "Auto-encoding variational Bayes"), with β on the
divergence from the prior (Higgins et al. 2017, "β-VAE").

Likelihood: pixels are black or white. Grey values are the chances of white, as in Salakhutdinov & Murray 2008 and Burda
et al. 2016 ("Importance weighted autoencoders"): a training image is binarised anew each time that it is learnt from. A
row that is measured or scored is binarised once and for all, by draws that hang on its own bytes alone.

What is measured is the importance-weighted bound of Burda et al.: with k draws of the code it is at most log p(x) on
average, and nearer to it with more of them. `nll` is minus that bound, in nats a row, and configurations are chosen by
it, whatever their β. The draws hang on a row's own bytes as well, so it scores the same in any batch.

How it differs: convolutions, with pixels shuffled to double an image (Shi et al. 2016) where the decoder widens it;
training images are moved, turned, scaled and sheared a little, since rows are few; the weights served are a running
average.

Legend: B images of a batch, N rows of a split, C channels, H height, W width, Z elements of the code, K
draws of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from .. import fidelity, images
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
from ..tables import Rows
from ..training import Lesson, adam, cosine, learn

BLOCK_ROWS = 256  # images, or draws of a code, that go through the net at once
OUTPUTS = pa.schema([("log_likelihood", pa.float32()), ("reconstruction_error", pa.float32())])
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    width    channels of the first convolution and of the last; twice as many lie between
    hidden   elements of the layer on either side of the code
    code     elements of the code, Z
    beta     weight of the divergence in the loss. 1: the loss is minus the evidence lower bound
    augment  how far training images are moved, turned, scaled and sheared (1: a tenth, 12°); 0: they stay
    draws    of the code that the bound of a test row or a scored row is made of
    val_draws  of the code, on val rows after each epoch
    average  decay of the weights' running average
    horizon  epochs over which the learning rate falls along a cosine; 0: it stays
    """

    width: int = 16
    hidden: int = 256
    code: int = 32
    beta: float = 0.8
    augment: float = 0.2
    lr: float = 4e-3
    weight_decay: float = 1e-3
    batch_rows: int = 32
    draws: int = 128
    val_draws: int = 8
    average: float = 0.995
    horizon: int = 60


class Net(nn.Module):
    """Code of an image and logits of its pixels. `bounds`: the pixel values that are 0 and 1."""

    bounds: torch.Tensor

    def __init__(self, spec: Spec, settings: Settings) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings
        channels, self.height, self.width = images.shape(images.column(spec))
        wide, quarter = settings.width, ((self.height + 3) // 4, (self.width + 3) // 4)
        cells = 2 * wide * math.prod(quarter)
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, wide, 3, 2, 1), nn.SiLU()),
            *(nn.Conv2d(wide, 2 * wide, 3, 2, 1), nn.SiLU(), nn.Flatten()),
            *(nn.Linear(cells, settings.hidden), nn.SiLU()),
            nn.Linear(settings.hidden, 2 * settings.code),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(settings.code, settings.hidden), nn.SiLU()),
            *(nn.Linear(settings.hidden, cells), nn.SiLU(), nn.Unflatten(1, (2 * wide, *quarter))),
            *(nn.Conv2d(2 * wide, 4 * wide, 3, 1, 1), nn.SiLU(), nn.PixelShuffle(2)),
            *(nn.Conv2d(wide, 4 * channels, 3, 1, 1), nn.PixelShuffle(2)),
        )
        self.register_buffer("bounds", torch.tensor([0.0, 255.0]))

    def posterior(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log deviation of q(z|x), B × Z each."""
        mean_BZ, log_BZ = self.encoder(x_BCHW * 2 - 1).float().chunk(2, 1)
        return mean_BZ, log_BZ.clamp(-8, 4)

    def logits(self, z_BZ: torch.Tensor) -> torch.Tensor:
        """Of each pixel being white, B × C × H × W."""
        x_BCHW: torch.Tensor = self.decoder(z_BZ)
        return x_BCHW[..., : self.height, : self.width].float()

    def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of black and white images: (-log p(x|z) of one draw of z, divergence of q(z|x) from the prior), in nats."""
        mean_BZ, log_BZ = self.posterior(x_BCHW)
        z_BZ = mean_BZ + log_BZ.exp() * torch.randn_like(mean_BZ)
        divergence_B = 0.5 * (mean_BZ.square() + (2 * log_BZ).exp() - 1 - 2 * log_BZ).sum(1)
        return _misfit(self.logits(z_BZ), x_BCHW), divergence_B


def _misfit(logits_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
    """-log p(x|z) in nats."""
    misfit_BCHW = functional.binary_cross_entropy_with_logits(logits_BCHW, x_BCHW, reduction="none")
    misfit_B: torch.Tensor = misfit_BCHW.flatten(1).sum(1)
    return misfit_B


class Vae:
    learning: ClassVar[Learning] = "unsupervised"
    tasks: ClassVar[tuple[Task, ...]] = ("generation",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        return Objective("nll", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "beta": Choice((0.6, 0.8, 1.0)),
            "code": Choice((24, 32)),
            "augment": Choice((0.1, 0.2, 0.3)),
            "lr": Uniform(2e-3, 6e-3, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where = configure(Settings, hyper), data.spec, device()
        seeded(seed)
        raw = images.read(spec, data.splits["train"])
        net = Net(spec, settings).to(where)
        net.bounds.copy_(images.bounds(raw))
        train = _scaled(net, raw).to(where)
        val = data.splits["val"]

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            grey_BCHW = images.augmented(train[rows_B], settings.augment)
            misfit_B, divergence_B = net((torch.rand_like(grey_BCHW) < grey_BCHW).float())
            mean: torch.Tensor = (misfit_B + settings.beta * divergence_B).mean()
            return mean

        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
            rows=len(train),
            batch_rows=settings.batch_rows,
            loss=loss,
            evaluate=lambda served: {"val/nll": float(-_bounds(served, val, settings.val_draws).mean())},
            objective=self.objective(spec),
            average=settings.average,
            schedule=cosine(settings.horizon),
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(spec, configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """Of each row the bounds with many draws and with one, and how far its reconstruction is off; beside it a made
        one, as `fidelity` has them."""
        rows = data.splits[split]
        grey = _scaled(net, images.read(data.spec, rows))
        own = {
            "bound": _bounds(net, rows, net.settings.draws),
            "single": _bounds(net, rows, 1),
            "error": _errors(net, grey),
        }
        return own | dict(fidelity.outcomes(fidelity.judge(data), grey, _made(net, len(rows), seed=0)))

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        """split/nll, by `draws` draws; split/elbo_nll, by one: minus the evidence lower bound; split/mse of grey values
        in [0, 1]; and what `fidelity` measures."""
        own = {"nll": -outcomes["bound"], "elbo_nll": -outcomes["single"], "mse": outcomes["error"]}
        means = {f"{split}/{name}": float(each_N.astype(np.float64).mean()) for name, each_N in own.items()}
        return means | fidelity.measure(outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """Independent pixels: each is white as often as among the training rows (and once more, and once not)."""
        raw, rows = images.read(data.spec, data.splits["train"]), data.splits[split]
        bounds = images.bounds(raw)
        train, read = (images.scaled(x, bounds).clamp(0, 1) for x in (raw, images.read(data.spec, rows)))
        white_CHW = (train.double().sum(0) + 1) / (len(train) + 2)
        x_NCHW = torch.stack([_drawn(row, 0)[0] for row in read]).double()
        nll_N = -(x_NCHW * white_CHW.log() + (1 - x_NCHW) * (1 - white_CHW).log()).flatten(1).sum(1)
        return {f"{split}/nll": float(nll_N.mean())}

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        bound_N = _bounds(net, batch, net.settings.draws)
        error_N = _errors(net, _scaled(net, images.read(net.spec, batch)))
        return pa.RecordBatch.from_arrays([pa.array(bound_N), pa.array(error_N)], schema=OUTPUTS)

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return OUTPUTS

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The mean of q(z|x), of the image in its grey values."""
        parts = torch.split(_scaled(net, images.read(net.spec, batch)), BLOCK_ROWS)
        codes: Codes = torch.cat([net.posterior(x_BCHW.to(net.bounds.device))[0].cpu() for x_BCHW in parts]).numpy()
        return codes

    def decode(self, net: Net, codes: Codes) -> pa.RecordBatch:
        """Each pixel's chance of white, as its grey value."""
        return images.rows(net.spec, _decoded(net, torch.from_numpy(codes)), net.bounds)

    def sample(self, net: Net, count: int, seed: int) -> pa.RecordBatch:
        """What codes that are drawn from the prior stand for (`decode`)."""
        return images.rows(net.spec, _made(net, count, seed), net.bounds)


def _scaled(net: Net, x_NCHW: torch.Tensor) -> torch.Tensor:
    """x_NCHW in [0, 1], on the CPU."""
    return images.scaled(x_NCHW, net.bounds).clamp(0, 1)


def _drawn(grey_CHW: torch.Tensor, normals: int) -> tuple[torch.Tensor, Floats]:
    """An image in black and white, and so many normal draws, which all hang on its bytes alone."""
    digest = hashlib.sha256(grey_CHW.numpy().tobytes()).digest()
    draw = np.random.Generator(np.random.SFC64(np.frombuffer(digest, np.uint32)))
    even = torch.from_numpy(draw.random(tuple(grey_CHW.shape), np.float32))
    return (even < grey_CHW).float(), draw.standard_normal(normals, np.float32)


@torch.inference_mode()
def _bounds(net: Net, rows: Rows, draws: int) -> Floats:
    """log 1/k Σ p(x, z) / q(z|x) over k draws of z from q(z|x), of each row."""
    net.eval()
    where, code = net.bounds.device, net.settings.code
    found = []
    for grey_BCHW in torch.split(_scaled(net, images.read(net.spec, rows)), max(1, BLOCK_ROWS * 4 // draws)):
        pairs: list[Any] = [_drawn(grey_CHW, draws * code) for grey_CHW in grey_BCHW]
        if not pairs:
            continue
        x_BCHW = torch.stack([x_CHW for x_CHW, _ in pairs]).to(where)
        e_BKZ = torch.from_numpy(np.stack([normals for _, normals in pairs])).reshape(len(pairs), draws, code).to(where)
        mean_BZ, log_BZ = net.posterior(x_BCHW)
        z_BKZ = mean_BZ[:, None] + log_BZ.exp()[:, None] * e_BKZ
        misfit_BK = _misfit(net.logits(z_BKZ.flatten(0, 1)), x_BCHW.repeat_interleave(draws, 0)).reshape(-1, draws)
        # log p(z) - log q(z|x): what both densities have before the exponent falls out
        ratio_BK = (0.5 * e_BKZ.square() - 0.5 * z_BKZ.square()).sum(2) + log_BZ.sum(1)[:, None]
        found.append(((ratio_BK - misfit_BK).logsumexp(1) - math.log(draws)).cpu())
    return (torch.cat(found) if found else torch.empty(0)).numpy()


@torch.inference_mode()
def _errors(net: Net, grey_NCHW: torch.Tensor) -> Floats:
    """Mean squared error of each image's reconstruction from its code's mean."""
    where = net.bounds.device
    codes = [net.posterior(x_BCHW.to(where))[0] for x_BCHW in torch.split(grey_NCHW, BLOCK_ROWS)]
    error_N: Floats = (_decoded(net, torch.cat(codes)) - grey_NCHW).square().flatten(1).mean(1).numpy()
    return error_N


@torch.inference_mode()
def _decoded(net: Net, z_NZ: torch.Tensor) -> torch.Tensor:
    """Each pixel's chance of white, x_NCHW on the CPU."""
    where = net.bounds.device
    return torch.cat([net.logits(z_BZ.to(where)).sigmoid().cpu() for z_BZ in torch.split(z_NZ, BLOCK_ROWS)])


def _made(net: Net, count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed % 2**63)
    return _decoded(net, torch.randn((count, net.settings.code), generator=draw))
