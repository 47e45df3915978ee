"""params.yaml: every fault at once, each with its line and a way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components import params
from components.contract import Choice, Integer, Uniform
from components.errors import ParamsError
from components.workspace import Workspace

from ..conftest import REPOSITORY

GOOD = """\
seed: 3
datasets:
  digits: {}
  churn: {table: churn.csv, target: churned}
pipelines:
  digits:
    dataset: digits
    family: cnn
    search: {trials: 4, space: {label_smoothing: {low: 0.001, high: 0.01, log: true}}}
"""


def load(folder: Path, text: str) -> params.Params:
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return params.load(Workspace(folder))


def fault(folder: Path, text: str) -> str:
    with pytest.raises(ParamsError) as raised:
        load(folder, text)
    return str(raised.value)


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    assert found.seed == 3
    assert found.pipelines["digits"].search.scheduler == "halving"
    assert found.pipelines["digits"].gate.margin == 0.0


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ("{seeds: 0}", "got 0, expected greater than or equal to 1"),
        (
            "{seeds: 3, scheduler: pbt}",
            "got 3, expected 1 with scheduler pbt: its winner had several configurations; take another scheduler",
        ),
    ],
)
def test_seeds_that_cannot_be_are_refused_with_their_line(tmp_path: Path, search: str, says: str) -> None:
    text = GOOD.replace("search: {trials: 4,", f"search: {{{search.strip('{}')}, trials: 4,")
    assert fault(tmp_path, text) == f"params.yaml:9 pipelines.digits.search.seeds: {says}"
    assert load(tmp_path, text.replace("seeds: 0", "seeds: 3").replace("pbt", "asha"))
    assert load(tmp_path, text.replace("seeds: 0", "seeds: 1").replace("seeds: 3", "seeds: 1")), "pbt is, with one"


def test_every_fault_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    text = (
        GOOD.replace("seed: 3", "seed: many")
        .replace("trials: 4", "trails: 4")
        .replace("dataset: digits", "dataset: digit")
    )
    found = fault(tmp_path, text)
    assert "params.yaml:1 seed: got 'many', expected a whole number" in found
    assert "params.yaml:9 pipelines.digits.search.trails: got an unknown key; did you mean 'trials'?" in found
    assert fault(tmp_path, GOOD.replace("dataset: digits", "dataset: digit")) == (
        "params.yaml:7 pipelines.digits.dataset: got 'digit', expected a name under datasets; did you mean 'digits'?"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  digits: {}", "  digits: {text: said}", "params.yaml:3 datasets.digits.text: got a text without a table"),
        ("family: cnn", "family: cn", "params.yaml:8 pipelines.digits.family: got 'cn'"),
        ("family: cnn", "family: no.such:Thing", "No module named 'no'"),
        ("family: cnn", "family: cnn\n    settings: {dropuot: 0.1}", "did you mean 'dropout'?"),
        ("label_smoothing", "label_smothing", "did you mean 'label_smoothing'?"),
        ("family: cnn", "family: cnn\n    schedule: every day", "expected a cron line"),
        ("family: cnn", "family: cnn\n    task: regression", "got 'regression', expected one of"),
        ("trials: 4", "trials: 0", "got 0, expected"),
        (
            "trials: 4",
            "scheduler: halvng, trials: 4",
            "expected one of halving, asha, pbt, optuna; did you mean 'halving'?",
        ),
        ("  digits:\n    dataset", "  ../digits:\n    dataset", "expected a name of letters"),
        ("target: churned}", "target: churned, source: digits}", "got table and source"),
        ("target: churned}", "target: churned, user: who}", "got user without item, expected both"),
        ("target: churned}", "target: churned, item: what}", "got item without user, expected both"),
        ("{table: churn.csv, target: churned}", "{source: digits, user: a, item: b}", "got user without table"),
        ("{table: churn.csv, target: churned}", "{}", "no built-in dataset of this name"),
        ("{table: churn.csv, target: churned}", "{environment: A-v0, target: x}", "got target beside an environment"),
        (
            "target: churned}",
            "environment: A-v0}",
            "params.yaml:4 datasets.churn.table: got table beside an environment",
        ),
        ("{table: churn.csv, target: churned}", "{environment: A-v0, source: digits}", "got source beside an environm"),
        (
            "target: churned}",
            "target: churned, environment_wrappers: [a:B]}",
            "got environment_wrappers without an envi",
        ),
        (
            "target: churned}",
            "target: churned, environment_settings: {a: 1}}",
            "got environment_settings without an env",
        ),
        ("target: churned}", "target: churned, episodes: 9}", "got episodes without an environment"),
        (
            "{table: churn.csv, target: churned}",
            "{environment: A-v0, environment_wrappers: [a:B, b.C]}",
            "params.yaml:4 datasets.churn.environment_wrappers.1: got 'b.C', expected package.module:Class",
        ),
        ("{table: churn.csv, target: churned}", "{environment: A-v0, episodes: 2}", "got 2, expected"),
        ("target: churned}", "target: churned, evaluation: {val: 9}}", "got evaluation without an environment"),
        (
            "{table: churn.csv, target: churned}",
            "{environment: A-v0, evaluation: {vall: 9}}",
            "params.yaml:4 datasets.churn.evaluation.vall: got 'vall', expected one of train, val, test; did you mean",
        ),
        ("{table: churn.csv, target: churned}", "{environment: A-v0, evaluation: {val: 0}}", "got 0, expected"),
        (
            "{table: churn.csv, target: churned}",
            "{environment: A-v0, evaluation: {val: 1_000_001}}",
            "got 1000001, expected",
        ),
        ("{table: churn.csv, target: churned}", "{environment: ''}", "got '', expected"),
        ("{table: churn.csv, target: churned}", "{enviroment: A-v0}", "did you mean 'environment'?"),
        ("    dataset: digits\n", "", "params.yaml:6 pipelines.digits.dataset: got nothing, expected a value"),
        ("seed: 3", "seed: 3\nseed: 4", "not YAML"),
        ("seed: 3", "seed: [", "not YAML"),
        (GOOD, "- a list\n", "expected keys such as datasets"),
    ],
)
def test_each_fault_says_what_was_expected(tmp_path: Path, old: str, new: str, said: str) -> None:
    found = fault(tmp_path, GOOD.replace(old, new))
    assert said in found
    assert len(found.splitlines()) <= 4


def test_an_absent_file_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no params\.yaml here"):
        Workspace.find(tmp_path)


def test_ranges_of_params_replace_the_familys_own() -> None:
    search = params.Search.model_validate(
        {"space": {"a": [1, 2], "b": {"low": 1, "high": 8, "integer": True}, "c": {"low": 0.1, "high": 1.0}}}
    )
    own = {"a": Uniform(0, 1, mutable=True), "d": Uniform(0, 1), "e": Uniform(0, 1)}
    assert search.domains(own, {"e": 0.5}) == {
        "a": Choice((1, 2), mutable=True),
        "b": Integer(1, 8),
        "c": Uniform(0.1, 1.0),
        "d": Uniform(0, 1),
    }


def test_the_schema_knows_every_key() -> None:
    schema = json.loads(params.schema())
    assert set(schema["$defs"]["Pipeline"]["properties"]) == set(params.Pipeline.model_fields)
    assert schema["additionalProperties"] is False


def test_the_schema_that_editors_read_is_that_of_now() -> None:
    """params.yaml names it in its first line; `make schema` writes it."""
    assert (REPOSITORY / "params.schema.json").read_text(encoding="utf-8") == params.schema()


def test_an_empty_file_is_an_empty_project(tmp_path: Path) -> None:
    assert load(tmp_path, "") == params.Params()
