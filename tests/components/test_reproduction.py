"""A version trained again from its commit: the same to the byte, or told how it differs, and nothing else changed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from components import leftovers, lineage, params, plots, receipts, reproduction, stages, versioning
from components.errors import DataError, NotReproduced, RegistryError, TidemillError, TrainingFailed
from components.lineage import Record, known
from components.plan import Project
from components.reproduction import Verdict, recorded, replaying, verdict
from components.reproduction.recorded import Recorded
from components.reproduction.verdict import Made, expected_differences, judge
from components.sweep import Watchers
from components.tracking import past
from components.versioning import checkouts
from components.workspace import Workspace
from flows.lineage import reproduce as command

from .serial import without_ray
from .test_lineage import write_signs

PARAMS = """\
seed: {seed}
datasets:
  signs: {{table: signs.csv, target: sign}}
pipelines:
  own: {{dataset: signs, family: "shore:Shore", search: {{trials: 3, epochs: 6, first_rung: 2}}}}
  bred: {{dataset: signs, family: mlp, search: {{scheduler: pbt, trials: 4, epochs: 6, first_rung: 2}}}}
"""
FAMILY = '''\
"""A family that lies in the project."""
from components.families.mlp import Mlp


class Shore(Mlp):
    speed = 1.0

    def fit(self, data, hyper, seed, state=None):
        print("a family may print")
        yield from super().fit(data, {**hyper, "lr": hyper["lr"] * self.speed}, seed, state)
'''
IGNORED = ".tidemill/\ndata/\nresults/\n__pycache__/\n"


def git(root: Path, *words: str) -> str:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", "--all")
    git(root, "commit", "-m", "a change")
    return git(root, "rev-parse", "HEAD")


def passed(work: Any) -> dict[str, Any]:
    """What `validate` leaves, without Great Expectations."""
    receipts.write_json(work.folder / "validation.json", {})
    return {"dataset": "signs", "checks": 1, "docs": ""}


def undrawn(folder: Path, *_: Any) -> list[Path]:
    """What `plots.draw` leaves, without matplotlib's work."""
    folder.mkdir()
    return []


def play(root: Path, name: str) -> None:
    workspace = Workspace(root)
    project = Project(workspace, params.load(workspace), lambda _: None, lambda _: Watchers())
    stages.fetch(project, [name])
    for stage in (stages.validate, stages.train, stages.register):
        stage(project, name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """own/1 and bred/1, trained at a first commit, and own/2 from a tree with changed code. The present commit has
    other settings, other data and code that does not run; its tree differs from it."""
    root = tmp_path_factory.mktemp("reproduction")
    (root / ".tidemill").mkdir()
    shutil.copy(empty_store, root / ".tidemill" / "mlflow.db")
    write_signs(root / "signs.csv", 200)
    (root / "shore.py").write_text(FAMILY)
    (root / "params.yaml").write_text(PARAMS.format(seed=1))
    (root / ".gitignore").write_text(IGNORED)
    git(root, "init")
    commit(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "TIDEMILL_STORAGE"):
            patch.delenv(name, raising=False)
        patch.syspath_prepend(str(root))
        patch.setattr(stages, "_validate", passed)
        patch.setattr(plots, "draw", undrawn)
        without_ray(patch)
        play(root, "own")
        play(root, "bred")
        (root / "shore.py").write_text(FAMILY.replace("1.0", "2.0"))
        play(root, "own")
        (root / "shore.py").write_text("raise RuntimeError('of another commit')\n")
        (root / "params.yaml").write_text(PARAMS.format(seed=2))
        write_signs(root / "signs.csv", 150)
        commit(root)
        (root / "params.yaml").write_text(PARAMS.format(seed=3))
        yield root


@dataclasses.dataclass(frozen=True)
class Again:
    """own/1 trained again on data built again, and what was said meanwhile."""

    verdict: Verdict
    made: Made
    said: list[str]


@pytest.fixture(scope="module")
def again(made: Path) -> Again:
    workspace, said, heard, train = Workspace(made), [], [], reproduction._train

    def listen(*told: Any) -> Made:
        heard.append(train(*told))
        return heard[0]

    data = workspace.data("signs")
    bytes_then = data.read_bytes()
    write_signs(data, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "_train", listen)
        verdict = reproduction.reproduce(workspace, "own/1", said.append)
    data.write_bytes(bytes_then)
    return Again(verdict, heard[0], said)


@pytest.fixture
def told(made: Path) -> Recorded:
    return recorded.find(Workspace(made), "own/1")


def files(root: Path) -> dict[str, str]:
    """Every file of a project but Tidemill's and git's own."""
    return {n: h for n, h in receipts.hashes(root).items() if not n.startswith((".tidemill/", ".git/", "__pycache__"))}


def check_gone(root: Path) -> None:
    """No worktree, no folder of one and no process is left."""
    assert len(git(root, "worktree", "list").splitlines()) == 1
    assert list((root / ".tidemill").glob(".reproduce*")) == []
    assert [p for p in psutil.Process().children() if "replay.py" in " ".join(p.cmdline())] == []


# ── the same ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_comes_out_the_same_from_another_commit_and_a_dirty_tree(made: Path, again: Again) -> None:
    found = again.verdict
    assert found.to_the_byte
    assert found.same
    assert found.differing_epoch is None
    assert (found.expected, found.commit) == ((), git(made, "rev-list", "--max-parents=0", "HEAD"))
    lines = {line.what: line.recorded for line in found.lines}
    assert lines["curve"] == "6 epochs"
    assert len(lines["model.weights_sha256"]) == 64
    assert {"data.md5", "code.code_hash", "metrics.test/loss", "metrics.test/accuracy"} <= set(lines)
    assert any("building signs as of its commit" in line and "has the MD5" in line for line in again.said)
    found.require()
    check_gone(made)


def test_nothing_of_the_tree_at_hand_changes(made: Path, told: Recorded) -> None:
    before, status = files(made), git(made, "status", "--porcelain")
    assert status == "M params.yaml"
    with pytest.raises(KeyboardInterrupt):
        reproduction.reproduce(Workspace(made), "own/1", interrupt_at("checked out"))
    assert (files(made), git(made, "status", "--porcelain")) == (before, status)


def test_weights_that_went_on_from_another_trials_come_out_the_same(made: Path) -> None:
    bred = recorded.find(Workspace(made), "bred/1")
    assert len(bred.parts) > 1, "the winner went on from another's weights"
    assert bred.parts[0].hyper != bred.parts[-1].hyper
    assert len(bred.curve) == bred.epochs == 6
    assert reproduction.reproduce(Workspace(made), "bred@champion", lambda _: None).to_the_byte


def test_mlflow_tells_the_same_curve_as_the_results(
    made: Path, told: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(made)
    bred = recorded.find(workspace, "bred/1")
    assert receipts.read(workspace, "bred", "train") is not None
    monkeypatch.setattr(receipts, "read", lambda *_: None)
    assert recorded.find(workspace, "bred/1") == bred
    assert recorded.find(workspace, "own/1") == told, "own/2 stands in results/"
    assert past.curve(workspace, "nobody", "nothing") == []


def test_a_record_older_than_the_winners_own_has_the_curve_for_it(made: Path, told: Recorded) -> None:
    workspace = Workspace(made)
    found = known.gather(workspace)
    version = found.version("own/1")
    training = found.training_of(version)
    assert training is not None
    assert training.work is not None
    facts = {name: fact for name, fact in training.work.facts.items() if name != "winner"}
    older = dataclasses.replace(training, work=dataclasses.replace(training.work, facts=facts))
    assert recorded._learning(workspace, version, older) == (told.parts, told.curve)


# ── not the same ────────────────────────────────────────────────────────────────────────────────────────


def altered(told: Recorded) -> Recorded:
    """As if other weights had been recorded, and another curve from epoch 3 on."""
    curve = [row | {"val/loss": row["val/loss"] * (1.5 if n >= 3 else 1)} for n, row in enumerate(told.curve, 1)]
    return dataclasses.replace(told, curve=tuple(curve), weights_sha256="0" * 64)


def test_a_difference_is_told_with_its_first_epoch_and_an_exit_code(
    made: Path, told: Recorded, again: Again, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recorded, "find", lambda *_: altered(told))
    monkeypatch.setattr(reproduction, "_train", lambda *_: again.made)
    monkeypatch.chdir(made)
    with pytest.raises(NotReproduced, match="own/1 came out otherwise") as caught:
        command("own/1", as_json=True)
    assert caught.value.exit_code == 10
    assert caught.value.why.startswith("epoch 3 is the first that differs; epoch 3: val/loss was ")
    printed = json.loads(capsys.readouterr().out)
    assert (printed["same"], printed["first_differing_epoch"], printed["tolerance"]) == (False, 3, None)
    lines = {line["what"]: line["same"] for line in printed["lines"]}
    assert [what for what, same in lines.items() if not same] == ["curve", "epoch 3: val/loss", "model.weights_sha256"]
    check_gone(made)


def test_the_command_prints_a_table(
    made: Path, again: Again, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduction, "reproduce", lambda *_: again.verdict)
    monkeypatch.chdir(made)
    command("own/1")
    out = capsys.readouterr().out
    assert "own/1 is the same to the byte" in out
    assert [word for word in ("what", "recorded", "reproduced", "same", "6 epochs", "yes") if word not in out] == []


def repeated(told: Recorded, **changes: Any) -> Made:
    same = Made(told.data_md5, told.inputs["code"], told.curve, told.metrics, told.weights_sha256)
    return dataclasses.replace(same, **changes)


def test_another_processor_is_judged_by_a_tolerance(told: Recorded) -> None:
    now = lineage.environment()
    assert expected_differences(told, now) == []
    other = now | {"processor": "arm64 NEON", "packages": now["packages"] | {"numpy": "1.0", "mlflow": "1.0"}}
    expected = expected_differences(told, other)
    assert [line.partition(" was ")[0] for line in expected] == ["processor", "numpy"], "mlflow computes nothing"
    near = {name: value * 1.01 for name, value in told.metrics.items()}
    found = judge(told, repeated(told, metrics=near, weights_sha256="f" * 64), expected)
    assert (found.same, found.to_the_byte) == (True, False)
    assert found.sentence() == f"own/1 is the same within the tolerance ({verdict.TOLERANCE}), not to the byte"
    assert {row["what"]: row["same"] for row in found.to_rows()}["metrics.test/loss"] == "nearly"
    found.require()
    assert not judge(told, repeated(told, metrics=near), []).same, "on the same machine bytes are bytes"
    worse = near | {"test/loss": told.metrics["test/loss"] * 1.03}
    far = judge(told, repeated(told, metrics=worse, weights_sha256="f" * 64), expected)
    with pytest.raises(NotReproduced, match="otherwise") as caught:
        far.require()
    assert caught.value.why.startswith("metrics.test/loss was ")
    assert "sha256" not in caught.value.why, "nobody expects the same bytes"
    assert "accuracy" not in caught.value.why, "what is within the tolerance is no fault"


def test_a_gpu_and_older_records_are_judged_as_they_can_be(told: Recorded) -> None:
    bare = dataclasses.replace(told, environment={}, inputs=told.inputs | {"resources": {"cpus": 1, "gpus": 0.5}})
    now = lineage.environment()
    assert ["GPU" in line for line in expected_differences(bare, now)] == [True]
    without = dataclasses.replace(told, curve=())
    assert "curve" not in {line.what for line in judge(without, repeated(told), []).lines}
    assert judge(without, repeated(told), []).to_the_byte


def test_figures_that_could_not_be_measured_are_the_same_when_they_are_again(told: Recorded) -> None:
    gap = dataclasses.replace(told, metrics={"test/loss": math.nan})
    assert judge(gap, repeated(gap), []).to_the_byte
    lost = judge(gap, repeated(gap, metrics={}), ["another processor"])
    assert not lost.same
    json.dumps(lost.to_json(), allow_nan=False)


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────


def test_a_training_from_a_tree_with_changes_is_refused_before_it_trains(made: Path) -> None:
    said: list[str] = []
    assert recorded.find(Workspace(made), "own/2").dirty
    with pytest.raises(TidemillError, match="uncommitted changes") as caught:
        reproduction.reproduce(Workspace(made), "own/2", said.append)
    assert "tidemill run own" in caught.value.fix
    assert not any("epoch" in line for line in said)
    check_gone(made)


def test_code_that_is_in_no_repository_is_named_as_such(told: Recorded) -> None:
    for dirty, words in ((False, "packages of now"), (True, "uncommitted")):
        assert words in str(reproduction._other_code(dataclasses.replace(told, dirty=dirty)))


class Builder:
    """A build in the checkout that fails, or leaves these bytes."""

    def __init__(self, there: Workspace, leaves: bytes | None) -> None:
        self.there, self.leaves = there, leaves

    def play(self, what: str) -> Iterator[Any]:
        assert what == "build"
        yield {"say": "building"}
        if self.leaves is None:
            raise TrainingFailed("the build process failed", why="signs.csv is not there")
        self.there.data("signs").write_bytes(self.leaves)


@pytest.mark.parametrize(("leaves", "why"), [(None, "signs.csv is not there"), (b"other", "its MD5 is 795f3202b17c")])
def test_bytes_that_cannot_be_had_are_named(
    told: Recorded, workspace: Workspace, tmp_path: Path, leaves: bytes | None, why: str
) -> None:
    there = Workspace(tmp_path / "tree")
    there.root.mkdir()
    with pytest.raises(DataError, match=told.data_md5) as caught:
        reproduction._bring(workspace, there, told, Builder(there, leaves), lambda _: None)  # type: ignore[arg-type]
    assert why in caught.value.why
    assert "data/signs.parquet is not there" in caught.value.why
    assert "dvc remote add" in caught.value.fix


def test_too_little_on_record_is_said_to_be(workspace: Workspace, made: Path, told: Recorded) -> None:
    def find(facts: dict[str, Any], search: str = "halving") -> Recorded:
        inputs = {"data": "d", "search": {"scheduler": search}, "spec": {"dataset": "signs"}, "resources": {"gpus": 0}}
        key = receipts.key({"facts": facts, "search": search})
        own = facts | {"weights_sha256": "w" * 64, "hyper": {}, "metrics": {}}
        lineage.record(workspace, Record("tides", "train", key, inputs, {}, own))
        number = str(len(lineage.read(workspace)))
        register = {"train": key, "weights": "w" * 64}
        lineage.record(workspace, Record("tides", "register", key, register, {}, {"version": number}))
        return recorded.find(workspace, f"tides/{number}")

    for facts, search, why in (
        ({}, "halving", "no commit"),
        ({"git_commit": "c"}, "halving", "how many epochs"),
        ({"git_commit": "c"}, "pbt", "whose weights"),
    ):
        with pytest.raises(TidemillError, match="too little is on record") as caught:
            find(facts, search)
        assert why in caught.value.why
    winner = {"trial": "t", "epochs": 4, "ancestry": []}
    assert find({"git_commit": "c0ffee-dirty", "winner": winner}).epochs == 4
    with pytest.raises(RegistryError, match="no version own/9"):
        recorded.find(Workspace(made), "own/9")


def test_a_commit_that_is_elsewhere_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match="not in this repository") as caught:
        checkouts.require_commit(Workspace(made), "0123456789" * 4)
    assert "git fetch" in caught.value.fix
    with pytest.raises(TidemillError, match="not in this repository") as caught:
        checkouts.require_commit(Workspace(tmp_path), "0123456789" * 4)
    assert "not a git repository" in caught.value.why


# ── stopped ─────────────────────────────────────────────────────────────────────────────────────────────


def interrupt_at(word: str) -> Any:
    def say(line: str) -> None:
        if word in line:
            raise KeyboardInterrupt

    return say


def test_an_interrupted_one_leaves_no_worktree_and_no_process(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "replay.py"
    program.write_text('import time\nprint(\'{"epoch": 1, "metrics": {}}\', flush=True)\ntime.sleep(600)\n')
    monkeypatch.setattr(replaying, "_PROGRAM", program)
    with pytest.raises(KeyboardInterrupt):
        reproduction.reproduce(Workspace(made), "bred/1", interrupt_at("epoch 1 of 6"))
    check_gone(made)


def test_what_a_killed_one_left_is_found_and_forgotten(made: Path, tmp_path: Path) -> None:
    workspace = Workspace(made)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = workspace.state / f".reproduce.{gone.pid}.tmp"
    git(made, "worktree", "add", "--detach", str(left / "tree"))
    for path in (left, *left.rglob("*")):
        os.utime(path, (time.time() - 7200,) * 2, follow_symlinks=False)
    (found,) = leftovers.leftovers(workspace)
    assert found.path == left
    found.remove()
    away = tmp_path / "of a person, on a disk that is away"
    git(made, "worktree", "add", "--detach", str(away))
    shutil.rmtree(away)
    with checkouts.checkout(workspace, "HEAD", tmp_path / "tree") as there:
        assert there.params.is_file()
    assert str(away) in git(made, "worktree", "list")
    git(made, "worktree", "remove", str(away))
    check_gone(made)


# ── commits and bytes by their name ─────────────────────────────────────────────────────────────────────


def test_a_project_in_a_folder_of_its_repository_is_checked_out_there(tmp_path: Path) -> None:
    root = tmp_path / "many" / "one"
    root.mkdir(parents=True)
    git(root.parent, "init")
    (root.parent / "README").write_text("no project yet")
    before = commit(root.parent)
    (root / "params.yaml").write_text("seed: 1\n")
    now = commit(root.parent)
    with checkouts.checkout(Workspace(root), now, tmp_path / "tree") as there:
        assert there.root == tmp_path / "tree" / "one"
        assert there.params.read_text() == "seed: 1\n"
    with (
        pytest.raises(TidemillError, match="was not there yet"),
        checkouts.checkout(Workspace(root), before, tmp_path / "tree"),
    ):
        pass
    assert len(git(root, "worktree", "list").splitlines()) == 1


def test_bytes_come_from_data_or_dvcs_cache_or_its_remote(tmp_path: Path) -> None:
    workspace, place = Workspace(tmp_path / "project"), tmp_path / "found.parquet"
    workspace.data("x").parent.mkdir(parents=True)
    workspace.data("x").write_bytes(b"first")
    md5 = versioning.data_version(workspace, "x").md5

    def brought() -> list[str]:
        place.unlink(missing_ok=True)
        return checkouts.bring(workspace, "x", md5, place)

    assert brought() == []
    workspace.data("x").write_bytes(b"second")
    assert [why.partition(" ")[0] for why in brought()] == ["data/x.parquet", "DVC", "so"]
    git(workspace.root, "init")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=workspace.root, check=True)
    assert brought()[1:] == ["DVC's cache does not hold it", "DVC has no remote"]
    (workspace.root / ".dvc" / "config").write_text(
        f"[core]\nremote = r\n['remote \"r\"']\nurl = {tmp_path / 'store'}\n"
    )
    assert brought()[1:] == ["DVC's cache does not hold it", "DVC's remote does not hold it"]
    for folder in (tmp_path / "store", workspace.root / ".dvc" / "cache"):
        stored = folder / "files" / "md5" / md5[:2] / md5[2:]
        stored.parent.mkdir(parents=True)
        stored.write_bytes(b"first")
        assert brought() == []
        assert place.read_bytes() == b"first"
        stored.write_bytes(b"damaged")
        assert any("has the MD5" in why for why in brought()[1:])
        assert not place.exists()
        stored.unlink()
