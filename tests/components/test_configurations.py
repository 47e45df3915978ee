"""Configurations are drawn the same every time, inside their domains, none twice, the defaults first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from components.contract import Choice, Domain, Hyper, Integer, Objective, Uniform
from components.errors import ParamsError
from components.tuning import configurations
from components.tuning.configurations import Outcome, Sampler

DOMAINS: dict[str, Domain] = {
    "lr": Uniform(1e-4, 1e-1, log=True, mutable=True),
    "layers": Integer(1, 4),
    "width": Integer(8, 256, log=True),
    "shape": Choice(((32,), (64, 64), None)),
    "drop": Uniform(0.0, 0.5),
}
DEFAULTS: Hyper = {"lr": 1e-3, "layers": 2, "width": 64, "shape": [64, 64], "drop": 0.1, "epochs": 5}


def drawn(count: int, seed: int = 1, domains: Mapping[str, Domain] = DOMAINS, **settings: float) -> list[Hyper]:
    sampler = Sampler(domains, settings, DEFAULTS, seed)
    found = [sampler.first()]
    while len(found) < count and (hyper := sampler.draw(found)) is not None:
        found.append(hyper)
    return found


def test_the_first_is_the_defaults_and_the_settings() -> None:
    first = drawn(1, batch=16)[0]
    assert first == {"lr": 1e-3, "layers": 2, "width": 64, "shape": [64, 64], "drop": 0.1, "batch": 16}


def test_a_default_outside_its_domain_is_drawn_instead() -> None:
    first = drawn(1, domains={"lr": Uniform(0.01, 0.02), "layers": Choice((2, 3)), "none": Choice(("a",))})[0]
    assert 0.01 <= first["lr"] <= 0.02
    assert (first["layers"], first["none"]) == (2, "a")


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    assert drawn(20) == drawn(20)
    assert drawn(20)[:10] == drawn(10), "how many are drawn changes none of them"
    assert drawn(20, seed=2)[1:] != drawn(20)[1:]
    shuffled = dict(reversed(DOMAINS.items()))
    assert drawn(20, domains=shuffled) == drawn(20)


def test_draws_stay_inside_and_reach_the_ends() -> None:
    found = drawn(150)
    for hyper in found:
        assert 1e-4 <= hyper["lr"] <= 1e-1
        assert isinstance(hyper["width"], int) and 8 <= hyper["width"] <= 256
        assert 0 <= hyper["drop"] <= 0.5
    assert set(Counter(h["layers"] for h in found)) == {1, 2, 3, 4}
    assert {str(h["shape"]) for h in found} == {"[32]", "[64, 64]", "None"}
    below = sum(h["lr"] < 10**-2.5 for h in found) / len(found)
    assert 0.35 < below < 0.65, "evenly in the logarithm"


def test_no_configuration_is_drawn_twice_and_a_space_can_be_used_up() -> None:
    found = drawn(50, domains={"layers": Integer(1, 3), "shape": Choice(("a", "b"))})
    assert len(found) == 6
    assert len({configurations.key(hyper) for hyper in found}) == 6
    assert len(drawn(5, domains={})) == 1


def test_a_key_names_values_not_their_order() -> None:
    assert configurations.key({"a": 1, "b": [1, 2]}) == configurations.key({"b": [1, 2], "a": 1})
    assert configurations.key({"a": 1}) != configurations.key({"a": 2})
    assert configurations.key({}) == "44136fa355b3"


@pytest.mark.parametrize(
    ("domain", "fault"),
    [
        (Uniform(1.0, 0.0), "low above its high"),
        (Uniform(0.0, 1.0, log=True), "begin above 0"),
        (Choice(()), "empty list"),
    ],
)
def test_a_domain_that_cannot_be_drawn_from_is_named(domain: Domain, fault: str) -> None:
    with pytest.raises(ParamsError, match=rf"search\.space\.lr: got an? .*{fault}"):
        Sampler({"lr": domain}, {}, {}, 0)


def test_a_mutation_moves_mutable_settings_alone() -> None:
    sampler = Sampler({**DOMAINS, "kind": Choice((1, 2, 3), mutable=True)}, {}, {**DEFAULTS, "kind": 2}, 1)
    generator = np.random.default_rng(0)
    first = sampler.first()
    moved = [sampler.mutated(first, generator) for _ in range(50)]
    for hyper in moved:
        assert {n: hyper[n] for n in ("layers", "width", "shape", "drop")} == {
            n: first[n] for n in ("layers", "width", "shape", "drop")
        }
        assert 1e-4 <= hyper["lr"] <= 1e-1
    assert {hyper["kind"] for hyper in moved} == {1, 2, 3}
    assert 0.0008 in {hyper["lr"] for hyper in moved} and 0.0012 in {hyper["lr"] for hyper in moved}


def test_better_draws_come_from_where_results_are_better() -> None:
    sampler = Sampler(DOMAINS, {}, DEFAULTS, 3)
    objective = Objective("loss", "min")
    known = drawn(40, seed=3)
    outcomes = [Outcome(h, 5, abs(np.log10(h["lr"]) + 2) + h["drop"], i % 2 == 0) for i, h in enumerate(known)]
    found = list(known)
    for _ in range(10):
        hyper = sampler.draw_better(found, outcomes, objective)
        assert hyper is not None
        found.append(hyper)
    error = [abs(np.log10(h["lr"]) + 2) + h["drop"] for h in found]
    assert np.median(error[40:]) < np.median(error[:40]) / 2
    again = sampler.draw_better(known, reversed(outcomes), objective)
    assert again == found[40], "neither time nor order counts"


def test_better_draws_begin_as_plain_ones() -> None:
    sampler = Sampler(DOMAINS, {}, DEFAULTS, 3)
    known = drawn(2, seed=3)
    nothing = [Outcome(h, 5, float("nan"), True) for h in known]
    assert sampler.draw_better(known, nothing, Objective("loss", "min")) == sampler.draw(known)
