"""Sweeps on a real Ray: what is learnt, what is kept, and that nothing that dies changes the weights."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
import torch

from components import checkpoints, interrupts, tuning
from components.contract import Metrics, Objective, State
from components.errors import Busy, ParamsError, TrainingFailed
from components.sweep import Planned, Trial
from components.tuning import configurations, execution
from components.tuning.archive import Archive
from tests.families import toy

from .sweeper import Listener, request

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    """One local Ray of two CPUs at least for the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with tuning.session():
            yield


@dataclass(frozen=True)
class Whole:
    """A halving sweep that nothing disturbed."""

    storage: Path
    settings: dict[str, Any]
    trials: list[Trial]
    listener: Listener
    pids: int


@pytest.fixture(scope="module")
def whole(here: None, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    storage, marker, listener = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("marker"), Listener()
    settings = {"sleep_s": 0.15, "marker": str(marker)}
    trials = tuning.sweep(request(str(storage), **settings), listener)
    return Whole(storage, settings, trials, listener, len(list(marker.iterdir())))


def weights(trials: Sequence[Trial]) -> list[str]:
    """SHA-256 of the last state of each trial, best trial first."""
    described = [json.loads((Path(t.checkpoint) / checkpoints.DESCRIPTION).read_bytes()) for t in trials]
    return [d["sha256"] for d in described]


def curves(trials: Sequence[Trial]) -> list[tuple[str, list[Metrics], float, int]]:
    return [(t.status, t.curve, t.best, t.best_epoch) for t in trials]


# ── what is learnt ──────────────────────────────────────────────────────────────────────────────────────


def test_halving_learns_by_rungs_and_tells_every_epoch_once(whole: Whole) -> None:
    trials, told = whole.trials, whole.listener
    assert [len(t.curve) for t in trials] == [9, 9, 3, 3, 3, 3]
    assert [t.status for t in trials] == ["finished"] * 2 + ["stopped"] * 4
    assert {t.key: t.curve for t in trials} == told.curves
    assert told.endings == {t.key: t for t in trials}
    assert [trial.key for trial in told.plans[0]] == list(dict.fromkeys(trial.key for trial in told.plans[-1]))
    first = told.plans[0][0].hyper
    assert (first["lr"], first["width"]) == (toy.Settings.lr, toy.Settings.width), "the defaults go first"


def test_trials_are_ranked_and_their_checkpoints_can_be_read(whole: Whole) -> None:
    assert [t.best for t in whole.trials] == sorted(t.best for t in whole.trials)
    for trial in whole.trials:
        losses = [row["val/loss"] for row in trial.curve]
        assert (trial.best, trial.best_epoch) == (min(losses), 1 + losses.index(min(losses)))
        state, record = checkpoints.read(trial.checkpoint)
        assert record["curve"] == trial.curve and record["hyper"] == trial.hyper
        assert any(name.startswith("model/") for name in state.served().tensors)


def test_processes_are_used_again_through_all_rungs(whole: Whole) -> None:
    assert whole.pids <= int(ray.cluster_resources()["CPU"])


@pytest.mark.parametrize("word", ["asha", "optuna", "pbt"])
def test_other_schedulers_by_a_word(here: None, tmp_path: Path, word: str) -> None:
    told = Listener()
    trials = tuning.sweep(request(str(tmp_path), scheduler=word, epochs=6, first_rung=2), told)
    assert len(trials) == 6
    assert {t.key: t.curve for t in trials} == told.curves
    assert set(told.endings) == set(told.curves)
    assert len(trials[0].curve) == 6 or word != "pbt"
    assert max(len(t.curve) for t in trials) == 6
    assert len(told.plans) == (6 if word == "optuna" else 1)
    read = [checkpoints.read(t.checkpoint)[1] for t in trials]
    assert [r["best"] for r in read] == [t.best for t in trials]
    if word == "pbt":
        moved = [r for r in read if r["parent"]]
        assert len(moved) == 1, "the worst of six copied the best"
        assert moved[0]["hyper"]["width"] in {r["hyper"]["width"] for r in read if not r["parent"]}


def test_two_sweeps_at_once_both_get_on_and_are_as_one_alone(whole: Whole, tmp_path: Path) -> None:
    """The first, which had all CPUs, cannot end before the second has: that would starve if nothing were shared."""
    begun, found = threading.Event(), []

    class First(Listener):
        def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
            super().learnt(key, first_epoch, metrics)
            begun.set()

    waiting = {"fault": "wait", "fault_at": 2, "fault_lr": 0.002, "marker": str(tmp_path)}  # one configuration
    listener = First()
    long = threading.Thread(
        target=lambda: found.append(tuning.sweep(request(str(tmp_path / "long"), **waiting), listener))
    )
    long.start()
    try:
        assert begun.wait(120)
        short = tuning.sweep(request(f"disk://{tmp_path}/short", trials=1, epochs=1), Listener())
    finally:
        (tmp_path / "go").touch()
        long.join()
    assert curves(found[0]) == curves(whole.trials)
    assert weights(found[0]) == weights(whole.trials)
    assert {t.key: t.curve for t in found[0]} == listener.curves
    # The short one's storage knows no rename, for once.
    assert short[0].checkpoint.startswith("disk:///")
    assert checkpoints.read(short[0].checkpoint)[1]["epoch"] == 1


# ── what is kept ────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_sweep_is_told_again_without_ray(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution.tune, "run", lambda *_, **__: pytest.fail("Ray was asked"))
    told = Listener()
    assert tuning.sweep(request(str(whole.storage), **whole.settings), told) == whole.trials
    assert told.curves == whole.listener.curves
    assert told.endings == whole.listener.endings
    ((kept, of, seconds),) = told.kept_trials
    assert kept == of == len(whole.trials) and seconds > 0


def test_damaged_best_weights_are_learnt_again_and_fresh_begins_again(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = request("below", trials=1, epochs=3)  # which workers, in folders of their own, must find
    first, second, third = Listener(), Listener(), Listener()
    before = tuning.sweep(small, first)
    assert Path(before[0].checkpoint).parent.parent == tmp_path / "below"
    expected = weights(before)
    next(Path(before[0].checkpoint).glob("*.safetensors")).write_bytes(b"damaged")
    assert weights(tuning.sweep(small, second)) == expected
    assert second.curves == first.curves
    mended = Path(before[0].checkpoint).stat().st_mtime_ns
    assert weights(tuning.sweep(small, third, fresh=True)) == expected
    assert Path(before[0].checkpoint).stat().st_mtime_ns > mended


# ── what fails ──────────────────────────────────────────────────────────────────────────────────────────


def test_failing_and_dying_configurations_stop_nobody_else(
    here: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = Listener()
    capfd.readouterr()
    faults = {"fault": "both", "fault_at": 3, "fault_lr": 0.006, "die_lr": 0.003}
    trials = tuning.sweep(request(str(tmp_path), **faults), told)
    failed = [t for t in trials if t.status == "failed"]
    died = [t for t in failed if t.hyper["lr"] <= 0.003]
    assert capfd.readouterr() == ("", ""), "nobody but us may speak"
    assert 0 < len(died) < len(failed) < len(trials)
    assert trials[-len(failed) :] == failed
    for trial in failed:
        assert trial.hyper["lr"] <= 0.006
        assert len(trial.curve) == 2, "the epochs before were kept"
        raised = f"ValueError: no luck with lr {trial.hyper['lr']} (toy.py:"
        assert trial.error.startswith("its process died 3 times" if trial in died else raised)
    assert max(len(t.curve) for t in trials) == 9
    assert {t.key: t.curve for t in trials} == told.curves


def test_the_winner_again_with_other_seeds_side_by_side_though_a_process_dies(here: None, tmp_path: Path) -> None:
    class Dying(Listener):
        def planned(self, trials: Sequence[Planned], epochs: int, objective: Objective) -> None:
            super().planned(trials, epochs, objective)
            if trials[-1].seed is not None:
                died.unlink()  # the process of whoever comes there first dies

    storage, told, died = tmp_path / "sweep", Dying(), tmp_path / f"died-{toy.Settings.lr}"
    died.touch()  # so that the search's own does not
    faults = {"fault": "die", "fault_at": 2, "marker": str(tmp_path)}
    asked = request(str(storage), trials=1, epochs=3, first_rung=3, seeds=3, **faults)
    best, *again = tuning.sweep(asked, told)
    assert died.exists(), "one of the replicas did"
    assert [(t.key, t.seed, t.status) for t in again] == [(f"{best.key}-{s}", s, "finished") for s in (2, 3)]
    for trial in (best, *again):
        fit = toy.Toy().fit(asked.data, {**best.hyper, "fault": "", "marker": ""}, trial.seed or asked.seed, None)
        alone = [next(fit) for _ in range(3)][-1].state().tensors
        learnt = checkpoints.read(trial.checkpoint)[0].tensors
        assert learnt.keys() == alone.keys() and all(torch.equal(learnt[name], alone[name]) for name in alone)
        assert told.curves[trial.key] == trial.curve


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "Failure # 1\nray::f()\n  File x\nOSError: [Errno 28] No space left on device\n\n",
            "OSError: [Errno 28] No space",
        ),
        (
            "Failure # 3\nThe actor died unexpectedly before finishing this task.\n\tpid: 7\n",
            "its process died 3 times",
        ),
        ("", "did not say why"),
    ],
)
def test_last_words_are_the_reason(tmp_path: Path, text: str, says: str) -> None:
    """Without Ray: what Tune notes of a trial that it gave up."""
    (tmp_path / "error.txt").write_text(text)
    assert says in execution.last_words(SimpleNamespace(error_file=str(tmp_path / "error.txt")))
    assert "did not say why" in execution.last_words(SimpleNamespace(error_file=None))


def test_an_error_common_to_all_is_told_in_a_few_lines(here: None, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as raised:
        tuning.sweep(request(str(tmp_path), trials=2, fault="raise"), Listener())
    message = str(raised.value)
    assert "none of 2 trials ended with a usable result" in message
    assert "ValueError: no luck with lr" in message
    assert len(message.splitlines()) <= 4
    assert not (tmp_path / "finished.json").exists()


def test_a_value_that_is_never_finite_is_no_result(tmp_path: Path) -> None:
    """Without Ray: all that there was to learn is learnt already."""
    wanted = request(str(tmp_path), trials=1, epochs=2)
    archive = Archive(wanted)
    with archive.opened(fresh=False):
        archive.plan([{"lr": 0.01}])
    key = configurations.key({"lr": 0.01})
    nan = float("nan")
    record = {"curve": [{"val/loss": nan}] * 2, "best": nan, "best_epoch": 0}
    checkpoints.write(str(tmp_path / key), 2, State({}, {}), record)
    with pytest.raises(TrainingFailed, match="val/loss was never finite"):
        tuning.sweep(wanted, Listener())


def test_what_a_watcher_raises_ends_the_sweep_as_it_is(here: None, tmp_path: Path) -> None:
    class Fed(Exception):
        pass

    class Full(Listener):
        def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
            raise Fed(key)

    with pytest.raises(Fed):
        tuning.sweep(request(str(tmp_path)), Full())


def test_more_cpus_than_there_are_is_an_error_at_once(here: None, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"a trial wants 999 CPUs and 0 GPUs, and Ray has \d+ and"):
        tuning.sweep(request(str(tmp_path), cpus=999), Listener())


def test_an_interrupt_ends_sweeps_in_other_threads_with_all_in_flight_checkpointed(here: None, tmp_path: Path) -> None:
    raised: list[BaseException] = []
    learnt = threading.Event()

    class Waiting(Listener):
        def learnt(self, key: str, first_epoch: int, metrics: Sequence[Metrics]) -> None:
            super().learnt(key, first_epoch, metrics)
            learnt.set()

    told = Waiting()
    # No checkpoint by the clock: what there is at the end was written because of the interrupt.
    wanted = dataclasses.replace(request(str(tmp_path), sleep_s=0.2, epochs=90, first_rung=90), checkpoint_every_s=999)

    def run() -> None:
        try:
            tuning.sweep(wanted, told)
        except KeyboardInterrupt as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert learnt.wait(60)
    interrupts.interrupt("SIGTERM")
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert [error.args for error in raised] == [("SIGTERM",)]
    assert told.curves
    for key, curve in told.curves.items():
        found = checkpoints.latest(str(tmp_path / key))
        assert found is not None, "what was in flight is lost"
        assert found.record["curve"] == curve
    assert not (tmp_path / "lease.json").exists()


def test_a_sweep_that_begins_after_its_flow_was_told_to_stop_learns_nothing(here: None, tmp_path: Path) -> None:
    told = Listener()
    with interrupts.heeding():
        interrupts.interrupt("SIGTERM")
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            tuning.sweep(request(str(tmp_path)), told)
    assert not told.curves
    assert tuning.sweep(request(str(tmp_path)), told) and told.curves, "the next one does"


def test_sweeps_may_begin_in_the_same_moment(here: None) -> None:
    """Tune's registry of what can be learnt fails where two threads write to it."""
    with ThreadPoolExecutor(8) as pool:
        names = [begun.result() for begun in [pool.submit(execution.trainable, None) for _ in range(200)]]
    assert len(set(names)) == 200


def test_a_sweep_is_one_processs_at_a_time(here: None, tmp_path: Path) -> None:
    with (
        Archive(request(str(tmp_path))).opened(fresh=False),
        pytest.raises(Busy, match=r"being worked on[^$]*process \d+ on"),
    ):
        tuning.sweep(request(str(tmp_path)), Listener())


# ── what is killed ──────────────────────────────────────────────────────────────────────────────────────


def spawned(
    storage: Path, family: str, settings: dict[str, Any], cwd: Path = REPOSITORY, **env: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.components.sweeper", str(storage), family, json.dumps(settings)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    environment |= {"PYTHONPATH": str(REPOSITORY), **env}
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_lines(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    for _ in range(count):
        if not process.stdout.readline():
            pytest.fail(f"the sweep ended early: {process.communicate()[1]}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster that `ray start --head` started from another folder: its address, and the environment it wants."""
    ports = [free_port() for _ in range(3)]
    folder = Path(tempfile.mkdtemp(prefix="rt-"))
    keys = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
    names = ("--port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port")
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
    command += [f"{name}={port}" for name, port in zip(names, ports, strict=True)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_", "PYTHONPATH"))}
    with (folder / "out").open("w") as out:
        head = subprocess.Popen(command, cwd=folder, env=environment | keys, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 90
        while "Ray runtime started" not in (folder / "out").read_text() and time.monotonic() < deadline:
            assert head.poll() is None, (folder / "out").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{ports[0]}", keys
    finally:
        head.terminate()  # it stops what it started
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_cluster_started_elsewhere_is_sent_the_code(
    cluster: tuple[str, dict[str, str]], whole: Whole, tmp_path: Path
) -> None:
    """With a family of the user's own package, which lies where the cluster does not look."""
    address, keys = cluster
    package = tmp_path / "lib" / "ownpackage"
    package.mkdir(parents=True)
    source = (REPOSITORY / "tests" / "families" / "toy.py").read_text()
    (package / "learner.py").write_text(source.replace("from tests.families import disk", "# "))
    (package / "__init__.py").touch()
    (tmp_path / "elsewhere").mkdir()
    found = os.pathsep.join([str(REPOSITORY), str(tmp_path / "lib")])
    planted = {"AWS_SECRET_ACCESS_KEY": "planted-secret-31de", "FSSPEC_S3_SECRET": "planted-secret-31de"}
    environment = keys | planted | {"RAY_ADDRESS": address, "PYTHONPATH": found}
    storage = tmp_path / "sweep"
    driver = spawned(storage, "ownpackage.learner:Toy", whole.settings, tmp_path / "elsewhere", **environment)
    out, err = driver.communicate(timeout=240)
    assert (driver.returncode, err) == (0, ""), err
    rows = json.loads(out.splitlines()[-1])
    assert [(status, epochs) for _, status, epochs, _ in rows] == [(t.status, len(t.curve)) for t in whole.trials]
    described = [json.loads((Path(row[3]) / checkpoints.DESCRIPTION).read_bytes())["sha256"] for row in rows]
    assert described == weights(whole.trials), "the same weights as on a Ray of its own"
    logs = [file for folder in Path(tempfile.gettempdir()).glob("rt-*") for file in folder.rglob("*") if file.is_file()]
    assert logs and not [file for file in logs if b"planted-secret-31de" in file.read_bytes()]


def test_a_local_ray_obeys_only_who_has_its_token(here: None) -> None:
    """It listens on every interface, whatever it is told. What it starts inherits the token, and loads no pickle."""
    started = {process.name(): process for process in psutil.Process().children(recursive=True)}
    for name in ("gcs_server", "raylet"):
        assert any(c.status == psutil.CONN_LISTEN for c in started[name].net_connections("inet"))
        told = started[name].environ()
        assert len(told["RAY_AUTH_TOKEN"]) == 64 and told["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
        assert not [p for p in started.values() if told["RAY_AUTH_TOKEN"] in " ".join(p.cmdline())]
    address = ray.get_runtime_context().gcs_address
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    for token in ("", "0" * 64):
        asked = [str(Path(sys.executable).parent / "ray"), "status", f"--address={address}"]
        known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
        said = subprocess.run(asked, env=stranger | known, capture_output=True, text=True, timeout=60)
        assert said.returncode != 0 and "uthentication" in said.stdout + said.stderr
