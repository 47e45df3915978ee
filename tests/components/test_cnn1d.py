"""cnn1d: series of any length in, classes out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import series
from components.contract import SPLITS, Column, Data, Spec
from components.errors import BadInput, DataError, ParamsError
from components.families.cnn1d import Block, Cnn1d, Net, Settings

from .cases import Case, evaluate, one_thread, parted, table, waves  # noqa: F401

HEART = {"width": 16, "weight_decay": 0.0, "average": 0.0, "augment": 0.0, "lr": 5e-3}
SMALL = {"width": 16, "average": 0.9, "lr": 5e-3, "batch_rows": 16}
WAVES = waves("classification")
CASES = [
    Case("fcn", WAVES, SMALL | {"whole": True}, HEART, reached=0.05),
    Case("resnet", WAVES, SMALL | {"net": "resnet", "mixup": 0.2}, HEART | {"net": "resnet"}, reached=0.05),
]


@pytest.fixture(scope="module")
def net() -> Any:
    *_, epoch = itertools.islice(Cnn1d().fit(WAVES, SMALL, 0), 12)
    return Cnn1d().load(WAVES.spec, SMALL, epoch.state().served())


def sizes(settings: Settings) -> list[tuple[int, int, int]]:
    """(channels in, channels out, kernel) of each convolution."""
    spec = Spec("d", "classification", (Column("x", "tensor", "float32", (1, 30)),), "y", ("a", "b"))
    convolutions = [m for m in Net(spec, ([0.0], [1.0]), settings).modules() if isinstance(m, torch.nn.Conv1d)]
    return [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions]


def test_the_nets_are_those_of_the_paper() -> None:
    assert sizes(Settings(net="fcn")) == [(1, 128, 8), (128, 256, 5), (256, 128, 3)]
    first = [(1, 64, 8), (64, 64, 5), (64, 64, 3), (1, 64, 1)]
    second = [(64, 128, 8), (128, 128, 5), (128, 128, 3), (64, 128, 1)]
    assert sizes(Settings(net="resnet")) == [*first, *second, (128, 128, 8), (128, 128, 5), (128, 128, 3)]
    assert Block(3, 8)(torch.zeros(2, 3, 11)).shape == (2, 8, 11)


def test_another_net_is_refused() -> None:
    with pytest.raises(ParamsError, match="setting 'net' got 'lstm', expected fcn or resnet"):
        next(Cnn1d().fit(WAVES, {"net": "lstm"}, 0))


def test_what_is_seen_does_not_depend_on_when_it_comes(net: Any) -> None:
    time_T = np.linspace(0, 1, 24)
    for at in (0.0, 0.3, 0.6, 0.9):
        wave = np.stack([np.sin(2 * np.pi * (4 * time_T + at)), 0 * time_T]).astype(np.float32) * 5 + 100
        batch = pa.record_batch({"series": pa.FixedShapeTensorArray.from_numpy_ndarray(wave.reshape(1, 2, 24))})
        assert Cnn1d().score(net, batch)["class"][0].as_py() == "fast"


@pytest.mark.parametrize(("shape", "dtype"), [((5,), "float64"), ((1, 2), "float32"), ((3, 40), "int16")])
def test_series_of_any_size_and_type_are_learnt(shape: tuple[int, ...], dtype: str) -> None:
    draw = np.random.default_rng(0)
    high_N = draw.random(60) < 0.5
    values = (draw.random((60, *shape)) * 100 + 100 * high_N.reshape(-1, *[1] * len(shape))).astype(dtype)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    spec = Spec("levels", "classification", (Column("x", "tensor", dtype, shape),), "high", ("false", "true"))
    data = parted(spec, pa.table({"x": column, "high": pa.array(high_N)}))
    *_, epoch = itertools.islice(Cnn1d().fit(data, {"width": 8, "average": 0.0, "augment": 0.0}, 0), 10)
    assert epoch.metrics["val/accuracy"] >= 0.9


def test_val_measures_the_same_net_whether_or_not_another_learns_from_it() -> None:
    alone, whole = (itertools.islice(Cnn1d().fit(WAVES, SMALL | {"whole": w}, 0), 2) for w in (False, True))
    for one, other in zip(alone, whole, strict=True):
        kept, own = one.state(), other.state()
        assert one.metrics == other.metrics
        assert all(
            kept.tensors[name].equal(own.tensors[name]) for name in kept.tensors if not name.startswith("model/")
        )
    every = pa.concat_tables([WAVES.splits["train"], WAVES.splits["val"]])
    assert own.scalars["model"]["scale"] == [list(x) for x in series.scale(series.read(WAVES.spec, every))]


# ── augmentation ────────────────────────────────────────────────────────────────────────────────────────


def test_augmented_series_stay_near_and_keep_their_ends() -> None:
    torch.manual_seed(0)
    slope_BCT = torch.linspace(-1, 1, 50).repeat(200, 2, 1)
    assert series.augmented(slope_BCT, 0.0) is slope_BCT
    for strength in (0.5, 1.0):
        moved_BCT = series.augmented(slope_BCT, strength)
        assert moved_BCT.shape == slope_BCT.shape and not moved_BCT.equal(slope_BCT)
        assert (moved_BCT - slope_BCT).abs().max() < 0.7 * strength
        assert (moved_BCT[:, 0, 0] + 1).abs().max() < 0.45 * strength
    smooth_BT = series.augmented(slope_BCT, 1.0).mean(1)
    assert (smooth_BT[:, 10:] - smooth_BT[:, :-10]).min() > 0, "time never runs backwards"


def test_mixtures_are_mostly_of_the_series_itself() -> None:
    torch.manual_seed(0)
    x_BCT = torch.randn(64, 1, 5)
    same_BCT, _, share_B = series.mixed(x_BCT, 0.0)
    assert same_BCT is x_BCT and share_B.eq(1).all()
    mixed_BCT, other_B, share_B = series.mixed(x_BCT, 0.2)
    assert share_B.min() >= 0.5 and share_B.min() < 0.9
    share_B11 = share_B[:, None, None]
    torch.testing.assert_close(mixed_BCT, x_BCT * share_B11 + x_BCT[other_B] * (1 - share_B11))


# ── what it refuses ─────────────────────────────────────────────────────────────────────────────────────


def test_tables_are_for_another_family() -> None:
    with pytest.raises(DataError, match=r"takes one column of series(.|\n)*name its columns by `series`"):
        next(Cnn1d().fit(table("classification"), {}, 0))


def test_series_of_another_length_and_gaps_are_named(net: Any) -> None:
    other = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 2, 23), np.float32))
    with pytest.raises(BadInput, match="expected tensors of shape 2×24"):
        Cnn1d().score(net, pa.record_batch({"series": other}))
    gap = np.zeros((2, 2, 24), np.float32)
    gap[1, 0, 3] = np.nan
    with pytest.raises(BadInput, match="values that are not finite"):
        Cnn1d().score(net, pa.record_batch({"series": pa.FixedShapeTensorArray.from_numpy_ndarray(gap)}))


def test_a_channel_of_one_value_does_no_harm() -> None:
    flat = np.full((60, 2, 8), 3.0, np.float32)
    flat[:, 0] = np.random.default_rng(0).normal(size=(60, 8))
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(flat)
    high = pa.array((flat[:, 0].mean(1) > 0).astype(str))
    spec = Spec("d", "classification", (Column("x", "tensor", "float32", (2, 8)),), "high", ("False", "True"))
    data = Data(spec, dict.fromkeys(SPLITS, pa.table({"x": column, "high": high})))
    epoch = next(Cnn1d().fit(data, {"width": 4}, 0))
    assert np.isfinite(list(epoch.metrics.values())).all()
    net = Cnn1d().load(spec, {"width": 4}, epoch.state().served())
    assert np.isfinite(list(evaluate(Cnn1d(), net, data, "test").values())).all()
