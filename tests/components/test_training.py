"""The shared loop: what it keeps, and that going on is the same as never having stopped."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from components import devices, training
from components.contract import Epoch, Metrics, Objective, State
from components.states import pack, unpack
from components.training import Lesson, learn

X_ND = torch.randn(96, 5, generator=torch.Generator().manual_seed(1))
Y_N = (X_ND[:, 0] * X_ND[:, 1] > 0).long()


def lesson(lr: float = 0.01, **changes: Any) -> Lesson:
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def loss(rows_B: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(net(X_ND[rows_B]), Y_N[rows_B])

    def evaluate(served: nn.Module) -> Metrics:
        with torch.inference_mode():
            return {"val/loss": float(nn.functional.cross_entropy(served(X_ND), Y_N))}

    made: dict[str, Any] = {
        "net": net,
        "optimizer": training.adam(net.parameters(), lr, 0.01),
        "rows": len(X_ND),
        "batch_rows": 20,
        "loss": loss,
        "evaluate": evaluate,
        "objective": Objective("loss", "min"),
        **changes,
    }
    return Lesson(**made)


def epochs(made: Lesson, count: int, seed: int = 3, state: State | None = None) -> list[tuple[Epoch, State]]:
    return [(epoch, epoch.state()) for epoch in itertools.islice(learn(made, seed, state), count)]


def same(a: State, b: State) -> bool:
    tensors = a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
    return tensors and a.scalars == b.scalars


FEATURES: list[dict[str, Any]] = [{}, {"average": 0.9}, {"clip": 0.1, "schedule": training.cosine(3)}]


@pytest.mark.parametrize("features", [*FEATURES, {"average": 0.9, "whole": {"average": 0.9, "lr": 0.05}}])
def test_going_on_equals_never_stopping(features: dict[str, Any]) -> None:
    def fresh() -> Lesson:
        return lesson(**features | ({"whole": lesson(**features["whole"])} if "whole" in features else {}))

    whole = epochs(fresh(), 5)
    for stop in (1, 3):
        rest = epochs(fresh(), 5 - stop, state=whole[stop - 1][1])
        assert [e.number for e, _ in rest] == list(range(stop + 1, 6))
        assert all(same(a[1], b[1]) and a[0].metrics == b[0].metrics for a, b in zip(whole[stop:], rest, strict=True))


class Table(nn.Module):
    """A vector for each two rows, of which a batch touches some."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.table, self.last = nn.Embedding(48, 4, sparse=True), nn.Linear(4, 2)

    def forward(self, rows_B: torch.Tensor) -> torch.Tensor:
        y_BK: torch.Tensor = self.last(self.table(rows_B // 2))
        return y_BK


def sparse(**changes: Any) -> Lesson:
    net = Table()
    dense, tables = training.parted(net)

    def evaluate(served: nn.Module) -> Metrics:
        with torch.inference_mode():
            return {"val/loss": float(nn.functional.cross_entropy(served(torch.arange(96)), Y_N))}

    return lesson(
        net=net,
        optimizer=training.adam(dense, 0.01),
        sparse=torch.optim.SparseAdam(tables, lr=0.05),
        loss=lambda rows_B: nn.functional.cross_entropy(net(rows_B), Y_N[rows_B]),
        evaluate=evaluate,
        **changes,
    )


@pytest.mark.parametrize("features", FEATURES)
def test_tables_of_which_few_rows_are_touched_learn_and_go_on_exactly(features: dict[str, Any]) -> None:
    whole = epochs(sparse(**features), 5)
    rest = epochs(sparse(**features), 3, state=whole[1][1])
    assert all(same(a[1], b[1]) and a[0].metrics == b[0].metrics for a, b in zip(whole[2:], rest, strict=True))
    first, last = (whole[at][1].tensors["net/table.weight"] for at in (0, 4))
    assert (first != last).any(1).all(), "every row is touched by some batch"
    assert isinstance(whole[0][1].tensors["sparse/0/exp_avg"], torch.Tensor)


def test_of_a_whole_the_net_of_the_lowest_training_loss_is_served_and_the_rest_is_as_without_it() -> None:
    alone, whole = epochs(lesson(), 6), epochs(lesson(lr=0.3, rows=60), 6)
    both = epochs(lesson(whole=lesson(lr=0.3, rows=60, fitted=lambda _: "of the whole")), 6)
    assert [e.metrics for e, _ in both] == [e.metrics for e, _ in alone]
    losses = [e.metrics["train/loss"] for e, _ in whole]
    for number, (_, state) in enumerate(both, 1):
        best = losses.index(min(losses[:number]))
        served, own = state.served(), whole[best][1]
        assert served.scalars == {"model": "of the whole"}
        for name, tensor in served.tensors.items():
            assert tensor.equal(own.tensors[name.replace("model/", "net/")]), (number, name)
    assert len({losses.index(min(losses[:number])) for number in range(1, 7)}) > 1


def test_two_lessons_interleaved_in_one_process_do_not_disturb_each_other() -> None:
    alone = epochs(lesson(), 3)
    first, second = learn(lesson(), 3), learn(lesson(lr=0.1), 4)
    for (_, state), epoch, _ in zip(alone, first, second, strict=False):
        assert same(state, epoch.state())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_learns_and_goes_on_exactly(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(devices, "precision", lambda _: dtype)
    whole = epochs(lesson(clip=1.0), 6)
    assert whole[0][0].metrics != epochs(lesson(clip=1.0), 1, seed=4)[0][0].metrics
    assert whole[-1][0].metrics["train/loss"] < whole[0][0].metrics["train/loss"]
    assert bool(whole[2][1].scalars["scaler"]) == (dtype == torch.float16)
    assert same(epochs(lesson(clip=1.0), 3, state=whole[2][1])[-1][1], whole[-1][1])


def test_the_learning_rate_comes_from_the_settings_not_from_the_state() -> None:
    state = epochs(lesson(lr=0.01), 1)[0][1]
    made = lesson(lr=0.5, schedule=training.cosine(100))
    epochs(made, 1, state=state)
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("decay", "groups"), [(0.0, 1), (0.1, 2)])
def test_parameters_are_numbered_alike_whether_they_are_one_group_or_two(decay: float, groups: int) -> None:
    """So a State of two groups is gone on from in one, and to the same bits as by plain AdamW in two."""

    def made(ours: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        if ours:
            return net, training.adam(net.parameters(), 0.01, decay)
        parts = [[p for p in net.parameters() if (p.ndim > 1) == wide] for wide in (True, False)]
        told = [{"params": part, "weight_decay": own} for part, own in zip(parts, (decay, 0.0), strict=True)]
        return net, torch.optim.AdamW(told, lr=0.01, fused=True)

    def stepped(net: nn.Module, optimizer: torch.optim.Optimizer, times: int) -> State:
        for _ in range(times):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X_ND), Y_N).backward()
            optimizer.step()
        return pack({"net": net, "optimizer": optimizer})

    (plain, its), (net, optimizer) = made(False), made(True)
    unpack(stepped(plain, its, 2), {"net": net, "optimizer": optimizer})
    assert len(optimizer.param_groups) == groups
    assert same(stepped(net, optimizer, 2), stepped(plain, its, 2))


def test_the_cosine_falls_to_its_floor_and_stays() -> None:
    factor = training.cosine(4, floor=0.1)
    assert [factor(e) for e in (0, 2, 4, 9)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert training.cosine(0)(7) == 1


def test_the_served_weights_are_those_of_the_best_epoch() -> None:
    values = iter([3.0, 1.0, 2.0, float("nan"), 1.0])
    seen = epochs(lesson(evaluate=lambda _: {"val/loss": next(values)}, fitted=lambda _: {"note": "kept"}), 5)
    best = seen[1][1]
    for _, state in seen[1:]:
        assert all(torch.equal(state.tensors[k], best.tensors[k]) for k in best.served().tensors)
    assert torch.equal(best.tensors["model/0.weight"], best.tensors["net/0.weight"])
    assert not torch.equal(seen[4][1].tensors["model/0.weight"], seen[4][1].tensors["net/0.weight"])
    assert seen[4][1].served().scalars == {"model": {"note": "kept"}}


def test_a_first_epoch_without_a_number_is_served_until_a_better_one_comes() -> None:
    values = iter([float("nan"), 5.0])
    (_, first), (_, second) = epochs(lesson(evaluate=lambda _: {"val/loss": next(values)}), 2)
    assert torch.equal(first.tensors["model/0.weight"], first.tensors["net/0.weight"])
    assert torch.equal(second.tensors["model/0.weight"], second.tensors["net/0.weight"])
    assert not torch.equal(first.tensors["model/0.weight"], second.tensors["model/0.weight"])


def test_so_is_that_of_a_whole() -> None:
    missing = torch.tensor([float("nan")])
    made = lesson(rows=60)
    steps = itertools.count()
    loss = made.loss
    torn = dataclasses.replace(made, loss=lambda rows_B: loss(rows_B) + (missing.sum() * 0 if next(steps) == 0 else 0))
    (_, first), (_, second) = epochs(lesson(whole=torn), 2)
    assert first.scalars["progress"]["best"] == "nan" != second.scalars["progress"]["best"]


def test_the_average_is_what_is_evaluated_and_served() -> None:
    judged: list[torch.Tensor] = []

    def evaluate(served: nn.Module) -> Metrics:
        judged.append(next(served.parameters()).clone())
        return {"val/loss": -len(judged)}

    state = epochs(lesson(average=0.99, evaluate=evaluate), 3)[-1][1]
    assert torch.equal(state.tensors["model/0.weight"], judged[-1])
    assert not torch.equal(state.tensors["net/0.weight"], judged[-1])


def test_a_state_asked_for_too_late_is_an_error() -> None:
    learning = learn(lesson(), 0)
    late = next(learning)
    next(learning)
    with pytest.raises(RuntimeError, match="state of epoch 1 is gone"):
        late.state()


def test_no_row_is_left_out_and_no_batch_is_of_one_row() -> None:
    seen: list[int] = []
    made = lesson()

    def loss(rows_B: torch.Tensor) -> torch.Tensor:
        seen.extend(rows_B.tolist())
        assert len(rows_B) > 1
        return made.net(X_ND[rows_B]).square().mean()

    watched = Lesson(made.net, made.optimizer, 96, 19, loss, made.evaluate, made.objective)
    epochs(watched, 1)
    assert sorted(seen) == list(range(96))


# ── memory that runs out ────────────────────────────────────────────────────────────────────────────────


def crowded(fits: int, **changes: Any) -> tuple[Lesson, list[int]]:
    """A lesson on a device that holds so many rows at once, and the sizes of the batches that were tried. Without
    dropout and batch norm, of which halves make something else."""
    torch.manual_seed(7)
    net, tried = nn.Linear(5, 2), list[int]()

    def loss(rows_B: torch.Tensor) -> torch.Tensor:
        tried.append(len(rows_B))
        if len(rows_B) > fits:
            raise torch.OutOfMemoryError("faked")
        return nn.functional.cross_entropy(net(X_ND[rows_B % 96]), Y_N[rows_B % 96])

    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    return lesson(**{"net": net, "optimizer": optimizer, "loss": loss, "batch_rows": 24, **changes}), tried


def test_a_batch_that_does_not_fit_is_learnt_in_two_halves_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    (plain, _), (halved, tried) = crowded(24), crowded(12)
    (one, state), (two, halved_state) = epochs(plain, 2)[-1], epochs(halved, 2)[-1]
    assert tried == [24] + [12, 12] * 8, "the whole is tried once"
    for name in state.tensors:
        torch.testing.assert_close(halved_state.tensors[name], state.tensors[name])
    assert two.metrics["train/loss"] == pytest.approx(one.metrics["train/loss"])
    assert two.metrics["train/micro_batches"] == 2 and "train/micro_batches" not in one.metrics
    assert [r.message for r in caplog.records] == [
        "out of memory with a batch of 24 rows: each batch is learnt in 2 parts from here on"
    ]


def test_halves_are_still_halves_after_a_resume() -> None:
    whole = epochs(crowded(12)[0], 4)
    made, tried = crowded(12)
    rest = epochs(made, 2, state=whole[1][1])
    assert tried == [12, 12] * 8
    assert all(same(a[1], b[1]) and a[0].metrics == b[0].metrics for a, b in zip(whole[2:], rest, strict=True))
    assert "micro_batches" not in epochs(crowded(24)[0], 1)[0][1].scalars["progress"], "states are as they were"


def test_half_a_batch_that_does_not_fit_ends_the_trial() -> None:
    with pytest.raises(torch.OutOfMemoryError) as raised:
        epochs(crowded(6)[0], 1)
    assert raised.value.__notes__ == ["a batch of 24 rows does not fit in 2 parts: give settings a smaller batch"]


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────


def test_batches_of_ones_own_are_resumed_bit_for_bit() -> None:
    def batches(batch_rows: int) -> training.Drawing:
        assert batch_rows == 20

        def drawn(generator: Any, _: int) -> list[Any]:
            order = generator.permutation(96)
            return [order[:10], order[10:50], order[50:]]

        return drawn

    whole = epochs(lesson(batches=batches), 4)
    rest = epochs(lesson(batches=batches), 2, state=whole[1][1])
    assert all(same(a[1], b[1]) for a, b in zip(whole[2:], rest, strict=True))
    assert not same(whole[0][1], epochs(lesson(), 1)[0][1])


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes four batches as one."""
    monkeypatch.setattr(devices, "batch_factor", lambda _: 4)


def sizes(made: Lesson) -> list[int]:
    """Of the batches of its first epoch."""
    seen: list[int] = []

    def loss(rows_B: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows_B))
        return made.loss(rows_B)

    epochs(dataclasses.replace(made, loss=loss), 1)
    return seen


@pytest.mark.usefixtures("wide")
def test_on_a_wide_device_a_batch_is_larger_and_the_learning_rate_goes_with_its_root(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tidemill")
    made = lesson(lr=0.01, rows=4000, batch_rows=20, loss=lambda _: made.net(X_ND).square().mean())
    (epoch, _), *_ = epochs(made, 1)
    assert epoch.metrics["train/batch_rows"] == 80 and epoch.metrics["train/lr_factor"] == 2
    assert [group["lr"] for group in made.optimizer.param_groups] == [0.02, 0.02]
    assert [group["weight_decay"] for group in made.optimizer.param_groups] == [0.02, 0.0]
    assert [r.message for r in caplog.records] == [
        "batches of 80 rows on this device instead of 20, learning rate × 2.00"
    ]
    again = lesson(rows=4000, batch_rows=20, loss=lambda _: again.net(X_ND).square().mean())
    assert sizes(again) == [80] * 50


@pytest.mark.usefixtures("wide")
def test_an_epoch_keeps_its_steps_on_a_wide_device() -> None:
    assert sizes(lesson(batch_rows=2)) == [4] * 24, "96 rows: 20 steps of 4 at least, not 12 of 8"
    few = epochs(lesson(batch_rows=20), 1)[0]
    assert "train/batch_rows" not in few[0].metrics and sizes(lesson(batch_rows=20)) == [20, 19, 19, 19, 19]


@pytest.mark.usefixtures("wide")
def test_a_drawing_of_ones_own_is_asked_for_larger_batches() -> None:
    assert sizes(lesson(batch_rows=2, batches=lambda rows: training.at_random(96, rows))) == [4] * 24


def test_where_nothing_scales_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = epochs(lesson(batch_rows=2, average=0.9), 2)
    monkeypatch.setattr(devices, "batch_factor", lambda _: 4)
    scaled = epochs(lesson(batch_rows=2, average=0.9), 2)
    monkeypatch.setattr(devices, "batch_factor", lambda _: 1)
    again = epochs(lesson(batch_rows=2, average=0.9), 2)
    assert all(same(a[1], b[1]) and a[0].metrics == b[0].metrics for a, b in zip(plain, again, strict=True))
    assert not same(plain[0][1], scaled[0][1])


@pytest.mark.usefixtures("wide")
def test_going_on_is_exact_on_a_wide_device_too() -> None:
    def fresh() -> Lesson:
        return lesson(batch_rows=2, average=0.9, schedule=training.cosine(3), whole=lesson(batch_rows=2, average=0.9))

    whole = epochs(fresh(), 4)
    rest = epochs(fresh(), 2, state=whole[1][1])
    assert all(same(a[1], b[1]) and a[0].metrics == b[0].metrics for a, b in zip(whole[2:], rest, strict=True))


@pytest.mark.parametrize(("fits", "parts"), [(80, 1), (40, 2), (20, 4), (10, 8)])
@pytest.mark.usefixtures("wide")
def test_what_was_scaled_up_is_halved_down_to_half_of_what_was_asked_for(fits: int, parts: int) -> None:
    """What fits without scaling fits with it."""
    made, tried = crowded(fits, rows=1600, batch_rows=20)
    assert epochs(made, 1)[0][0].metrics.get("train/micro_batches", 1) == parts
    assert tried[-1] == fits


def test_parts_of_a_batch_and_batches_of_an_epoch_count_by_what_their_rows_weigh() -> None:
    """The net is one number that is drawn to the weighted mean of all rows, whatever parts they are learnt in."""
    value_N, weight_N = torch.arange(96.0), np.arange(96) + 1

    def made(parts: int) -> tuple[float, float]:
        net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(net.weight)

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            if len(rows_B) > 96 // parts:
                raise torch.OutOfMemoryError
            weight_B = torch.from_numpy(weight_N)[rows_B]
            return ((net.weight.sum() - value_N[rows_B]).square() * weight_B).sum() / weight_B.sum()

        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        told = dataclasses.replace(lesson(), net=net, optimizer=optimizer, batch_rows=96, loss=loss, weight_N=weight_N)
        (epoch, _), *_ = epochs(dataclasses.replace(told, evaluate=lambda _: {"val/loss": 0.0}), 1)
        return float(net.weight.detach()), epoch.metrics["train/loss"]

    mean = float(np.average(value_N, weights=weight_N))
    assert made(1)[0] == pytest.approx(mean, rel=1e-5) and made(2)[0] == pytest.approx(mean, rel=1e-5)
    assert made(1)[1] == pytest.approx(made(2)[1], rel=1e-5)


@pytest.mark.usefixtures("wide")
def test_less_than_half_of_what_was_asked_for_ends_the_trial() -> None:
    with pytest.raises(torch.OutOfMemoryError) as raised:
        epochs(crowded(9, rows=1600, batch_rows=20)[0], 1)
    assert raised.value.__notes__ == ["a batch of 80 rows does not fit in 8 parts: give settings a smaller batch"]
