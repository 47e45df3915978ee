"""Schedulers, with a pretended cluster: who learns how long, whoever happens to be quick, and after a crash."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest

from components.contract import Hyper, Integer, Objective, Uniform
from components.params import Search
from components.tuning import configurations
from components.tuning.configurations import Sampler
from components.tuning.ledger import Ledger, Segment
from components.tuning.replicas import Replicas
from components.tuning.schedulers import Generations, Scheduler, rungs, scheduler

DOMAINS = {"lr": Uniform(0.0, 1.0, mutable=True), "width": Integer(1, 1000)}
NAN = float("nan")


def quality(hyper: Hyper, epoch: int) -> float:
    """Loss that falls with time towards how far lr is from 0.3."""
    return abs(hyper["lr"] - 0.3) + 1 / epoch


class Cluster:
    """Learns what a scheduler hands out, on some workers, ending segments in an order of chance."""

    def __init__(self, search: Search, workers: int, order: int, seed: int = 7) -> None:
        self.search, self.workers = search, workers
        self.sampler = Sampler(DOMAINS, {}, {"lr": 0.9, "width": 5}, seed)
        self.ledger = Ledger(Objective("loss", "min"))
        self.chance = random.Random(order)
        self.handed: list[Segment] = []
        self.broken: Callable[[str, int], str] = lambda key, epoch: ""
        self.value: Callable[[Hyper, int], float] = quality
        self.scheduler = self._planned()

    def run(self, steps: int = 10**6) -> Cluster:
        while steps and self._hand_out():
            running = sorted(self.ledger.running)
            self._learn(self.ledger.running[self.chance.choice(running)])
            steps -= 1
        return self

    def crash(self) -> Cluster:
        """What a new driver would find: the ledger from the checkpoints, some segments half done."""
        found = Ledger(self.ledger.objective)
        for key, entry in self.ledger.trials.items():
            first = next(s.hyper for s in [*self.handed, Segment(key, entry.hyper, 0)] if s.key == key)
            assert found.add(first, entry.seed) == key
            found.learn(key, 1, entry.curve)
        for key, segment in self.ledger.running.items():
            found.learn(key, found.reached(key) + 1, self._epochs(segment)[:1])
        self.ledger = found
        self.scheduler = self._planned()
        return self

    def bests(self) -> dict[str, float]:
        return {key: self.ledger.best(key, 10**6) for key in self.ledger.trials}

    def reached(self) -> list[int]:
        return sorted((self.ledger.reached(key) for key in self.ledger.trials), reverse=True)

    def _planned(self) -> Replicas:
        seeds = [self.sampler.seed + number for number in range(1, self.search.seeds)]
        return Replicas(self.ledger, scheduler(self.search, self.sampler, self.ledger), seeds)

    def _hand_out(self) -> bool:
        while len(self.ledger.running) < self.workers:
            assert self.scheduler.width() >= len(self.ledger.running)
            segment = self.scheduler.next()
            if segment is None:
                break
            assert segment.key not in self.ledger.running, "nobody learns twice at once"
            assert segment.until > self.ledger.reached(segment.key)
            assert self.scheduler.width() >= len(self.ledger.running) + 1
            self.ledger.running[segment.key] = segment
            self.handed.append(segment)
        return bool(self.ledger.running)

    def _epochs(self, segment: Segment) -> list[dict[str, float]]:
        first = self.ledger.reached(segment.key) + 1
        luck = segment.seed or 0  # the more, the lower the loss
        return [{"val/loss": self.value(segment.hyper, e) - luck} for e in range(first, segment.until + 1)]

    def _learn(self, segment: Segment) -> None:
        error = self.broken(segment.key, segment.until)
        if error:
            self.ledger.trials[segment.key].error = error
        else:
            self.ledger.learn(segment.key, self.ledger.reached(segment.key) + 1, self._epochs(segment))
        del self.ledger.running[segment.key]


def search(word: str, **more: int) -> Search:
    return Search.model_validate({"scheduler": word, "trials": 9, "epochs": 18, "first_rung": 2, **more})


def statuses(scheduler: Scheduler) -> list[str]:
    return sorted(scheduler.ended().values())


def test_rungs_grow_by_the_reduction_up_to_the_epochs() -> None:
    assert rungs(search("halving")) == [2, 6, 18]
    assert rungs(search("halving", epochs=20)) == [2, 6, 18, 20]
    assert rungs(search("halving", epochs=1)) == [1]


def test_halving_gives_the_best_third_the_next_rung() -> None:
    cluster = Cluster(search("halving"), workers=2, order=0).run()
    assert cluster.reached() == [18, 6, 6, 2, 2, 2, 2, 2, 2]
    by_quality = sorted(cluster.ledger.trials, key=lambda key: cluster.ledger.best(key, 2))
    assert cluster.ledger.reached(by_quality[0]) == 18
    assert {cluster.ledger.reached(key) for key in by_quality[1:3]} == {6}
    assert statuses(cluster.scheduler) == ["finished"] + ["stopped"] * 8


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("workers", [1, 3, 16])
def test_halving_is_the_same_whoever_is_quick(order: int, workers: int) -> None:
    once = Cluster(search("halving"), workers=2, order=99).run()
    again = Cluster(search("halving"), workers, order).run()
    assert again.bests() == once.bests()


@pytest.mark.parametrize("word", ["halving", "pbt"])
@pytest.mark.parametrize("steps", range(0, 16, 3))
def test_a_sweep_that_crashed_anywhere_ends_the_same(word: str, steps: int) -> None:
    whole = Cluster(search(word), workers=2, order=1).run()
    crashed = Cluster(search(word), workers=2, order=2).run(steps).crash().run()
    assert crashed.bests() == whole.bests()
    assert crashed.scheduler.ended() == whole.scheduler.ended()
    assert crashed.ledger.hypers() == whole.ledger.hypers()


@pytest.mark.parametrize("word", ["asha", "optuna"])
@pytest.mark.parametrize("steps", range(0, 16, 5))
def test_an_asynchronous_sweep_that_crashed_goes_on(word: str, steps: int) -> None:
    crashed = Cluster(search(word), workers=3, order=2).run(steps).crash().run()
    assert len(crashed.ledger.trials) == 9
    assert crashed.reached()[0] == 18
    assert statuses(crashed.scheduler).count("finished") >= 1
    assert len(crashed.scheduler.ended()) == 9


def test_asha_promotes_before_a_rung_is_complete() -> None:
    cluster = Cluster(search("asha"), workers=1, order=0).run()
    order = [segment.until for segment in cluster.handed]
    assert order.index(6) < len(order) - 1 - order[::-1].index(2), "somebody was promoted before all had begun"
    assert cluster.reached()[0] == 18
    assert cluster.reached().count(2) >= 5


def test_asha_with_few_trials_still_gives_one_all_epochs() -> None:
    for trials in (1, 2, 4):
        cluster = Cluster(search("asha", trials=trials), workers=2, order=0).run()
        assert cluster.reached()[0] == 18
        assert len(cluster.scheduler.ended()) == trials


def test_optuna_draws_as_it_learns() -> None:
    cluster = Cluster(search("optuna", trials=20), workers=2, order=0)
    assert len(cluster.ledger.trials) == 1
    cluster.run()
    assert len(cluster.ledger.trials) == 20
    distance = [abs(entry.hyper["lr"] - 0.3) for entry in cluster.ledger.trials.values()]
    assert sum(distance[12:]) / 8 < sum(distance[:8]) / 8, "later draws are better ones"


def test_pbt_moves_the_worst_to_the_best() -> None:
    cluster = Cluster(search("pbt", trials=8, epochs=8, first_rung=2), workers=3, order=0).run()
    assert cluster.reached() == [8] * 8
    copies = [segment for segment in cluster.handed if segment.parent]
    assert len(copies) == 2 * 3, "a quarter of eight, after each generation but the last"
    for segment in copies:
        before = [s for s in cluster.handed if s.key == segment.parent and s.until == segment.start]
        assert segment.hyper["width"] == before[0].hyper["width"], "what is not mutable is the parent's"
        assert segment.hyper["lr"] != before[0].hyper["lr"]
        assert len(segment.curve) == segment.start
    firsts = {configurations.key(s.hyper) for s in cluster.handed if s.until == 2}
    assert set(cluster.ledger.trials) == firsts, "a trial keeps the key that it began with"


@pytest.mark.parametrize("word", ["halving", "asha", "optuna", "pbt"])
def test_failures_stop_nobody_else(word: str) -> None:
    cluster = Cluster(search(word), workers=2, order=0)
    broken = sorted(cluster.ledger.trials)[:3]
    cluster.broken = lambda key, epoch: "broken" if key in broken else ""
    cluster.run()
    ended = cluster.scheduler.ended()
    assert len(ended) == len(cluster.ledger.trials)
    assert [key for key, status in ended.items() if status == "failed"] == [k for k in ended if k in broken]
    if word != "optuna":  # its only trial at first is one of the broken
        assert max(cluster.reached()) == 18


@pytest.mark.parametrize("word", ["halving", "asha", "optuna", "pbt"])
def test_all_failing_or_never_finite_ends(word: str) -> None:
    failing = Cluster(search(word), workers=2, order=0)
    failing.broken = lambda key, epoch: "broken"
    assert set(failing.run().scheduler.ended().values()) == {"failed"}
    lost = Cluster(search(word), workers=2, order=0)
    lost.value = lambda hyper, epoch: NAN
    assert len(lost.run().scheduler.ended()) == 9


def test_a_value_that_is_not_a_number_loses() -> None:
    cluster = Cluster(search("halving"), workers=2, order=0)
    best = min(cluster.ledger.trials, key=lambda key: abs(cluster.ledger.trials[key].hyper["lr"] - 0.3))
    lr = cluster.ledger.trials[best].hyper["lr"]
    cluster.value = lambda hyper, epoch: NAN if hyper["lr"] == lr else quality(hyper, epoch)
    cluster.run()
    assert cluster.ledger.reached(best) == 2
    assert cluster.reached()[0] == 18


def test_ties_are_broken_by_key() -> None:
    cluster = Cluster(search("halving"), workers=4, order=3)
    cluster.value = lambda hyper, epoch: 1.0
    cluster.run()
    winner = max(cluster.ledger.trials, key=cluster.ledger.reached)
    assert winner == min(cluster.ledger.trials)


def test_generations_are_worked_out_again_not_stored() -> None:
    cluster = Cluster(search("pbt"), workers=2, order=1).run()
    again = copy.deepcopy(cluster).crash()
    assert isinstance(again.scheduler.search, Generations)
    assert again.scheduler.next() is None
    assert again.ledger.hypers() == cluster.ledger.hypers()
