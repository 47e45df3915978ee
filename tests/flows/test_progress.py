"""Plain lines where nobody watches, a table on a terminal; both say how far, how good, how long still."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from components.contract import Objective
from components.sweep import Planned, Trial
from flows import progress
from flows.progress import Screen


def screen(terminal: bool) -> tuple[Screen, io.StringIO]:
    made, out = Screen(), io.StringIO()
    made.console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    return made, out


def play(made: Screen) -> None:
    view = made.watch("digits")
    view.planned([Planned("a", {}), Planned("b", {})], 4, Objective("accuracy", "max"))
    view.learnt("a", 1, [{"val/accuracy": 0.5}, {"val/accuracy": math.nan}])
    view.learnt("b", 1, [{"val/accuracy": 0.75}])
    view.ended(Trial("a", {}, "stopped"))
    view.ended(Trial("b", {}, "failed"))


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    made, out = screen(terminal=False)
    with made.live():
        play(made)
    lines = out.getvalue().splitlines()
    assert lines[-1] == "digits train: 2 of 2 trials, 1 failed, best val/accuracy 0.7500"
    assert any("≤" in line and "s left" in line for line in lines)
    assert "\x1b" not in out.getvalue()


def test_lines_are_few_unless_the_sweep_ends() -> None:
    made, out = screen(terminal=False)
    play(made)
    assert len(out.getvalue().splitlines()) == 2


def test_a_live_table_on_a_terminal() -> None:
    made, out = screen(terminal=True)
    with made.live():
        play(made)
        made.say("a line above [not markup]")
    text = out.getvalue()
    assert "a line above [not markup]" in text
    assert "2 of 2 trials, 1 failed" in text
    assert "val/accuracy 0.7500" in text
    made.say("after")
    assert "after" in out.getvalue()


def test_a_search_that_draws_more_trials_counts_them() -> None:
    made, _ = screen(terminal=False)
    view = made.watch("digits")
    objective = Objective("loss", "min")
    view.planned([Planned("a", {})], 2, objective)
    view.planned([Planned("a", {}), Planned("b", {})], 2, objective)
    view.learnt("a", 1, [{"val/loss": 2.0}])
    view.learnt("a", 1, [{"val/loss": 1.0}])  # told again after a restart
    assert (view.trials(), view.learnt_epochs["a"], view.best_so_far()) == ("0 of 2 trials", 1, "val/loss 1.0000")


def test_the_same_with_other_seeds_is_counted_apart_and_never_the_best() -> None:
    made, _ = screen(terminal=False)
    view = made.watch("digits")
    objective, searched = Objective("loss", "min"), [Planned("a", {}), Planned("b", {})]
    view.planned(searched, 2, objective)
    view.learnt("a", 1, [{"val/loss": 2.0}])
    view.ended(Trial("a", {}, "finished"))
    view.ended(Trial("b", {}, "stopped"))
    view.planned([*searched, Planned("a-2", {}, 2), Planned("a-3", {}, 3)], 2, objective)
    view.learnt("a-2", 1, [{"val/loss": 1.0}])
    assert (view.trials(), view.best_so_far()) == ("2 of 2 trials, 0 of 2 other seeds", "val/loss 2.0000")
    assert not view.done
    view.ended(Trial("a-2", {}, "finished", seed=2))
    view.ended(Trial("a-3", {}, "failed", seed=3))
    assert (view.trials(), view.done) == ("2 of 2 trials, 2 of 2 other seeds, 1 failed", True)
