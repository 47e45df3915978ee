"""Runs in a real embedded store: found again after a death, every point once, ended as what happened."""

from __future__ import annotations

import dataclasses
import http.server
import json
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from components import holds
from components.contract import Objective
from components.errors import Busy, TidemillError, Unreachable
from components.sweep import Planned, Trial
from components.tracking import Origin, SweepRun, census, scorings, sweep_run
from components.tracking.runs import find
from components.tracking.store import answering, open_store
from components.workspace import Workspace

from .conftest import free_port
from .shelf import SPEC

ROOT = Path(__file__).parents[2]
OBJECTIVE = Objective("accuracy", "max")
HYPER = {"aaaa": {"lr": 0.1, "width": 16}, "bbbb": {"lr": 0.2, "width": 32}}
PLANNED = [Planned(key, hyper) for key, hyper in HYPER.items()]


def origin(pipeline: str = "tides", run_key: str = "k" * 64) -> Origin:
    return Origin(
        pipeline, run_key, "mlp", SPEC, "d41d8cd98f00b204e9800998ecf8427e", "c0ffee", {"train": 200, "test": 60}
    )


def curve(key: str, epochs: int) -> list[dict[str, float]]:
    best = {"aaaa": 0.9, "bbbb": 0.8}[key]
    return [{"train/loss": 1 / e, "val/accuracy": best - 1 / (e + 1)} for e in range(1, epochs + 1)]


def trial(key: str, epochs: int, status: Any = "finished", error: str = "") -> Trial:
    metrics = curve(key, epochs)
    best = metrics[-1]["val/accuracy"] if metrics else math.nan
    return Trial(key, HYPER[key], status, metrics, best, epochs, "", error)


def tell(run: SweepRun, epochs: Sequence[tuple[str, int]]) -> None:
    run.planned(PLANNED, 5, OBJECTIVE)
    for key, count in epochs:
        for number, metrics in enumerate(curve(key, count), 1):
            run.learnt(key, number, [metrics])


def runs_of(workspace: Workspace, pipeline: str = "tides") -> tuple[Any, dict[str, Any]]:
    """The only parent run, and its children by trial."""
    store = open_store(workspace)
    experiment = store.experiment(pipeline)
    (parent,) = find(store, experiment, {"tidemill.kind": "sweep"})
    children = list(find(store, experiment, {"mlflow.parentRunId": parent.info.run_id}))
    by_trial = {c.data.tags["tidemill.trial"]: c for c in children}
    assert len(by_trial) == len(children)
    return parent, by_trial


def points(workspace: Workspace, run: Any, metric: str) -> list[tuple[int, float]]:
    history = open_store(workspace).client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def test_a_sweep_is_a_parent_with_children_curves_tags_and_artifacts(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "curve.png").write_bytes(b"\x89PNG")
    (tmp_path / "validation.json").write_text("{}")
    with sweep_run(workspace, origin()) as run:
        tell(run, [("aaaa", 5), ("bbbb", 2)])
        run.ended(trial("aaaa", 5))
        run.ended(trial("bbbb", 2, "stopped"))
        artifacts = [tmp_path / "plots", tmp_path / "validation.json"]
        run.finish(trial("aaaa", 5), {"test/accuracy": 0.75, "test/loss": 0.5}, {"test/accuracy": 0.5}, artifacts)
    parent, children = runs_of(workspace)
    assert parent.info.run_id == run.run_id and parent.info.status == "FINISHED"
    figures = {
        "test/accuracy": 0.75,
        "test/loss": 0.5,
        "baseline/accuracy": 0.5,
        "best/accuracy": pytest.approx(0.9 - 1 / 6),
    }
    assert parent.data.metrics == figures
    assert parent.data.params == {"lr": "0.1", "width": "16"}
    wanted = {"run_key": "k" * 64, "pipeline": "tides", "family": "mlp", "dataset": "tides", "stage": "train"}
    wanted |= {"git_commit": "c0ffee", "data_md5": "d41d8cd98f00b204e9800998ecf8427e", "best_trial": "aaaa"}
    assert {k: parent.data.tags[f"tidemill.{k}"] for k in wanted} == wanted
    assert parent.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert {k: c.info.status for k, c in children.items()} == {"aaaa": "FINISHED", "bbbb": "KILLED"}
    assert points(workspace, children["aaaa"], "val/accuracy") == [(e, 0.9 - 1 / (e + 1)) for e in range(1, 6)]
    assert points(workspace, children["bbbb"], "train/loss") == [(1, 1.0), (2, 0.5)]
    assert children["bbbb"].data.params == {"lr": "0.2", "width": "32"}
    client = open_store(workspace).client
    assert {a.path for a in client.list_artifacts(run.run_id)} == {"plots", "report.html", "validation.json"}
    assert [a.path for a in client.list_artifacts(run.run_id, "plots")] == ["plots/curve.png"]
    assert list(Path.cwd().iterdir()) == []  # nothing written where the process happens to stand


def test_the_same_with_another_seed_is_a_child_that_says_so_and_a_figure_of_the_parent(workspace: Workspace) -> None:
    best, again = trial("aaaa", 5), dataclasses.replace(trial("aaaa", 5), key="aaaa-8", best=0.5, seed=8)
    for _ in range(2):  # told again, as after a restart
        with sweep_run(workspace, origin()) as run:
            run.planned([*PLANNED, Planned("aaaa-8", HYPER["aaaa"], 8)], 5, OBJECTIVE)
            for one in (best, trial("bbbb", 2, "stopped"), again):
                run.learnt(one.key, 1, one.curve)
                run.ended(one)
            run.finish(best, {"test/accuracy": 0.75}, {"test/accuracy": 0.5})
    parent, children = runs_of(workspace)
    assert set(children) == {"aaaa", "bbbb", "aaaa-8"}
    child = children["aaaa-8"]
    assert (child.info.run_name, child.data.tags["tidemill.seed"]) == ("trial aaaa-8 seed 8", "8")
    assert "tidemill.seed" not in children["aaaa"].data.tags
    assert child.data.params == children["aaaa"].data.params and len(points(workspace, child, "val/accuracy")) == 5
    assert parent.data.tags["tidemill.best_trial"] == "aaaa"
    assert parent.data.metrics["seeds/count"] == 2
    assert parent.data.metrics["seeds/mean"] == pytest.approx((best.best + 0.5) / 2)
    assert "With 2 seeds" in parent.data.tags["mlflow.note.content"]


def test_the_dataset_is_an_input_with_its_dvc_digest(workspace: Workspace) -> None:
    for _ in range(2):
        with sweep_run(workspace, origin()):
            pass
    parent, _ = runs_of(workspace)
    (given,) = parent.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("tides", "d41d8cd98f00b204e9800998ecf8427e")
    assert json.loads(given.dataset.source) == {"uri": "data/tides.parquet"}
    assert json.loads(given.dataset.profile) == {"rows": 260, "train": 200, "test": 60}
    assert json.loads(given.dataset.schema)["mlflow_colspec"][0] == {
        "name": "height",
        "type": "double",
        "required": True,
    }
    assert {tag.key: tag.value for tag in given.tags}["dvc.file"] == "data.dvc"


def test_who_was_taken_over_while_it_was_paused_writes_nothing_any_more(workspace: Workspace) -> None:
    with holds.working(workspace, origin().pipeline):
        with pytest.raises(Busy, match="taken over"), sweep_run(workspace, origin(), flush_s=600) as run:
            tell(run, [("aaaa", 2)])
            run.flush()
            tell(run, [("aaaa", 3)])
            lock = workspace.state / "locks" / f"{origin().pipeline}.lock"
            lock.rename(lock.with_suffix(".old"))  # as another process does that holds the pipeline from now on
            lock.touch()
        parent, children = runs_of(workspace)
        assert (parent.info.status, children["aaaa"].info.status) == ("RUNNING", "RUNNING"), "the other one's to end"
        assert len(points(workspace, children["aaaa"], "train/loss")) == 2


def test_a_restart_goes_on_in_the_same_runs_and_writes_every_point_once(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), sweep_run(workspace, origin()) as first:
        tell(first, [("aaaa", 3), ("bbbb", 1)])
        raise RuntimeError("the disk is full")
    parent, children = runs_of(workspace)
    assert parent.info.status == "FAILED" and "the disk is full" in parent.data.tags["tidemill.error"]
    assert {c.info.status for c in children.values()} == {"KILLED"}
    assert len(points(workspace, children["aaaa"], "train/loss")) == 3
    with sweep_run(workspace, origin()) as second:  # told from the start, as the watcher's contract allows
        tell(second, [("aaaa", 5), ("bbbb", 2)])
        second.ended(trial("aaaa", 5))
        second.ended(trial("bbbb", 2))
        second.finish(trial("aaaa", 5), {"test/accuracy": 0.75}, {"test/accuracy": 0.5})
    again, kept = runs_of(workspace)
    assert second.run_id == first.run_id == again.info.run_id and again.info.status == "FINISHED"
    assert {k: c.info.run_id for k, c in kept.items()} == {k: c.info.run_id for k, c in children.items()}
    for key, epochs in (("aaaa", 5), ("bbbb", 2)):
        assert [step for step, _ in points(workspace, kept[key], "val/accuracy")] == list(range(1, epochs + 1))
        assert len(points(workspace, kept[key], "best/accuracy")) == 1
        assert kept[key].info.status == "FINISHED"


def test_another_run_key_is_another_run(workspace: Workspace) -> None:
    ids = []
    for run_key in ("a" * 64, "b" * 64):
        with sweep_run(workspace, origin(run_key=run_key)) as run:
            ids.append(run.run_id)
    assert len(set(ids)) == 2


def test_the_trials_end_says_what_was_never_told_before(workspace: Workspace) -> None:
    with sweep_run(workspace, origin()) as run:
        run.planned(PLANNED, 5, OBJECTIVE)
        run.ended(trial("aaaa", 4))
        run.ended(trial("bbbb", 0, "failed", "loss is NaN"))
    _, children = runs_of(workspace)
    assert len(points(workspace, children["aaaa"], "train/loss")) == 4
    assert children["bbbb"].info.status == "FAILED" and children["bbbb"].data.tags["tidemill.error"] == "loss is NaN"


def test_an_interrupt_leaves_killed_runs(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt), sweep_run(workspace, origin()) as run:
        tell(run, [("aaaa", 1)])
        raise KeyboardInterrupt
    parent, children = runs_of(workspace)
    assert parent.info.status == "KILLED"
    assert {c.info.status for c in children.values()} == {"KILLED"}


def test_points_are_written_while_the_sweep_runs(workspace: Workspace) -> None:
    with sweep_run(workspace, origin(), flush_s=0.05) as run:
        tell(run, [("aaaa", 2)])
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            _, children = runs_of(workspace)
            if "aaaa" in children and len(points(workspace, children["aaaa"], "train/loss")) == 2:
                break
            time.sleep(0.05)
        else:
            pytest.fail("nothing was written by time")


def test_a_silence_in_between_loses_and_doubles_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    answer = MlflowClient.log_batch
    silent = threading.Event()

    def log_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        done = answer(self, *args, **kwargs)
        if silent.is_set() and kwargs.get("metrics"):  # written, but the answer is lost
            raise MlflowException("API request to log-batch failed")
        return done

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    with sweep_run(workspace, origin(), flush_s=600) as run:
        tell(run, [("aaaa", 3)])
        silent.set()
        with pytest.raises(MlflowException):
            run.flush()
        silent.clear()
        tell(run, [("aaaa", 5)])
    _, children = runs_of(workspace)
    assert [step for step, _ in points(workspace, children["aaaa"], "train/loss")] == [1, 2, 3, 4, 5]


def test_runs_of_a_dead_process_are_marked_and_its_run_key_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from components.workspace import Workspace
from tests.components.test_tracking import origin, sweep_run, tell
with sweep_run(Workspace(Path({str(workspace.root)!r})), origin(), flush_s=0.05) as run:
    tell(run, [("aaaa", 3)])
    run.flush()
    print(run.run_id, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout
        run_id = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    assert run_id
    with sweep_run(workspace, origin(run_key="other")):
        pass
    client = open_store(workspace).client
    assert client.get_run(run_id).info.status == "KILLED"
    with sweep_run(workspace, origin()) as run:
        assert run.run_id == run_id
        tell(run, [("aaaa", 5)])
        run.flush()
        mine = [client.get_run(run_id), *find(open_store(workspace), run.experiment_id, {"mlflow.parentRunId": run_id})]
        status = {one.data.tags.get("tidemill.trial", ""): one.info.status for one in mine}
        assert status == {"": "RUNNING", "aaaa": "RUNNING", "bbbb": "KILLED"}, "bbbb has not been learnt any further"
        assert census.orphans(workspace, ["tides"]) == [], "whoever takes a run over is whose it is"
        run.ended(trial("aaaa", 5))
    assert client.get_run(run_id).info.status == "FINISHED"
    (child,) = find(open_store(workspace), run.experiment_id, {"mlflow.parentRunId": run_id, "tidemill.trial": "aaaa"})
    assert [step for step, _ in points(workspace, child, "val/accuracy")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("whose", "dead"), [("{pid}", False), ("{pid}:{born}", False), ("{pid}:1000000000", True), ("{zombie}", True)]
)
def test_a_process_is_known_by_its_birth_and_not_by_its_number_alone(
    workspace: Workspace, whose: str, dead: bool
) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and not yet gone
        said = whose.format(pid=os.getpid(), born=round(psutil.Process().create_time()), zombie=ended.pid)
        store = open_store(workspace)
        tags = {"tidemill.process": f"{socket.gethostname()}:{said}"}
        made = store.client.create_run(store.experiment("no longer in params.yaml"), tags=tags).info.run_id
        assert [one.run_id for one in census.orphans(workspace, ["tides"])] == [made] * dead


def test_a_scoring_closes_what_a_dead_one_left(workspace: Workspace, tmp_path: Path) -> None:
    store, file = open_store(workspace), tmp_path / "drift.json"
    said = {"key": "s", "model": {"version": "1"}, "drifting": [], "psi_max": 0.1, "rows": 2, "rows_in": 2}
    file.write_text(json.dumps(said | {"quarantined": 0}))
    tags = {"tidemill.process": f"{socket.gethostname()}:{os.getpid()}:1000000000"}
    left = store.client.create_run(store.experiment("tides"), tags=tags).info.run_id
    made = scorings.record(workspace, "tides", "k" * 64, file)
    assert [store.client.get_run(one).info.status for one in (left, made)] == ["KILLED", "FINISHED"]


def test_several_pipelines_at_once_on_a_store_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path / "project")
    faults: list[BaseException] = []

    def play(number: int) -> None:
        try:
            with sweep_run(workspace, origin(f"tides{number}")) as run:
                tell(run, [("aaaa", 3), ("bbbb", 3)])
                run.finish(trial("aaaa", 3), {"test/accuracy": 0.7}, {"test/accuracy": 0.5})
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=play, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    for number in range(4):
        parent, children = runs_of(workspace, f"tides{number}")
        assert parent.info.status == "FINISHED" and len(children) == 2
        assert len(points(workspace, children["bbbb"], "train/loss")) == 3


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────


class _Answer(http.server.BaseHTTPRequestHandler):
    status, body, kind, wait_s = 200, b"{}", "application/json", 0.0

    def do_GET(self) -> None:
        time.sleep(self.wait_s)
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[_Answer]]:
    """A server that answers as the class that is yielded says; `address` is where."""
    handler: Any = type("Handler", (_Answer,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        handler.address = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield handler
        listening.shutdown()
        thread.join()


def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> Unreachable:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        open_store(Workspace(tmp_path))
    assert time.monotonic() - started < 15  # the limit of patience, with room for a busy machine
    assert len(str(caught.value).splitlines()) <= 4 and "MLFLOW_TRACKING_URI" in caught.value.fix
    return caught.value


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in (f"http://127.0.0.1:{free_port()}", f"postgresql://me:secret@127.0.0.1:{free_port()}/mlflow"):
        error = unreachable(tmp_path, monkeypatch, uri)
        assert "refused" in error.why and "secret" not in str(error)


def test_a_server_that_refuses_errs_or_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: type[_Answer]
) -> None:
    for status, body in ((401, b"who are you"), (404, b"{}"), (500, b"oh")):
        server.status, server.body = status, body
        error = unreachable(tmp_path, monkeypatch, server.address)  # type: ignore[attr-defined]
        assert f"HTTP {status}" in error.why
    server.status, server.kind, server.body = 200, "text/html", b"<p>hello</p>"
    assert "not an MLflow server" in unreachable(tmp_path, monkeypatch, server.address).why  # type: ignore[attr-defined]


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: type[_Answer]) -> None:
    monkeypatch.setattr("components.tracking.store.ANSWER_TIMEOUT_S", 0.2)
    server.wait_s = 3
    assert "timed out" in unreachable(tmp_path, monkeypatch, server.address).why.lower()  # type: ignore[attr-defined]


def test_addresses_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("http://127.0.0.1:99999", "foo://bar", "http://nowhere.invalid"):
        unreachable(tmp_path, monkeypatch, uri)


def test_a_fault_of_the_database_is_raised_and_not_printed_too(
    workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    with sweep_run(workspace, origin()) as run:
        pass
    store = open_store(workspace)
    with sqlite3.connect(workspace.state / "mlflow.db") as database:
        database.execute("drop table metrics")
    with pytest.raises(Unreachable), answering(store.uri):
        store.client.log_metric(run.run_id, "loss", 0.5)
    assert "Traceback" not in capfd.readouterr().err


def test_a_damaged_database_is_named(workspace: Workspace) -> None:
    (workspace.state / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Unreachable) as caught:
        open_store(workspace)
    assert "mlflow.db" in caught.value.where and "not a database" in caught.value.why


def test_a_database_of_another_version_is_left_alone(workspace: Workspace) -> None:
    with sqlite3.connect(workspace.state / "mlflow.db") as database:
        database.execute("update alembic_version set version_num = '0123456789ab'")
    with pytest.raises(TidemillError, match="another version of MLflow") as caught:
        open_store(workspace)
    assert "mlflow db upgrade" in caught.value.fix


def test_links_need_an_address(workspace: Workspace) -> None:
    store = open_store(workspace)
    assert store.link("1", "abc") == ""
    link = store.link("1", "abc", "http://127.0.0.1:5000/")
    assert link.startswith("http://127.0.0.1:5000/#/experiments/1/runs/abc?")


def test_an_experiment_that_was_deleted_comes_back(workspace: Workspace) -> None:
    store = open_store(workspace)
    first = store.experiment("tides")
    store.client.delete_experiment(first)
    assert store.experiment("tides") == first
    assert store.client.get_experiment(first).lifecycle_stage == "active"


# ── a team's server ─────────────────────────────────────────────────────────────────────────────────────


def test_a_server_keeps_runs_and_files(team_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server)
    (tmp_path / "receipt.json").write_text("{}")
    there = Workspace(tmp_path / "project")
    for _ in range(2):
        with sweep_run(there, origin()) as run:
            tell(run, [("aaaa", 3)])
            run.ended(trial("aaaa", 3))
            run.finish(trial("aaaa", 3), {"test/accuracy": 0.7}, {"test/accuracy": 0.5}, [tmp_path / "receipt.json"])
    parent, children = runs_of(there)
    assert parent.info.status == "FINISHED" and run.link().startswith(f"{team_server}/#/experiments/")
    assert [step for step, _ in points(there, children["aaaa"], "val/accuracy")] == [1, 2, 3]
    paths = {a.path for a in open_store(there).client.list_artifacts(run.run_id)}
    assert paths == {"receipt.json", "report.html"}
    assert not (there.state / "mlartifacts").exists()
