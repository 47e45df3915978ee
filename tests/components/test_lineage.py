"""What was recorded, traced up and down from whatever a person holds in hand, and compared."""

from __future__ import annotations

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components import lineage, params, receipts, registry, scores, stages, versioning
from components.contract import Data
from components.errors import ParamsError, RegistryError, TidemillError
from components.lineage import Record, branches
from components.lineage.branches import Node
from components.lineage.compare import compare
from components.lineage.trace import trace
from components.params import Gate
from components.plan import Project
from components.registry import catalogue
from components.sweep import Watchers
from components.tracking import past, sweep_run
from components.tracking.store import open_store
from components.workspace import Workspace

from .serial import without_ray
from .shelf import OBJECTIVE, candidate
from .test_tracking import origin, tell

ROOT = Path(__file__).parents[2]
FLOW_RUN = "0f9c2d6e-6a0b-4d3e-9a53-2f1c1f8f0c11"
PARAMS = """\
seed: {seed}
datasets:
  signs: {{table: signs.csv, target: sign}}
pipelines:
  plus: {{dataset: signs, family: mlp, search: {{trials: 1, epochs: 12, seeds: 3}}}}
"""


def write_signs(file: Path, rows: int) -> None:
    """Three numbers; the target is the sign of the first two's sum."""
    draw = random.Random(rows)
    lines = ["id,a,b,c,sign"]
    for number in range(rows):
        a, b, c = (draw.gauss(0, 1) for _ in range(3))
        lines.append(f"r{number:03d},{a:.3f},{b:.3f},{c:.3f},{'plus' if a + b > 0 else 'minus'}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def open_project(root: Path, flow_run: str = "") -> Project:
    workspace = Workspace(root)
    return Project(workspace, params.load(workspace), lambda _: None, lambda _: Watchers(), flow_run)


def play(project: Project) -> None:
    stages.fetch(project, ["plus"])
    for stage in stages.PLAY.values():
        stage(project, "plus")


def live(root: Path) -> None:
    """Two trainings and a scored table."""
    for seed in (1, 2):
        (root / "params.yaml").write_text(PARAMS.format(seed=seed))
        play(open_project(root, FLOW_RUN if seed == 1 else ""))
    scores.score_table(open_project(root), "plus", root / "tomorrow.csv", root / "out" / "scores.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A project of 200 rows that was trained with two seeds and has scored a table of somebody's."""
    root = tmp_path_factory.mktemp("lineage")
    (root / ".tidemill").mkdir()
    shutil.copy(empty_store, root / ".tidemill" / "mlflow.db")
    write_signs(root / "signs.csv", 200)
    write_signs(root / "tomorrow.csv", 20)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "TIDEMILL_STORAGE"):
            patch.delenv(name, raising=False)
        without_ray(patch)
        live(root)
        yield root


def walk(node: Node) -> Iterator[Node]:
    yield node
    for below in (*node.made_from, *node.gave):
        yield from walk(below)


def only(node: Node, kind: str) -> Node:
    (found,) = {one.name: one for one in walk(node) if one.kind == kind}.values()
    return found


def names(node: Node, kind: str) -> list[str]:
    return sorted({one.name for one in walk(node) if one.kind == kind})


def md5_of(root: Path) -> str:
    return str(versioning.data_version(Workspace(root), "signs").md5)


def receipt_of(root: Path, stage: str, version: int = 1) -> Record:
    """The record of a stage of the first training, or of the second."""
    found = [work for work in lineage.read(Workspace(root)) if work.stage == stage]
    return next(work for work in found if (work.facts.get("flow_run") == FLOW_RUN) == (version == 1))


# ── a project that has run ──────────────────────────────────────────────────────────────────────────────


def check_origins(tree: Node, root: Path) -> None:
    """Everything that version 1 was made from is in the tree."""
    data, settings, code = only(tree, "data"), only(tree, "settings").facts, only(tree, "code").facts
    assert data.name == "signs"
    assert data.facts["md5"] == md5_of(root)
    assert (settings["seed"], settings["search"]["epochs"], settings["family"]) == (
        1,
        12,
        "components.families.mlp:Mlp",
    )
    assert settings["hyper"].keys() >= {"lr", "width"}
    assert len(code["code_hash"]) == 64
    validation = only(tree, "validation").facts
    assert validation["checks"] > 5
    assert validation["sha256"] == receipts.sha256(root / "results/plus/validate/validation.json")
    around = only(tree, "environment").facts
    assert around["packages"].keys() >= {"torch", "ray", "great-expectations"}
    assert around["python"].startswith("3.11")


def test_a_version_leads_up_to_the_bytes_and_down_to_its_scores(made: Path) -> None:
    tree = trace(Workspace(made), "plus/1")
    assert (tree.kind, tree.facts["champion"], tree.facts["promoted"]) == ("version", True, True)
    check_origins(tree, made)
    data = only(tree, "data").facts
    assert (data["still_under_data"], data["named_by_data_dvc"]) == (True, False)
    assert names(tree, "scores") == ["out/scores.parquet", "results/plus/score/scores.parquet"]
    assert [s.facts["files"] for s in tree.gave if s.name.startswith("out")] == [{"out/scores.parquet": "there"}]
    for name in ("plus", "plus@champion"):
        assert trace(Workspace(made), name) == tree
    other = trace(Workspace(made), "plus/2")
    assert (other.facts["champion"], other.facts["gate_champion_version"], other.gave) == (False, 1, ())
    assert only(other, "settings").facts["seed"] == 2


@pytest.mark.parametrize("file", ["out/scores.parquet", "results/plus/score/scores.parquet"])
def test_a_score_file_leads_to_its_model_and_to_the_rows_that_it_scored(made: Path, file: str) -> None:
    tree = trace(Workspace(made), str(made / file))
    assert (tree.kind, tree.name, tree.facts["files"]) == ("scores", file, {file: "there"})
    assert names(tree, "version") == ["plus/1"]
    check_origins(tree, made)
    if file.startswith("out"):
        assert only(tree, "input").facts["sha256"] == {"tomorrow.csv": receipts.sha256(made / "tomorrow.csv")}
    else:
        assert [node.kind for node in tree.made_from] == ["version", "data"]


def test_a_row_shows_what_stands_in_it(made: Path) -> None:
    tree = trace(Workspace(made), str(made / "out/scores.parquet"), "r007")
    columns = tree.facts["columns"]
    assert (columns["id"], columns["model_version"]) == ("r007", "1")
    assert columns["run_key"] == receipt_of(made, "train").key
    assert {"plus", "minus"} & set(map(str, columns.values())), "the prediction"
    check_origins(tree, made)
    with pytest.raises(ParamsError, match="no row has id 'r999'"):
        trace(Workspace(made), str(made / "out/scores.parquet"), "r999")
    with pytest.raises(ParamsError, match="no score file"):
        trace(Workspace(made), "plus/1", "r007")


def test_a_folder_of_scores_is_one_piece_of_work(made: Path, tmp_path: Path) -> None:
    there = Workspace(tmp_path / "copy")
    shutil.copytree(made, there.root)
    (there.root / "days").mkdir()
    for day in ("monday", "tuesday"):
        shutil.copy(made / "tomorrow.csv", there.root / "days" / f"{day}.csv")
    scores.score_table(open_project(there.root), "plus", there.root / "days", there.root / "scored")
    tree = trace(there, str(there.root / "scored"))
    assert set(tree.facts["files"]) == {"scored/monday.csv.parquet", "scored/tuesday.csv.parquet"}
    check_origins(tree, there.root)
    one = trace(there, str(there.root / "scored" / "monday.csv.parquet"), "r001")
    assert only(one, "scores").facts["files"] == {"scored/monday.csv.parquet": "there"}
    assert only(one, "input").facts["sha256"].keys() == {"monday.csv", "tuesday.csv"}
    shutil.copytree(there.root / "scored", tmp_path / "moved")
    moved = trace(there, str(tmp_path / "moved")).facts
    assert (moved["recorded_as"], len(moved["files"])) == ("scored (2 files)", 2)
    shutil.rmtree(lineage.folder(there))
    assert names(trace(there, str(there.root / "scored")), "version") == ["plus/1"], "its own receipt tells as well"
    with pytest.raises(ParamsError, match="a folder of scores"):
        trace(there, str(there.root / "scored"), "r001")


def test_keys_and_ids_lead_to_their_work(made: Path) -> None:
    workspace = Workspace(made)
    work = {stage: receipt_of(made, stage) for stage in ("validate", "train", "register", "score")}
    training = trace(workspace, work["train"].key)
    assert (training.kind, training.facts["run_key"]) == ("training", work["train"].key)
    check_origins(training, made)
    assert names(training, "version") == ["plus/1"]
    assert trace(workspace, work["train"].facts["run_id"]) == training
    assert trace(workspace, work["train"].key[:10].upper()) == training
    assert trace(workspace, work["register"].key) == trace(workspace, "plus/1")
    assert trace(workspace, work["score"].key).name == "results/plus/score/scores.parquet"
    validated = trace(workspace, work["validate"].key)
    assert validated.kind == "validation"
    assert names(validated, "version") == ["plus/1", "plus/2"], "one validation let both start"


def test_a_trial_leads_to_its_sweep_and_the_best_to_the_version(made: Path) -> None:
    run_id = receipt_of(made, "train").facts["run_id"]
    store = open_store(Workspace(made))
    children = store.client.search_runs([store.experiment("plus")], f"tags.`mlflow.parentRunId` = '{run_id}'")
    child, *again = sorted(children, key=lambda run: run.data.tags.get("tidemill.seed", ""))
    tree = trace(Workspace(made), child.info.run_id)
    assert (tree.kind, tree.facts["best_of_its_sweep"]) == ("trial", True)
    assert "seed" not in tree.facts
    replicas = [trace(Workspace(made), run.info.run_id) for run in again]
    assert [(one.facts["seed"], one.facts["best_of_its_sweep"]) for one in replicas] == [("2", False), ("3", False)]
    assert all(one.facts["hyper"] == tree.facts["hyper"] and not names(one, "version") for one in replicas)
    assert tree.facts["hyper"].keys() >= {"lr"}
    check_origins(tree, made)
    assert names(tree, "version") == ["plus/1"]


def test_the_train_stage_leaves_what_other_seeds_came_to_beside_the_winner(made: Path) -> None:
    """Of the second training, which stands in results/."""
    train = receipts.read(Workspace(made), "plus", "train")
    assert train is not None
    folder = made / "results" / "plus" / "train"
    figures, trials = (json.loads((folder / name).read_text()) for name in ("metrics.json", "trials.json"))
    assert [trial.get("seed") for trial in trials] == [None, 3, 4] and train.facts["trials"] == 1
    bests = [trial["best"] for trial in trials]
    assert len(set(bests)) == 3
    told = {"count": 3, "mean": statistics.fmean(bests), "std": statistics.stdev(bests)}
    assert {name: figures[f"seeds/{name}"] for name in told} == told
    assert figures["val/loss"] == bests[0] and train.facts["winner"]["trial"] == trials[0]["key"]
    assert train.facts["metrics"] == figures
    text = (folder / "tables" / "curves.csv").read_text()
    assert text.count("\n") == 1 + len(trials[0]["curve"]), "the winner's alone"


def test_a_flow_run_leads_to_what_it_made_and_mlflow_knows_it(made: Path) -> None:
    tree = trace(Workspace(made), FLOW_RUN)
    assert [node.kind for node in tree.gave] == ["validation", "training", "version", "scores"]
    check_origins(tree.gave[1], made)
    assert [run.tags.get("flow_run") for run in past.sweeps(Workspace(made))] == [FLOW_RUN, None]


def test_bad_data_names_everything_that_it_touched(made: Path) -> None:
    tree = trace(Workspace(made), md5_of(made)[:8])
    assert tree.facts["affected_versions"] == ["plus/1", "plus/2"]
    assert tree.facts["affected_champions"] == ["plus/1"]
    assert sorted(tree.facts["affected_score_files"]) == ["out/scores.parquet", "results/plus/score/scores.parquet"]
    assert names(tree, "training") == sorted(receipt_of(made, "train", v).key[:12] for v in (1, 2))
    assert trace(Workspace(made), str(made / "data" / "signs.parquet")) == tree
    assert trace(Workspace(made), "signs").gave == (tree,)


def test_bytes_that_were_replaced_are_said_to_be(made: Path, tmp_path: Path) -> None:
    there = Workspace(tmp_path / "copy")
    shutil.copytree(made, there.root)
    (there.root / "out" / "scores.parquet").unlink()
    shutil.copy(there.root / "tomorrow.csv", there.data("signs"))
    tree = trace(there, md5_of(made))
    assert tree.facts["still_under_data"] is False
    assert tree.facts["data_has"] == md5_of(there.root)
    assert {f for node in walk(tree) for f in node.facts.get("files", {}).items()} == {
        ("out/scores.parquet", "gone"),
        ("results/plus/score/scores.parquet", "there"),
    }
    now, before = trace(there, "signs").gave
    assert (now.facts["md5"], now.facts["affected_versions"], now.gave) == (md5_of(there.root), [], ())
    assert before == tree


def test_a_project_older_than_the_records_is_traced_by_its_receipts(made: Path, tmp_path: Path) -> None:
    there = Workspace(tmp_path / "copy")
    shutil.copytree(made, there.root)
    shutil.rmtree(there.state / "lineage")
    assert only(trace(there, "plus/2"), "settings").facts["seed"] == 2
    assert names(trace(there, "plus/1"), "scores") == ["results/plus/score/scores.parquet"]


def test_the_same_work_again_leaves_no_other_record(made: Path) -> None:
    folder = lineage.folder(Workspace(made))
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(before) == 7, "train and register twice; validate, score and a person's table once"
    project = open_project(made)
    play(project)
    scores.score_table(project, "plus", made / "tomorrow.csv", made / "out" / "scores.parquet")
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


# ── another machine ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def elsewhere(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty project that shares nothing but MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made / '.tidemill' / 'mlflow.db'}")
    there = Workspace(tmp_path / "elsewhere")
    there.root.mkdir()
    return there


def test_what_only_mlflow_knows_is_traced_by_the_receipt_in_its_run(made: Path, elsewhere: Workspace) -> None:
    tree = trace(elsewhere, "plus/1")
    assert only(tree, "training").facts["known_from"] == "MLflow"
    check_origins(tree, made)
    assert only(tree, "data").facts["still_under_data"] is False
    assert trace(elsewhere, md5_of(made)).facts["affected_versions"] == ["plus/1", "plus/2"]
    assert trace(elsewhere, FLOW_RUN).gave[0].facts["run_key"] == receipt_of(made, "train").key


def test_without_the_runs_files_its_tags_must_do(
    made: Path, elsewhere: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "RECEIPT", "nowhere.json")
    tree = trace(elsewhere, "plus@champion")
    assert only(tree, "data").facts["md5"] == md5_of(made)
    settings = only(tree, "settings").facts
    assert settings["hyper"] == receipt_of(made, "train").facts["hyper"]
    assert "seed" not in settings
    assert only(tree, "validation").facts == {"recorded": False}


def test_a_score_file_from_elsewhere_tells_by_itself(made: Path, elsewhere: Workspace) -> None:
    file = elsewhere.root / "theirs.parquet"
    shutil.copy(made / "out" / "scores.parquet", file)
    assert trace(elsewhere, str(file)).facts["receipt"].startswith("none")
    shutil.copy(made / "out" / "scores.parquet.receipt.json", elsewhere.root / "theirs.parquet.receipt.json")
    tree = trace(elsewhere, str(file), "r003")
    scores = only(tree, "scores").facts
    assert (scores["on_record"], scores["receipt"], scores["rows"]) == (False, "fits", 20)
    assert names(tree, "version") == ["plus/1"]
    check_origins(tree, made)
    pq.write_table(pq.read_table(file).slice(0, 3).replace_schema_metadata(_footer(file)), file)
    assert "altered" in trace(elsewhere, str(file)).facts["receipt"]


def _footer(file: Path) -> dict[bytes, bytes]:
    return dict(pq.read_metadata(file).metadata)


def test_a_version_whose_run_is_not_a_sweep_is_traced_by_its_own_tags(
    workspace: Workspace, models: dict[str, Path], data: Data
) -> None:
    registry.register(workspace, candidate(workspace, models["poor"], data, "a" * 64), data, OBJECTIVE, Gate())
    tree = trace(workspace, "tides")
    assert only(tree, "training").facts["known_from"] == "the registry alone"
    assert only(tree, "data").facts["md5"] == "0" * 32
    assert only(tree, "code").facts["git_commit"] == "c0ffee"
    assert trace(workspace, "0" * 32).facts["affected_champions"] == ["tides/1"]


def test_the_catalogue_says_who_is_champion(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    assert catalogue.versions(workspace) == []
    for key, name in (("a", "poor"), ("b", "good")):
        registry.register(workspace, candidate(workspace, models[name], data, key), data, OBJECTIVE, Gate())
    listed = catalogue.versions(workspace)
    assert [(one.name, one.champion) for one in listed] == [("tides/1", False), ("tides/2", True)]
    assert listed[1].decision()["champion_version"] == 1


def test_a_failed_sweep_is_traced_and_gave_nothing(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), sweep_run(workspace, origin()) as run:
        tell(run, [("aaaa", 2), ("bbbb", 1)])
        raise RuntimeError("the disk is full")
    tree = trace(workspace, run.run_id)
    assert (tree.kind, tree.facts["status"], tree.gave) == ("training", "FAILED", ())
    children = open_store(workspace).client.search_runs([run.experiment_id], "tags.`tidemill.kind` = 'trial'")
    assert trace(workspace, children[0].info.run_id).facts["best_of_its_sweep"] is False


def test_a_version_leads_to_the_training_that_left_its_weights(
    workspace: Workspace, models: dict[str, Path], data: Data
) -> None:
    key = "a" * 64
    registry.register(workspace, candidate(workspace, models["poor"], data, key), data, OBJECTIVE, Gate())
    weights = catalogue.versions(workspace)[0].tags["weights_sha256"]
    for processor, left in (("AVX512", "f" * 64), ("AVX2", weights), ("NEON", "0" * 64)):
        facts = {"weights_sha256": left, "environment": {"processor": processor}}
        lineage.record(workspace, Record("tides", "train", key, {"data": "0" * 32}, {}, facts))
    assert only(trace(workspace, "tides/1"), "environment").facts["processor"] == "AVX2"


def test_data_dvc_leads_back_to_bytes_that_are_gone(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *who, *words], cwd=workspace.root, check=True, capture_output=True, text=True
        ).stdout

    git("init")
    named = workspace.root / "data.dvc"
    for md5 in ("0" * 32, "1" * 32):
        named.write_text(f"outs: [{{md5: '{md5}', path: data/tides.parquet}}]\n")
        git("add", "data.dvc")
        git("commit", "-m", md5)
    registry.register(workspace, candidate(workspace, models["poor"], data, "a"), data, OBJECTIVE, Gate())
    first = git("log", "--format=%H", "--reverse").split()[0]
    assert only(trace(workspace, "tides/1"), "data").facts["data_dvc_named_it_at"] == first


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────


def work(**facts: Any) -> Record:
    return Record("tides", "validate", "k" * 64, {"data": "d" * 32}, {}, facts)


def test_told_twice_it_is_one_file(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = lineage.record(workspace, work(checks=3, value=float("nan"), pair=(1, 2)))
    written = first.stat().st_mtime_ns
    assert lineage.record(workspace, work(pair=[1, 2], value=float("nan"), checks=3)) == first
    assert first.stat().st_mtime_ns == written, "it is never written again"
    assert lineage.record(workspace, work(checks=4)) != first
    assert len(lineage.read(workspace)) == 2


def test_a_killed_writer_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from components import lineage
from components.workspace import Workspace
from tests.components.test_lineage import work
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
lineage.record(Workspace(pathlib.Path({str(tmp_path)!r})), work(checks=3))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    workspace = Workspace(tmp_path)
    assert [file.suffix for file in lineage.folder(workspace).iterdir()] == [".tmp"], "it died before the end"
    assert lineage.read(workspace) == []
    lineage.record(workspace, work(checks=3))
    assert lineage.read(workspace) == [work(checks=3)]
    assert [file.suffix for file in lineage.folder(workspace).iterdir()] == [".json"]


def test_a_record_that_was_altered_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    file = lineage.record(workspace, work(checks=3))
    file.write_text(file.read_text().replace("3", "4"), encoding="utf-8")
    with pytest.raises(TidemillError, match="not what was written") as caught:
        lineage.read(workspace)
    assert str(file) in caught.value.fix


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("thing", ["", "nobody", "abc", "f" * 32, "f" * 64, "0" * 8 + FLOW_RUN[8:], "nobody/3"])
def test_what_nobody_knows_is_refused_with_what_there_is(workspace: Workspace, thing: str) -> None:
    with pytest.raises(ParamsError, match="nothing is known of") as caught:
        trace(workspace, thing)
    for kind in ("score file", "version", "run id", "run key", "flow run", "dataset"):
        assert kind in caught.value.fix


def test_a_folder_whose_receipt_is_something_else_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "_receipt.json").write_text('{"files": {}}')
    with pytest.raises(ParamsError, match="no receipt of scores"):
        trace(Workspace(made), str(tmp_path))


def test_a_version_that_is_not_there_names_those_that_are(made: Path) -> None:
    with pytest.raises(RegistryError, match="no version plus/9") as caught:
        trace(Workspace(made), "plus/9")
    assert "plus/1, plus/2" in caught.value.fix
    with pytest.raises(ParamsError, match="names no version"):
        trace(Workspace(made), "plus@runner-up")


def test_a_file_that_is_neither_scores_nor_data_is_refused(made: Path) -> None:
    with pytest.raises(ParamsError, match="neither scores nor the bytes of a dataset"):
        trace(Workspace(made), str(made / "tomorrow.csv"))


def test_digits_that_fit_several_things_are_refused(workspace: Workspace) -> None:
    for end in "12":
        lineage.record(
            workspace, Record("tides", "validate", "abcdef" + end * 58, {"data": end * 32}, {}, {"checks": 1})
        )
    with pytest.raises(ParamsError, match="several things") as caught:
        trace(workspace, "abcdef")
    assert "abcdef1" in caught.value.why
    assert "abcdef2" in caught.value.why
    assert trace(workspace, "abcdef1").kind == "validation"


# ── side by side ────────────────────────────────────────────────────────────────────────────────────────


def test_two_versions_side_by_side_what_differs_first(made: Path) -> None:
    told = compare(Workspace(made), "plus/1", "plus/2")
    lines = {line.what: (line.a, line.b) for line in told.lines}
    assert lines["settings.seed"] == (1, 2)
    assert lines["data.md5"] == (md5_of(made),) * 2
    assert lines["gate.promoted"] == (True, False)
    figures = zip(lines["metrics.test/loss"], lines["interval.test/loss"], strict=True)
    assert all(low < value < high for value, (low, high) in figures)
    assert lines["metrics.test/loss"][0] != lines["metrics.test/loss"][1]
    order = [line.same for line in told.lines]
    assert order == sorted(order)
    assert not told.to_json()["same"]
    low, high = lines["gate.interval"][1]
    assert "not the same" in told.verdict
    assert f"measured plus/2 against plus/1: better by {lines['gate.difference'][1]:.4g}" in told.verdict
    assert f"{low:.4g} to {high:.4g}" in told.verdict
    turned = compare(Workspace(made), "plus/2", "plus/1")
    assert "measured plus/2 against plus/1" in turned.verdict
    json.dumps(told.to_json(), allow_nan=False)


def test_the_same_is_said_to_be_the_same(made: Path) -> None:
    key = receipt_of(made, "train").key
    for a, b in (("plus/1", key[:12]), ("plus@champion", "plus/1")):
        told = compare(Workspace(made), a, b)
        assert told.to_json()["same"]
        assert "are the same in everything" in told.verdict


def test_the_same_weights_before_different_champions(workspace: Workspace, models: dict[str, Path], data: Data) -> None:
    for key in ("a", "b"):
        registry.register(workspace, candidate(workspace, models["good"], data, key * 64), data, OBJECTIVE, Gate())
    assert "same weights, byte for byte" in compare(workspace, "tides/1", "tides/2").verdict


def test_what_is_neither_a_version_nor_a_run_key_is_not_compared(made: Path) -> None:
    for name in ("signs", "f" * 64, "plus/1x"):
        with pytest.raises(ParamsError):
            compare(Workspace(made), "plus/1", name)


# ── as it is shown ──────────────────────────────────────────────────────────────────────────────────────


def test_the_commands_print_a_tree_or_strict_json(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.lineage import compare as compare_command
    from flows.lineage import trace as trace_command

    monkeypatch.chdir(made)
    trace_command("plus/1", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["made_from"][0]["made_from"][0]["md5"]) == ("version", md5_of(made))
    trace_command("plus/1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "version plus/1"
    assert any(line.endswith(f"md5: {md5_of(made)}") for line in lines)
    assert all(line[:1] in "├└│ " for line in lines[1:])
    compare_command("plus/1", "plus/2", as_json=True)
    assert json.loads(capsys.readouterr().out)["a"] == "plus/1"
    compare_command("plus/1", "plus/2")
    said = capsys.readouterr().out
    assert "not the same" in said
    assert "settings.seed" in said


def test_figures_that_could_not_be_measured_are_null() -> None:
    node = Node("training", "x", {"value": float("nan"), "pair": [1.0, float("inf")]})
    assert branches.plain(node.facts) == {"value": None, "pair": [1.0, None]}
    json.dumps(node.to_json(), allow_nan=False)
