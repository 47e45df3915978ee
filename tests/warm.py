"""Starts `tidemill` in forks of a process that has imported everything: a start then takes what starting takes, and not
what importing does. python -m tests.warm

Reads a line of JSON for each start {words, folder, environment, out, err}, answers with its pid, and later {pid, code}.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).parent.parent


class Forks:
    """Starts commands in forks of a process that is `main`. Use `Forks.warm()`: one serves all tests. `more`: of its
    environment, what has to be known when everything is imported."""

    def __init__(self, **more: str) -> None:
        self._nowhere = tempfile.TemporaryDirectory()
        more |= {"PYTHONPATH": str(REPOSITORY), "PREFECT_HOME": self._nowhere.name, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=REPOSITORY,
            env={**os.environ, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._pids: queue.Queue[int] = queue.Queue()
        self._asking = threading.Lock()
        self._news = threading.Condition()
        self.codes: dict[int, int] = {}
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self.close)

    @staticmethod
    @functools.cache
    def warm() -> Forks:
        return Forks()

    def start(self, words: Sequence[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> int:
        """The pid of the command."""
        asked = {"words": words, "folder": str(folder), "environment": environment, "out": str(out), "err": str(err)}
        assert self._process.stdin is not None
        with self._asking:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            return self._pids.get(timeout=30)

    def wait(self, pid: int, patience_s: float) -> int:
        """The exit code of a command. Kills what takes longer, as subprocess.run does, and raises TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: pid in self.codes, patience_s):
                os.kill(pid, signal.SIGKILL)
                raise TimeoutError(f"process {pid} did not end within {patience_s:g} s")
            return self.codes[pid]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._nowhere.cleanup()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "code" in told:
                with self._news:
                    self.codes[told["pid"]] = told["code"]
                    self._news.notify_all()
            else:
                self._pids.put(told["pid"])


def main() -> None:
    import great_expectations  # noqa: F401
    import mlflow  # noqa: F401
    import prefect.flow_engine  # noqa: F401
    import ray.tune  # noqa: F401
    import torch  # noqa: F401

    import flows.cli
    import flows.pipeline

    assert threading.active_count() == 1, "a fork would lose the other threads"
    told, ended = os.pipe()
    os.set_blocking(ended, False)
    signal.set_wakeup_fd(ended)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(told, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    print(json.dumps({"pid": _start(json.loads(line), flows.cli.main)}), flush=True)
                else:
                    os.read(told, 4096)
                    _reap()


def _start(asked: dict[str, Any], command: Any) -> int:
    pid = os.fork()
    return pid or _be(asked, command)


def _be(asked: dict[str, Any], command: Any) -> NoReturn:
    """The command, as if it had been started by a shell."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    os.setsid()
    new = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = os.open(os.devnull, os.O_RDONLY), os.open(asked["out"], new), os.open(asked["err"], new)
    for number, file in enumerate(files):
        os.dup2(file, number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["tidemill", *asked["words"]]
    code = 1
    try:
        command()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    finally:
        _end(code)


def _end(code: int) -> NoReturn:
    """What the interpreter does at its end, but for what belongs to the parent."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the command has said its last word
        signal.signal(number, signal.SIG_IGN)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        print(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
