"""What the page of a sweep says in words."""

from __future__ import annotations

import dataclasses

import pytest

from components.contract import Metrics, Objective
from components.sweep import Trial
from components.tracking import report


def outcome(curve: list[Metrics], best_epoch: int, **hyper: bool) -> report.Outcome:
    best = Trial("k" * 64, {"lr": 0.01, **hyper}, "finished", curve, 0.3, best_epoch)
    return report.Outcome("tides", Objective("loss", "min"), best, [best], {"test/loss": 0.4}, {"test/loss": 0.9})


def test_it_says_how_far_train_and_val_rows_are_apart_in_the_epoch_that_is_served() -> None:
    curve = [{"train/loss": 0.5, "val/loss": 0.3}, {"train/loss": 0.1, "val/loss": 0.9}]
    told = outcome(curve, 1)
    for page in (report.markdown(told), report.html(told)):
        assert "train/loss was 0.5 and val/loss 0.3: apart by -0.2" in page
        assert "0.9:" not in page


@pytest.mark.parametrize("curve", [[{"train/loss": 0.5, "val/rmse": 0.3}], [{"val/loss": 0.3}], []])
def test_where_a_loss_is_not_told_nothing_is_said_of_it(curve: list[Metrics]) -> None:
    told = outcome(curve, 1)
    assert "apart" not in report.markdown(told) + report.html(told)
    assert report.markdown(told).endswith("|\n")


@pytest.mark.parametrize("curve", [[{"train/loss": 0.5, "val/loss": 0.3}], [{"train/loss": 0.5, "val/rmse": 0.3}]])
def test_a_net_that_learnt_val_rows_too_is_not_passed_off_as_the_one_whose_figures_stand_there(
    curve: list[Metrics],
) -> None:
    for pages, said in ((outcome(curve, 1, whole=True), True), (outcome(curve, 1, whole=False), False)):
        for page in (report.markdown(pages), report.html(pages)):
            assert ("Served is a second one (whole: true)" in page) is said
            assert ("are of a net that learnt from train rows alone" in page) is said
            assert ("apart by -0.2" in page) is ("val/loss" in curve[0])


def test_it_says_how_far_seeds_are_apart_and_which_failed() -> None:
    alone = outcome([{"val/loss": 0.3}], 1)
    assert "seed" not in report.markdown(alone) + report.html(alone)
    best = alone.best
    again = dataclasses.replace(best, key="again", best=0.5, seed=8)
    failed = Trial("lost", best.hyper, "failed", error="no <luck>", seed=9)
    told = dataclasses.replace(alone, trials=[failed, best, again])
    for page in (report.markdown(told), report.html(told)):
        assert "With 2 seeds the best configuration comes to val/loss 0.4 ± 0.141 (mean, standard deviation)." in page
        assert "1 of 2 other seeds failed." in page
    head, below = report.html(told).split("<h2>Trials</h2>")
    assert head.index("<td>8</td><td>finished</td>") < head.index("<td>9</td><td>failed</td>")
    assert "no &lt;luck&gt;" in head and below.count("<tr>") == 2, "the search's trials stand by themselves"
    lost = report.markdown(dataclasses.replace(told, trials=[best, failed]))
    assert "With" not in lost and "1 of 1 other seeds failed." in lost
