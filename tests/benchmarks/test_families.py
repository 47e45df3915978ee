"""What counts as reached, and what is written of it; the figures themselves are the command's to measure."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks import families
from benchmarks import trained as trained_again
from benchmarks.families import Outcome
from benchmarks.rows import Figures, Row, rows
from benchmarks.rows.codes import agreement
from benchmarks.rows.starters import plain
from components import model, params
from components.contract import Data
from components.errors import TidemillError
from components.families import family as families_of
from components.families import import_path
from components.model import Model
from components.workspace import Workspace
from tests.components.cases import images
from tests.conftest import REPOSITORY

RIVALS = {"good": [0.94, 0.96], "poor": [0.5, 0.5]}
ROW = Row("digits", "accuracy", "max", mark=0.9, above=("good",))


@pytest.mark.parametrize(
    ("reached", "missed"),
    [
        ([0.96, 0.98], []),
        ([0.9, 1.0], ["good 0.9500"]),
        ([0.8, 0.9], ["good 0.9500", "mark 0.9"]),
        ([float("nan"), 1.0], ["good 0.9500", "mark 0.9"]),
    ],
)
def test_the_mean_must_reach_the_mark_and_beat_the_rivals(reached: list[float], missed: list[str]) -> None:
    assert Outcome(ROW, "cnn", reached, RIVALS).misses == missed


def test_less_is_better_where_the_row_says_so() -> None:
    row = Row("movies", "rmse", "min", mark=0.95, above=("good",))
    assert Outcome(row, "recommender", [0.9], RIVALS).misses == []
    assert Outcome(row, "recommender", [0.96], RIVALS).misses == ["good 0.9500", "mark 0.95"]


def test_where_nothing_lies_above_a_rival_as_much_will_do() -> None:
    row = Row("poles", "return", "max", level=("good",))
    for reached, missed in ((0.95, []), (0.96, []), (0.94, ["good 0.9500"]), (float("nan"), ["good 0.9500"])):
        assert Outcome(row, "dqn", [reached], RIVALS).misses == missed
    assert Outcome(Row("poles", "loss", "min", level=("good",)), "dqn", [0.94], RIVALS).misses == []
    assert Outcome(Row("poles", "return", "max", above=("good",)), "dqn", [0.95], RIVALS).misses == ["good 0.9500"]


def test_results_are_written_twice_and_misses_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "HERE", tmp_path)
    alone = Row("poles", "return", "max", mark=0.9, level=("good",))
    reached = Outcome(alone, "dqn", [0.99], {"good": [0.99]})
    families.write([reached.to_json(), Outcome(ROW, "cnn", [0.5, 0.7], RIVALS).to_json()])
    first, second = json.loads((tmp_path / "results.json").read_text())
    assert (first["ours"], first["rivals"], first["mark"], first["met"]) == ([0.5, 0.7], RIVALS, 0.9, False)
    assert second["met"] is True
    page = (tmp_path / "results.md").read_text()
    assert "| 0.6000 ± 0.1414 | good 0.9500 ± 0.0141<br>poor 0.5000 ± 0.0000 | 0.9, good | **no** |" in page
    assert "| 0.9900 | good 0.9900 | 0.9, good at least | yes |" in page


def test_rows_measured_before_there_were_rivals_to_reach_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "HERE", tmp_path)
    old = {name: value for name, value in Outcome(ROW, "cnn", [0.97], RIVALS).to_json().items() if name != "level"}
    families.write([old])
    assert json.loads((tmp_path / "results.json").read_text()) == [old]


def test_how_sacrebleu_counts_stands_below_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "HERE", tmp_path)
    said = Row("phrases", "bleu", "max")
    families.write([Outcome(said, "transformer", [31.2], {"copy": [4.0]}).to_json()])
    last = (tmp_path / "results.md").read_text().splitlines()[-1]
    assert last.startswith("bleu: nrefs:1|") and "version:" in last


def test_each_row_is_of_a_pipeline_that_there_is() -> None:
    known = params.load(Workspace(REPOSITORY)).pipelines
    assert {name for row in rows() for name in (row.pipeline, *row.beside)} <= set(known)


@pytest.fixture
def taste() -> Data:
    from tests.components.test_recommender import TASTE

    return TASTE


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool, int]]:
    """Pipelines "a" and "b" on the same images, without training them; which trainings were asked for."""
    asked: list[tuple[str, int, bool, int]] = []

    def learnt(pipeline: str, folds: int, new_users: bool, seed: int) -> dict[str, float]:
        asked.append((pipeline, folds, new_users, seed))
        return {"test/accuracy": (0.5 if pipeline == "a" else 0.6) + seed / 10, "test/loss": 1.0}

    def resolved(pipeline: str) -> Any:
        return SimpleNamespace(name=pipeline, block=SimpleNamespace(family="cnn"))

    monkeypatch.setattr(families, "resolved", resolved)
    monkeypatch.setattr(families, "once", lambda work, *asked, **named: work(*asked, **named))
    monkeypatch.setattr(families, "learnt", learnt)
    monkeypatch.setattr(trained_again, "resolved", resolved)
    monkeypatch.setattr(trained_again, "data_of", lambda _: images("classification"))
    return asked


def measured(asked: list[Row]) -> list[Outcome]:
    done = families.Measurements(Here(), asked)
    return [families.measured(row, done) for row in asked]


class Here(Executor):
    """Does at once what it is asked for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except TidemillError as error:
            done.set_exception(error)
        return done


def test_a_rival_is_asked_once_a_seed_for_all_metrics(trained: list[tuple[str, int, bool, int]]) -> None:
    calls: list[tuple[int, int]] = []

    def rivals(data: Data, seed: int) -> Figures:
        calls.append((seed, data.splits["test"].num_rows))
        return {"luck": {"accuracy": seed / 100, "loss": 2.0}}

    asked = [
        Row("a", "accuracy", "max", rivals, seeds=2),
        Row("a", "loss", "min", rivals, above=("luck",), seeds=2),
        Row("a", "accuracy", "max", rivals, folds=3),
    ]
    first, second, third = measured(asked)
    assert calls == [(0, 72), (1, 72), (0, 120), (1, 120), (2, 120)]
    assert first.ours == [0.5, 0.6] and first.rivals == {"luck": [0.0, 0.01]}
    assert second.ours == [1.0, 1.0] and second.rivals == {"luck": [2.0, 2.0]} and second.misses == []
    assert len(third.ours) == 3
    assert trained == [("a", folds, False, run) for folds, run in ((0, 0), (0, 1), (3, 0), (3, 1), (3, 2))]


def test_another_pipeline_stands_beside_and_is_trained_once(trained: list[tuple[str, int, bool, int]]) -> None:
    rows_ = [Row(name, "accuracy", "max", beside=(other,), seeds=2) for name, other in (("a", "b"), ("b", "a"))]
    one, two = measured(rows_)
    assert (one.ours, one.rivals) == ([0.5, 0.6], {"b": [0.6, 0.7]})
    assert (two.ours, two.rivals) == ([0.6, 0.7], {"a": [0.5, 0.6]})
    assert sorted(trained) == [(name, 0, False, seed) for name in ("a", "b") for seed in (0, 1)]


def test_rivals_see_every_pixel_as_a_column_and_the_same_rows() -> None:
    data = images("classification")
    inputs, truth = plain(data, "test")
    assert inputs.shape == (72, 144) and inputs.max() <= 1
    assert np.array(data.spec.classes)[truth].tolist() == data.splits["test"]["target"].to_pylist()
    rival = LogisticRegression(max_iter=500).fit(*plain(data, "train"))
    assert rival.score(inputs, truth) > 0.5


def test_folds_are_all_rows_once_and_their_val_rows_choose_nothing() -> None:
    data = images("classification")
    folds = [trained_again.folded(data, fold, 5) for fold in range(5)]
    tested = [row for fold in folds for row in fold.splits["test"]["id"].to_pylist()]
    assert sorted(tested) == list(range(360))
    for fold in folds:
        train, val, test = (set(fold.splits[split]["id"].to_pylist()) for split in ("train", "val", "test"))
        assert len(train) == 288 and len(test) == 72 and not train & test
        assert val < train and len(val) == 29
    assert trained_again.folded(data, 1, 5).splits["test"].equals(folds[1].splits["test"])


def test_a_fold_of_new_users_has_all_their_rows_and_nobody_else_s(taste: Data) -> None:
    folds = [trained_again.folded(taste, fold, 4, new_users=True) for fold in range(4)]
    tested = [set(fold.splits["test"]["user"].to_pylist()) for fold in folds]
    assert sorted(user for users in tested for user in users) == sorted({f"u{n}" for n in range(60)})
    for fold, users in zip(folds, tested, strict=True):
        assert not users & set(fold.splits["train"]["user"].to_pylist())
        assert fold.splits["train"].num_rows + fold.splits["test"].num_rows == 1500


def test_new_users_are_trained_and_asked_apart(trained: list[tuple[str, int, bool, int]], taste: Data) -> None:
    asked: list[int] = []

    def rivals(data: Data, seed: int) -> Figures:
        asked.append(len(set(data.splits["test"]["user"].to_pylist())))
        return {}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trained_again, "data_of", lambda _: taste)
        assert (
            len(measured([Row("a", "accuracy", "max", rivals, folds=2, new_users=new) for new in (False, True)])) == 2
        )
    assert asked == [60, 60, 30, 30]
    assert trained == [("a", 2, new, fold) for new in (False, True) for fold in (0, 1)]


def test_the_winner_is_the_first_of_the_seeds_and_trains_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"metrics": {"test/accuracy": 0.75, "val/accuracy": 0.8, "best_epoch": 3.0}}
    monkeypatch.setattr(trained_again, "resolved", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(trained_again, "facts", lambda _: told)
    assert trained_again.learnt("a", 0, False, 0) == {"test/accuracy": 0.75}


def test_figures_of_a_model_stand_beside_its_metrics_whichever_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, family, hyper = images("classification"), families_of("mlp"), {"width": 8, "depth": 1}
    *_, last = itertools.islice(family.fit(data, hyper, 7, None), 1)
    model.save(tmp_path / "a" / "train" / "model", import_path("mlp"), data.spec, hyper, last.state())
    told = {"metrics": {"test/accuracy": 0.75}, "hyper": hyper, "winner": {"epochs": 1}}
    asked = SimpleNamespace(
        name="a",
        family=family,
        block=SimpleNamespace(settings={}),
        project=SimpleNamespace(params=SimpleNamespace(seed=7)),
        workspace=SimpleNamespace(results=lambda name, stage: tmp_path / name / stage),
    )
    monkeypatch.setattr(trained_again, "resolved", lambda _: asked)
    monkeypatch.setattr(trained_again, "facts", lambda _: told)
    monkeypatch.setattr(trained_again, "data_of", lambda _: data)

    def widest(made: Model, given: Data) -> dict[str, float]:
        batch = given.splits["test"].select(["image"]).combine_chunks().to_batches()[0]
        return {"widest": float(made.encode(batch).max())}

    found = [trained_again.learnt("a", 0, False, run, figures=[widest]) for run in (0, 1)]
    batch = data.splits["test"].select(["image"]).combine_chunks().to_batches()[0]
    net = family.load(data.spec, hyper, last.state().served())
    assert found[0] == {"test/accuracy": 0.75, "test/widest": float(family.encode(net, batch).max())}
    assert found[1].keys() > {"test/accuracy", "test/widest"} and found[1]["test/widest"] != found[0]["test/widest"]


def test_a_training_is_asked_once_for_all_figures_of_its_rows(
    trained: list[tuple[str, int, bool, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def learnt(*asked: Any, figures: Any = ()) -> dict[str, float]:
        calls.append((*asked, figures))
        return {"test/loss": 1.0, "test/nmi": 0.5, "test/ari": 0.25}

    monkeypatch.setattr(families, "learnt", learnt)
    asked = [Row("a", "loss", "min", seeds=1)]
    asked += [Row("a", metric, "max", figures=agreement, seeds=1) for metric in ("nmi", "ari")]
    assert [one.ours for one in measured(asked)] == [[1.0], [0.5], [0.25]]
    assert calls == [("a", 0, False, 0, (agreement,))]


def test_another_seed_trains_the_winner_s_configuration_and_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    data, family = images("classification"), families_of("mlp")
    told = {"hyper": {"width": 8, "depth": 1}, "winner": {"epochs": 2}}
    asked = SimpleNamespace(
        family=family, block=SimpleNamespace(settings={}), project=SimpleNamespace(params=SimpleNamespace(seed=7))
    )
    monkeypatch.setattr(trained_again, "resolved", lambda _: asked)
    monkeypatch.setattr(trained_again, "facts", lambda _: told)
    monkeypatch.setattr(trained_again, "data_of", lambda _: data)
    *_, last = itertools.islice(family.fit(data, told["hyper"], 9, None), 2)
    net = family.load(data.spec, told["hyper"], last.state().served())
    assert trained_again.learnt("a", 0, False, 2) == family.measure(data.spec, family.judge(net, data, "test"), "test")


def test_a_varied_setting_is_trained_with_each_of_its_values(trained: list[tuple[str, int, bool, int]]) -> None:
    asked: list[int] = []

    def rivals(data: Data, run: int) -> Figures:
        asked.append(run)
        return {"luck": {"accuracy": 0.1}}

    begun: list[Any] = []

    def learnt(*how: Any) -> dict[str, float]:
        begun.append(how)
        return {"test/accuracy": float(how[-1][1])}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(families, "learnt", learnt)
        row = Row("a", "accuracy", "max", rivals, beside=("b",), varied=("share", (0.5, 1.0)))
        (outcome,) = measured([row])
    assert outcome.ours == [0.5, 1.0] and outcome.rivals == {"luck": [0.1, 0.1], "b": [0.5, 1.0]}
    assert asked == [0, 1]
    assert begun == [(name, 0, False, 0, ("share", share)) for name in ("a", "b") for share in (0.5, 1.0)]


def test_another_value_takes_the_place_of_the_winner_s_and_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    data, family = images("anomaly"), families_of("autoencoder")
    told = {"hyper": {"width": 4, "code": 4, "normal": "flat"}, "winner": {"epochs": 1}, "metrics": {}}
    asked = SimpleNamespace(
        family=family, block=SimpleNamespace(settings={}), project=SimpleNamespace(params=SimpleNamespace(seed=7))
    )
    monkeypatch.setattr(trained_again, "resolved", lambda _: asked)
    monkeypatch.setattr(trained_again, "facts", lambda _: told)
    monkeypatch.setattr(trained_again, "data_of", lambda _: data)
    hyper = {**told["hyper"], "normal": "steep"}  # type: ignore[dict-item]
    net = family.load(data.spec, hyper, next(family.fit(data, hyper, 7, None)).state().served())
    expected = family.measure(data.spec, family.judge(net, data, "test"), "test")
    assert trained_again.learnt("a", 0, False, 0, ("normal", "steep")) == expected


def test_a_pipeline_that_has_not_run_does_not_keep_the_others_from_being_measured(
    trained: list[tuple[str, int, bool, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def once(work: Callable[..., Any], pipeline: str, *asked: Any) -> Any:
        if pipeline == "b":
            raise TidemillError("b has not been trained")
        return work(pipeline, *asked)

    monkeypatch.setattr(families, "HERE", tmp_path)
    monkeypatch.setattr(families, "once", once)
    rows_ = [Row(name, "accuracy", "max", seeds=2) for name in ("b", "a")]
    assert families._missed(rows_, families.Measurements(Here(), rows_)) == 1
    assert "b has not been trained" in capsys.readouterr().err
    assert [one["pipeline"] for one in json.loads((tmp_path / "results.json").read_text())] == ["a"]


def test_rows_that_another_benchmark_wrote_meanwhile_stay(
    trained: list[tuple[str, int, bool, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "HERE", tmp_path)
    rows_ = [Row(name, "accuracy", "max", seeds=1) for name in ("a", "b")]
    done = families.Measurements(Here(), rows_)
    families.write([Outcome(ROW, "cnn", [0.97], RIVALS).to_json()])
    assert families._missed(rows_, done) == 0
    assert [one["pipeline"] for one in json.loads((tmp_path / "results.json").read_text())] == ["a", "b", "digits"]


def test_the_pool_ends_with_a_command_that_is_killed() -> None:
    """SIGKILL, since no word can be said then."""
    script = (
        "import multiprocessing, os, signal\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from benchmarks import families\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    with ProcessPoolExecutor(1, context, initializer=families._end_with_parent) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    _, left = psutil.wait_procs([psutil.Process(int(ended.stdout))] if psutil.pid_exists(int(ended.stdout)) else [], 20)
    assert not left
