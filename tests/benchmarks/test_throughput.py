"""The scripts do the same work as the families: the same loss of the same rows, in as many steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks import throughput
from benchmarks.throughput import ENTRIES, Entry
from components import fidelity
from components.contract import Data, Hyper
from components.families import FAMILIES, family
from tests.components import cases
from tests.components.test_recommender import TASTE

DATA: dict[str, Callable[[], Data]] = {
    "mlp": lambda: cases.table("classification"),
    "cnn": lambda: cases.images("classification"),
    "cnn1d": lambda: cases.waves("classification"),
    "rnn": lambda: cases.reviews("classification"),
    "recommender": lambda: TASTE,
    "transformer": cases.rewritten,
    "seq2seq": cases.rewritten,
    "autoencoder": lambda: cases.images("representation"),
    "geom": lambda: cases.images("anomaly"),
    "vae": lambda: cases.images("generation"),
    "diffusion": lambda: cases.images("generation"),
    "gan": lambda: cases.images("generation"),
}
# Names in the entries are of their datasets; here of the bars.
HYPER: dict[str, Hyper] = {"geom": {"normal": "flat"}}
SCRIPTS = [entry for entry in ENTRIES if entry.script]


def test_every_family_that_learns_from_rows_has_an_entry() -> None:
    assert [e.family for e in ENTRIES if e.family in FAMILIES] == [e.family for e in ENTRIES]
    assert {e.family for e in ENTRIES} == {name for name in FAMILIES if family(name).learning != "reinforcement"}


@pytest.mark.parametrize("entry", SCRIPTS, ids=lambda e: e.family)
def test_a_script_has_the_loss_of_its_family(entry: Entry) -> None:
    data = DATA[entry.family]()
    lesson = throughput.lesson_of(family(entry.family), data, HYPER.get(entry.family, {}))
    assert entry.script
    script = entry.script(lesson.net, data)
    lesson.net.eval()  # without dropout, for which they draw in another order
    rows_B = torch.arange(7) * 3
    losses = []
    for loss in (lesson.loss, script.loss):
        torch.manual_seed(0)  # for images and series that are changed a little
        losses.append(float(loss(rows_B).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] > 0
    with torch.no_grad():
        script.validate()
    # "flat" is a third of the bars
    assert script.units >= len(data.splits["train"]) * (0.25 if entry.family in HYPER else 0.9)


def test_both_make_as_many_steps_and_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    data, (entry, *_) = cases.table("classification"), ENTRIES
    monkeypatch.setattr(throughput, "data_of", lambda _: data)
    steps: list[str] = []

    def stepped(optimizer: torch.optim.Optimizer, *_: object) -> None:
        steps.append("tidemill" if len(optimizer.param_groups) == 2 else "plain")

    handle = register_optimizer_step_post_hook(stepped)
    try:
        found = throughput.compared(entry, 0.0)
    finally:
        handle.remove()
    assert found["epochs"] == 5 and found["ratio"] == pytest.approx(found["tidemill"] / found["plain"])
    each = round(len(data.splits["train"]) / 32)
    assert steps.count("tidemill") == steps.count("plain") == 6 * each


def test_two_nets_make_as_many_steps_in_a_script() -> None:
    (entry,) = (entry for entry in ENTRIES if entry.epochs)
    data = DATA[entry.family]()
    fidelity.judge(data)  # which learns by steps of its own, once
    steps: list[bool] = []  # whether by an optimiser of the family, which is fused
    handle = register_optimizer_step_post_hook(
        lambda optimizer, *_: steps.append(bool(optimizer.param_groups[0]["fused"]))
    )
    try:
        next(family(entry.family).fit(data, entry.hyper, 0, None))
        loss = next(throughput.written(entry, family(entry.family), data)[0])
    finally:
        handle.remove()
    assert steps.count(True) == steps.count(False) > 6
    assert 0 < loss < 3


def test_an_entry_without_a_loop_says_so() -> None:
    with pytest.raises(ValueError, match="mlp: neither"):
        throughput.written(Entry("mlp", "mixed"), family("mlp"), DATA["mlp"]())
