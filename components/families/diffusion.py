"""diffusion: images out of noise, after Ho et al. 2020, "Denoising diffusion probabilistic models" (DDPM), with the
cosine schedule of Nichol & Dhariwal 2021 and the deterministic sampler of Song et al. 2021, "Denoising diffusion
implicit models" (DDIM).

How it differs: time is continuous, from 0 (the image) to 1 (noise), and a batch's times are spread evenly (Kingma et
al. 2021); the net says v = α·noise - σ·image (Salimans & Ho 2022), not the noise; what it takes for the image is
clipped to the range of pixels at each step of sampling. The U-Net works on cells of 2×2 pixels (Luhman & Luhman 2022),
on two levels, and attends at the lower one alone: what one processor thread can learn in minutes. No dropout. The best
epoch is that of the lowest denoising error on val rows, at fixed times and with fixed noise: as many samples as a
Fréchet distance needs would take longer than a pass over the training rows.

Legend: B images of a batch, N rows of a split, C channels, H height, W width, K fixed times, F channels of a level,
Y×X its cells, E elements of the time's embedding, D of a code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from .. import fidelity, images, imitations
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

SCORING_ROWS = 256
TIMES = (0.1, 0.3, 0.5, 0.7)  # at which a row's denoising error is measured; near 1 there is nothing to see
OUTPUTS = pa.schema([("denoising_error", pa.float32())])


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    width           channels of the upper level; the lower one has twice as many, as the time's embedding has
    sampling_steps  of the net for one sample
    passes          over the training rows in an epoch: they are few, and measuring takes as long as some batches
    average         decay of the weights' running average, which is served
    horizon         epochs over which the learning rate falls along a cosine; 0: it stays
    """

    width: int = 32
    sampling_steps: int = 25
    lr: float = 2e-3
    weight_decay: float = 0.0
    batch_rows: int = 32
    passes: int = 4
    clip: float = 1.0
    average: float = 0.99
    horizon: int = 8


# ── the net ─────────────────────────────────────────────────────────────────────────────────────────────


class Block(nn.Module):
    """Two convolutions beside a shortcut, each behind a group norm; the time scales and shifts what lies between."""

    def __init__(self, before: int, after: int, embedded: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.norm, self.time = nn.GroupNorm(8, after), nn.Linear(embedded, 2 * after)
        self.leave = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.leave.weight)  # a block begins as its shortcut

    def forward(self, x_BFYX: torch.Tensor, time_BE: torch.Tensor) -> torch.Tensor:
        scale_BF11, shift_BF11 = self.time(time_BE)[:, :, None, None].chunk(2, 1)
        y_BFYX = self.norm(self.enter(x_BFYX)) * (1 + scale_BF11) + shift_BF11
        left_BFYX: torch.Tensor = self.leave(functional.silu(y_BFYX)) + self.shortcut(x_BFYX)
        return left_BFYX


class Attention(nn.Module):
    """Each cell looks at all others, beside a shortcut: four heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.ask = nn.GroupNorm(8, channels), nn.Conv2d(channels, 3 * channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x_BFYX: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = x_BFYX.shape
        asked = self.ask(self.norm(x_BFYX)).reshape(count, 3, 4, channels // 4, height * width).transpose(3, 4)
        seen = functional.scaled_dot_product_attention(asked[:, 0], asked[:, 1], asked[:, 2])
        y_BFYX: torch.Tensor = x_BFYX + self.leave(seen.transpose(2, 3).reshape(x_BFYX.shape))
        return y_BFYX


class Net(nn.Module):
    """v_BCHW of images x_BCHW at times t_B. Pixels are -1 to 1 within `bounds`."""

    bounds: torch.Tensor

    def __init__(self, spec: Spec, settings: Settings) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings
        self.shape = images.shape(images.column(spec))
        wide, low = settings.width, 2 * settings.width
        self.register_buffer("bounds", torch.tensor([0.0, 255.0]))
        self.time = nn.Sequential(nn.Linear(32, low), nn.SiLU(), nn.Linear(low, low), nn.SiLU())
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * self.shape[0], wide, 3, padding=1))
        self.down = Block(wide, wide, low)
        self.shrink = nn.Conv2d(wide, low, 3, 2, 1)
        self.inner = nn.ModuleList([Block(low, low, low), Block(low, low, low)])
        self.attention = Attention(low)
        self.grow = nn.Sequential(nn.Conv2d(low, 4 * wide, 1), nn.PixelShuffle(2))
        self.up = nn.ModuleList([Block(2 * wide, wide, low), Block(wide, wide, low)])
        leave = nn.Conv2d(wide, 4 * self.shape[0], 3, padding=1)
        nn.init.zeros_(leave.weight)
        self.leave = nn.Sequential(nn.GroupNorm(8, wide), nn.SiLU(), leave, nn.PixelShuffle(2))

    def forward(self, x_BCHW: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        upper_BFYX, lower_BFYX, time_BE = self.seen(x_BCHW, t_B)
        y_BFYX = torch.cat([self.grow(lower_BFYX), upper_BFYX], 1)
        for block in self.up:
            y_BFYX = block(y_BFYX, time_BE)
        v_BCHW: torch.Tensor = self.leave(y_BFYX)
        return v_BCHW[:, :, : self.shape[1], : self.shape[2]]

    def seen(self, x_BCHW: torch.Tensor, t_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the way down makes of it: the upper level, the innermost features, the embedded time."""
        height, width = self.shape[1:]
        x_BCHW = functional.pad(x_BCHW, (0, -width % 4, 0, -height % 4), mode="replicate")  # to whole cells
        angle_BE = 1000 * t_B[:, None] * torch.exp(torch.linspace(0, -math.log(1e4), 16, device=t_B.device))
        time_BE = self.time(torch.cat([angle_BE.sin(), angle_BE.cos()], 1))
        upper_BFYX = self.down(self.enter(x_BCHW), time_BE)
        lower_BFYX = self.inner[0](self.shrink(upper_BFYX), time_BE)
        return upper_BFYX, self.inner[1](self.attention(lower_BFYX), time_BE), time_BE


# ── noise ───────────────────────────────────────────────────────────────────────────────────────────────


def schedule(t_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """α_B111 and σ_B111, the shares of image and noise at each time: α² + σ² = 1. The paper's cosine, whose offset of
    0.008 keeps the first noise from being too little to see."""
    angle_B111 = ((t_B + 0.008) / 1.008 * (math.pi / 2))[:, None, None, None]
    return angle_B111.cos(), angle_B111.sin()


def denoising_error(net: Net, x_BCHW: torch.Tensor, noise_BCHW: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """Mean squared error of v, error_B."""
    alpha_B111, sigma_B111 = schedule(t_B)
    wanted_BCHW = alpha_B111 * noise_BCHW - sigma_B111 * x_BCHW
    said_BCHW: torch.Tensor = net(alpha_B111 * x_BCHW + sigma_B111 * noise_BCHW, t_B)
    return (said_BCHW.float() - wanted_BCHW).square().flatten(1).mean(1)


def denoised(net: Net, noise_BCHW: torch.Tensor) -> torch.Tensor:
    """The images that the sampler makes of noise (Song et al. 2021, with η = 0), in steps of equal time."""
    z_BCHW, count = noise_BCHW, len(noise_BCHW)
    times = torch.linspace(1, 0, net.settings.sampling_steps + 1, device=z_BCHW.device)
    x_BCHW = z_BCHW
    for now, then in itertools.pairwise(times):
        (alpha, sigma), (alpha_then, sigma_then) = schedule(now[None]), schedule(then[None])
        v_BCHW = net(z_BCHW, now.expand(count)).float()
        x_BCHW = (alpha * z_BCHW - sigma * v_BCHW).clamp(-1, 1)
        z_BCHW = alpha_then * x_BCHW + sigma_then * (z_BCHW - alpha * x_BCHW) / sigma
    return x_BCHW


# ── the family ──────────────────────────────────────────────────────────────────────────────────────────


class Diffusion:
    learning: ClassVar[Learning] = "unsupervised"
    tasks: ClassVar[tuple[Task, ...]] = ("generation",)
    kinds: ClassVar[tuple[Kind, ...]] = ("tensor",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        """The denoising error: a Fréchet distance needs samples, and they cost more than the epoch does."""
        return Objective("loss", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {"lr": Uniform(1e-3, 4e-3, log=True, mutable=True), "average": Choice((0.99, 0.995))}

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec, where = configure(Settings, hyper), data.spec, device()
        seeded(seed)
        raw = images.read(spec, data.splits["train"])
        net = Net(spec, settings)
        net.bounds.copy_(images.bounds(raw))
        net.to(where)
        train_NCHW, val = _scaled(net, data.splits["train"]).to(where), data.splits["val"]

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            x_BCHW, count = train_NCHW[rows_B % len(train_NCHW)], len(rows_B)
            t_B = (torch.rand((), device=where) + torch.arange(count, device=where) / count) % 1
            return denoising_error(net, x_BCHW, torch.randn_like(x_BCHW), t_B).mean()

        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
            rows=len(train_NCHW) * settings.passes,
            batch_rows=settings.batch_rows,
            loss=loss,
            evaluate=lambda served: {"val/loss": float(_errors(served, val).mean())},
            objective=self.objective(spec),
            clip=settings.clip,
            average=settings.average,
            schedule=cosine(settings.horizon),
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(spec, configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        """Of the split's images and as many made ones, always from the same noise; and the split's denoising errors."""
        made = imitations.judged(data, split, lambda count, seed: self.sample(net, count, seed))
        return {**made, "loss": _errors(net, data.splits[split])}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        """split/loss beside what is measured of made images."""
        return {f"{split}/loss": float(outcomes["loss"].mean(dtype=np.float64)), **fidelity.measure(outcomes, split)}

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        """Images drawn pixel by pixel, and the error of who denoises each pixel on its own."""
        net = Net(data.spec, configure(Settings, hyper))
        net.bounds.copy_(images.bounds(images.read(data.spec, data.splits["train"])))
        train_NCHW, x_NCHW = (_scaled(net, data.splits[name]) for name in ("train", split))
        error = torch.stack([_alone(train_NCHW, x_NCHW, time) for time in TIMES]).mean()
        return {f"{split}/loss": float(error), **imitations.baseline(data, split)}

    @torch.inference_mode()
    def sample(self, net: Net, count: int, seed: int) -> pa.RecordBatch:
        noise_NCHW = torch.randn(count, *net.shape, generator=torch.Generator().manual_seed(seed % 2**63))
        blocks = [noise_BCHW for noise_BCHW in torch.split(noise_NCHW, SCORING_ROWS) if len(noise_BCHW)]
        made = [denoised(net, noise_BCHW.to(net.bounds.device)).cpu() for noise_BCHW in blocks]
        return images.rows(net.spec, (torch.cat([noise_NCHW[:0], *made]) + 1) / 2, net.bounds)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The denoising error of each image, over fixed times and with the same noise for all: high for what is unlike
        the training images."""
        return pa.RecordBatch.from_arrays([pa.array(_errors(net, batch))], schema=OUTPUTS)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The innermost features of the image as it is, at the first of the fixed times (Baranchuk et al. 2022), their
        means over the four quarters."""
        parts = [torch.empty(0, 8 * net.settings.width)]
        for x_BCHW in _blocks(net, batch):
            t_B = torch.full((len(x_BCHW),), TIMES[0], device=net.bounds.device)
            inner_BFYX = net.seen(x_BCHW, t_B)[1]
            parts.append(functional.adaptive_avg_pool2d(inner_BFYX, 2).flatten(1).cpu())
        codes: Codes = torch.cat(parts).numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return OUTPUTS


def _scaled(net: Net, rows: Rows) -> torch.Tensor:
    """x_NCHW on the CPU, pixels -1 to 1."""
    return images.scaled(images.read(net.spec, rows), net.bounds) * 2 - 1


def _blocks(net: Net, rows: Rows) -> Iterator[torch.Tensor]:
    """x_BCHW on the net's device, none of them empty: cells cannot be made of no image."""
    parts = torch.split(_scaled(net, rows), SCORING_ROWS)
    return (x_BCHW.to(net.bounds.device) for x_BCHW in parts if len(x_BCHW))


def _alone(train_NCHW: torch.Tensor, x_NCHW: torch.Tensor, time: float) -> torch.Tensor:
    """The expected error of v of the best linear estimate of each pixel from itself alone (Wiener), by means and
    variances over the training images. With z = α·x + σ·noise, v is (α·z - x) / σ: its error is the image's, over σ."""
    alpha, sigma = (share.item() for share in schedule(torch.tensor([time])))
    mean_CHW, variance_CHW = train_NCHW.mean(0), train_NCHW.var(0, correction=0)
    gain_CHW = alpha * variance_CHW / (alpha**2 * variance_CHW + sigma**2)
    left_NCHW = (1 - gain_CHW * alpha).square() * (x_NCHW - mean_CHW).square() + (gain_CHW * sigma).square()
    return left_NCHW.mean() / sigma**2


@torch.inference_mode()
def _errors(net: Net, rows: Rows) -> NDArray[np.float32]:
    """The denoising error of each row: the mean over fixed times, each with a noise of its own that all rows share."""
    net.eval()
    where = net.bounds.device
    noise_KCHW = torch.randn(len(TIMES), *net.shape, generator=torch.Generator().manual_seed(0)).to(where)
    parts = [torch.empty(0)]
    for x_BCHW in _blocks(net, rows):
        error_KB = [
            denoising_error(net, x_BCHW, noise_CHW.expand_as(x_BCHW), torch.full((len(x_BCHW),), time, device=where))
            for noise_CHW, time in zip(noise_KCHW, TIMES, strict=True)
        ]
        parts.append(torch.stack(error_KB).mean(0).cpu())
    found: NDArray[np.float32] = torch.cat(parts).numpy()
    return found
