"""How near made images come to real ones."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import fidelity
from components import images as pixels
from components.contract import Data

from .cases import images, one_thread  # noqa: F401

BARS = images("generation")


def seen(judge: fidelity.Judge, split: str, data: Data = BARS) -> torch.Tensor:
    return pixels.scaled(pixels.read(data.spec, data.splits[split]), judge.bounds)


def of(spec_classes: tuple[str, ...], target: str | None) -> Data:
    return Data(dataclasses.replace(BARS.spec, classes=spec_classes, target=target), BARS.splits)


@pytest.fixture(scope="module", params=["classes", "components"])
def judge(request: pytest.FixtureRequest) -> fidelity.Judge:
    return fidelity.judge(BARS if request.param == "classes" else of((), None))


def test_the_distance_of_normal_distributions_is_the_known_one() -> None:
    """Two sets of which means and covariances are known exactly, not sampled: Dowson & Landau 1982, in one dimension
    (m - n)² + (s - t)², and a rotated case where the covariances do not commute."""
    draw = np.random.default_rng(0)
    x_ND = draw.normal(size=(500, 3))
    x_ND = (x_ND - x_ND.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x_ND.T)).T)  # mean 0, covariance 1
    real, made = x_ND * [1, 2, 3] + [0, 0, 1], x_ND * [2, 2, 5] + [1, 0, 0]
    assert fidelity.frechet(real, made) == pytest.approx(1 + 1 + 1 + 4, rel=1e-9)
    a, b = draw.normal(size=(2, 3, 3))
    product = (a @ a.T) @ (b @ b.T)
    expected = np.trace(a @ a.T + b @ b.T) - 2 * np.sqrt(np.linalg.eigvals(product).real).sum()
    assert fidelity.frechet(x_ND @ a.T, x_ND @ b.T) == pytest.approx(expected, rel=1e-9)


def test_it_is_nothing_between_equals_and_few_rows_have_one() -> None:
    draw = np.random.default_rng(1)
    few_ND = draw.normal(size=(3, 8)).astype(np.float32)
    assert fidelity.frechet(few_ND, few_ND) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(fidelity.frechet(few_ND[:1], few_ND[1:2]))


def test_worse_images_lie_further_away(judge: fidelity.Judge) -> None:
    real = seen(judge, "test")
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand(real.shape, generator=draw)
    others = [real * 0.95 + 0.05 * noise, real * 0.8 + 0.2 * noise, real * 0.5 + 0.5 * noise, noise]
    distances = [fidelity.measure(fidelity.outcomes(judge, real, made), "test")["test/frechet"] for made in others]
    assert distances == sorted(distances) and distances[-1] > 5 * distances[0], distances


def test_classes_are_those_of_the_truth_and_their_spread_is_counted() -> None:
    judge = fidelity.judge(BARS)
    real, truth = seen(judge, "test"), np.array(BARS.splits["test"]["target"].to_pylist())
    names = np.array(BARS.spec.classes)[judge.classes(real)]
    assert (names == truth).mean() > 0.95
    upright, flat, steep = (real[torch.from_numpy(truth == name)][:1] for name in ("upright", "flat", "steep"))
    made = torch.cat([*[upright] * 6, *[flat] * 3, *[steep] * 2])
    found = fidelity.outcomes(judge, real[: len(made)], made)
    assert fidelity.measure(found, "test")["test/class_spread"] == 3
    some = {name: array[:9] for name, array in found.items()}
    assert fidelity.measure(some, "test")["test/class_spread"] == 9, "a class is missing: as many as there are rows"


def test_without_classes_there_are_components_and_no_figures_of_classes() -> None:
    judge = fidelity.judge(of((), None))
    real = seen(judge, "train")
    features_ND = judge.features(real)
    assert features_ND.shape == (len(real), fidelity.FEATURES)
    assert np.square(features_ND).sum(1).mean() == pytest.approx(fidelity.FEATURES, rel=0.02)
    covariance_DD = np.cov(features_ND.T)
    assert np.abs(covariance_DD - np.diag(np.diag(covariance_DD))).max() < 1e-3
    assert fidelity.measure(fidelity.outcomes(judge, real, real), "val").keys() == {"val/frechet"}
    with pytest.raises(ValueError, match="no classes"):
        judge.classes(real)


def test_a_judge_hangs_on_the_training_rows_alone(judge: fidelity.Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on what was drawn before, nor on the number of threads; and nothing outside notices that it is learnt."""
    data = BARS if judge.classifier else of((), None)
    before = judge.features(seen(judge, "test")).tobytes()
    monkeypatch.setattr(fidelity, "_known", {})
    torch.manual_seed(77)
    drawn = torch.random.get_rng_state()
    torch.set_num_threads(2)
    with torch.inference_mode():
        again = fidelity.judge(Data(data.spec, {**data.splits, "val": data.splits["val"].slice(0, 0)}))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert again is not judge and again.features(seen(again, "test")).tobytes() == before
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_what_other_threads_draw_meanwhile_changes_no_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelines that run together are threads of one process and share torch's global generator."""
    before = fidelity.judge(BARS).features(seen(fidelity.judge(BARS), "test")).tobytes()
    monkeypatch.setattr(fidelity, "_known", {})
    learnt, begun = threading.Event(), threading.Event()

    def draw() -> None:
        while not learnt.is_set():
            torch.rand(8)
            begun.set()

    other = threading.Thread(target=draw)
    other.start()
    try:
        assert begun.wait(60)
        again = fidelity.judge(BARS)
    finally:
        learnt.set()
        other.join()
    assert again.features(seen(again, "test")).tobytes() == before


def test_it_is_learnt_once_and_other_rows_have_another(monkeypatch: pytest.MonkeyPatch) -> None:
    data = of((), None)
    assert fidelity.judge(data) is fidelity.judge(data)
    fewer = Data(data.spec, {**data.splits, "train": data.splits["train"].slice(0, 50)})
    assert fidelity.judge(fewer) is not fidelity.judge(data)
    for rows in range(10, 10 + fidelity.KEPT):
        fidelity.judge(Data(data.spec, {**data.splits, "train": data.splits["train"].slice(0, rows)}))
    assert len(fidelity._known) == fidelity.KEPT


def test_large_images_are_shrunk_and_other_shapes_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "STEPS", 5)
    draw = np.random.default_rng(2)
    for shape in ((3, 50, 40), (3, 7)):
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(draw.normal(size=(20, *shape)).astype(np.float32))
        spec = dataclasses.replace(
            BARS.spec, columns=(dataclasses.replace(BARS.spec.columns[0], dtype="float32", shape=shape),)
        )
        rows = pa.table({"image": column, "target": BARS.splits["train"]["target"].slice(0, 20)})
        judge = fidelity.judge(Data(spec, {"train": rows}))
        features = judge.features(pixels.scaled(pixels.read(spec, rows), judge.bounds))
        assert features.shape == (20, fidelity.FEATURES) and np.isfinite(features).all()


def test_as_many_images_must_be_made_as_there_are_real_ones() -> None:
    judge = fidelity.judge(of((), None))
    with pytest.raises(ValueError, match="72 real images, but 71 made"):
        fidelity.outcomes(judge, seen(judge, "test"), seen(judge, "test")[1:])
