"""A column that gives the target away is found however it is dressed; an honest one is left alone."""

import time

import numpy as np
import pandas as pd
import pytest

from components.validation.leakage import giveaway

LEAK = 0.999
ROWS = 600


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def halves(rng: np.random.Generator, rows: int = ROWS) -> np.ndarray:
    return rng.random(rows) < 0.6


@pytest.fixture
def classes(rng: np.random.Generator) -> pd.Series:
    """One class has nine rows in ten, one has one in a hundred."""
    return pd.Series(rng.choice(["a", "b", "c"], 5000, p=[0.9, 0.09, 0.01]))


def test_a_copy_of_the_classes_and_a_renamed_encoding_give_them_away(classes, rng):
    train = halves(rng, len(classes))
    assert giveaway(classes, classes, train, True) == 1
    assert giveaway(classes.map({"a": "u", "b": "q", "c": "z"}), classes, train, True) == 1
    # Several codes a class, in no order.
    codes = classes.map({"a": 0, "b": 1, "c": 2}) + 3 * pd.Series(rng.integers(0, 5, len(classes)))
    assert giveaway((codes * 37) % 101, classes, train, True) > LEAK


def test_stretches_of_numbers_that_belong_to_one_class_give_it_away_however_rare_it_is(classes, rng):
    numbers = np.exp(classes.map({"a": 2.0, "b": 0.0, "c": 1.0}) + 0.9 * rng.random(len(classes)))
    assert giveaway(numbers, classes, halves(rng, len(classes)), True) > LEAK


def test_a_majority_class_noise_and_ids_give_nothing_away(classes, rng):
    train = halves(rng, len(classes))
    for honest in (
        pd.Series(np.zeros(len(classes))),
        pd.Series(rng.normal(size=len(classes))),
        pd.Series(rng.choice(list("xyz"), len(classes))),
        pd.Series(np.arange(len(classes))).astype(str),
        pd.Series(np.full(len(classes), np.nan)),
    ):
        assert giveaway(honest, classes, train, True) < 0.5


def test_what_is_missing_can_give_the_classes_away(rng):
    left = pd.Series(rng.choice(["no", "yes"], ROWS))
    day = pd.Series(
        np.datetime64("2024-01-01", "us") + rng.integers(0, 300, ROWS) * np.timedelta64(86_400_000_000, "us")
    )
    assert giveaway(day.where(left == "yes"), left, halves(rng), True) == 1
    assert giveaway(day, left, halves(rng), True) < 0.7


@pytest.mark.parametrize("rows", [100, 1000, 100_000])
def test_monotone_transforms_of_a_number_give_it_away(rng, rows):
    price = pd.Series(rng.lognormal(size=rows))  # a long tail
    train = halves(rng, rows)
    for dressed in (price, -price, np.log(price), price**3, price.rank()):
        assert giveaway(dressed, price, train, False) > LEAK
    close = price * np.exp(0.1 * rng.normal(size=rows))
    assert 0.5 < giveaway(close, price, train, False) < 0.99
    assert giveaway(pd.Series(rng.normal(size=rows)), price, train, False) < 0.1


def test_categories_and_infinities_predict_numbers_too(rng):
    grade = pd.Series(rng.integers(0, 5, ROWS))
    named = grade.map(dict(enumerate("abcde")))
    assert giveaway(named, grade, halves(rng), False) == pytest.approx(1)
    odd = grade.astype(float).replace({4.0: np.inf, 0.0: -np.inf, 2.0: np.nan})
    assert giveaway(odd, grade, halves(rng), False) == pytest.approx(1)


def test_real_columns_are_no_leaks(rng):
    from sklearn.datasets import load_breast_cancer

    columns, target = load_breast_cancer(return_X_y=True, as_frame=True)
    names = target.map({0: "malignant", 1: "benign"})
    scores = {name: giveaway(columns[name], names, halves(rng, len(names)), True) for name in columns}
    assert max(scores.values()) < 0.95
    assert scores["worst perimeter"] > 0.8  # it does tell much


def test_luck_on_few_held_out_rows_is_no_leak(rng):
    target = pd.Series(rng.choice(["a", "b"], ROWS))
    mostly = target.where(rng.random(ROWS) < 0.9, "a")
    train = np.arange(ROWS) >= 3
    assert giveaway(mostly, target, train, True) < LEAK


def test_a_side_without_rows_or_with_one_class_scores_nothing(rng):
    target = pd.Series(rng.choice(["a", "b"], ROWS))
    assert giveaway(target, target, np.ones(ROWS, bool), True) == 0
    assert giveaway(target, target, np.zeros(ROWS, bool), True) == 0
    assert giveaway(target, pd.Series(["a"] * ROWS), halves(rng), True) == 0
    assert giveaway(target, pd.Series([None] * ROWS, dtype="str"), halves(rng), True) == 0


def test_a_million_rows_take_well_under_a_second_a_column(rng):
    rows = 1_000_000
    column, target = pd.Series(rng.normal(size=rows)), pd.Series(rng.normal(size=rows))
    train = halves(rng, rows)
    before = time.process_time()
    assert giveaway(column, target, train, False) < 0.01
    assert time.process_time() - before < 1
