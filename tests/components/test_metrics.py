"""Metrics beside scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as theirs

from components import metrics

DRAW = np.random.default_rng(0)


def test_classification_is_what_scikit_learn_says() -> None:
    truth_N = DRAW.integers(0, 2, 200)
    probability_NK = DRAW.dirichlet([1, 1], 200)
    found = metrics.classification("test", probability_NK, truth_N)
    assert found == pytest.approx(
        {
            "test/accuracy": theirs.accuracy_score(truth_N, probability_NK.argmax(1)),
            "test/loss": theirs.log_loss(truth_N, probability_NK),
            "test/auroc": theirs.roc_auc_score(truth_N, probability_NK[:, 1]),
            "test/macro_f1": theirs.f1_score(truth_N, probability_NK.argmax(1), average="macro"),
            "test/weighted_f1": theirs.f1_score(truth_N, probability_NK.argmax(1), average="weighted"),
        }
    )


def test_f1_is_what_scikit_learn_says_with_classes_that_nobody_finds_or_has() -> None:
    truth_N, predicted_N = DRAW.integers(0, 4, 200), DRAW.integers(1, 4, 200)  # 0 is never predicted, 4 nowhere
    wanted = [theirs.f1_score(truth_N, predicted_N, average=a, zero_division=0) for a in ("macro", "weighted")]
    assert metrics.f1(predicted_N, truth_N, 5) == pytest.approx(wanted)


def test_ties_count_half() -> None:
    score_N, positive_N = DRAW.integers(0, 5, 300).astype(float), DRAW.random(300) < 0.3
    assert metrics.auroc(score_N, positive_N) == pytest.approx(theirs.roc_auc_score(positive_N, score_N))
    assert metrics.auroc(np.ones(300), positive_N) == 0.5


def test_a_sure_mistake_costs_much_but_not_everything() -> None:
    loss = metrics.classification("val", np.array([[1.0, 0.0, 0.0]]), np.array([2]))["val/loss"]
    assert loss == pytest.approx(-math.log(metrics.SMALLEST))


def test_what_one_class_does_not_define_is_left_out() -> None:
    found = metrics.classification("test", np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
    assert found.keys() == {"test/accuracy", "test/loss", "test/macro_f1", "test/weighted_f1"}
    assert math.isnan(metrics.auroc(np.array([1.0, 2.0]), np.array([True, True])))
    assert "test/r2" not in metrics.regression("test", np.array([1.0, 2.0]), np.array([3.0, 3.0]))


def test_regression_is_what_scikit_learn_says() -> None:
    truth_N, predicted_N = DRAW.normal(5, 2, 100), DRAW.normal(5, 2, 100)
    assert metrics.regression("test", predicted_N, truth_N) == pytest.approx(
        {
            "test/rmse": theirs.root_mean_squared_error(truth_N, predicted_N),
            "test/mae": theirs.mean_absolute_error(truth_N, predicted_N),
            "test/r2": theirs.r2_score(truth_N, predicted_N),
        }
    )


def test_detection_is_what_scikit_learn_says_with_ties_too() -> None:
    anomalous_N = DRAW.random(200) < 0.3
    for score_N in (DRAW.normal(size=200) + anomalous_N, np.round(DRAW.normal(size=200) + anomalous_N)):
        assert metrics.detection("val", score_N, anomalous_N) == pytest.approx(
            {
                "val/auroc": theirs.roc_auc_score(anomalous_N, score_N),
                "val/average_precision": theirs.average_precision_score(anomalous_N, score_N),
            }
        )
    assert metrics.detection("val", np.zeros(3), np.ones(3, bool)) == {}


def test_trivial_rivals_know_the_training_rows_alone() -> None:
    shares = metrics.class_shares("test", np.array([0, 0, 0, 1]), np.array([0, 1]), 2)
    assert shares == {
        "test/accuracy": 0.5,
        "test/loss": pytest.approx(-math.log(0.75 * 0.25) / 2),
        "test/auroc": 0.5,
        "test/macro_f1": pytest.approx(1 / 3),
        "test/weighted_f1": pytest.approx(1 / 3),
    }
    mean = metrics.mean_target("test", np.array([1.0, 3.0]), np.array([2.0, 6.0]))
    assert mean["test/rmse"] == pytest.approx(math.sqrt(8)) and mean["test/mae"] == 2
