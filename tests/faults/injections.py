"""The faults: each starts a pipeline, breaks something at a random moment, and says what came of it in the end."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from components.tuning import rays

from ..conftest import REPOSITORY
from ..warm import Forks
from .world import UNDISTURBED, Run, World

LEASE_S = "3"
SOON = 0.2  # in a storm each start is to leave something for the next
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
LEARNER = "ray::ImplicitFu"  # as Ray calls the processes of Tune's trials


@dataclass(frozen=True)
class Round:
    """`losses`: differences from what an undisturbed pipeline leaves. `seconds`: from the fault until all is whole."""

    fault: str
    number: int
    losses: tuple[str, ...]
    seconds: float


Injection = Callable[[World, str, random.Random], float]


def play(world: World, fault: str, number: int) -> Round:
    """One round of one fault, at a moment that (fault, number) decides."""
    draw = random.Random(f"{fault} {number}")
    name = world.pipeline(f"{fault.replace(' ', '-')}-{number}")
    at = FAULTS[fault](world, name, draw)
    seconds = time.monotonic() - at
    losses = [] if fault == "scorer killed" else world.losses(name)  # it scores by the first one's champion
    return Round(fault, number, tuple(losses), seconds)


# ── processes that are killed ───────────────────────────────────────────────────────────────────────────


def flow_killed(world: World, name: str, draw: random.Random) -> float:
    """The process of `tidemill run`: flow and Ray driver in one."""
    run = world.start("run", name)
    run.pause(draw.uniform(0.1, 1.0) * world.seconds)
    at = time.monotonic()
    run.signal(signal.SIGKILL)
    run.wait()
    world.do("run", name)
    return at


def trial_killed(world: World, name: str, draw: random.Random) -> float:
    """A process that learns a trial: the sweep goes on by itself."""
    run, learning = _learning(world, name, LEARNER)
    run.pause(draw.uniform(0.0, 2.0))
    at = time.monotonic()
    _kill(learning)
    assert run.wait() == 0, run.text
    return at


def node_killed(world: World, name: str, draw: random.Random) -> float:
    """The raylet, and with it every process that learns here."""
    run, _ = _learning(world, name, LEARNER)
    raylet = run.child("raylet")
    assert raylet is not None, "there is no raylet"
    run.pause(draw.uniform(0.0, 2.0))
    at = time.monotonic()
    _kill(raylet)
    run.wait()
    world.do("run", name)
    return at


def cluster_node_killed(world: World, name: str, draw: random.Random) -> float:
    """One of a cluster's two nodes, in the midst of a trial: the other goes on."""
    with _cluster() as (address, raylet):
        run = world.start("run", name, forks=_knowing(), RAY_ADDRESS=address, **TOKEN)
        while run.alive() and not any(LEARNER in child.name() for child in _children(raylet)):
            time.sleep(0.02)
        run.pause(draw.uniform(0.0, 2.0))
        at = time.monotonic()
        for child in [*_children(raylet), raylet]:
            _kill(child)
        assert run.wait() == 0, run.text
    return at


@functools.cache
def _knowing() -> Forks:
    """Ray reads once, when it is imported, how it is to be asked for a token."""
    return Forks(**TOKEN)


@contextlib.contextmanager
def _cluster() -> Iterator[tuple[str, psutil.Process]]:
    """The address of a cluster of two nodes, and the raylet of the second."""
    command = [sys.executable, "-m", "tests.faults.cluster"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | TOKEN
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        said = json.loads(process.stdout.readline())
        try:
            yield said["address"], psutil.Process(said["raylet"])
        finally:
            process.stdin.close()


def scorer_killed(world: World, name: str, draw: random.Random) -> float:
    """`tidemill score`, of a folder of files."""
    output = f"scores-{name}-{draw.random()}"
    run = world.start("score", UNDISTURBED, "many", output)
    while run.alive() and not (world.home.root / output).exists():
        time.sleep(0.01)
    run.pause(draw.uniform(0.0, 1.0))
    at = time.monotonic()
    run.signal(signal.SIGKILL)
    run.wait()
    world.do("score", UNDISTURBED, "many", output)
    there = world.hashes(world.home.root / output)
    assert there == world.scores, "the scores are not those of an undisturbed scoring"
    return at


def prefect_killed(world: World, name: str, draw: random.Random) -> float:
    """The Prefect server, which `tidemill up` starts again."""
    return _server_killed(world, name, draw, "prefect")


def mlflow_killed(world: World, name: str, draw: random.Random) -> float:
    """The MLflow server, which `tidemill up` starts again."""
    return _server_killed(world, name, draw, "mlflow")


def both_away(world: World, name: str, draw: random.Random) -> float:
    """Both servers for a minute, in which `tidemill up` is stopped too."""
    run = _under_way(world, name, draw)
    at = time.monotonic()
    world.up.signal(signal.SIGSTOP)
    _kill_server(world, "prefect")
    _kill_server(world, "mlflow")
    time.sleep(60)
    world.up.signal(signal.SIGCONT)
    assert run.wait() == 0, f"it did not wait for the servers:\n{run.text}"
    return at


def _server_killed(world: World, name: str, draw: random.Random, server: str) -> float:
    run = _under_way(world, name, draw)
    at = time.monotonic()
    _kill_server(world, server)
    while run.alive():
        world.revive()  # `up` gives up a server that dies often, as here
        run.pause(1.0)
    assert run.wait() == 0, f"it did not wait for the server:\n{run.text}"
    return at


def _under_way(world: World, name: str, draw: random.Random, most: float = 0.5) -> Run:
    """A run that has begun its work: before, a server that is away is an error at once. `most`: the latest moment, as a
    part of the time that an undisturbed run takes."""
    world.serve()
    run = world.start("run", name)
    if run.await_text("validate: "):
        run.pause(draw.uniform(0.0, most) * world.seconds)
    else:
        assert run.wait() == 0, run.text  # an earlier start has got that far
    return run


def _kill_server(world: World, server: str) -> None:
    found = world.server(server)
    for process in [*found.children(recursive=True), found]:
        _kill(process)


# ── whoever is told to stop, paused, or second ──────────────────────────────────────────────────────────


def interrupted(world: World, name: str, draw: random.Random) -> float:
    return _stopped(world, name, draw, signal.SIGINT, 130)


def terminated(world: World, name: str, draw: random.Random) -> float:
    return _stopped(world, name, draw, signal.SIGTERM, 143)


def _stopped(world: World, name: str, draw: random.Random, number: int, code: int) -> float:
    at = _stop(world, name, draw, number, code)
    world.do("run", name)
    return at


def _stop(world: World, name: str, draw: random.Random, number: int, code: int, most: float = 0.5) -> float:
    run = _under_way(world, name, draw, most)
    at = time.monotonic()
    run.signal(number)
    over = not run.alive() or f"{name} score: done" in run.text
    ended = run.wait()
    assert ended != 0 or over, f"it went on as if nobody had told it to stop:\n{run.text}"
    if ended != 0:
        assert ended == code, run.text
        assert f"stopped; the same command goes on from here: tidemill run {name}" in run.text
        running = [row for row in world._mlflow(name)["runs"] if row[1] == "RUNNING"]
        assert not running, f"still RUNNING in MLflow: {running}"
        folder = f"{rays.FOLDER}{run.pid}-"
        lines = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
        assert not [line for line in lines if folder in line], "Ray goes on"
        assert not list(Path(tempfile.gettempdir()).glob(f"{folder}*")), "Ray's files are still there"
    return at


def paused(world: World, name: str, draw: random.Random) -> float:
    """The owner sleeps past its lease; another takes over; the first wakes and commits nothing."""
    run = world.start("run", name, TIDEMILL_LEASE_S=LEASE_S)
    run.await_text("train: started")
    run.pause(draw.uniform(0.0, 0.5) * world.seconds)
    at = time.monotonic()
    run.signal(signal.SIGSTOP)
    time.sleep(float(LEASE_S) + 1)
    second = world.start("run", name, TIDEMILL_LEASE_S=LEASE_S)
    if second.wait() == 8:  # it was paused in the midst of a commit, which is its own to end
        assert f"process {run.pid}" in second.text, second.text
        run.signal(signal.SIGCONT)
        assert run.wait() == 0, run.text
        return at
    assert second.wait() == 0, second.text
    if run.alive():
        before = world.snapshot(name)
        run.signal(signal.SIGCONT)
        ended = run.wait()
        assert ended in (0, 8), run.text
        if ended == 8:
            assert "taken over" in run.text or "worked on" in run.text, run.text
        assert world.snapshot(name) == before, "who was superseded has written something"
    return at


def second_start(world: World, name: str, draw: random.Random) -> float:
    """Two starts of one run key: one works, the other says who does and stops."""
    run = world.start("run", name)
    assert run.await_text("started"), run.text
    run.pause(draw.uniform(0.0, 0.3) * world.seconds)
    at = time.monotonic()
    _denied(world.start("run", name), run)
    assert run.wait() == 0, run.text
    return at


def _denied(second: Run, first: Run) -> None:
    ended = second.wait()
    if ended != 0:  # else the first was over before
        assert ended == 8, second.text
        assert f"process {first.pid}" in second.text, second.text


# ── a disk that is full ─────────────────────────────────────────────────────────────────────────────────


def disk_full(world: World, name: str, draw: random.Random) -> float:
    """The place for checkpoints fills up at a random one of them."""
    at = _full_disk(world, name, draw)
    world.do("run", name)
    return at


def _full_disk(world: World, name: str, draw: random.Random) -> float:
    """A run that finds no room; the sweep as it was then is left where it has room."""
    place, sweeps = world.home.root / f"small-{name}", world.home.root / ".tidemill" / "sweeps"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={draw.randint(8, 60) * 4}k", "tmpfs", str(place)], check=True)
    try:
        run = world.start("run", name, TIDEMILL_STORAGE=str(place))
        ended = run.wait()
        at = time.monotonic()
        assert ended == 1, run.text
        assert "there is no room" in run.text and str(place) in run.text and "were to be written" in run.text, run.text
        assert not list((world.home.root / ".tidemill" / "receipts" / name).glob("train.json"))
        subprocess.run(["cp", "-r", *map(str, place.glob(f"{name}-*")), str(sweeps)], check=True)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    return at


def may_mount(folder: Path) -> bool:
    """Whether this user may make a small disk, as the last fault does."""
    if os.geteuid() != 0:
        return False
    folder.mkdir(exist_ok=True)
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    return tried.returncode == 0 and subprocess.run(["umount", str(folder)]).returncode == 0


FAULTS: dict[str, Injection] = {
    "flow killed": flow_killed,
    "trial killed": trial_killed,
    "node killed": node_killed,
    "cluster node": cluster_node_killed,
    "scorer killed": scorer_killed,
    "prefect killed": prefect_killed,
    "mlflow killed": mlflow_killed,
    "both away": both_away,
    "interrupted": interrupted,
    "terminated": terminated,
    "paused": paused,
    "second start": second_start,
    "disk full": disk_full,
}


# ── one after the other ─────────────────────────────────────────────────────────────────────────────────


def storm(world: World, number: int) -> list[str]:
    """One pipeline that suffers each fault once, at moments that the number decides; returns what was lost.

    Each start goes on with what the one before left, so none needs as long as a round of its own.
    """
    draw = random.Random(f"storm {number}")
    name = world.pipeline(f"storm-{number}")
    if may_mount(world.home.root / "mount"):
        _full_disk(world, name, draw)
    first = _under_way(world, name, draw, SOON)
    second = world.start("run", name)
    trial = first.child(LEARNER)
    if trial:
        _kill(trial)
    _denied(second, first)
    first.signal(signal.SIGKILL)
    first.wait()
    _stop(world, name, draw, *[(signal.SIGINT, 130), (signal.SIGTERM, 143)][number % 2], most=SOON)
    third = _under_way(world, name, draw, SOON)
    _kill_server(world, ["prefect", "mlflow"][number % 2])
    raylet = third.child("raylet")
    if raylet:
        _kill(raylet)
    _kill_server(world, ["mlflow", "prefect"][number % 2])
    third.wait()
    world.serve()
    paused(world, name, draw)
    scorer_killed(world, UNDISTURBED, draw)
    return world.losses(name)


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


def _learning(world: World, name: str, what: str) -> tuple[Run, psutil.Process]:
    """A run whose trials are being learnt, and a process that does it."""
    run = world.start("run", name)
    while True:
        found = run.child(what)
        if found is not None:
            return run, found
        assert run.alive(), f"no {what} was ever there:\n{run.text}"
        time.sleep(0.02)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
