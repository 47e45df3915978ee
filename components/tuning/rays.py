"""Ray itself: one started here, with its processes and its folder, or a cluster that is joined.

Each leaves this process as it was: environment, signal handlers, streams.
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
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import auto_init_hook, ray_constants
from ray.job_config import JobConfig

from .. import signals
from ..errors import ParamsError, TidemillError, Unreachable
from ..workspace import FORCED

_ANSWER_WITHIN_S = 3.0
_ENDED_WITHIN_S = 2.0  # Ray's processes, once they are told
_GONE_WITHIN_S = 10.0  # what is left then goes at the next start
_LONGEST_FOLDER = 40  # Ray adds up to 64 characters for its sockets, whose paths may have 107
FOLDER = "tidemill-ray-"
auto_init_hook.enable_auto_connect = False  # or a thread that outlives its session starts another Ray
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


def named(address: str | None) -> str | None:
    """The address of a cluster; None for a Ray of this machine alone."""
    return None if address in (None, "", "local") else address


def entered(address: str | None, packages: Iterable[str]) -> contextlib.ExitStack:
    """Join the cluster at an address with packages that workers must import, or start a Ray here; closing leaves."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment())
        stack.enter_context(_restrained())
        if ray.is_initialized():
            pass  # somebody else's in this process: used, and left as it is
        elif address is None:
            _start(stack)
        else:
            _join(stack, address, packages)
        return stack.pop_all()


def _start(stack: contextlib.ExitStack) -> None:
    _clear_leftovers()
    options: dict[str, Any] = {}
    started = contextlib.ExitStack()
    stack.callback(_put_away, started)
    place = started.enter_context(folder())
    if len(place) <= _LONGEST_FOLDER:
        options["_temp_dir"] = place
    # Workers import this package, and the current folder's, from where this process does.
    paths = [str(import_folder("components").parent)]
    started.callback(_shut_down, place)
    os.environ.setdefault("RAY_AUTH_TOKEN", _token())
    _init(address="local", include_dashboard=False, job_config=JobConfig(_py_driver_sys_path=paths), **options)


def _init(**options: Any) -> None:
    with signals.put_back(signal.SIGTERM):
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)


def _put_away(started: contextlib.ExitStack) -> None:
    with signals.waiting():
        started.close()


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


def _join(stack: contextlib.ExitStack, address: str, packages: Iterable[str]) -> None:
    require(address)
    # Ray writes these into its logs as they are: no secret may be among them.
    environment = {k: v for k, v in os.environ.items() if k.startswith(("TUNE_", "RAY_ACCEL_"))} | FORCED
    runtime_env = {"py_modules": [str(import_folder(name)) for name in sorted(packages)], "env_vars": environment}
    stack.callback(ray.shutdown)
    try:
        _init(address=address, runtime_env=runtime_env)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, str(error).strip().split("\n", 1)[0]) from error


def require(address: str | None) -> None:
    """Raise Unreachable, within seconds, if no cluster answers at the address; ParamsError if it is none."""
    if (address := named(address)) is None:
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
def _restrained() -> Iterator[None]:
    """There are only private words for two things that Ray does whatever it was asked: print to stdout of processes
    that died, and, as it ends, leave SIGTERM to kill this process, whoever handled it before."""
    worker = ray._private.worker
    before = worker._worker_logs_enabled, ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    worker._worker_logs_enabled, ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = False, True
    try:
        yield
    finally:
        worker._worker_logs_enabled, ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = before


@functools.cache
def _token() -> str:
    """A local Ray listens on every interface, and obeys only who knows this. Ray reads it once in a process."""
    return secrets.token_hex(32)


def _clear_leftovers() -> None:
    """Remove the folders of local Rays whose process was killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        owner = left.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
