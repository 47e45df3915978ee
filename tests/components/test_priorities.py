"""A memory that draws what the net was wrong about more often."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.contract import State
from components.priorities import BLOCK_ROWS, SMALLEST, Prioritised

CPU = torch.device("cpu")


def _memory(size: int, filled: int, alpha: float = 1.0, beta: float = 1.0) -> Prioritised:
    """Whose rows' rewards are their numbers."""
    memory = Prioritised(size, 1, torch.zeros((), dtype=torch.int64), alpha, beta, corrected_by=1000)
    for number in range(filled):
        memory.add(before=[number], action=0, reward=number, discount=1.0, after=[number])
    return memory


def _wrong(memory: Prioritised, errors: dict[int, float]) -> None:
    memory.learnt({"row": torch.tensor(list(errors))}, torch.tensor(list(errors.values())))


def test_rows_are_drawn_as_often_as_their_errors_to_the_power_alpha_say() -> None:
    memory, rows = _memory(5000, 3000, alpha=0.5), 3000
    errors = np.linspace(-4, 4, rows)
    _wrong(memory, dict(enumerate(errors.tolist())))
    generator, counts = np.random.default_rng(0), np.zeros(rows)
    for _ in range(60):
        batch = memory.sample(1000, generator, CPU)
        assert torch.equal(batch["reward"].long(), batch["row"])
        np.add.at(counts, batch["row"].numpy(), 1)
    wanted = (np.abs(errors) + SMALLEST) ** 0.5
    groups = np.array_split(np.arange(rows), 30)
    told = [counts[group].sum() / counts.sum() for group in groups]
    np.testing.assert_allclose(told, [wanted[group].sum() / wanted.sum() for group in groups], rtol=0.04)


def test_the_correction_undoes_it() -> None:
    """With beta 1 a mean over drawn rows, weighted, is the mean over all."""
    memory = _memory(600, 600)
    _wrong(memory, {row: 1.0 + row % 7 for row in range(600)})
    batch = memory.sample(20_000, np.random.default_rng(0), CPU)
    weight = batch["weight"].double()
    assert float(weight.max()) == 1.0 and float(weight.min()) == pytest.approx(1 / 7, rel=1e-3)
    assert float((weight * batch["reward"]).sum() / weight.sum()) == pytest.approx(299.5, rel=0.01)
    assert float(batch["reward"].mean()) != pytest.approx(299.5, rel=0.001)


def test_the_corrections_exponent_grows_to_one() -> None:
    memory = _memory(600, 500, beta=0.5)
    _wrong(memory, {row: 4.0 if row else 1.0 for row in range(500)})
    assert float(memory.sample(4000, np.random.default_rng(0), CPU)["weight"].min()) == pytest.approx(
        4**-0.75, rel=1e-4
    )


def test_a_new_row_is_drawn_as_the_one_with_the_largest_error() -> None:
    memory = _memory(300, 299)
    _wrong(memory, dict.fromkeys(range(299), 0.001) | {5: 50.0})
    memory.add(before=[0], action=0, reward=-1.0, discount=0.0, after=[0])
    drawn = memory.sample(1000, np.random.default_rng(0), CPU)["row"]
    assert 480 < int((drawn == 299).sum()) < 520 and 480 < int((drawn == 5).sum()) < 520


def test_a_row_that_gives_way_takes_its_chance_with_it() -> None:
    memory = _memory(BLOCK_ROWS + 3, BLOCK_ROWS + 3)
    _wrong(memory, dict.fromkeys(range(BLOCK_ROWS + 3), 1e-09) | {0: 1.0, BLOCK_ROWS: 1.0})
    memory.add(before=[0], action=0, reward=-7.0, discount=0.0, after=[0])
    _wrong(memory, {0: 0.0})
    drawn = memory.sample(50, np.random.default_rng(1), CPU)
    assert set(drawn["row"].tolist()) == {BLOCK_ROWS}
    assert float(memory.rows["reward"][0]) == -7.0


@pytest.mark.parametrize("filled", [1, BLOCK_ROWS, BLOCK_ROWS + 1, 1000])
def test_only_what_is_filled_is_drawn(filled: int) -> None:
    memory = _memory(1000, filled)
    assert int(memory.sample(5000, np.random.default_rng(0), CPU)["row"].max()) == filled - 1


def test_a_filled_memory_goes_on_as_it_was_bit_for_bit() -> None:
    memory, again = _memory(700, 900, alpha=0.6), _memory(700, 0, alpha=0.6)
    draw = np.random.default_rng(5)
    for _ in range(20):
        batch = memory.sample(64, draw, CPU)
        memory.learnt(batch, torch.from_numpy(draw.normal(size=64)))
    again.fill(State({name: tensor.clone() for name, tensor in memory.filled().items()}), memory.added)
    for each in (memory, again):
        each.add(before=[3], action=1, reward=0.5, discount=0.5, after=[4])
    one, other = (each.sample(64, np.random.default_rng(6), CPU) for each in (memory, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(tensor, again.filled()[name]) for name, tensor in memory.filled().items())
