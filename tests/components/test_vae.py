"""vae: images in, how likely they are out, and new ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import fidelity
from components.contract import Data
from components.errors import BadInput, ParamsError
from components.families import vae
from components.families.vae import Vae

from .cases import Case, evaluate, images, one_thread  # noqa: F401

BARS = images("generation")
SMALL = {"width": 8, "hidden": 64, "code": 6, "batch_rows": 16, "draws": 16, "val_draws": 4, "average": 0.9}
SMALL |= {"augment": 0.1, "lr": 1e-2, "beta": 1.0, "horizon": 0}
HEART = {**SMALL, "augment": 0.0, "weight_decay": 0.0, "beta": 0.1, "average": 0.0, "lr": 5e-3}
CASES = [Case("images", BARS, SMALL, HEART, reached=60.0, epochs=20)]


def learnt(data: Data = BARS, hyper: Any = SMALL, epochs: int = 20) -> Any:
    *_, epoch = itertools.islice(Vae().fit(data, hyper, 0), epochs)
    return Vae().load(data.spec, hyper, epoch.state().served())


@pytest.fixture(scope="module")
def net() -> Any:
    return learnt(epochs=40)


def inputs(split: str = "test", rows: int | None = None) -> pa.RecordBatch:
    return BARS.splits[split].select(["image"]).combine_chunks().to_batches()[0].slice(0, rows)


# ── the bound ───────────────────────────────────────────────────────────────────────────────────────────


class Linear(torch.nn.Module):
    """p(x): a code of one element says with what chance all pixels are white. Its likelihood is an integral over the
    code, which can be worked out by adding up."""

    def forward(self, z_BZ: torch.Tensor) -> torch.Tensor:
        return z_BZ.reshape(-1, 1, 1, 1).expand(-1, 1, 12, 12)


def test_the_bound_nears_the_likelihood_from_below(net: Any) -> None:
    """With many draws it is the integral's own value; with one, the evidence lower bound, it lies below."""
    settings = dataclasses.replace(net.settings, code=1)
    small = vae.Net(BARS.spec, settings)
    small.decoder = Linear()
    last = small.encoder[-1]
    torch.nn.init.zeros_(last.weight)  # q(z|x) is a normal distribution that is somewhat off
    last.bias.data = torch.tensor([-2.0, -0.5])
    rows = inputs("test", 20)
    z_M = np.linspace(-8, 8, 4001)
    white_N = np.array([float(vae._drawn(torch.from_numpy(x), 0)[0].sum()) for x in _grey(rows)])
    inside_NM = white_N[:, None] * z_M - 144 * np.log1p(np.exp(z_M)) - z_M**2 / 2 - np.log(2 * np.pi) / 2
    peak_N = inside_NM.max(1)
    truth_N = peak_N + np.log(np.exp(inside_NM - peak_N[:, None]).sum(1) * (z_M[1] - z_M[0]))
    bounds = {draws: vae._bounds(small, rows, draws).mean() for draws in (1, 8, 4096)}
    assert bounds[1] < bounds[8] < bounds[4096] < truth_N.mean() + 0.1
    assert bounds[4096] == pytest.approx(truth_N.mean(), abs=0.1)
    assert truth_N.mean() - bounds[1] > 0.3


def _grey(rows: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.float32]]:
    found: np.ndarray[Any, np.dtype[np.float32]] = rows["image"].to_numpy_ndarray().astype(np.float32) / 255
    return found


def test_a_row_is_binarised_by_its_grey_values_and_always_alike() -> None:
    grey = torch.full((1, 50, 50), 0.3)
    (white, normals), (again, _) = vae._drawn(grey, 5000), vae._drawn(grey.clone(), 5)
    assert set(white.unique().tolist()) == {0.0, 1.0} and float(white.mean()) == pytest.approx(0.3, abs=0.04)
    assert torch.equal(white, again)
    assert normals.mean() == pytest.approx(0, abs=0.05) and normals.std() == pytest.approx(1, abs=0.05)
    other = torch.cat([grey[:, :-1], grey[:, :1] + 0.001], 1)
    assert not torch.equal(vae._drawn(other, 0)[0], white), "another image has other draws"


def test_scores_are_the_bound_and_what_is_odd_has_a_low_one(net: Any) -> None:
    out = Vae().score(net, inputs())
    measured = evaluate(Vae(), net, BARS, "test")
    assert -out["log_likelihood"].to_numpy().mean() == pytest.approx(measured["test/nll"], rel=1e-5)
    assert out["reconstruction_error"].to_numpy().mean() == pytest.approx(measured["test/mse"], rel=1e-5)
    assert measured["test/nll"] < measured["test/elbo_nll"]
    turned = 255 - inputs()["image"].to_numpy_ndarray()
    odd = pa.record_batch({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(turned)})
    for column, sign in (("log_likelihood", -1), ("reconstruction_error", 1)):
        usual, strange = out[column].to_numpy() * sign, Vae().score(net, odd)[column].to_numpy() * sign
        assert strange.min() > usual.max(), column


def test_the_baseline_is_the_chance_of_each_pixel_alone() -> None:
    """On images of one pixel, white in a quarter of the training rows and in all val rows."""
    pixels = {"train": [255, 0, 0, 0] * 10, "val": [255] * 8, "test": [0] * 8}
    column = dataclasses.replace(BARS.spec.columns[0], shape=(1, 1, 1))
    splits = {
        split: pa.table(
            {"image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(v, np.uint8).reshape(-1, 1, 1, 1))}
        )
        for split, v in pixels.items()
    }
    data = Data(dataclasses.replace(BARS.spec, columns=(column,), classes=(), target=None), splits)
    white = 11 / 42
    assert Vae().baseline(data, "val", {})["val/nll"] == pytest.approx(-math.log(white))
    assert Vae().baseline(data, "test", {})["test/nll"] == pytest.approx(-math.log(1 - white))


# ── what it makes ───────────────────────────────────────────────────────────────────────────────────────


def test_samples_are_like_real_rows_and_what_is_measured_is_them(net: Any) -> None:
    made, real = Vae().sample(net, 72, 0), BARS.splits["test"].combine_chunks()
    mean, wanted = (_grey(rows).mean(0) for rows in (made, BARS.splits["train"].combine_chunks().to_batches()[0]))
    assert np.corrcoef(mean.ravel(), wanted.ravel())[0, 1] > 0.8
    judge, measured = fidelity.judge(BARS), evaluate(Vae(), net, BARS, "test")
    features = [judge.features(torch.from_numpy(_grey(rows))) for rows in (real.to_batches()[0], made)]
    assert measured["test/frechet"] == pytest.approx(fidelity.frechet(*features), rel=0.02)  # whole grey values
    assert 1 <= measured["test/class_spread"] <= 72


def test_beta_weighs_the_divergence(net: Any) -> None:
    """The more it weighs, the nearer the codes' distributions lie to the prior."""

    def divergence(beta: float) -> float:
        made = learnt(hyper={**SMALL, "beta": beta})
        x = torch.from_numpy(_grey(inputs("train")))
        torch.manual_seed(0)
        with torch.inference_mode():
            return float(made((x > 0.5).float())[1].mean())

    assert divergence(4.0) < 0.7 * divergence(0.25)


def recast(dtype: str, change: Any) -> Data:
    """The bars with other pixels: `change` of them, in `dtype`."""
    splits = {}
    for split, rows in BARS.splits.items():
        pixels = change(rows["image"].combine_chunks().to_numpy_ndarray().astype(np.float64)).astype(dtype)
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
        splits[split] = rows.set_column(rows.schema.get_field_index("image"), "image", column)
    (column_spec,) = BARS.spec.columns
    return Data(dataclasses.replace(BARS.spec, columns=(dataclasses.replace(column_spec, dtype=dtype),)), splits)


def test_pixels_of_any_range_are_made_in_that_range() -> None:
    data = recast("float32", lambda x: x / 2 - 40)
    net = learnt(data, epochs=20)
    made = Vae().sample(net, 30, 0)["image"].to_numpy_ndarray()
    assert made.dtype == np.float32 and made.shape == (30, 1, 12, 12)
    assert -40 <= made.min() < -30 and 40 < made.max() <= 85
    assert evaluate(Vae(), net, data, "test")["test/nll"] < Vae().baseline(data, "test", {})["test/nll"]
    broken = pa.FixedShapeTensorArray.from_numpy_ndarray(np.full((1, 1, 12, 12), np.nan, np.float32))
    with pytest.raises(BadInput, match="not finite"):
        Vae().score(net, pa.record_batch({"image": broken}))


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ParamsError, match="unknown setting 'gamma'"):
        next(Vae().fit(BARS, {"gamma": 1.0}, 0))
