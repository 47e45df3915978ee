"""gan: two nets that learn from each other."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.contract import SPLITS, Data, Generative
from components.errors import BadInput, ParamsError
from components.families.gan import Gan

from .cases import Case, bytes_of, images, one_thread, stored  # noqa: F401
from .cases import learnt as taught


def bars(dtype: str = "uint8", low: float = 0, high: float = 250) -> Data:
    """Bars with next to no noise behind them: a small generator makes none."""
    data = images("generation")
    splits = {}
    for split, rows in data.splits.items():
        shown = rows["image"].combine_chunks().to_numpy_ndarray() / 250
        pixels = (np.where(shown > 0.4, 1.0, shown / 10) * (high - low) + low).astype(dtype)
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
        splits[split] = rows.set_column(rows.schema.get_field_index("image"), "image", column)
    (column_spec,) = data.spec.columns
    return Data(dataclasses.replace(data.spec, columns=(dataclasses.replace(column_spec, dtype=dtype),)), splits)


BARS = bars()
SMALL = {"width": 16, "latent": 16, "batch_rows": 16, "passes": 2}
HINGE = {**SMALL, "lr": 1e-3}
WASSERSTEIN = {**SMALL, "loss": "wasserstein", "lr": 2e-3, "passes": 8}
# Sixteen images by heart: the distance of what is made from those alone, where independent pixels have about 85.
HEART = {**WASSERSTEIN, "augment": 0.0, "passes": 100}
CASES = [Case("wasserstein", BARS, WASSERSTEIN, HEART, reached=40.0, epochs=8, heart_epochs=12)]


def test_with_spectral_norm_going_on_is_exact_as_well() -> None:
    """Its power iteration has a state of its own, which moves with every look of the critic."""
    hyper = {**HINGE, "passes": 1, "critic_steps": 2}
    whole = taught("gan", BARS, hyper, 3)
    rest = taught("gan", BARS, hyper, 1, state=stored(whole[1][1]))
    assert bytes_of(rest[0][1]) == bytes_of(whole[2][1]) and rest[0][0].metrics == whole[2][0].metrics


def test_the_hinge_learns_a_batch_by_heart() -> None:
    data = Data(BARS.spec, dict.fromkeys(SPLITS, images("generation").splits["train"].slice(0, 16)))
    learning = Gan().fit(data, {**HINGE, "augment": 0.0, "passes": 100}, 1)
    assert any(epoch.metrics["val/frechet"] < 40 for epoch in itertools.islice(learning, 8))


def learnt(data: Data, hyper: Any, epochs: int = 1) -> tuple[Any, Any]:
    """The last epoch, and its net."""
    *_, epoch = itertools.islice(Gan().fit(data, hyper, 0), epochs)
    return epoch, Gan().load(data.spec, hyper, epoch.state().served())


def test_samples_are_rows_of_the_dataset_and_hang_on_nothing_but_the_seed() -> None:
    data = bars("float32", -3.0, 5.5)
    _, net = learnt(data, {**HINGE, "passes": 1})
    made = Gan().sample(net, 20, 3)
    torch.manual_seed(99)
    assert made.equals(Gan().sample(net, 20, 3)) and not made.equals(Gan().sample(net, 20, 4))
    assert made.schema.field("image").type == data.splits["train"].schema.field("image").type
    pixels = made["image"].to_numpy_ndarray()
    assert -3.0 <= pixels.min() < 0 < pixels.max() <= 5.5
    assert len(Gan().sample(net, 0, 3)) == 0
    assert isinstance(Gan(), Generative)


@pytest.mark.parametrize("hyper", [HINGE, WASSERSTEIN], ids=["hinge", "wasserstein"])
def test_each_net_is_taught_by_its_own_optimiser(hyper: Any) -> None:
    """The generator stays as it began while it has no step; the critic does not."""
    first, second = (
        learnt(BARS, {**hyper, "passes": 1, "critic_steps": steps})[0].state().tensors for steps in (1000, 1)
    )
    told = learnt(BARS, {**hyper, "passes": 1, "critic_steps": 1000})[0].metrics
    assert "train/generator_loss" not in told and "train/loss" in told
    name = (
        "net/generator/layers.0.weight" if "net/generator/layers.0.weight" in first else "net/generator.layers.0.weight"
    )
    assert not torch.equal(first[name], second[name])
    assert not any(key.startswith("optimizer/generator/") for key in first)
    assert any(key.startswith("optimizer/critic/") for key in first)
    assert any(key.startswith("optimizer/generator/") for key in second)


def test_what_is_served_is_the_average_and_not_the_last_generator() -> None:
    state = learnt(BARS, HINGE)[0].state()
    own, served = (state.tensors[f"{part}.layers.0.weight"] for part in ("net/generator", "model/generator"))
    assert torch.equal(served, state.tensors["average/layers.0.weight"]) and not torch.equal(served, own)


def test_the_gradient_penalty_keeps_the_critic_from_being_steep() -> None:
    losses = [learnt(BARS, {**WASSERSTEIN, "penalty": penalty}, 2)[0].metrics["train/loss"] for penalty in (0.0, 10.0)]
    assert losses[0] < 4 * losses[1] < 0, "without it the values of real and made ones fly apart"


def test_a_loss_that_is_none_is_refused() -> None:
    with pytest.raises(ParamsError, match="expected one of hinge, wasserstein"):
        next(Gan().fit(BARS, {"loss": "log"}, 0))


def test_pixels_that_are_not_finite_are_refused() -> None:
    data = bars("float32", -3.0, 5.5)
    _, net = learnt(data, {**HINGE, "passes": 1})
    broken = pa.FixedShapeTensorArray.from_numpy_ndarray(np.full((1, 1, 12, 12), np.nan, np.float32))
    with pytest.raises(BadInput, match="not finite"):
        Gan().score(net, pa.record_batch({"image": broken}))
