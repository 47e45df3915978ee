"""A sweep's storage belongs to one request, and says when it is finished."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from components import checkpoints
from components.contract import Objective, State
from components.errors import ParamsError, Unreachable
from components.sweep import Request, Trial
from components.tuning.archive import Archive, ranked
from components.tuning.ledger import Ledger

from .sweeper import request

MIN = Objective("loss", "min")


def written(storage: Path) -> tuple[Archive, Trial]:
    """A finished sweep of one trial."""
    archive = Archive(request(str(storage)))
    with archive.opened(fresh=False):
        archive.plan([{"lr": 0.5}])
    key = Ledger(MIN).add({"lr": 0.5})
    record = {"curve": [{"val/loss": 2.0}], "best": 2.0, "best_epoch": 1}
    place = checkpoints.write(str(storage / key), 1, State({}, {}), record)
    trial = Trial(key, {"lr": 0.5}, "finished", record["curve"], 2.0, 1, place)  # type: ignore[arg-type]
    archive.finish([trial])
    return archive, trial


def test_what_was_finished_is_returned(tmp_path: Path) -> None:
    archive, trial = written(tmp_path / "sweep")
    with archive.opened(fresh=False):
        assert archive.finished() == [trial]


def test_so_is_who_has_moved_on_from_what_was_planned(tmp_path: Path) -> None:
    """As population based training does."""
    archive, trial = written(tmp_path / "sweep")
    moved = dataclasses.replace(trial, hyper={"lr": 0.6})
    archive.finish([moved])
    assert archive.finished() == [moved]
    archive.finish([dataclasses.replace(trial, key="another")])
    assert archive.finished() is None


def test_a_storage_may_be_moved(tmp_path: Path) -> None:
    written(tmp_path / "sweep")
    (tmp_path / "sweep").rename(tmp_path / "moved")
    found = Archive(request(str(tmp_path / "moved"))).finished()
    assert found is not None
    assert checkpoints.read(found[0].checkpoint)[1]["best"] == 2.0


def test_what_was_not_finished_is_restored(tmp_path: Path) -> None:
    archive, trial = written(tmp_path / "sweep")
    checkpoints.remove(str(tmp_path / "sweep" / "finished.json"))
    assert archive.finished() is None
    ledger = Ledger(MIN)
    archive.restore(ledger)
    assert ledger.trial(trial.key, "finished") == trial


def test_damaged_best_weights_unfinish_a_sweep(tmp_path: Path) -> None:
    archive, trial = written(tmp_path / "sweep")
    next(Path(trial.checkpoint).glob("*.safetensors")).write_bytes(b"gone")
    assert archive.finished() is None
    assert archive.finished() is None
    assert not Path(trial.checkpoint).exists(), "so that it is learnt again"


def test_fresh_removes_the_sweep_and_nothing_else(tmp_path: Path) -> None:
    archive, trial = written(tmp_path / "sweep")
    (tmp_path / "sweep" / "mine.txt").write_text("mine")
    with archive.opened(fresh=True):
        assert archive.finished() is None
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == ["mine.txt", "sweep.json"]
    assert trial.key not in (tmp_path / "sweep" / "sweep.json").read_text()


@pytest.mark.parametrize("other", [{"seed": 2}, {"trials": 7}, {"drop": 0.3}, {"cpus": 2}, {"scheduler": "asha"}])
def test_another_request_is_refused(tmp_path: Path, other: dict[str, object]) -> None:
    written(tmp_path / "sweep")
    archive = Archive(request(str(tmp_path / "sweep"), **other))  # type: ignore[arg-type]
    with pytest.raises(ParamsError, match="holds another sweep"), archive.opened(fresh=False):
        pass
    with archive.opened(fresh=True):
        assert archive.finished() is None


def test_a_storage_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for storage in (str(tmp_path / "file" / "below"), "no-such-protocol://bucket/sweep"):
        with pytest.raises(Unreachable, match="TIDEMILL_STORAGE"), Archive(request(storage)).opened(fresh=False):
            pass
    with pytest.raises(ParamsError, match="one process alone"), Archive(request("memory://s")).opened(fresh=False):
        pass


def test_trials_are_ranked_best_first_failed_and_unknown_last() -> None:
    trials = [
        Trial("e", {}, "failed", best=0.0),
        Trial("d", {}, "stopped"),
        Trial("c", {}, "stopped", best=2.0),
        Trial("b", {}, "finished", best=1.0),
        Trial("a", {}, "stopped", best=2.0),
    ]
    assert [trial.key for trial in ranked(trials, MIN)] == list("bacde")
    assert [trial.key for trial in ranked(trials, Objective("loss", "max"))] == list("acbde")


def test_requests_are_compared_by_what_they_ask(tmp_path: Path) -> None:
    one, same = request(str(tmp_path)), request(str(tmp_path))
    assert isinstance(one, Request) and one is not same
    with Archive(one).opened(fresh=False):
        pass
    with Archive(same).opened(fresh=False):
        pass


def test_what_a_dead_driver_left_half_written_is_gone_at_the_next_start(tmp_path: Path) -> None:
    storage = tmp_path / "sweep"
    archive, trial = written(storage)
    half = storage / ".aside-finished.json-of-a-dead-process"
    half.write_text('[{"key":')
    with archive.opened(fresh=False):
        assert not half.exists()
        assert archive.finished() == [trial]
