"""One Ray for all sweeps of this process: the cluster at an address, or one of its own that ends with the last.

Sweeps may run at once in several threads. They share the session by a count, and its CPUs by need, so that none
waits for another to end as long as there is a CPU for each.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.job_config import JobConfig

from ..errors import ParamsError, TidemillError, Unreachable
from ..workspace import FORCED

_ANSWER_WITHIN_S = 3.0
_ENDED_WITHIN_S = 2.0  # Ray's processes, once they are told
_GONE_WITHIN_S = 10.0  # what is left then goes at the next start
_LONGEST_FOLDER = 40  # Ray adds up to 64 characters for its sockets, whose paths may have 107
FOLDER = "tidemill-ray-"
# Be quiet, write no files that nobody reads, leave Ctrl-C to us, be patient with a process that is used again.
_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(eq=False)
class Share:
    """What one sweep wants of the session's CPUs now: `width` trials at once of `cpus` each. `joined`: the session
    is a cluster's, whose machines may not have this one's files."""

    cpus: int
    joined: bool
    width: int = 1


@dataclass
class _Session:
    address: str | None
    shipped: frozenset[str]
    users: int = 0
    shares: list[Share] = field(default_factory=list)
    leave: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


_changed = threading.Condition(threading.RLock())
_now: _Session | None = None


@contextlib.contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Hold Ray: join the cluster at `address` (host:port), or start one here if there is none held already.

    The last to leave ends it. Raises Unreachable, within seconds, if nobody answers at the address.
    """
    with _holding(address) as held:
        if held.address != _named(address):
            raise ParamsError(
                f"this process holds Ray at {held.address or 'home'}, and was asked for {_named(address) or 'home'}",
                fix="use one RAY_ADDRESS for all pipelines of a run",
            )
        yield


@contextlib.contextmanager
def _holding(address: str | None) -> Iterator[_Session]:
    global _now  # noqa: PLW0603 - a process can hold one Ray
    with _changed:
        held = _now = _now or _entered(address, frozenset({"components"}))
        held.users += 1
    try:
        yield held
    finally:
        with _changed:
            held.users -= 1
            if not held.users:
                _now = None
                held.leave.close()


@contextlib.contextmanager
def share(cpus: int, package: str) -> Iterator[Share]:
    """Take part in the session that is held, or in one at RAY_ADDRESS, with a package that workers must import."""
    with _holding(os.environ.get("RAY_ADDRESS")) as held:
        with _changed:
            if held.address and package not in held.shipped:
                _changed.wait_for(lambda: not held.shares)
                _ship(held, package)
            mine = Share(cpus, held.address is not None)
            held.shares.append(mine)
        try:
            yield mine
        finally:
            with _changed:
                held.shares.remove(mine)
                _changed.notify_all()


def slots(mine: Share, total_cpus: int) -> int:
    """How many trials this sweep may run at once now; at least one, for which it waits if it must."""
    with _changed:
        shares = list(_now.shares) if _now else [mine]
    given = fair([s.cpus * s.width for s in shares], total_cpus)
    return max(1, given[shares.index(mine)] // mine.cpus)


def fair(wanted: Sequence[int], total: int) -> list[int]:
    """Divide `total` by turns among those who still want some."""
    given = [0] * len(wanted)
    while total > 0 and any(g < w for g, w in zip(given, wanted, strict=True)):
        for i, most in enumerate(wanted):
            if given[i] < most and total > 0:
                given[i] += 1
                total -= 1
    return given


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """A folder for what Ray writes, which nobody reads. That of a process that was killed goes at the next start."""
    made = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-")
    try:
        yield made
    finally:
        until = time.monotonic() + _GONE_WITHIN_S
        while Path(made).exists() and time.monotonic() < until:
            shutil.rmtree(made, ignore_errors=True)
            time.sleep(0.05)


def import_folder(package: str) -> Path:
    """The folder or file that a top-level package is imported from."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ParamsError(f"package {package!r} cannot be imported", fix="install it, or run where it lies")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(str(spec.origin))


# ── joining and starting ────────────────────────────────────────────────────────────────────────────────


def _named(address: str | None) -> str | None:
    return None if address in (None, "", "local") else address


def _entered(address: str | None, packages: frozenset[str]) -> _Session:
    entered = _Session(_named(address), packages)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment())
        if ray.is_initialized():
            pass  # somebody else's in this process: used, and left as it is
        elif entered.address is None:
            _start(stack)
        else:
            _join(stack, entered.address, packages)
        entered.leave = stack.pop_all()
    return entered


def _ship(held: _Session, package: str) -> None:
    """Join the cluster again with one more package: what workers can import is fixed when a driver joins."""
    held.leave.close()
    held.shipped |= {package}
    held.leave = _entered(held.address, held.shipped).leave


def _start(stack: contextlib.ExitStack) -> None:
    _clear_leftovers()
    options: dict[str, Any] = {}
    later = _Later()
    stack.callback(later.end)
    place = stack.enter_context(folder())
    if len(place) <= _LONGEST_FOLDER:
        options["_temp_dir"] = place
    # Workers import this package, and the current folder's, from where this process does.
    paths = [str(import_folder("components").parent)]
    stack.enter_context(_silence())
    stack.callback(_shut_down, place)
    stack.callback(later.begin)
    os.environ.setdefault("RAY_AUTH_TOKEN", _token())
    with signals_kept():
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            job_config=JobConfig(_py_driver_sys_path=paths),
            **options,
        )


def _shut_down(place: str) -> None:
    """End the Ray that has its files in `place`, and wait for its processes: until then they make folders anew there,
    whoever has removed them. Of a Ray that was interrupted as it started ray.shutdown() knows nothing."""
    processes = _processes(place)
    ray.shutdown()
    processes |= _processes(place)
    _, left = psutil.wait_procs(processes, timeout=_ENDED_WITHIN_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_GONE_WITHIN_S)


def _processes(place: str) -> set[psutil.Process]:
    """Of this process's Ray: those that have `place` in their command, and those below them."""
    found: set[psutil.Process] = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it has just ended
            if any(place in part for part in child.cmdline()):
                found |= {child, *child.children(recursive=True)}
    return found


def _join(stack: contextlib.ExitStack, address: str, packages: frozenset[str]) -> None:
    require(address)
    # Ray writes these into its logs as they are: no secret may be among them.
    environment = {k: v for k, v in os.environ.items() if k.startswith("TUNE_")} | FORCED
    runtime_env = {"py_modules": [str(import_folder(name)) for name in sorted(packages)], "env_vars": environment}
    stack.enter_context(_silence())
    stack.callback(ray.shutdown)
    try:
        with signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, runtime_env=runtime_env)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, str(error).strip().split("\n", 1)[0]) from error


def require(address: str | None) -> None:
    """Raise Unreachable, within seconds, if no cluster answers at the address; ParamsError if it is none."""
    if (address := _named(address)) is None:
        return
    if address.startswith("ray://"):
        raise ParamsError(
            "RAY_ADDRESS names Ray's client port",
            where=address,
            why="a sweep's driver must be a node of the cluster",
            fix="ray start --address HOST:6379 --num-cpus 0 on this machine, then RAY_ADDRESS=HOST:6379",
        )
    if address != "auto":
        _check_answers(address)


def _check_answers(address: str) -> None:
    """Raise Unreachable unless a gRPC server speaks at the address: Ray itself would try for most of a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ParamsError("RAY_ADDRESS is not HOST:PORT", where=address, fix="give the head node's address and port")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # and empty SETTINGS
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_WITHIN_S) as opened:
            opened.sendall(preface)
            answer = opened.recv(9)
    except OSError as error:
        raise _unreachable(address, str(error)) from error
    if len(answer) < 4 or answer[3] != 4:  # a server's first frame must be SETTINGS (RFC 9113, 3.4)
        raise _unreachable(address, "whatever listens there is not Ray")


def _unreachable(address: str, why: str) -> TidemillError:
    fix = "start the cluster (ray start --head), correct RAY_ADDRESS, or unset it to train on this machine"
    return Unreachable("Ray does not answer", where=address, why=why, fix=fix)


# ── leaving the process as it was ───────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Ray takes these by the environment alone. What the user has set stays, but for what is forced."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in before} | FORCED)
    try:
        yield
    finally:
        for name in (*_SETTINGS, *FORCED, "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):  # Ray sets the last itself
            if name not in before:
                os.environ.pop(name, None)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What Ray prints to stdout of processes that died, whatever it was asked: there is only a private word for it."""
    worker = ray._private.worker
    before, worker._worker_logs_enabled = worker._worker_logs_enabled, False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


@functools.cache
def _token() -> str:
    """A local Ray listens on every interface, and obeys only who knows this. Ray reads it once in a process."""
    return secrets.token_hex(32)


@dataclass
class _Later:
    """Between `begin` and `end` Ctrl-C and SIGTERM wait: what they cut short while a Ray is put away stays for good."""

    before: dict[int, Any] = field(default_factory=dict)
    came: list[int] = field(default_factory=list)

    def begin(self) -> None:
        if threading.current_thread() is threading.main_thread():  # no other hears of them
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, lambda came, _: self.came.append(came))

    def end(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        for number in self.came[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Ray and Tune put handlers of their own in the main thread; put back what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clear_leftovers() -> None:
    """Remove the folders of local Rays whose process was killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        owner = left.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
