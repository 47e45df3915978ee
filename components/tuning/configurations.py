"""Configurations: drawn from domains by a seeded sampler, each known by the hash of its values.

The first is the family's defaults, so that a sweep is never worse than they are. The n-th draw depends on the
seed, on n, and (with TPE) on what is known of the draws before, never on time or on who came first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Choice, Domain, Hyper, Integer, Json, Objective, Uniform
from ..errors import ParamsError

_ATTEMPTS = 100  # draws before a space counts as used up
_DIGITS = 4  # of a drawn float: enough to search by, short enough to read


def key(hyper: Hyper, seed: int | None = None) -> str:
    """A trial's identity: 12 hex digits of the SHA-256 of its configuration's JSON in one spelling, and the seed of one
    that learns that configuration again. It becomes a folder's name: a seed that is no whole number is a ValueError."""
    canonical = json.dumps(dict(hyper), sort_keys=True, separators=(",", ":"), allow_nan=False)
    name = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    return name if seed is None else f"{name}-{seed:d}"


@dataclass(frozen=True)
class Outcome:
    """What a sampler learns from: a configuration's value after some epochs, and whether it got them all."""

    hyper: Hyper
    epochs: int
    value: float
    whole: bool


@dataclass(frozen=True)
class Sampler:
    """Draws configurations: `settings` are fixed, `domains` searched, `defaults` the family's own values."""

    domains: Mapping[str, Domain]
    settings: Hyper
    defaults: Hyper
    seed: int

    def __post_init__(self) -> None:
        for name, domain in self.domains.items():
            if isinstance(domain, Choice):
                fault = "" if domain.values else "an empty list"
            else:
                fault = "a low above its high" if domain.low > domain.high else ""
                fault = fault or ("a log range that does not begin above 0" if domain.log and domain.low <= 0 else "")
            if fault:
                raise ParamsError(f"search.space.{name}: got {fault}, expected values to draw from")

    def first(self) -> Hyper:
        """The defaults, but drawn where a domain of params.yaml leaves its default out."""
        drawn = self._drawn(0, 0)
        chosen = {n: self.defaults[n] for n, d in self.domains.items() if _holds(d, self.defaults.get(n))}
        return _plain({**drawn, **chosen, **self.settings})

    def draw(self, known: Sequence[Hyper]) -> Hyper | None:
        """The next configuration after those known; None if the space has no other."""
        return self._new(known, lambda attempt: self._drawn(len(known), attempt))

    def draw_better(self, known: Sequence[Hyper], outcomes: Iterable[Outcome], objective: Objective) -> Hyper | None:
        """As `draw`, by a tree-structured Parzen estimator (Bergstra et al. 2011; Optuna's) from the outcomes."""
        seen = sorted((o for o in outcomes if math.isfinite(o.value)), key=lambda o: key(o.hyper))
        if not self.domains or len(seen) < 3:
            return self.draw(known)
        return self._new(known, lambda attempt: self._suggested(len(known) + attempt, seen, objective))

    def mutated(self, hyper: Hyper, generator: np.random.Generator) -> Hyper:
        """A configuration whose mutable domains moved: drawn anew one time in four, else to a neighbouring value
        (0.8 or 1.2 times it), as population based training does (Jaderberg et al. 2017)."""
        moved = {
            name: _value(domain, generator) if generator.random() < 0.25 else _near(domain, hyper[name], generator)
            for name, domain in sorted(self.domains.items())
            if domain.mutable
        }
        return _plain({**hyper, **moved})

    def _new(self, known: Sequence[Hyper], draw: Any) -> Hyper | None:
        taken = {key(hyper) for hyper in known}
        for attempt in range(_ATTEMPTS):
            hyper = _plain({**draw(attempt), **self.settings})
            if key(hyper) not in taken:
                return hyper
        return None

    def _drawn(self, number: int, attempt: int) -> dict[str, Json]:
        generator = np.random.default_rng([self.seed % 2**63, number, attempt])
        return {name: _value(domain, generator) for name, domain in sorted(self.domains.items())}

    def _suggested(self, number: int, seen: Sequence[Outcome], objective: Objective) -> dict[str, Json]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions = {name: _distribution(domain) for name, domain in sorted(self.domains.items())}
        sampler = optuna.samplers.TPESampler(seed=(self.seed + number) % 2**32, n_startup_trials=3)
        direction = "maximize" if objective.mode == "max" else "minimize"
        study = optuna.create_study(sampler=sampler, direction=direction)
        for outcome in seen:
            inside = {n: _coded(d, outcome.hyper[n]) for n, d in self.domains.items() if _holds(d, outcome.hyper[n])}
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.COMPLETE if outcome.whole else optuna.trial.TrialState.PRUNED,
                    params=inside,
                    distributions={name: distributions[name] for name in inside},
                    value=outcome.value if outcome.whole else None,
                    intermediate_values={outcome.epochs: outcome.value},
                )
            )
        asked = study.ask(distributions).params
        return {name: _decoded(domain, asked[name]) for name, domain in self.domains.items()}


def defaults(settings: type[Any]) -> Hyper:
    """Every setting of a family's Settings with its default."""
    return _plain(dataclasses.asdict(settings()))


def _plain(hyper: Mapping[str, Json]) -> Hyper:
    """As JSON gives it back, so that a configuration is the same before and after it was written."""
    plain: Hyper = json.loads(json.dumps(dict(sorted(hyper.items()))))
    return plain


# ── one value ───────────────────────────────────────────────────────────────────────────────────────────


def _value(domain: Domain, generator: np.random.Generator) -> Json:
    if isinstance(domain, Choice):
        return domain.values[int(generator.integers(len(domain.values)))]
    if isinstance(domain, Integer) and not domain.log:
        return int(generator.integers(domain.low, domain.high + 1))
    # An integer on a log scale is a rounded float: half a step beyond each end gives the ends their share.
    half = 0.5 if isinstance(domain, Integer) else 0.0
    low, high = domain.low - half, domain.high + half
    if domain.log:
        low, high = math.log(low), math.log(high)
    value = generator.uniform(low, high)
    return _fitted(domain, math.exp(value) if domain.log else value)


def _near(domain: Domain, value: Json, generator: np.random.Generator) -> Json:
    up = bool(generator.random() < 0.5)
    if isinstance(domain, Choice):
        at = next((i for i, v in enumerate(domain.values) if _same(v, value)), 0)
        return domain.values[min(max(at + (1 if up else -1), 0), len(domain.values) - 1)]
    return _fitted(domain, value * (1.2 if up else 0.8))


def _fitted(domain: Uniform | Integer, value: float) -> float | int:
    """The value as the domain writes it, inside its bounds."""
    if isinstance(domain, Integer):
        return min(max(round(value), domain.low), domain.high)
    return min(max(float(f"{value:.{_DIGITS}g}"), domain.low), domain.high)


def _holds(domain: Domain, value: Json) -> bool:
    if isinstance(domain, Choice):
        return any(_same(v, value) for v in domain.values)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and domain.low <= value <= domain.high


def _same(a: Json, b: Json) -> bool:
    return json.dumps(a) == json.dumps(b)


def _distribution(domain: Domain) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(range(len(domain.values))))  # by position: a value may be a list
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high, log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _coded(domain: Domain, value: Json) -> Json:
    return next(i for i, v in enumerate(domain.values) if _same(v, value)) if isinstance(domain, Choice) else value


def _decoded(domain: Domain, value: Json) -> Json:
    return domain.values[value] if isinstance(domain, Choice) else _fitted(domain, value)
