"""How near made images come to real ones: what every generative family is measured by.

The Fréchet distance (Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium") between two sets of images is that between the normal distributions with their features' means and
covariances. How this differs: the features are not those of Inception, which knows photographs, but of a small
classifier that is taught here on the dataset's own training rows, from a seed of its own; each has deviation 1 over the
training rows. So figures of one dataset compare with each other and with no others. Without classes the features are
the principal components of the training rows, all by one factor, with variance 1 on average.

Whatever a trial's seed, device or family, and whatever other threads do meanwhile, the same training rows have the
same judge: what it draws comes from generators of its own, torch's global ones are left as they were.

Legend: B images of a batch, N rows of a split, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from . import images
from .contract import Codes, Data, Metrics, Outcomes
from .tables import labels

SEED = 2017
FEATURES = 64
STEPS, BATCH_ROWS = 300, 64  # that the classifier learns at most, however many rows there are: seconds on one thread
EPOCHS, FEWEST = 30, 50  # over few rows it learns for so many epochs, but for so many steps at least
LARGEST = 32  # pixels of a side; larger images are shrunk to it
BLOCK_ROWS = 256
KEPT = 4  # judges that a process keeps

_known: dict[str, Judge] = {}
_learning = threading.Lock()


class Classifier(nn.Module):
    """K logits of images in [0, 1], and the features before them. Its first weights are torch's usual ones, drawn from
    `generator`."""

    def __init__(self, shape: tuple[int, int, int], classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.classes = classes
        channels, height, width = shape
        cells = 32 * -(-height // 4) * -(-width // 4)
        with torch.device("meta"):  # where layers draw nothing of the global generator
            self.layers = nn.Sequential(
                *_convolution(channels, 16),
                *_convolution(16, 32),
                nn.Flatten(),
                nn.Linear(cells, FEATURES),
            )
            self.last = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, classes))
        self.to_empty(device="cpu")
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()  # constants
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, math.sqrt(5), generator=generator)
                if layer.bias is not None:
                    most = 1 / math.sqrt(layer.weight[0].numel())
                    nn.init.uniform_(layer.bias, -most, most, generator=generator)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BK: torch.Tensor = self.last(self.layers(x_BCHW))
        return y_BK


def _convolution(before: int, after: int) -> list[nn.Module]:
    smaller = nn.MaxPool2d(2, ceil_mode=True)
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), smaller, nn.BatchNorm2d(after), nn.ReLU()]


@dataclass(frozen=True)
class Judge:
    """What features and classes of images are, on the CPU. Images x_NCHW lie in [0, 1] by `bounds`: the pixel values
    of the dataset that are 0 and 1 (`images.scaled`).

    classifier   None where there are no classes
    axes_ED      without a classifier: elements of an image (flattened) to components
    center_D, factor_D   of the features: (x - center) × factor
    """

    bounds: torch.Tensor
    classifier: Classifier | None
    axes_ED: torch.Tensor
    center_D: torch.Tensor
    factor_D: torch.Tensor

    def features(self, x_NCHW: torch.Tensor) -> Codes:
        """features_ND."""
        parts = [self._raw(x_BCHW) for x_BCHW in _blocks(x_NCHW)]
        features_ND: Codes = ((torch.cat(parts) - self.center_D) * self.factor_D).numpy()
        return features_ND

    def classes(self, x_NCHW: torch.Tensor) -> NDArray[np.int64]:
        """The class number of each image, k_N. Raises ValueError where there are no classes."""
        if self.classifier is None:
            raise ValueError("the dataset has no classes")
        with torch.inference_mode():
            parts = [self.classifier(x_BCHW).argmax(1) for x_BCHW in _blocks(x_NCHW)]
        found: NDArray[np.int64] = torch.cat(parts).numpy()
        return found

    @torch.inference_mode()
    def _raw(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.classifier is None:
            return x_BCHW.flatten(1) @ self.axes_ED
        raw_BD: torch.Tensor = self.classifier.layers(x_BCHW)
        return raw_BD


def judge(data: Data) -> Judge:
    """The judge of a dataset, learnt from its training rows when it is first asked for in a process."""
    train = data.splits["train"]
    raw = images.read(data.spec, train)
    bounds = images.bounds(raw)
    x_NCHW, classes = _seen(images.scaled(raw, bounds)), data.spec.classes
    k_N = labels(train, data.spec.target, classes) if classes and data.spec.target else None
    key = hashlib.sha256(raw.numpy().tobytes())
    key.update(repr((str(raw.dtype), tuple(raw.shape), len(classes))).encode())
    key.update(k_N.tobytes() if k_N is not None else b"")
    with _learning:
        if key.hexdigest() not in _known:
            if len(_known) >= KEPT:
                del _known[next(iter(_known))]
            made = _principal(x_NCHW, bounds) if k_N is None else _taught(x_NCHW, k_N, len(classes), bounds)
            _known[key.hexdigest()] = made
        return _known[key.hexdigest()]


def _taught(x_NCHW: torch.Tensor, k_N: NDArray[np.int64], classes: int, bounds: torch.Tensor) -> Judge:
    """A judge with a classifier, by AdamW and one cycle of the learning rate."""
    with _apart():
        generator, draw = torch.Generator().manual_seed(SEED), np.random.default_rng(SEED)
        net = Classifier((x_NCHW.shape[1], x_NCHW.shape[2], x_NCHW.shape[3]), classes, generator)
        steps = min(STEPS, max(FEWEST, EPOCHS * len(k_N) // BATCH_ROWS))
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        truth_N = torch.from_numpy(k_N)
        for _ in range(steps):
            rows_B = torch.from_numpy(draw.integers(0, len(x_NCHW), BATCH_ROWS))
            seen_BCHW = images.augmented(x_NCHW[rows_B], 0.5, generator=generator)
            loss = functional.cross_entropy(net(seen_BCHW), truth_N[rows_B])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        net.eval().requires_grad_(False)
        plain = Judge(bounds, net, torch.empty(0), torch.zeros(FEATURES), torch.ones(FEATURES))
        features_ND = torch.from_numpy(plain.features(x_NCHW))
        deviation_D = features_ND.std(0, correction=0)
        factor_D = torch.where(deviation_D > 1e-6, 1 / deviation_D, 0.0)
        return Judge(bounds, net, plain.axes_ED, features_ND.mean(0), factor_D)


def _principal(x_NCHW: torch.Tensor, bounds: torch.Tensor) -> Judge:
    """A judge by the principal components of the training rows; as many as there are, if they are few."""
    x_NE = x_NCHW.flatten(1).double()
    values_E, axes_EE = torch.linalg.eigh(torch.cov(x_NE.T).reshape(x_NE.shape[1], -1))
    axes_ED = axes_EE.flip(1)[:, :FEATURES]  # eigh sorts from the smallest
    # A direction has no sign of its own; this one does not hang on the library.
    axes_ED = axes_ED * axes_ED.gather(0, axes_ED.abs().argmax(0, keepdim=True)).sign()
    deviation = float(values_E.flip(0)[:FEATURES].clamp_min(0).mean().sqrt()) or 1.0
    center_D, size = x_NE.mean(0) @ axes_ED, axes_ED.shape[1]
    return Judge(bounds, None, axes_ED.float(), center_D.float(), torch.full((size,), 1 / deviation))


@contextmanager
def _apart() -> Iterator[None]:
    """Learning whose figures hang on nothing outside: with gradients, and on one thread, since bits change with their
    number."""
    threads = torch.get_num_threads()
    with torch.inference_mode(False), torch.enable_grad():
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _seen(x_NCHW: torch.Tensor) -> torch.Tensor:
    """As a judge sees images: float32 on the CPU, in [0, 1], no side above LARGEST."""
    x_NCHW = x_NCHW.detach().cpu().float().clamp(0, 1)
    height, width = x_NCHW.shape[2:]
    sides = (min(height, LARGEST), min(width, LARGEST))
    return x_NCHW if sides == (height, width) else functional.adaptive_avg_pool2d(x_NCHW, sides)


def _blocks(x_NCHW: torch.Tensor) -> Iterator[torch.Tensor]:
    return (_seen(x_BCHW) for x_BCHW in torch.split(x_NCHW, BLOCK_ROWS))


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────


def outcomes(by: Judge, real_NCHW: torch.Tensor, made_NCHW: torch.Tensor) -> Outcomes:
    """What comes of real images and as many made ones: real and made, their features, and made_class, 1 for
    the class that a made image is taken for, if there are classes: for `measure` of all rows or of some.

    Raises ValueError if there are not as many.
    """
    if len(real_NCHW) != len(made_NCHW):
        raise ValueError(f"{len(real_NCHW)} real images, but {len(made_NCHW)} made ones")
    found = {"real": by.features(real_NCHW), "made": by.features(made_NCHW)}
    if by.classifier is None:
        return found
    return found | {"made_class": np.eye(by.classifier.classes, dtype=np.uint8)[by.classes(made_NCHW)]}


def measure(found: Outcomes, split: str) -> Metrics:
    """split/frechet, and where there are classes split/class_spread: how many times as often as the rarest class the
    commonest was made; as many times as there are rows, which is more than it can be otherwise, if one is missing."""
    metrics = {f"{split}/frechet": frechet(found["real"], found["made"])}
    if "made_class" in found:
        rows_K = found["made_class"].sum(0, dtype=np.int64)
        spread = rows_K.max() / rows_K.min() if rows_K.min() else len(found["made_class"])
        metrics[f"{split}/class_spread"] = float(spread)
    return metrics


def frechet(real_ND: NDArray[np.floating], made_ND: NDArray[np.floating]) -> float:
    """|m - m'|² + tr(C + C' - 2 (C C')^½) of means m and covariances C of two sets of features; never below 0."""
    (m_D, c_DD), (n_D, d_DD) = _moments(real_ND), _moments(made_ND)
    # C C' has the eigenvalues of C^½ C' C^½, which is symmetric. The gate measures thousands of draws of rows: no more
    # than two decompositions for each.
    root_DD = _root(c_DD)
    shared = np.sqrt(np.linalg.eigvalsh(root_DD @ d_DD @ root_DD).clip(0)).sum()
    return max(0.0, float(np.square(m_D - n_D).sum() + np.trace(c_DD) + np.trace(d_DD) - 2 * shared))


def _moments(x_ND: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = x_ND.astype(np.float64)
    away_ND = x - x.mean(0)
    return x.mean(0), away_ND.T @ away_ND / max(1, len(x) - 1)


def _root(c_DD: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric square root of a covariance."""
    values_D, axes_DD = np.linalg.eigh(c_DD)
    root: NDArray[np.float64] = (axes_DD * np.sqrt(values_D.clip(0))) @ axes_DD.T
    return root
