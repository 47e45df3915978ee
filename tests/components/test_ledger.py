"""What a sweep knows: each epoch once, in order, and the best so far."""

from __future__ import annotations

import math

import pytest

from components.contract import Metrics, Objective
from components.tuning.ledger import Ledger


def rows(*values: float) -> list[Metrics]:
    return [{"val/accuracy": value} for value in values]


def test_epochs_told_again_are_dropped() -> None:
    ledger = Ledger(Objective("accuracy", "max"))
    key = ledger.add({"lr": 1})
    assert ledger.learn(key, 1, rows(0.1, 0.2)) == 2
    assert ledger.learn(key, 1, rows(0.1, 0.2)) == 0
    assert ledger.learn(key, 2, rows(0.2, 0.3)) == 1
    assert ledger.learn(key, 4, []) == 0
    assert ledger.trials[key].curve == rows(0.1, 0.2, 0.3)


def test_an_epoch_that_was_left_out_is_a_fault() -> None:
    ledger = Ledger(Objective("accuracy", "max"))
    key = ledger.add({})
    with pytest.raises(RuntimeError, match="epoch 1 was never told, but 2 was"):
        ledger.learn(key, 2, rows(0.1))


def test_the_best_is_that_of_the_first_epochs() -> None:
    ledger = Ledger(Objective("accuracy", "max"))
    key = ledger.add({})
    ledger.learn(key, 1, rows(math.nan, 0.2, 0.1, math.nan, 0.4))
    assert [ledger.best(key, n) for n in (2, 3, 4, 5, 9)] == [0.2, 0.2, 0.2, 0.4, 0.4]
    assert math.isnan(ledger.best(key, 1)) and math.isnan(ledger.best(key, 0))
    assert not ledger.usable(key, 1) and ledger.usable(key, 2)


@pytest.mark.parametrize(("mode", "order"), [("max", "bac"), ("min", "acb")])
def test_ranking_is_by_value_then_key_without_what_cannot_be_used(mode: str, order: str) -> None:
    ledger = Ledger(Objective("accuracy", "max" if mode == "max" else "min"))
    named = {ledger.add({"name": name}): name for name in "abcdef"}
    for key, name in named.items():
        ledger.learn(key, 1, rows({"a": 1.0, "b": 2.0, "c": 1.0}.get(name, math.nan)))
    failed = ledger.add({"name": "failed"})
    ledger.learn(failed, 1, rows(9.0 if mode == "max" else 0.0))
    ledger.trials[failed].error = "broken"
    ties = sorted(key for key, name in named.items() if name in "ac")
    found = [named[key] for key in ledger.ranked([*named, failed], 1)]
    tied = "".join(named[key] for key in ties)
    assert "".join(found) == (f"b{tied}" if mode == "max" else f"{tied}b")
    assert sorted(found) == sorted(order)
