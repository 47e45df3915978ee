"""Starts `tidemill` in forks of a process that has imported everything: a start then takes what starting takes, and not
what importing does. python -m tests.faults.warm

Reads a line of JSON for each start {words, folder, environment, log}, answers with its pid; later a line {pid, code}.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import threading
from typing import Any, NoReturn


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
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in ((0, nothing), (1, log), (2, log)):
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
    import atexit

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
