"""diffusion: images out of noise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.contract import Generative
from components.families.diffusion import Diffusion, denoised, schedule

from .cases import Case, images, one_thread  # noqa: F401

BARS = images("generation")
SMALL = {"width": 8, "batch_rows": 16, "passes": 2, "sampling_steps": 8, "average": 0.9, "lr": 4e-3, "horizon": 0}
HEART = {**SMALL, "passes": 60}
CASES = [Case("images", BARS, SMALL, HEART, reached=0.2, epochs=12, heart_epochs=20)]


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Diffusion().fit(BARS, SMALL, 0), 6)
    return Diffusion().load(BARS.spec, SMALL, epoch.state().served())


def test_image_and_noise_share_what_there_is() -> None:
    alpha, sigma = schedule(torch.linspace(0, 1, 50))
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(()))
    assert (alpha.diff(dim=0) < 0).all() and alpha[-1] < 1e-3 and 0 < sigma[0] < 0.02


def test_a_sampler_that_is_told_the_truth_comes_to_the_image() -> None:
    """With v as it truly is for one image, every path ends there, however few the steps."""
    image_CHW = torch.rand(1, 12, 12) * 2 - 1

    class Knowing(torch.nn.Module):
        settings = type("settings", (), {"sampling_steps": 4})

        def forward(self, z_BCHW: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
            alpha, sigma = schedule(t_B)
            return (alpha * z_BCHW - image_CHW) / sigma

    made = denoised(Knowing(), torch.randn(5, 1, 12, 12))  # type: ignore[arg-type]
    assert torch.allclose(made, image_CHW.expand_as(made), atol=1e-4)


def test_samples_hang_on_nothing_but_the_seed(net: Any) -> None:
    made = Diffusion().sample(net, 6, 3)
    torch.manual_seed(99)
    assert made.equals(Diffusion().sample(net, 6, 3)) and not made.equals(Diffusion().sample(net, 6, 4))
    assert made.schema.field("image").type == BARS.splits["train"].schema.field("image").type
    assert len(Diffusion().sample(net, 0, 3)) == 0
    assert isinstance(Diffusion(), Generative)


def test_what_is_unlike_the_training_images_is_harder_to_denoise(net: Any) -> None:
    test = BARS.splits["test"].combine_chunks().to_batches()[0].select(["image"])
    pixels = test["image"].to_numpy_ndarray()
    other = pa.record_batch({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(255 - pixels))})
    own, strange = (Diffusion().score(net, batch)["denoising_error"].to_numpy() for batch in (test, other))
    assert strange.min() > own.max()


def test_a_size_that_does_not_halve_twice_is_learnt_as_well() -> None:
    from components.contract import Column, Spec
    from components.families.diffusion import Net, Settings

    spec = Spec("odd", "generation", (Column("image", "tensor", "uint8", (3, 9, 14)),))
    odd = Net(spec, Settings(width=8))
    assert odd(torch.zeros(2, 3, 9, 14), torch.tensor([0.1, 0.9])).shape == (2, 3, 9, 14)
