"""The winner of a search learnt again with other seeds: when, how long, whatever dies, and that it never competes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from components import checkpoints, tuning
from components.contract import Data, Epoch, Hyper, Objective, State
from components.sweep import Trial, measure_seeds, same_again, searched
from components.tuning import configurations
from components.tuning.archive import ranked
from tests.families.toy import Toy

from .serial import without_ray
from .sweeper import Listener, request
from .test_schedulers import NAN, Cluster, search

# ── who learns what, with a pretended cluster ───────────────────────────────────────────────────────────


def winner(cluster: Cluster) -> str:
    ledger = cluster.ledger
    return min(ledger.searched(), key=lambda key: (ledger.objective.key(ledger.best(key, 18)), key))


@pytest.mark.parametrize("word", ["halving", "asha", "optuna"])
def test_the_winner_is_learnt_again_when_the_search_is_over_all_at_once(word: str) -> None:
    alone = Cluster(search(word), workers=2, order=0).run()
    cluster = Cluster(search(word, seeds=4), workers=2, order=0).run()
    found = len(alone.handed)
    assert cluster.handed[:found] == alone.handed, "the search is what it was"
    best, again = winner(cluster), cluster.handed[found:]
    assert [(s.key, s.seed, s.until) for s in again] == [(f"{best}-{seed}", seed, 18) for seed in (8, 9, 10)]
    assert all(s.hyper == cluster.ledger.trials[best].hyper and not s.parent for s in again)
    assert len(cluster.ledger.trials) == 12 and cluster.ledger.hypers() == alone.ledger.hypers()
    ended = cluster.scheduler.ended()
    assert {key: ended[key] for key in alone.ledger.trials} == alone.scheduler.ended()
    assert [ended[segment.key] for segment in again] == ["finished"] * 3


def test_replicas_are_learnt_side_by_side() -> None:
    cluster = Cluster(search("halving", seeds=4), workers=3, order=0)
    while not [segment for segment in cluster.ledger.running.values() if segment.seed]:
        cluster.run(steps=1)
        cluster._hand_out()
    assert {segment.seed for segment in cluster.ledger.running.values()} == {8, 9, 10}
    assert cluster.scheduler.width() == 3


@pytest.mark.parametrize("steps", range(0, 18, 2))
def test_a_sweep_with_replicas_that_crashed_anywhere_ends_the_same(steps: int) -> None:
    whole = Cluster(search("halving", seeds=4), workers=2, order=1).run()
    crashed = Cluster(search("halving", seeds=4), workers=2, order=2).run(steps).crash().run()
    assert crashed.bests() == whole.bests()
    assert crashed.scheduler.ended() == whole.scheduler.ended()
    assert crashed.crash().scheduler.next() is None, "and then there is nothing left"
    assert crashed.scheduler.ended() == whole.scheduler.ended()


def test_the_luckiest_seed_does_not_become_the_winner() -> None:
    alone = Cluster(search("halving"), workers=2, order=0).run()
    cluster = Cluster(search("halving", seeds=3), workers=2, order=0).run()
    best, status = winner(alone), cluster.scheduler.ended()
    assert all(cluster.ledger.best(f"{best}-{seed}", 18) < cluster.ledger.best(best, 18) for seed in (8, 9))
    for entry in cluster.ledger.trials.values():
        entry.best = entry.bests[-1]
    trials = ranked([cluster.ledger.trial(key, status[key]) for key in cluster.ledger.trials], Objective("loss", "min"))
    assert [trial.key for trial in trials[:1]] == [best]
    assert [trial.key for trial in trials[-2:]] == [f"{best}-8", f"{best}-9"], "by seed, though the last is the best"


def test_a_failed_replica_stops_nobody() -> None:
    cluster = Cluster(search("halving", seeds=4), workers=2, order=0)
    cluster.broken = lambda key, epoch: "broken" if key.endswith("-9") else ""
    ended = cluster.run().scheduler.ended()
    assert [ended[f"{winner(cluster)}-{seed}"] for seed in (8, 9, 10)] == ["finished", "failed", "finished"]
    assert sorted(ended.values()).count("failed") == 1


def test_who_has_won_no_more_after_a_restart_is_not_learnt_again() -> None:
    """A trial that failed is tried again by the next start, and may win then."""
    cluster = Cluster(search("halving", seeds=2), workers=1, order=0)
    lost = winner(Cluster(search("halving"), workers=1, order=0).run())
    cluster.broken = lambda key, epoch: "broken" if key == lost else ""
    while not cluster.ledger.replicas():
        cluster.run(steps=1)
        cluster._hand_out()
    (first,) = (key for key, entry in cluster.ledger.trials.items() if entry.seed)
    cluster.broken = lambda key, epoch: ""
    cluster.crash().run()
    ended = cluster.scheduler.ended()
    assert first != f"{lost}-8" and ended[first] == "stopped" and cluster.ledger.reached(first) < 18
    assert (winner(cluster), ended[f"{lost}-8"]) == (lost, "finished")


def test_where_nobody_has_won_nothing_is_learnt_again() -> None:
    cluster = Cluster(search("halving", seeds=3), workers=2, order=0)
    cluster.value = lambda hyper, epoch: NAN
    assert len(cluster.run().scheduler.ended()) == len(cluster.ledger.trials) == 9


# ── whole sweeps, without Ray ───────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The driver and its processes are gone."""


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    without_ray(monkeypatch)
    return monkeypatch


def weights(trials: list[Trial]) -> dict[str, str]:
    described = {t.key: json.loads((Path(t.checkpoint) / checkpoints.DESCRIPTION).read_bytes()) for t in trials}
    return {key: told["sha256"] for key, told in described.items()}


def files(storage: Path) -> dict[str, bytes]:
    """What is the same in two places and at two times: checkpoints hold the seconds that they took."""
    found = {file.relative_to(storage).as_posix(): file for file in storage.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if not name.endswith(checkpoints.DESCRIPTION)}


def test_each_replica_is_the_winners_configuration_as_its_seed_alone_would_learn_it(
    no_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = Listener()
    trials = tuning.sweep(request(str(tmp_path), seeds=3), told)
    best, again = trials[0], trials[-2:]
    assert len(trials) == 8 and trials[:-2] == searched(trials)
    assert [(t.key, t.seed, t.hyper, t.status) for t in again] == [
        (f"{best.key}-{seed}", seed, best.hyper, "finished") for seed in (2, 3)
    ]
    for trial in again:
        for epoch in Toy().fit(request(str(tmp_path)).data, best.hyper, trial.seed or 0, None):
            assert trial.curve[epoch.number - 1] == epoch.metrics
            if epoch.number == len(best.curve):
                break
        tensors = checkpoints.read(trial.checkpoint)[0].tensors
        alone = epoch.state().tensors
        assert tensors.keys() == alone.keys() and all(torch.equal(tensors[name], alone[name]) for name in alone)
    assert told.endings == {t.key: t for t in trials} and told.curves == {t.key: t.curve for t in trials}
    assert [(p.key, p.hyper, p.seed) for p in told.plans[-1]][-2:] == [(t.key, t.hyper, t.seed) for t in again]


def test_a_sweep_of_one_seed_leaves_what_it_would_leave_without_the_word(
    no_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = tuning.sweep(request(str(tmp_path / "one")), Listener())
    three = tuning.sweep(request(str(tmp_path / "three"), seeds=3), Listener())
    assert [t.key for t in one] == [configurations.key(t.hyper) for t in one]
    assert weights(one) == weights(searched(three)) and "seed" not in one[0].to_json()
    kept, more = files(tmp_path / "one"), files(tmp_path / "three")
    assert "replicas" not in json.loads(kept["sweep.json"]) and b'"seed"' not in kept["finished.json"]
    tensors = {name: content for name, content in kept.items() if name.endswith(".safetensors")}
    assert tensors and tensors.items() <= more.items()
    assert {name.partition("/")[0] for name in more} - {name.partition("/")[0] for name in kept} == {
        f"{three[0].key}-2",
        f"{three[0].key}-3",
    }


@pytest.mark.parametrize("epoch", [1, 5, 9])
def test_what_died_in_the_midst_of_a_replica_goes_on_to_the_same_weights(
    no_ray: pytest.MonkeyPatch, tmp_path: Path, epoch: int
) -> None:
    whole = tuning.sweep(request(str(tmp_path / "whole"), trials=2, seeds=3), Listener())
    write = checkpoints.write

    def dies(folder: str, number: int, *rest: Any) -> str:
        if folder.endswith("-3") and number == epoch:
            raise Killed
        return write(folder, number, *rest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "write", dies)
        tuning.sweep(request(str(tmp_path / "cut"), trials=2, seeds=3), Listener())
    shutil.move(tmp_path / "cut", tmp_path / "moved")
    told = Listener()
    again = tuning.sweep(request(str(tmp_path / "moved"), trials=2, seeds=3), told)
    assert weights(again) == weights(whole)
    assert [(t.key, t.seed, t.status, t.curve) for t in again] == [(t.key, t.seed, t.status, t.curve) for t in whole]
    ((kept, of, _),) = told.kept_trials
    assert (kept, of) == ((3, 4) if epoch == 1 else (4, 4))
    assert told.curves == {t.key: t.curve for t in whole}


def test_a_finished_sweep_holds_its_replicas_and_a_fresh_one_none_of_them(
    no_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = request(str(tmp_path), seeds=2, trials=2)
    trials, told = tuning.sweep(wanted, Listener()), Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Toy, "fit", lambda *_: pytest.fail("it was learnt again"))
        assert tuning.sweep(wanted, told) == trials
    assert told.plans[-1][-1].seed == 2 and told.endings[trials[-1].key] == trials[-1]
    written = Path(trials[-1].checkpoint).stat().st_mtime_ns
    assert weights(tuning.sweep(wanted, Listener(), fresh=True)) == weights(trials)
    assert Path(trials[-1].checkpoint).stat().st_mtime_ns > written


@pytest.mark.parametrize("seed", ["2", True, 2.0, "/../../x"])
def test_a_seed_that_somebody_else_wrote_names_no_folder(no_ray: pytest.MonkeyPatch, tmp_path: Path, seed: Any) -> None:
    trials = tuning.sweep(request(str(tmp_path), seeds=2, trials=2), Listener())
    rows = json.loads((tmp_path / "finished.json").read_text())
    rows[-1] |= {"seed": seed, "key": f"{trials[0].key}-{seed}"}
    (tmp_path / "finished.json").write_text(json.dumps(rows))
    assert tuning.sweep(request(str(tmp_path), seeds=2, trials=2), Listener()) == trials, "from its checkpoints"
    assert json.loads((tmp_path / "finished.json").read_text())[-1]["seed"] == 2
    if isinstance(seed, str):
        with pytest.raises(ValueError, match="format code"):
            configurations.key({}, seed)  # type: ignore[arg-type]


def test_a_replica_that_fails_is_shown_and_the_sweep_goes_on(no_ray: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fit = Toy.fit

    def unlucky(self: Toy, data: Data, hyper: Hyper, seed: int, state: State | None) -> Iterator[Epoch]:
        for epoch in fit(self, data, hyper, seed, state):
            if (seed, epoch.number) == (2, 4):
                raise ValueError("no luck with seed 2")
            yield epoch

    no_ray.setattr(Toy, "fit", unlucky)
    told = Listener()
    trials = tuning.sweep(request(str(tmp_path), seeds=3), told)
    assert [t.status for t in trials[-2:]] == ["failed", "finished"]
    assert "no luck with seed 2" in told.endings[trials[-2].key].error
    assert [t.seed for t in same_again(trials[0], trials)] == [None, 3]
    assert measure_seeds(trials[0], trials)["seeds/count"] == 2


# ── in figures ──────────────────────────────────────────────────────────────────────────────────────────


def test_figures_are_of_the_winner_and_whoever_learnt_the_same_to_the_end() -> None:
    best = Trial("a", {"lr": 1}, "finished", best=1.0)
    others = [
        Trial("b", {"lr": 2}, "finished", best=50.0),
        Trial("a-9", {"lr": 1}, "finished", best=2.0, seed=9),
        Trial("a-8", {"lr": 1}, "finished", best=6.0, seed=8),
        Trial("b-8", {"lr": 2}, "stopped", best=50.0, seed=8),
        Trial("a-10", {"lr": 1}, "failed", best=50.0, seed=10),
    ]
    assert [t.key for t in same_again(best, [best, *others])] == ["a", "a-8", "a-9"]
    told = measure_seeds(best, [best, *others])
    assert told == {"seeds/count": 3, "seeds/mean": 3.0, "seeds/std": pytest.approx(7**0.5)}
    lost = Trial("a-11", {"lr": 1}, "finished", best=NAN, seed=11)
    assert measure_seeds(best, [best, *others, lost]) == told, "a value that is none is no figure, and is not counted"
    assert measure_seeds(best, [best, others[0], others[-1]]) == {}
