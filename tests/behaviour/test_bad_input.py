"""Each bad input ends in a clear error of a few lines with the way out; nothing is registered or half-written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..conftest import Home, borrow_data, write_customers

PROJECT = """\
datasets:
  customers: {table: customers.csv, target: churned}
pipelines:
  customers: {dataset: customers, family: mlp, search: {trials: 1, epochs: 1}}
"""


def refused(home: Home, *words: str, **more: str) -> str:
    """What the command says when it refuses: short, with a way out, no traceback, nothing left behind."""
    done = home.tidemill(*words, **more)
    assert done.returncode not in (0, 1), f"{done.stdout}\n{done.stderr}"
    said = done.stderr[done.stderr.index("error: ") :]
    assert "Traceback" not in done.stderr
    assert len(said.strip().splitlines()) <= 12
    assert done.stdout == ""
    return said


def nothing_done(home: Home) -> None:
    assert not any("train" in name or "register" in name for name in home.receipts())
    assert not list(home.root.glob("results/*/train")), "nothing half-written"
    assert not list(home.root.glob("results/*/.*")), "nothing half-written"


def rewrite(file: Path, change: object) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join(change(lines)) + "\n")  # type: ignore[operator]


def replace_column(name: str, value: object) -> object:
    def change(lines: list[str]) -> list[str]:
        at = lines[0].split(",").index(name)
        rows = [line.split(",") for line in lines[1:]]
        return [lines[0], *(",".join([*row[:at], str(value), *row[at + 1 :]]) for row in rows)]

    return change


@pytest.fixture
def project(home: Home) -> Home:
    home.params(PROJECT)
    write_customers(home.root / "customers.csv", rows=200)
    return home


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("family: mlp", "famly: mlp", ["params.yaml:4", "famly", "did you mean 'family'"]),
        ("family: mlp", "family: mpl", ["pipelines.customers.family: got 'mpl'", "did you mean 'mlp'"]),
        ("customers.csv", "custmers.csv", ["custmers.csv"]),
        ("target: churned", "target: churnd", ["churnd", "did you mean 'churned'"]),
    ],
    ids=["misspelt key", "unknown family", "absent file", "absent target"],
)
def test_params_that_name_nothing(project: Home, old: str, new: str, words: list[str]) -> None:
    project.params(PROJECT.replace(old, new))
    said = refused(project, "run", "customers")
    assert all(word in said for word in words), said
    nothing_done(project)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:1], ["customers.csv", "an empty table", "give a table with rows"]),
        (replace_column("churned", "yes"), ["churned", "one value only", "rows of another class"]),
        (replace_column("age", "NA"), ["no value in column 'age'", "ignore: [age]"]),
    ],
    ids=["empty table", "one class only", "all-NaN column"],
)
def test_tables_that_nothing_can_be_learnt_from(project: Home, change: object, words: list[str]) -> None:
    rewrite(project.root / "customers.csv", change)
    said = refused(project, "run", "customers").lower()
    assert all(word in said for word in words), said
    nothing_done(project)


def test_a_column_that_gives_the_target_away_stops_before_training(project: Home) -> None:
    file = project.root / "customers.csv"
    rewrite(
        file,
        lambda lines: [
            f"{line},{'left' if i == 0 else line.rsplit(',', 1)[1].upper()}" for i, line in enumerate(lines)
        ],
    )
    done = project.tidemill("run", "customers")
    assert done.returncode == 4
    assert "left" in done.stderr
    assert "leak" in done.stderr
    nothing_done(project)
    assert list(project.root.glob(".tidemill/validation/**/index.html")), "Data Docs are left to look at"


def test_servers_that_do_not_answer(project: Home) -> None:
    for name, address in (
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"),
        ("RAY_ADDRESS", "127.0.0.1:9"),
        ("PREFECT_API_URL", "http://127.0.0.1:9/api"),
    ):
        done = project.tidemill("run", "customers", timeout_s=120, **{name: address})
        assert done.returncode == 7, f"{name}: {done.stderr}"
        assert "127.0.0.1:9" in done.stderr
        assert name in done.stderr
        assert "Traceback" not in done.stderr
        nothing_done(project)


def test_a_gate_that_cannot_judge_is_known_before_the_sweep(project: Home) -> None:
    assert project.tidemill("data", "fetch").returncode == 0
    assert project.tidemill("stage", "validate", "customers").returncode == 0
    for gate, words in (
        ("{metric: auroc}", "without a mode"),
        ("{metric: f1, mode: max}", "set gate.metric to one of"),
        ("{floors: {nonsense: 0.5}}", "got a floor for 'nonsense'"),
    ):
        project.params(PROJECT.replace("family: mlp", f"family: mlp, gate: {gate}"))
        assert words in refused(project, "stage", "train", "customers")
    assert not (project.root / ".tidemill" / "sweeps").exists()


def test_no_such_pipeline_tag_or_project(project: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "did you mean 'customers'" in refused(project, "run", "custmers")
    assert "no pipeline has the tag" in refused(project, "run", "--tag", "none")
    assert "no pipeline named" in refused(project, "run")
    elsewhere = Home(tmp_path_factory.mktemp("elsewhere"))
    assert "no params.yaml here" in refused(elsewhere, "run", "--all")


def test_scoring_before_there_is_a_champion(project: Home) -> None:
    said = refused(project, "score", "customers", "customers.csv", "out.parquet")
    assert "tidemill run customers" in said
    assert not (project.root / "out.parquet").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ["monthly_fee", "missing"]),
        ("extra", ["surprise", "--ignore-extra"]),
        ("truncated", ["truncated.parquet", "Parquet"]),
        ("absent", ["absent.csv"]),
        ("empty", ["a table without rows"]),
        ("text", ["age", "old"]),
    ],
)
def test_tables_that_cannot_be_scored(started: Home, tmp_path: Path, name: str, words: list[str]) -> None:
    source = tmp_path / f"{name}.csv"
    write_customers(source, rows=20)
    if name == "missing":
        rewrite(source, lambda lines: [",".join(w for i, w in enumerate(line.split(",")) if i != 3) for line in lines])
    elif name == "extra":
        rewrite(source, lambda lines: [f"{line},{'surprise' if i == 0 else 1}" for i, line in enumerate(lines)])
    elif name == "truncated":
        source = tmp_path / "truncated.parquet"
        pq.write_table(pa.table({"age": list(range(10_000))}), source)
        source.write_bytes(source.read_bytes()[:-50])
    elif name == "absent":
        source.unlink()
    elif name == "empty":
        rewrite(source, lambda lines: lines[:1])
    else:
        rewrite(source, replace_column("age", "old"))
    said = refused(started, "score", "customers", str(source), str(tmp_path / "out.parquet"))
    assert all(word in said for word in words), said
    assert not (tmp_path / "out.parquet").exists()
    assert not list(tmp_path.glob(".out*")), "nothing half-written"


def test_a_table_without_its_target_is_scored(started: Home, tmp_path: Path) -> None:
    source = tmp_path / "new.csv"
    write_customers(source, rows=20, seed=9)
    rewrite(source, lambda lines: [line.rsplit(",", 1)[0] for line in lines])
    done = started.tidemill("score", "customers", str(source), str(tmp_path / "out.parquet"))
    assert done.returncode == 0, done.stderr
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 20


def test_a_damaged_dataset_is_built_again_not_trained_on(home: Home) -> None:
    home.params("datasets: {cartpole: {}}\npipelines: {poles: {dataset: cartpole, family: dqn, search: {trials: 1}}}\n")
    borrow_data(home, "cartpole")
    file = home.root / "data" / "cartpole.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert "cartpole" in refused(home, "stage", "validate", "poles")
    done = home.tidemill("data", "fetch")
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == whole
    nothing_done(home)
