"""Scoring with the champion as a person asks for it: what is said of rows set aside and of drift, what MLflow keeps."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from components import datasets, model, params, plan, profile, registry, scores, versioning
from components.contract import Data
from components.errors import BadInput, Drifted, Unreachable
from components.plan import Project, Resolved
from components.registry.bundle import Shipped
from components.tracking import KIND, runs, scorings
from components.tracking.store import open_store
from components.work import Work
from components.workspace import Workspace

from . import shelf
from .cases import one_thread  # noqa: F401

PARAMS = """\
datasets: {tides: {table: tides.csv, target: flood}}
pipelines:
  tides: {dataset: tides, family: mlp, scoring: {quarantine: 0.1, drift: {then: warn}}}
"""


@dataclasses.dataclass
class Here:
    project: Project
    said: list[str]

    @property
    def root(self) -> Path:
        return self.project.workspace.root

    def score(self, rows: pa.Table, name: str = "in.csv", **scoring: Any) -> Any:
        csv.write_csv(rows, self.root / name)
        block = self.project.params.pipelines["tides"]
        drift = block.scoring.drift.model_copy(update=scoring)
        changed = block.model_copy(update={"scoring": block.scoring.model_copy(update={"drift": drift})})
        known = self.project.params.model_copy(update={"pipelines": {"tides": changed}})
        self.said.clear()
        project = dataclasses.replace(self.project, params=known)
        return scores.score_table(project, "tides", self.root / name, self.root / "out" / f"{name}.parquet")

    def tracked(self) -> list[Any]:
        store = open_store(self.project.workspace)
        return list(runs.find(store, store.experiment("tides"), {KIND: "score"}))


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project with a champion that was trained by hand; Ray would take longer."""
    root = tmp_path_factory.mktemp("tides")
    (root / "params.yaml").write_text(PARAMS)
    csv.write_csv(shelf.table(400, 1).drop(["day"]), root / "tides.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        here = opened(root)
        here.project.workspace.state.mkdir(exist_ok=True)
        shutil.copy(empty_store, here.project.workspace.state / "mlflow.db")
        data = rows_of(here.project)
        folder = shelf.train(root / "model", data, 4)
        model.keep_profile(folder, profile.measure(model.load(folder), data.splits["train"]))
        register(here.project.workspace, folder, data, "a" * 64)
    return root


def opened(root: Path) -> Here:
    said: list[str] = []
    workspace = Workspace(root)
    known = params.load(workspace)
    project = Project(workspace, known, said.append, lambda _: None)  # type: ignore[arg-type, return-value]
    versioning.fetch(workspace, known, ["tides"], said.append)
    return Here(project, said)


def rows_of(project: Project) -> Data:
    resolved = plan.resolve(project, "tides")
    return datasets.load(project.workspace, "tides", resolved.expectations, "classification")


def register(workspace: Workspace, folder: Path, data: Data, key: str) -> None:
    asked = shelf.candidate(workspace, folder, data, key)
    made = registry.register(workspace, asked, data, shelf.OBJECTIVE, params.Gate())
    assert made.decision.promoted, made.decision.reason


@pytest.fixture
def here(champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = opened(champion)
    shutil.rmtree(champion / "out", ignore_errors=True)
    return made


def drifted(seed: int) -> pa.Table:
    rows = shelf.table(200, seed).drop(["day"])
    return rows.set_column(0, "height", pa.array(rows["height"].to_numpy() + 3))


def test_the_worst_columns_are_named_and_mlflow_keeps_one_run(here: Here) -> None:
    scored = here.score(drifted(5), "shifted.csv")
    assert scored["drifting"] == ["height"] and (scored["rows_in"], scored["rows"], scored["quarantined"]) == (
        200,
    ) * 2 + (0,)
    assert any("drift in height (PSI" in line for line in here.said)
    for _ in range(2):
        here.score(drifted(5), "shifted.csv")
    assert any("unchanged" in line for line in here.said)
    (run,) = here.tracked()
    assert run.info.status == "FINISHED"
    assert run.data.metrics["drift/psi_max"] > 1 and run.data.metrics["drift/columns"] == 1
    assert run.data.tags["tidemill.drifting"] == "height"
    store = open_store(here.project.workspace)
    assert [a.path for a in store.client.list_artifacts(run.info.run_id)] == ["drift.json"]
    told = json.loads((here.root / "out" / "shifted.csv.parquet.drift.json").read_text())
    assert json.loads(Path(store.client.download_artifacts(run.info.run_id, "drift.json")).read_text()) == told
    here.score(drifted(5), "shifted.csv", limit=50.0)
    (run,) = here.tracked()
    assert run.data.metrics["drift/columns"] == 0, "another limit is the same scoring, told anew"


def test_rows_like_the_training_rows_are_no_news(here: Here) -> None:
    scored = here.score(shelf.table(200, 6).drop(["day"]), "same.csv")
    assert scored["drifting"] == []
    assert not any("drift" in line or "set aside" in line for line in here.said)


def test_blocked_nothing_is_delivered_but_it_is_told_and_tracked(here: Here) -> None:
    before = len(here.tracked())
    with pytest.raises(Drifted, match=r"height \(PSI .*\n.*blocked\.csv\.parquet\.blocked\.json"):
        here.score(drifted(7), "blocked.csv", then="block")
    assert [p.name for p in (here.root / "out").iterdir()] == ["blocked.csv.parquet.blocked.json"]
    assert len(here.tracked()) == before + 1


def test_ignored_nothing_is_compared(here: Here) -> None:
    scored = here.score(drifted(8), "ignored.csv", then="ignore")
    assert scored["drifting"] is None
    assert sorted(p.name for p in (here.root / "out").iterdir()) == [
        "ignored.csv.parquet",
        "ignored.csv.parquet.receipt.json",
    ]


def test_rows_that_do_not_fit_are_said_and_on_record(here: Here) -> None:
    rows = shelf.table(100, 9).drop(["day"])
    heights = [str(v) for v in rows["height"].to_pylist()]
    heights[4] = "high"
    scored = here.score(rows.set_column(0, "height", pa.array(heights)), "odd.csv")
    assert (scored["rows_in"], scored["rows"], scored["quarantined"]) == (100, 99, 1)
    assert any("100 rows = 99 scored + 1 set aside" in line for line in here.said)
    kept = [json.loads(p.read_text()) for p in (here.project.workspace.state / "lineage").glob("*.json")]
    facts = [r["facts"] for r in kept if r["facts"].get("quarantined")]
    assert [(f["rows_in"], f["rows"], f["quarantined"]) for f in facts] == [(100, 99, 1)]


def test_scores_do_not_wait_for_an_mlflow_that_has_gone(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise Unreachable("MLflow does not answer", where="http://nowhere")

    monkeypatch.setattr(scorings, "record", gone)
    assert here.score(drifted(10), "alone.csv")["drifting"] == ["height"]
    assert any("drift is not logged, MLflow does not answer (http://nowhere)" in line for line in here.said)


def test_a_version_without_a_profile_scores_and_says_so(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry.load(here.project.workspace, "tides", 1)
    assert found.profile
    older = SimpleNamespace(**{name: getattr(found.own, name) for name in ("family", "spec", "hyper", "net")})
    older.weights_sha256, older.outputs, older.score = "w" * 64, found.own.outputs, found.own.score  # knows no profile
    monkeypatch.setattr(registry, "load", lambda *_: Shipped.of(older))
    assert here.score(drifted(5), "older.csv")["drifting"] is None
    assert any("version 1 has no profile" in line for line in here.said)
    assert not (here.root / "out" / "older.csv.parquet.drift.json").exists()


# ── codes ───────────────────────────────────────────────────────────────────────────────────────────────


def encoded(here: Here, rows: pa.Table, name: str = "in.csv", output: str = "codes.parquet", **options: Any) -> Any:
    csv.write_csv(rows, here.root / name)
    here.said.clear()
    return scores.encode_table(here.project, "tides", here.root / name, here.root / "out" / output, **options)


def test_codes_are_what_the_net_makes_of_each_row_with_its_name_and_version(here: Here) -> None:
    rows = shelf.table(300, 21).drop(["day"])
    told = encoded(here, rows)
    assert (told["rows_in"], told["rows"], told["quarantined"], told["drifting"]) == (300, 300, 0, None)
    found = pq.read_table(here.root / "out" / "codes.parquet")
    made = registry.load(here.project.workspace, "tides", 1)
    inputs = [column.name for column in made.spec.columns]
    codes_ND = made.encode(rows.select(inputs).combine_chunks().to_batches()[0])
    assert found.column_names == ["station", "code", "model_version", "run_key"]
    assert found.schema.field("code").type == pa.list_(pa.float32(), codes_ND.shape[1])
    assert found["station"].to_pylist() == rows["station"].to_pylist()
    values_ND = found["code"].combine_chunks().flatten().to_numpy().reshape(codes_ND.shape)
    np.testing.assert_allclose(values_ND, codes_ND, rtol=1e-4, atol=1e-5)
    assert set(found["model_version"].to_pylist()) == {"1"} and set(found["run_key"].to_pylist()) == {"a" * 64}
    before = (here.root / "out" / "codes.parquet").stat().st_mtime_ns
    assert encoded(here, rows)["unchanged"] and any("holds these codes already" in line for line in here.said)
    assert (here.root / "out" / "codes.parquet").stat().st_mtime_ns == before


def test_scores_and_codes_of_the_same_rows_do_not_pass_for_each_other(here: Here) -> None:
    rows = shelf.table(100, 22).drop(["day"])
    for made in (here.score(rows), encoded(here, rows, output="in.csv.parquet"), here.score(rows)):
        assert not made["unchanged"]
    assert "code" not in pq.read_schema(here.root / "out" / "in.csv.parquet").names


def test_rows_that_do_not_fit_get_no_code_and_the_others_do(here: Here) -> None:
    rows = shelf.table(100, 23).drop(["day"])
    heights = [str(v) for v in rows["height"].to_pylist()]
    heights[4] = "high"
    told = encoded(here, rows.set_column(0, "height", pa.array(heights)), "odd.csv", "odd.parquet")
    assert (told["rows_in"], told["rows"], told["quarantined"]) == (100, 99, 1)
    assert any("100 rows = 99 encoded + 1 set aside" in line for line in here.said)
    assert "s4" not in pq.read_table(here.root / "out" / "odd.parquet")["station"].to_pylist()
    aside = pq.read_table(here.root / "out" / "odd.parquet.quarantine.parquet").to_pylist()
    assert [(row["row"], row["column"], row["value"]) for row in aside] == [(4, "height", "high")]
    with pytest.raises(BadInput, match="height"):
        encoded(here, rows.drop(["height"]), "less.csv", "less.parquet")
    assert not (here.root / "out" / "less.parquet").exists()


# ── the score stage ─────────────────────────────────────────────────────────────────────────────────────


def reading(here: Here, source: str, **drift: Any) -> Resolved:
    """The pipeline with another scoring input."""
    block = here.project.params.pipelines["tides"]
    scoring = params.Scoring(input=source, drift=params.Drift(**drift))
    known = here.project.params.model_copy(
        update={"pipelines": {"tides": block.model_copy(update={"scoring": scoring})}}
    )
    return plan.resolve(dataclasses.replace(here.project, params=known), "tides")


def played(resolved: Resolved, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return scores.score(Work(resolved, "k" * 64, {"champion": {"version": 1}}, folder, {}, False))


def stage(here: Here, folder: Path, **drift: Any) -> dict[str, Any]:
    return played(reading(here, "stage.csv", **drift), folder)


def test_the_stage_leaves_the_comparison_and_its_facts(here: Here, tmp_path: Path) -> None:
    csv.write_csv(drifted(11), here.root / "stage.csv")
    facts = stage(here, tmp_path / "score")
    assert (facts["rows_in"], facts["rows"], facts["quarantined"], facts["drifting"]) == (200, 200, 0, ["height"])
    left = sorted(p.name for p in (tmp_path / "score").iterdir())
    assert left == ["drift.json", "scores.parquet", "scores.parquet.receipt.json"]
    stage(here, tmp_path / "again", then="train")
    assert "newer rows are needed" in here.said[-1], "the training that this would start is over"
    for name in left:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "score" / name).read_bytes()


def test_a_blocked_stage_says_where_the_comparison_is(here: Here, tmp_path: Path) -> None:
    csv.write_csv(drifted(12), here.root / "stage.csv")
    with pytest.raises(Drifted) as raised:
        stage(here, tmp_path / "score", then="block")
    assert list((tmp_path / "score").iterdir()) == []
    place = here.project.workspace.state / "drift" / "tides.json"
    assert str(place) in raised.value.why
    assert json.loads(place.read_text())["drifting"] == ["height"]
    stage(here, tmp_path / "again")
    assert not place.exists(), "what was delivered is no longer blocked"


def test_a_partition_that_arrives_in_between_waits_for_the_next_run(here: Here, tmp_path: Path) -> None:
    days = here.root / "days"
    days.mkdir()
    csv.write_csv(shelf.table(50, 13).drop(["day"]), days / "2026-01-01.csv")
    resolved = reading(here, "days/%Y-%m-%d.csv")
    assert list(plan.scoring_input(resolved)) == ["days/2026-01-01.csv"]
    csv.write_csv(shelf.table(60, 14).drop(["day"]), days / "2026-01-02.csv")
    assert played(resolved, tmp_path / "score")["rows"] == 50, "what the run key names is what is scored"
    assert list(plan.scoring_input(reading(here, "days/%Y-%m-%d.csv"))) == ["days/2026-01-02.csv"]
