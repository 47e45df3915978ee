"""Training images are changed a little, each in its own way, and stay what they show."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.contract import Column, Spec
from components.images import augmented, bounds, moved, read, rows, scaled

X_BCHW = torch.rand(6, 2, 10, 14, generator=torch.Generator().manual_seed(0))


def test_no_augmentation_leaves_images_as_they_are() -> None:
    assert augmented(X_BCHW, 0.0, flip=False) is X_BCHW
    assert torch.allclose(augmented(X_BCHW, 1e-7, flip=False), X_BCHW, atol=1e-4)


def test_flips_mirror_some_images_and_leave_the_others() -> None:
    torch.manual_seed(0)
    seen = augmented(X_BCHW, 0.0, flip=True)
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(seen, X_BCHW, strict=True)]
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, X_BCHW, strict=True)]
    assert any(mirrored) and any(kept) and all(m or k for m, k in zip(mirrored, kept, strict=True))


def test_each_image_is_augmented_in_its_own_way_and_the_seed_says_which() -> None:
    same = X_BCHW[:1].expand(5, -1, -1, -1)
    torch.manual_seed(1)
    first = augmented(same, 1.0, flip=False)
    torch.manual_seed(1)
    assert torch.equal(augmented(same, 1.0, flip=False), first)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 5


def test_a_turn_does_not_stretch_an_image_that_is_not_square() -> None:
    """A bar that lies and one that stands keep their lengths to within what growing and shearing allow."""
    lying, standing = torch.zeros(300, 1, 40, 80), torch.zeros(300, 1, 40, 80)
    lying[:, :, 19:21, 30:50], standing[:, :, 10:30, 39:41] = 1.0, 1.0
    for image in (lying, standing):
        torch.manual_seed(0)
        seen = augmented(image, 1.0, flip=False)[:, 0]
        assert abs(seen.sum((1, 2)).mean() / 40 - 1) < 0.1
        y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
        mass = seen.sum((1, 2))
        middle = [(seen * axis).sum((1, 2)) / mass for axis in (y, x)]
        spread = sum(
            (seen * (axis - m[:, None, None]) ** 2).sum((1, 2)) / mass for axis, m in zip((y, x), middle, strict=True)
        )
        length = (12 * spread).sqrt()  # of a thin bar with this spread
        assert length.min() > 20 / 1.35 and length.max() < 20 * 1.35


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("shape", [(2, 5, 6), (5, 6)])
def test_images_become_the_rows_that_they_were_read_from(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 200, (7, *shape)).astype(dtype)
    batch = pa.record_batch({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(values)})
    spec = Spec("pixels", "generation", (Column("image", "tensor", dtype, shape),))
    raw = read(spec, batch)
    found = bounds(raw)
    back = rows(spec, scaled(raw, found), found)
    assert back.schema == batch.schema
    np.testing.assert_allclose(back["image"].to_numpy_ndarray(), values, atol=1e-4)
    assert len(rows(spec, scaled(raw, found)[:0], found)) == 0


def test_made_pixels_stay_within_the_bounds() -> None:
    spec = Spec("pixels", "generation", (Column("image", "tensor", "uint8", (1, 1, 3)),))
    made = rows(spec, torch.tensor([[[[-0.5, 0.5, 1.5]]]]), torch.tensor([0.0, 255.0]))
    assert made["image"].to_numpy_ndarray().ravel().tolist() == [0, 128, 255]


def test_images_move_by_whole_pixels_each_its_own_way() -> None:
    torch.manual_seed(0)
    x_BCHW = torch.ones(64, 1, 8, 8)
    kept_B = moved(x_BCHW, 0.25).flatten(1).sum(1)
    assert kept_B.min() >= 36 and len(kept_B.unique()) > 3, "two pixels at most in each direction"
    assert set(moved(x_BCHW, 0.25).unique().tolist()) == {0.0, 1.0}
    assert moved(x_BCHW, 0.0) is x_BCHW
