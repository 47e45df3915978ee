"""What a project looks like after its first run, and after its second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..conftest import REPOSITORY, Home

PIPELINES = ["cancer", "poles", "odd-digits", "customers"]


def test_every_way_of_learning_ran_to_its_scores(started: Home) -> None:
    results = {row["pipeline"]: row for row in started.json("results")}
    assert list(results) == PIPELINES
    for row in results.values():
        assert set(row["seconds"]) == {"validate", "train", "register", "score"}
        assert row["trials"] >= 1
        assert len(row["run_key"]) == 64
    for name in ("cancer", "customers", "odd-digits"):
        value, baseline = results[name]["value"], results[name]["baseline"]
        better = value < baseline if results[name]["metric"] == "test/loss" else value > baseline
        assert better, "a champion beats the trivial rival"
        assert results[name]["promoted"] is True
        assert str(results[name]["version"]) == "1"
        assert results[name]["rows_scored"] > 0


def test_pipelines_say_how_they_learn(started: Home) -> None:
    learning = {row["name"]: row["learning"] for row in started.json("pipelines")}
    assert learning == {
        "cancer": "supervised",
        "poles": "reinforcement",
        "odd-digits": "unsupervised",
        "customers": "supervised",
    }


def test_progress_went_to_stderr_and_data_to_stdout(started: Home) -> None:
    done = started.tidemill("results", "--json")
    json.loads(done.stdout)
    assert done.stderr == ""
    assert "\x1b[" not in (started.root / "first-run.txt").read_text()


def test_a_second_run_has_nothing_to_do(started: Home) -> None:
    before = started.json("results")
    assert {step["action"] for step in started.json("plan")} == {"unchanged"}
    left = started.root / ".tidemill" / "flow-runs" / f"{uuid4()}.json"
    left.write_text('{"pid": 999999999, "born": 1.0}')  # of a process that died when all was done
    again = started.tidemill("run", "--all")
    assert not left.exists(), "it is closed though there is nothing else to do"
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert started.json("results") == before


def test_a_plan_says_what_would_run_and_why(started: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "copy")
    # A copy, so that the project others look at stays as it is.
    subprocess.run(["cp", "-r", str(started.root), str(other.root)], check=True)
    text = (other.root / "params.yaml").read_text()
    other.params(text.replace("trials: 3, epochs: 9", "trials: 4, epochs: 9") + '    schedule: "0 6 * * *"\n')
    steps = {(s["pipeline"], s["stage"]): s for s in other.json("plan")}
    assert steps["cancer", "validate"]["action"] == "unchanged"
    assert steps["cancer", "train"]["why"] == "changed: search.trials 3 → 4"
    assert steps["cancer", "score"]["why"] == "after train"
    assert {s["action"] for (name, _), s in steps.items() if name != "cancer"} == {"unchanged"}, (
        "a schedule trains nothing"
    )


def test_the_champion_loads_without_this_repository(started: Home, tmp_path: Path) -> None:
    """By MLflow alone, in another folder, with the project's packages out of reach."""
    table = pa_csv.read_csv(started.root / "customers.csv").slice(0, 5)
    table.to_pandas().drop(columns="churned").to_csv(tmp_path / "in.csv", index=False)
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("components", "flows"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import mlflow, pandas
mlflow.set_tracking_uri("sqlite:///{started.root}/.tidemill/mlflow.db")
model = mlflow.pyfunc.load_model("models:/customers@champion")
found = model.predict(pandas.read_csv("in.csv", parse_dates=["signed_up"]))
print(list(found.columns), len(found))
"""
    more = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": ""}
    done = Home(tmp_path).call(sys.executable, "-P", "-c", code, **more)
    assert done.returncode == 0, done.stderr
    assert "probability_yes" in done.stdout
    assert done.stdout.strip().endswith("5")


def test_nothing_in_the_results_depends_on_the_clock_or_the_place(started: Home) -> None:
    for file in started.root.glob("results/**/*.json"):
        if file.name.endswith("receipt.json"):
            continue
        text = file.read_text()
        assert str(started.root) not in text, file
        assert "2026-" not in text or "customers" in str(file), file


def test_scores_stand_beside_the_rows_own_ids(started: Home) -> None:
    out = started.root / "scored.parquet"
    done = started.tidemill("score", "customers", "customers.csv", str(out), "--json")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out)
    ids = pa_csv.read_csv(started.root / "customers.csv")["customer_id"].to_pylist()
    assert table["customer_id"].to_pylist() == ids
    assert {"model_version", "run_key", "probability_yes", "probability_no"} <= set(table.column_names)
    again = started.tidemill("score", "customers", "customers.csv", str(out))
    assert again.returncode == 0
    assert "unchanged" in again.stderr + again.stdout


def test_the_readme_names_every_folder_at_the_top() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in ("flows/", "components/", "data.dvc", "params.yaml", "tests/", "docker/", "pyproject.toml"):
        assert name in readme
