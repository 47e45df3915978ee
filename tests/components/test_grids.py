"""Images, series and rows of numbers read and scaled by one code."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import coders, distances, grids
from components.contract import Column, Spec
from components.errors import BadInput, DataError

from .cases import images, waves


def spec(shape: tuple[int, ...]) -> Spec:
    return Spec("some", "representation", (Column("x", "tensor", "float32", shape),))


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((28, 28), (1, 28, 28)),
        ((3, 8, 9), (3, 8, 9)),
        ((50,), (1, 50)),
        ((2, 24), (2, 24)),
        ((2, 2, 5, 5), (1, 100)),
    ],
)
def test_a_shape_is_channels_and_sides(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    assert grids.shape(spec(shape)) == wanted
    rows = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    batch = pa.record_batch({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(rows)})
    assert grids.read(spec(shape), batch).shape == (2, *wanted)


def test_pixels_are_scaled_to_their_range_and_channels_of_series_to_their_own_deviation() -> None:
    bars, slow = images("representation"), waves("representation")
    for data in (bars, slow):
        x_NCS = grids.read(data.spec, data.splits["train"])
        scale = grids.Scale(x_NCS.shape[1])
        scale.fit(data.spec, x_NCS)
        found = scale(x_NCS)
        if data is bars:
            assert torch.equal(found, x_NCS.float() / 255)
        else:
            each_CE = found.transpose(0, 1).flatten(1)
            assert each_CE.mean(1).abs().max() < 1e-4 and (each_CE.std(1) - 1).abs().max() < 1e-3
    with pytest.raises(BadInput, match="not finite"):
        scale(torch.full((1, 2, 24), torch.nan))


def test_what_is_no_grid_is_not_changed() -> None:
    torch.manual_seed(0)
    for shape, changes in (((8, 8), True), ((2, 24), True), ((2, 2, 5, 5), False)):
        x_BCS = torch.rand(3, *grids.shape(spec(shape)))
        assert torch.equal(grids.augmented(spec(shape), x_BCS, 1.0), x_BCS) != changes


def test_one_column_of_tensors_is_asked_for() -> None:
    two = Spec("two", "representation", (Column("x", "tensor", "float32", (4,)), Column("y", "number")))
    with pytest.raises(DataError, match="one column of tensors"):
        grids.column(two)


@pytest.mark.parametrize("net", coders.NETS)
@pytest.mark.parametrize("sides", [(9, 12), (5,), (1,)])
def test_a_decoder_gives_back_the_sides_that_its_encoder_took(net: str, sides: tuple[int, ...]) -> None:
    encoder, decoder = (part.eval() for part in coders.NETS[net](2, sides, 4, 3))
    x_BCS = torch.rand(5, 2, *sides)
    assert encoder(x_BCS).shape == (5, 3) and decoder(encoder(x_BCS)).shape == x_BCS.shape


def test_a_distance_is_one_for_rows_like_those_it_was_fitted_on_and_counts_in_their_deviations() -> None:
    torch.manual_seed(0)
    wide_NT = torch.randn(4000, 3) * torch.tensor([1.0, 10.0, 0.1]) + 5
    distance = distances.Mahalanobis(3)
    distance.fit(wide_NT, ridge=0.0)
    assert distance(wide_NT).mean() == pytest.approx(1, abs=0.01)
    away_BT = 5 + 6 * torch.diag(torch.tensor([1.0, 10.0, 0.1]))
    assert distance(away_BT) == pytest.approx([12, 12, 12], rel=0.1)
    distance.fit(wide_NT, ridge=1.0)
    assert distance(away_BT) == pytest.approx([6, 6, 6], rel=0.1)
