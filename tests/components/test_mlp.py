"""mlp: tables of every kind of column, and what scoring may bring that training never saw."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.contract import Column, Data, Hyper, Spec
from components.errors import BadInput, DataError
from components.families.mlp import Mlp, Net

from .cases import Case, evaluate, images, one_thread, parted, table, waves  # noqa: F401

HEART = {"dropout": 0.0, "weight_decay": 0.0, "average": 0.0, "lr": 0.01, "width": 64}
SMALL = {"width": 32, "dropout": 0.2}
CASES = [
    Case("classification", table("classification"), SMALL, HEART, reached=0.02),
    Case("regression", table("regression"), SMALL, HEART, reached=1.0, heart_epochs=300),
    Case("series", waves("classification"), SMALL | {"whole": True}, HEART, reached=0.02),
]
MIXED = CASES[0].data


def taught(data: Data, epochs: int = 5, **changes: Any) -> Net:
    hyper: Hyper = {**SMALL, **changes}
    *_, epoch = itertools.islice(Mlp().fit(data, hyper, 0), epochs)
    return Mlp().load(data.spec, hyper, epoch.state().served())


@pytest.fixture(scope="module")
def net() -> Net:
    return taught(MIXED)


def batch(**columns: Any) -> pa.RecordBatch:
    """Two usual rows with some columns replaced."""
    usual = {
        "size": [1.0, 4.0],
        "weight": [0.5, 2.0],
        "colour": ["red", "blue"],
        "flag": [True, False],
        "day": pa.array(["1970-03-01", "1971-03-01"]).cast(pa.timestamp("us")),
    }
    return pa.record_batch({**usual, **columns})


def shares(net: Net, asked: pa.RecordBatch) -> list[float]:
    found: list[float] = Mlp().score(net, asked)["probability_high"].to_pylist()
    return found


def test_scoring_takes_categories_and_gaps_that_training_never_saw(net: Net) -> None:
    assert shares(net, batch(colour=["mauve", "beige"])) == shares(net, batch(colour=["taupe", "ochre"]))
    assert shares(net, batch(colour=["mauve", "mauve"])) != shares(net, batch(colour=["red", "red"]))
    nothing = {
        name: pa.nulls(2, column.type) for name, column in zip(batch().schema.names, batch().columns, strict=True)
    }
    assert np.isfinite(shares(net, batch(**nothing))).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"size": pa.array([1, 4])},
        {"size": pa.array(["1", "4.0"])},
        {"weight": pa.array([0.5, 2.0], pa.float32())},
        {"colour": pa.array(["red", "blue"]).dictionary_encode()},
        {"flag": ["true", "false"]},
        {"day": ["1970-03-01", "1971-03-01"]},
        {"day": pa.array(["1970-03-01", "1971-03-01"]).cast(pa.date32())},
        {"something_else": ["is", "ignored"]},
    ],
)
def test_whatever_casts_safely_scores_the_same(net: Net, changed: dict[str, Any]) -> None:
    assert shares(net, batch(**changed)) == pytest.approx(shares(net, batch()), rel=1e-6)


def test_what_does_not_cast_is_named(net: Net) -> None:
    with pytest.raises(BadInput, match="column 'size' is string"):
        Mlp().score(net, batch(size=["tall", "short"]))
    with pytest.raises(BadInput, match="no column 'weight'"):
        Mlp().score(net, batch().drop_columns(["weight"]))


def test_the_order_of_columns_does_not_matter(net: Net) -> None:
    asked = batch()
    assert shares(net, asked.select(asked.schema.names[::-1])) == shares(net, asked)


def linear(rows: int, noise: float, target: str = "number") -> Data:
    draw = np.random.default_rng(2)
    x_NF = draw.normal(size=(rows, 4))
    truth_N = x_NF @ [1.0, -2.0, 0.5, 0.0] + noise * draw.normal(size=rows)
    columns = {f"x{i}": pa.array(x_NF[:, i]) for i in range(4)}
    spec = Spec("linear", "regression", tuple(Column(name, "number") for name in columns), "y")
    if target == "class":
        spec = dataclasses.replace(spec, task="classification", classes=("0", "1"))
        return parted(spec, pa.table({**columns, "y": pa.array((truth_N > 0).astype(np.int64))}))
    return parted(spec, pa.table({**columns, "y": pa.array(1e6 + truth_N)}))


def test_predictions_are_in_the_units_of_the_target() -> None:
    data = linear(2000, noise=0.1)
    scored = Mlp().score(taught(data, 12, weight_decay=0.1), data.splits["test"].to_batches()[0])
    error_N = scored["prediction"].to_numpy() - data.splits["test"]["y"].to_numpy()
    assert np.sqrt(np.mean(error_N**2)) < 0.3, "of a deviation of 2.3 around a million"


def test_a_small_linear_table_is_learnt_nearly_as_well_as_it_can_be() -> None:
    data = linear(500, noise=0.2, target="class")
    found = evaluate(Mlp(), taught(data, 30), data, "test")
    assert found["test/accuracy"] >= 0.95 and found["test/auroc"] > 0.99


@pytest.mark.parametrize("values", [[None] * 100, [3.0] * 100])
def test_a_column_that_says_nothing_does_not_stop_learning(values: list[Any]) -> None:
    data = linear(100, 0.1, "class")
    empty = {s: t.append_column("void", pa.array(values[: len(t)], pa.float64())) for s, t in data.splits.items()}
    spec = dataclasses.replace(data.spec, columns=(*data.spec.columns, Column("void", "number")))
    assert np.isfinite(evaluate(Mlp(), taught(Data(spec, empty)), Data(spec, empty), "test")["test/loss"])


def test_a_target_with_gaps_is_named() -> None:
    data = linear(100, 0.1)
    gaps = data.splits["train"].set_column(4, "y", pa.nulls(60, pa.float64()))
    with pytest.raises(DataError, match="target 'y' has rows without a finite number"):
        next(Mlp().fit(Data(data.spec, {**data.splits, "train": gaps}), {}, 0))


def test_images_are_learnt_as_flat_rows() -> None:
    bars = images("classification")
    *_, epoch = itertools.islice(Mlp().fit(bars, {}, 0), 15)
    assert epoch.metrics["val/accuracy"] > 0.6
    gap = bars.splits["test"].set_column(1, "image", pa.array([None] * 72, pa.list_(pa.uint8(), 144)))
    with pytest.raises(BadInput, match="72 rows without a tensor"):
        Mlp().judge(Mlp().load(bars.spec, {}, epoch.state().served()), Data(bars.spec, {"test": gap}), "test")


def test_what_population_training_changes_takes_effect_from_that_epoch_on() -> None:
    *_, epoch = itertools.islice(Mlp().fit(MIXED, SMALL, 0), 2)
    state = epoch.state()
    slow, fast = (next(Mlp().fit(MIXED, {**SMALL, "lr": lr}, 0, state)).state() for lr in (1e-9, 1e-2))
    name = "net/wide.weight"
    assert torch.allclose(slow.tensors[name], state.tensors[name], atol=1e-6)
    assert not torch.allclose(fast.tensors[name], state.tensors[name], atol=1e-3)


def test_a_horizon_brings_the_learning_rate_down() -> None:
    constant, annealed = (
        [
            e.state().tensors["net/wide.weight"]
            for e in itertools.islice(Mlp().fit(MIXED, {**SMALL, "horizon": h}, 0), 4)
        ]
        for h in (0, 3)
    )
    assert torch.dist(annealed[3], annealed[2]) < 0.2 * torch.dist(constant[3], constant[2])
