"""A segment goes on bit for bit from a checkpoint, tells each epoch, and knows its own faults from the storage's."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components import checkpoints
from components.contract import Hyper, Metrics, Objective
from components.tuning import configurations, lease, segments
from components.tuning.ledger import Ledger, Segment
from components.tuning.segments import Lesson, Told, learn
from tests.families import toy

TOY = "tests.families.toy:Toy"


class Driver:
    """Hears what segments tell, as a sweep's driver does."""

    def __init__(self, storage: str, checkpoint_every_s: float = 0.0, family: str = TOY, **hyper: float | str) -> None:
        self.lesson = Lesson(family, toy.data(), Objective("loss", "min"), 3, 1, storage, checkpoint_every_s, "")
        self.hyper: Hyper = {"lr": 0.02, **hyper}
        self.key = configurations.key(self.hyper)
        self.ledger = Ledger(self.lesson.objective)
        self.ledger.add(self.hyper)
        self.told: list[Told] = []

    def learn(self, until: int) -> Driver:
        with lease.held(self.lesson.storage) as held:
            lesson = dataclasses.replace(self.lesson, token=held.token)
            learn(lesson, Segment(self.key, self.hyper, until), self.ledger.reached(self.key), self.hear)
        return self

    def hear(self, told: Told) -> None:
        self.told.append(told)
        self.ledger.learn(told.key, told.first_epoch, told.metrics)

    def curve(self) -> list[Metrics]:
        return self.ledger.trials[self.key].curve

    def weights(self, epoch: int) -> dict[str, torch.Tensor]:
        place = checkpoints.place_of(posixpath.join(self.lesson.storage, self.key), epoch)
        return dict(checkpoints.read(place)[0].tensors)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return sorted(a) == sorted(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def whole(tmp_path: Path) -> Driver:
    return Driver(str(tmp_path / "whole")).learn(7)


def test_segments_are_as_one_piece(tmp_path: Path, whole: Driver) -> None:
    pieces = Driver(str(tmp_path / "pieces"))
    for until in (1, 4, 7):
        pieces.learn(until)
    assert pieces.curve() == whole.curve()
    assert len(whole.curve()) == 7
    assert equal(pieces.weights(7), whole.weights(7))


def test_a_segment_cut_off_goes_on_from_its_last_checkpoint(tmp_path: Path, whole: Driver) -> None:
    class Killed(BaseException):
        pass

    cut = Driver(str(tmp_path / "cut"))
    write = checkpoints.write
    with pytest.MonkeyPatch.context() as patch:

        def dies(folder: str, epoch: int, *rest: object) -> str:
            if epoch == 5:
                raise Killed
            return write(folder, epoch, *rest)  # type: ignore[arg-type]

        patch.setattr(checkpoints, "write", dies)
        with pytest.raises(Killed):
            cut.learn(7)
    assert cut.ledger.reached(cut.key) == 0, "nothing was told before it died"
    cut.learn(7)
    assert cut.curve() == whole.curve(), "epochs that the driver had not heard of are told from the checkpoint"
    assert equal(cut.weights(7), whole.weights(7))


def test_a_damaged_checkpoint_is_learnt_again(tmp_path: Path, whole: Driver) -> None:
    hurt = Driver(str(tmp_path / "hurt")).learn(4)
    newest = Path(checkpoints.place_of(posixpath.join(hurt.lesson.storage, hurt.key), 4))
    next(newest.glob("*.safetensors")).write_bytes(b"")
    hurt.learn(7)
    assert hurt.told[-1].first_epoch == 4, "the fourth is told once more"
    assert hurt.curve() == whole.curve()
    assert equal(hurt.weights(7), whole.weights(7))


def test_a_segment_that_is_done_already_tells_and_learns_nothing(whole: Driver) -> None:
    late = Driver(whole.lesson.storage)
    late.ledger.learn(late.key, 1, whole.curve()[:2])
    late.learn(7)
    (told,) = late.told[:1]
    assert (told.first_epoch, len(told.metrics)) == (3, 5)
    assert told.checkpoint.endswith("000007")


def test_the_record_holds_curve_and_best(whole: Driver) -> None:
    folder = posixpath.join(whole.lesson.storage, whole.key)
    found = checkpoints.newest_record(folder)
    assert found is not None
    place, record = found
    assert place.endswith("000007") and place == whole.told[-1].checkpoint
    losses = [row["val/loss"] for row in whole.curve()]
    assert record["curve"] == whole.curve()
    assert (record["best"], record["best_epoch"]) == (min(losses), 1 + losses.index(min(losses)))
    assert record["hyper"] == whole.hyper
    kept = sorted(p.name for p in Path(folder).iterdir())
    assert kept == ["000006", "000007"]


def test_checkpoints_are_as_rare_as_asked_for_but_a_segment_ends_with_one(tmp_path: Path) -> None:
    driver = Driver(str(tmp_path), checkpoint_every_s=3600)
    driver.learn(3).learn(5)
    assert sorted(p.name for p in (tmp_path / driver.key).iterdir()) == ["000003", "000005"]


def test_a_child_goes_on_from_its_parent(tmp_path: Path, whole: Driver) -> None:
    child = Driver(whole.lesson.storage, lr=0.01)
    child.learn(3)
    whole.learn(7)
    own = child.curve()[:]
    parent = Driver(whole.lesson.storage)  # epoch 7 of the parent, whose best the child carries
    segment = Segment(child.key, {"lr": 0.005}, 9, 7, parent.key, (*own, *whole.curve()[3:7]))
    child.ledger.learn(child.key, 4, whole.curve()[3:7])
    learn(child.lesson, segment, 7, child.hear)
    assert len(child.curve()) == 9
    found = checkpoints.newest_record(str(tmp_path / "whole" / child.key))
    assert found is not None
    assert found[1]["hyper"] == {"lr": 0.005} and found[1]["parent"] == parent.key
    assert found[1]["ancestry"] == [{"trial": parent.key, "hyper": parent.hyper, "until": 7}]
    best = min(row["val/loss"] for row in whole.curve())
    assert found[1]["best"] <= best, "best of the weights that it carries"
    again = Driver(whole.lesson.storage, lr=0.01)
    learn(again.lesson, segment, 0, again.hear)
    assert again.told[-1].first_epoch == 1 and len(again.told[-1].metrics) == 9, "now from its own"
    learn(again.lesson, Segment(child.key, {"lr": 0.005}, 10), 9, again.hear)
    later = checkpoints.newest_record(str(tmp_path / "whole" / child.key))
    assert later is not None and later[1]["ancestry"] == found[1]["ancestry"], "kept as it goes on"


def test_what_a_family_raises_is_told(tmp_path: Path) -> None:
    driver = Driver(str(tmp_path), fault="raise", fault_at=3).learn(5)
    assert driver.ledger.reached(driver.key) == 2
    assert driver.told[-1].error.startswith("ValueError: no luck with lr 0.02 (toy.py:")


@pytest.mark.parametrize(
    ("hyper", "says"),
    [({"fault": "quiet"}, "no val/loss"), ({"unknown": 1.0}, "unexpected keyword argument 'unknown'")],
)
def test_a_family_at_fault_is_told_what_is_wrong(tmp_path: Path, hyper: dict[str, float], says: str) -> None:
    driver = Driver(str(tmp_path), **hyper).learn(2)
    assert says in driver.told[-1].error


def test_a_family_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    driver = Driver(str(tmp_path), family="tests.families.nowhere:Toy").learn(2)
    assert "cannot be imported" in driver.told[-1].error


def test_a_storage_that_fails_is_not_the_trials_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(str(tmp_path))

    def full(*_: object) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "write", full)
    with pytest.raises(OSError, match="no space left"):
        driver.learn(2)
    assert driver.told == []


def test_a_process_is_set_anew_for_each_segment(tmp_path: Path, whole: Driver) -> None:
    torch.manual_seed(99)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    after = Driver(str(tmp_path / "after")).learn(7)
    assert torch.get_num_threads() == 1
    assert equal(after.weights(7), whole.weights(7))


@pytest.mark.parametrize(("asked", "checkpointed"), [("stop", True), ("lost", False)])
def test_it_ends_when_its_driver_stops_or_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, checkpointed: bool
) -> None:
    monkeypatch.setattr(segments, "_TELL_EVERY_S", 0.0)
    driver = Driver(str(tmp_path), checkpoint_every_s=3600)
    with lease.held(str(tmp_path)) as held:
        held.stop()
        lesson = dataclasses.replace(driver.lesson, token=held.token if asked == "stop" else "another")
        learn(lesson, Segment(driver.key, driver.hyper, 50), 0, driver.hear)
    assert len(driver.curve()) == 1
    assert (checkpoints.latest(str(tmp_path / driver.key)) is not None) == checkpointed
