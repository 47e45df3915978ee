"""What makes a run key: data, settings and code that concern the stage, and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components import datasets, params, plan, receipts, versioning
from components.datasets import cartpole, pendulum
from components.errors import DataError, ParamsError
from components.expectations import ColumnRule, Expectations
from components.plan import Project, Resolved, Stage
from components.receipts import Receipt
from components.workspace import Workspace

PARAMS = """\
seed: 1
datasets: {digits: {}}
pipelines:
  one: {dataset: digits, family: mlp, search: {trials: 2}}
"""
EXPECTATIONS = Expectations(
    columns={
        "x": ColumnRule(kind="number", min=0.0, max=1.0),
        "y": ColumnRule(role="target", kind="category", values=["a", "b"]),
    }
)


class Bench:
    """A project whose data and promises the test sets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.md5, self.promises = folder, "d1", EXPECTATIONS
        monkeypatch.setattr(versioning, "data_version", lambda *_: SimpleNamespace(md5=self.md5))
        monkeypatch.setattr(datasets, "expectations", lambda *_: self.promises)

    def resolved(self, text: str = PARAMS) -> Resolved:
        (self.folder / "params.yaml").write_text(text)
        workspace = Workspace(self.folder)
        project = Project(workspace, params.load(workspace), lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]
        return plan.resolve(project, "one")

    def leave(self, resolved: Resolved, stage: Stage, before: dict[Stage, Receipt], **facts: Any) -> Receipt:
        folder = resolved.workspace.results("one", stage)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "out").write_text(stage)
        inputs = plan.inputs(resolved, stage, before)
        made = Receipt("one", stage, receipts.key(inputs), inputs, receipts.hashes(folder), facts)
        before[stage] = receipts.leave(resolved.workspace, made)
        return made

    def finish(self) -> None:
        """All four stages, done for the parameters and data of now."""
        resolved, before = self.resolved(), {}
        self.leave(resolved, "validate", before)
        self.leave(resolved, "train", before, weights_sha256="w1")
        self.leave(resolved, "register", before, champion={"version": 1})
        self.leave(resolved, "score", before)

    def actions(self, text: str = PARAMS) -> dict[str, str]:
        return {step.stage: f"{step.action}: {step.why}" for step in plan.plan(self.resolved(text))}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_nothing_done_everything_runs(bench: Bench) -> None:
    assert bench.actions() == {
        "validate": "run: never finished",
        "train": "run: never finished",
        "register": "run: after train",
        "score": "run: after train",
    }


def test_all_done_nothing_runs(bench: Bench) -> None:
    bench.finish()
    assert all(said.startswith("unchanged: finished") for said in bench.actions().values())


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("seed: 1", "seed: 2", {"train": "changed: seed 1 → 2"}),
        ("trials: 2", "trials: 3", {"train": "changed: search.trials 2 → 3"}),
        ("family: mlp", "family: mlp, gate: {margin: 0.1}", {"register": "changed: gate.margin 0.0 → 0.1"}),
        ("family: mlp", "family: mlp, scoring: {batch_rows: 9}", {"score": "changed: scoring.batch_rows 65536 → 9"}),
        ("family: mlp", "family: mlp, schedule: '0 6 * * *', tags: [a]", {}),
    ],
)
def test_a_setting_runs_what_it_concerns(bench: Bench, old: str, new: str, changed: dict[str, str]) -> None:
    bench.finish()
    found = bench.actions(PARAMS.replace(old, new))
    first = {stage: said.removeprefix("run: ") for stage, said in found.items() if "run: changed" in said}
    assert first == changed
    later = plan.STAGES[plan.STAGES.index(next(iter(changed))) + 1 :] if changed else ()  # type: ignore[arg-type]
    assert all(found[stage].startswith("run: after") for stage in later)


def test_new_data_runs_all_of_it(bench: Bench) -> None:
    bench.finish()
    bench.md5 = "d2"
    assert bench.actions()["validate"] == "run: changed: data d1 → d2"
    assert bench.actions()["train"] == "run: changed: data d1 → d2"


def test_a_wider_range_is_validated_again_but_not_trained_again(bench: Bench) -> None:
    bench.finish()
    wider = EXPECTATIONS.columns | {"x": ColumnRule(kind="number", min=0.0, max=2.0)}
    bench.promises = Expectations(columns=wider)
    found = bench.actions()
    assert found["validate"] == "run: changed: expectations.columns.x.max 1.0 → 2.0"
    assert found["train"].startswith("unchanged")


def test_other_episodes_that_measure_train_again(bench: Bench) -> None:
    text = PARAMS.replace("family: mlp", "family: dqn")
    bench.promises = cartpole.expectations()
    before = plan.settled(bench.resolved(text), "train")
    assert "evaluation" not in before["spec"]
    assert "evaluation" not in plan.settled(bench.resolved(text), "validate")["expectations"]
    for told in ({"episodes": 20, "first_seed": 1_000_000}, {"episodes": 50, "first_seed": 9_000_000}):
        bench.promises = Expectations.model_validate(
            cartpole.expectations().model_dump() | {"evaluation": {"val": told}}
        )
        after = plan.settled(bench.resolved(text), "train")
        assert after.pop("spec") == before["spec"] | {"evaluation": {"val": told}}
        assert after == {name: value for name, value in before.items() if name != "spec"}


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        (
            {"val": (1_000_001, 1_000_000)},
            "evaluation.val: got seeds 1000000 to 2000000, expected none of test's, 2000000",
        ),
        ({"test": (1, 49)}, "evaluation.test: got seeds 49 to 49, expected none of train's, 0 to 49"),
        ({"val": (2, 2**24 - 1)}, "evaluation.val: got seeds 16777215 to 16777216, expected all below 16777216, where"),
    ],
)
def test_an_episode_that_is_learnt_from_or_measures_twice_is_refused(
    bench: Bench, evaluation: dict[str, tuple[int, int]], said: str
) -> None:
    told = {split: {"episodes": count, "first_seed": first} for split, (count, first) in evaluation.items()}
    bench.promises = Expectations.model_validate(cartpole.expectations().model_dump() | {"evaluation": told})
    with pytest.raises(DataError) as caught:
        bench.resolved(PARAMS.replace("family: mlp", "family: dqn"))
    assert said in str(caught.value) and "fix: say fewer episodes or another first_seed" in str(caught.value)


def test_outputs_that_are_gone_are_made_again(bench: Bench) -> None:
    bench.finish()
    (bench.folder / "results/one/train/out").unlink()
    found = bench.actions()
    assert found["train"] == "run: its outputs are missing or altered"
    assert found["register"] == "run: after train"


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_a_family_that_takes_no_text_says_so_before_anything_runs(bench: Bench, family: str) -> None:
    bench.promises = Expectations(columns={**EXPECTATIONS.columns, "x": ColumnRule(kind="text")})
    said = rf"family '{family}' learns from columns of kind (.|\n)*'digits' has x \(text\)(.|\n)*choose (.*or )?rnn"
    with pytest.raises(ParamsError, match=said):
        bench.resolved(PARAMS.replace("family: mlp", f"family: {family}"))


def test_the_tokenizers_version_is_part_of_what_a_text_model_is_made_from(bench: Bench) -> None:
    assert "tokenizers" not in plan.inputs(bench.resolved(), "train", {})["versions"]
    bench.promises = Expectations(columns={**EXPECTATIONS.columns, "x": ColumnRule(kind="text")})
    text = plan.inputs(bench.resolved(PARAMS.replace("family: mlp", "family: rnn")), "train", {})
    assert set(text["versions"]) == {"numpy", "safetensors", "tokenizers", "torch"}


def test_a_family_that_cannot_serve_the_data(bench: Bench) -> None:
    with pytest.raises(
        ParamsError, match="family 'dqn' does control, dataset 'digits' offers classification or anomaly"
    ):
        bench.resolved(PARAMS.replace("family: mlp", "family: dqn"))


@pytest.mark.parametrize(
    ("recorded", "family", "said"),
    [
        (pendulum, "dqn", r"are one of a few \(Discrete\); those of environment 'Pendulum-v1' are (.|\n)*choose ddpg"),
        (cartpole, "ddpg", r"within bounds \(Box\); those of environment 'CartPole-v1' are one (.|\n)*choose dqn"),
        (pendulum, "mlp", r"dataset 'digits' offers control(.|\n)*choose dqn or ddpg"),
    ],
)
def test_a_family_that_acts_in_another_way_is_refused(bench: Bench, recorded: Any, family: str, said: str) -> None:
    bench.promises = recorded.expectations()
    with pytest.raises(ParamsError, match=said):
        bench.resolved(PARAMS.replace("family: mlp", f"family: {family}"))
