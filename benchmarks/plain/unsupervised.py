"""Families that learn without what stands beside a row: codes, anomalies, and rows like those of the dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from components import anomalies, families, fidelity, grids, images, metrics
from components.contract import Data
from components.families.diffusion import TIMES
from components.families.gan import Net as Gan

from . import Plain

SEED = 7


def reconstruction(net: Any, data: Data) -> Plain:
    """An autoencoder's codes."""
    train, val = (net.scale(grids.read(data.spec, data.splits[split])) for split in ("train", "val"))

    def loss(rows: torch.Tensor) -> torch.Tensor:
        x = grids.augmented(data.spec, train[rows % len(train)], net.settings.augment)
        return functional.mse_loss(net.decoder(net.encoder(x)), x)

    def validate() -> float:
        return sum(float((net(x)[0] - x).square().sum()) for x in val.split(256)) / val.numel()

    return Plain(loss, validate, len(train))


def views(net: Any, data: Data) -> Plain:
    """Which way a normal image was turned; how far its features lie from those of the training images and of changed
    copies of them."""
    settings = net.settings
    train = images.scaled(images.read(data.spec, anomalies.learnable(data, settings.normal)), net.bounds)
    val = images.scaled(images.read(data.spec, data.splits["val"]), net.bounds)
    anomalous_N = anomalies.anomalous(data, "val", settings.normal)

    def turned(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([side.rot90(turn, (2, 3)) for side in (x, x.flip(3)) for turn in net.turns])

    def loss(rows: torch.Tensor) -> torch.Tensor:
        x = turned(images.augmented(train[rows % len(train)], settings.augment))
        return functional.cross_entropy(net.head(net.body(x)), torch.arange(net.views).repeat_interleave(len(rows)))

    def features(x_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.cat([net.body(turned(x)).unflatten(0, (net.views, -1)) for x in x_NCHW.split(64)], 1).double()

    def validate() -> float:
        copies = [images.augmented(train, settings.augment) for _ in range(settings.copies)]
        known_KND, seen_KND = features(torch.cat([train, *copies])), features(val)
        away_KND = seen_KND - known_KND.mean(1, keepdim=True)
        covariances = torch.stack([torch.cov(known_ND.T) for known_ND in known_KND])
        ridge = settings.ridge * covariances.diagonal(dim1=1, dim2=2).clamp_min(1e-12).diag_embed()
        score_N = (away_KND @ torch.linalg.inv(covariances + ridge) * away_KND).mean((0, 2))
        return metrics.auroc(score_N.float().numpy(), anomalous_N)

    return Plain(loss, validate, len(train))


def evidence(net: Any, data: Data) -> Plain:
    """The lower bound of a variational autoencoder, and the tighter one of several draws on val rows."""
    train, val = (
        images.scaled(images.read(data.spec, data.splits[split]), net.bounds).clamp(0, 1) for split in ("train", "val")
    )
    settings = net.settings

    def misfit(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        logits = net.decoder(z)[..., : net.height, : net.width]
        return functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)

    def posterior(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log = net.encoder(x * 2 - 1).chunk(2, 1)
        return mean, log.clamp(-8, 4)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        grey = images.augmented(train[rows], settings.augment)
        x = (torch.rand_like(grey) < grey).float()
        mean, log = posterior(x)
        z = mean + log.exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + (2 * log).exp() - 1 - 2 * log).sum(1)
        return (misfit(z, x) + settings.beta * divergence).mean()

    def validate() -> float:
        total = 0.0
        for grey in val.split(128):
            x = (torch.rand_like(grey) < grey).float()
            mean, log = posterior(x)
            noise = torch.randn(settings.val_draws, *mean.shape)
            z = mean + log.exp() * noise
            each = misfit(z.flatten(0, 1), x.repeat(settings.val_draws, 1, 1, 1)).reshape(settings.val_draws, -1)
            ratio = (0.5 * noise.square() - 0.5 * z.square()).sum(2) + log.sum(1) - each
            total -= float((ratio.logsumexp(0) - math.log(settings.val_draws)).sum())
        return total / len(val)

    return Plain(loss, validate, len(train))


def denoising(net: Any, data: Data) -> Plain:
    """The velocity of noisy images, and its error at a few times on val rows."""
    train, val = (
        images.scaled(images.read(data.spec, data.splits[split]), net.bounds) * 2 - 1 for split in ("train", "val")
    )

    def error(x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angle = ((t + 0.008) / 1.008 * (math.pi / 2))[:, None, None, None]
        alpha, sigma = angle.cos(), angle.sin()
        return functional.mse_loss(net(alpha * x + sigma * noise, t), alpha * noise - sigma * x)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        x = train[rows % len(train)]
        t = (torch.rand(()) + torch.arange(len(x)) / len(x)) % 1
        return error(x, torch.randn_like(x), t)

    def validate() -> float:
        noise = torch.randn(len(TIMES), *val.shape[1:])
        parts = [
            float(error(x, eps.expand_as(x), torch.full((len(x),), time))) * len(x)
            for x in val.split(256)
            for eps, time in zip(noise, TIMES, strict=True)
        ]
        return sum(parts) / len(TIMES) / len(val)

    return Plain(loss, validate, len(train))


def adversaries(data: Data) -> tuple[Iterator[float], int]:
    """Two nets in turn with the hinge loss: the critic's mean loss of each epoch, and the rows of one."""
    torch.manual_seed(SEED)
    settings = families.family("gan").Settings()
    net, train_NCHW = Gan(data.spec, settings), images.read(data.spec, data.splits["train"])
    net.bounds.copy_(images.bounds(train_NCHW))
    return _contest(net, data, images.scaled(train_NCHW, net.bounds) * 2 - 1), len(train_NCHW)


def _contest(net: Gan, data: Data, train_NCHW: torch.Tensor) -> Iterator[float]:
    settings, judge = net.settings, fidelity.judge(data)
    critic = torch.optim.Adam(net.critic.parameters(), settings.lr * settings.critic_lr, (0.5, 0.99))
    generator = torch.optim.Adam(net.generator.parameters(), settings.lr, (0.5, 0.99))
    val_NCHW = images.scaled(images.read(data.spec, data.splits["val"]), judge.bounds)

    def made(count: int) -> torch.Tensor:
        return net.generator(torch.randn(count, settings.latent))  # type: ignore[no-any-return]

    while True:
        net.train()
        total, steps = 0.0, max(1, round(len(train_NCHW) * settings.passes / settings.batch_rows))
        order = torch.cat([torch.randperm(len(train_NCHW)) for _ in range(settings.passes)])
        for rows in order.tensor_split(steps):
            with torch.no_grad():
                false = made(len(rows))
            says, of_false = (net.critic(images.moved(x, settings.augment)) for x in (train_NCHW[rows], false))
            loss = functional.relu(1 - says).mean() + functional.relu(1 + of_false).mean()
            critic.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            critic.step()
            total += loss.item()
            loss = -net.critic(images.moved(made(len(rows)), settings.augment)).mean()
            generator.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            generator.step()
        net.eval()
        with torch.no_grad():
            parts = [made(len(x)) for x in val_NCHW.split(256)]
            fidelity.measure(fidelity.outcomes(judge, val_NCHW, (torch.cat(parts) + 1) / 2), "val")
        yield total / steps
