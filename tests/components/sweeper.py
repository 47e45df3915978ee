"""A sweep in a process of its own, for tests that kill it: python -m tests.components.sweeper STORAGE FAMILY JSON"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from components import tuning
from components.contract import Metrics, Objective
from components.params import Resources, Search
from components.sweep import Planned, Request, Trial
from tests.families import toy

TOY = "tests.families.toy:Toy"


class Listener:
    """Notes what a sweep tells; checks that each epoch is told once, in order."""

    def __init__(self, aloud: bool = False) -> None:
        self.aloud = aloud
        self.plans: list[list[Planned]] = []
        self.curves: dict[str, list[Metrics]] = {}
        self.endings: dict[str, Trial] = {}
        self.kept_trials: list[tuple[int, int, float]] = []

    def kept(self, trials: int, of: int, seconds: float) -> None:
        self.kept_trials.append((trials, of, seconds))

    def planned(self, trials: Sequence[Planned], epochs: int, objective: Objective) -> None:
        assert objective == Objective("loss", "min") and epochs > 0
        self.plans.append(list(trials))

    def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
        curve = self.curves.setdefault(key, [])
        assert key not in self.endings, "nobody learns after the end"
        assert first_epoch == len(curve) + 1, f"{key} told epoch {first_epoch} after {len(curve)}"
        assert metrics
        curve.extend(metrics)
        self._say(f"learnt {key} {first_epoch} {len(metrics)}")

    def ended(self, trial: Trial) -> None:
        assert trial.key not in self.endings
        self.endings[trial.key] = trial
        self._say(f"ended {trial.key} {trial.status}")

    def _say(self, line: str) -> None:
        if self.aloud:
            print(line, flush=True)


def request(storage: str, family: str = TOY, seed: int = 1, cpus: int = 1, **more: object) -> Request:
    """A sweep of the toy: keywords of Search, and the rest as settings of the family."""
    names = set(Search.model_fields)
    search = {"trials": 6, "epochs": 9, "first_rung": 3, **{k: v for k, v in more.items() if k in names}}
    settings = {k: v for k, v in more.items() if k not in names}
    searched = Search.model_validate(search)
    return Request(family, toy.data(), settings, searched, Resources(cpus=cpus), seed, str(storage), 0.0)


def main() -> None:
    storage, family, options = sys.argv[1:]
    listener = Listener(aloud=True)
    trials = tuning.sweep(request(storage, family, **json.loads(options)), listener)
    print(json.dumps([[t.key, t.status, len(t.curve), t.checkpoint] for t in trials]))


if __name__ == "__main__":
    main()
