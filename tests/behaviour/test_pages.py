"""The pages that people look at, in a real browser, over a real project; and a scheduled run that fires."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import BIN, Home

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


@contextlib.contextmanager
def up(home: Home) -> Iterator[tuple[str, str]]:
    """`tidemill up` in this project, stopped as a person would; yields the addresses of Prefect and MLflow."""
    prefect, mlflow = free_port(), free_port()
    environment = home.environment(TIDEMILL_PREFECT_PORT=str(prefect), TIDEMILL_MLFLOW_PORT=str(mlflow))
    with (home.root / "up.log").open("w+") as log:
        command = [str(BIN / "tidemill"), "up"]
        process = subprocess.Popen(command, cwd=home.root, env=environment, stdout=log, stderr=log)
        try:
            wait(lambda: answers(f"http://127.0.0.1:{prefect}/api/health"), 120, process)
            wait(lambda: answers(f"http://127.0.0.1:{mlflow}/health"), 120, process)
            yield f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert process.returncode == 0, (home.root / "up.log").read_text()
    assert not answers(f"http://127.0.0.1:{prefect}/api/health"), "the server is stopped with it"
    assert not answers(f"http://127.0.0.1:{mlflow}/health"), "the server is stopped with it"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait(condition: Any, limit_s: float, process: subprocess.Popen[Any] | None = None) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert process is None or process.poll() is None, "it ended too soon"
        assert time.monotonic() < until, f"not within {limit_s} s"
        time.sleep(0.5)


def look(url: str, folder: Path, *more: str) -> str:
    """The page as the browser has it after its scripts have run."""
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    flags += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=20000", "--window-size=1400,1000", *more]
    done = subprocess.run([CHROMIUM, *flags, "--dump-dom", url], capture_output=True, text=True, timeout=120)
    return done.stdout


@pytest.fixture(scope="module")
def scheduled(started: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A copy of the project that has run, with a pipeline that comes due every minute and is not done yet."""
    home = Home(tmp_path_factory.mktemp("scheduled") / "project")
    shutil.copytree(started.root, home.root)
    text = (home.root / "params.yaml").read_text()
    home.params(
        text.replace("tags: [quick]", "tags: [quick]\n    schedule: '* * * * *'").replace("epochs: 9", "epochs: 8")
    )
    return home


@pytest.mark.timeout(400)
def test_a_scheduled_run_fires_and_the_pages_show_it(scheduled: Home, tmp_path: Path) -> None:
    before = {row["pipeline"]: row["run_key"] for row in scheduled.json("results")}
    with up(scheduled) as (prefect, mlflow):
        log = scheduled.root / "up.log"
        wait(lambda: prefect in log.read_text() and mlflow in log.read_text(), 60)
        wait(lambda: _key(scheduled, "cancer") != before["cancer"], 240)
        wait(lambda: "COMPLETED" in _states(prefect), 60)
        if CHROMIUM is not None:
            _runs_page_shows_the_trials(mlflow, tmp_path)
    after = {row["pipeline"]: row["run_key"] for row in scheduled.json("results")}
    assert {name for name in after if after[name] != before[name]} == {"cancer"}


def _key(home: Home, pipeline: str) -> str:
    file = home.root / ".tidemill" / "receipts" / pipeline / "train.json"
    return str(json.loads(file.read_text())["key"]) if file.exists() else ""


def _states(prefect: str) -> set[str]:
    request = urllib.request.Request(
        f"{prefect}/api/flow_runs/filter", data=b'{"limit": 50}', headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return {run["state_type"] for run in json.load(reply)}


def _runs_page_shows_the_trials(mlflow: str, folder: Path) -> None:
    with urllib.request.urlopen(
        f"{mlflow}/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=cancer"
    ) as reply:
        experiment = json.load(reply)["experiment"]["experiment_id"]
    page = look(f"{mlflow}/#/experiments/{experiment}/runs", folder)
    assert "cancer" in page
    assert re.search(r"mlflow", page, re.IGNORECASE)
    assert "Finished" in page or "minute" in page or "second" in page, "a run stands in the table"


@needs_browser
def test_data_docs_open_offline(started: Home, tmp_path: Path) -> None:
    page = started.root / ".tidemill/validation/customers/index.html"
    text = look(page.as_uri(), tmp_path, "--host-resolver-rules=MAP * ~NOTFOUND")
    assert "Expectations" in text or "Validation" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?:", page.read_text())


def test_up_twice_says_who_is_up(started: Home) -> None:
    with up(started):
        second = started.tidemill("up", timeout_s=60)
    assert second.returncode == 8
    assert str(os.getpid()) not in second.stderr
    assert "process" in second.stderr or "pid" in second.stderr
