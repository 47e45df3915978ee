"""Every command of compose.yaml starts as an ordinary process, and the servers work together as a team uses them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from .stack import Stack, program, short_folder

ROOT = Path(__file__).parents[2]
# One stack, whichever worker of xdist gets it.
pytestmark = pytest.mark.xdist_group("stack")

PARAMS = """\
datasets: {breast-cancer: {}}
pipelines:
  nightly: {dataset: breast-cancer, family: mlp, schedule: "0 3 * * *"}
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if not program("initdb"):
        pytest.skip(
            "Postgres is not installed (apt-get install postgresql): the commands of compose.yaml are not started"
        )
    if not program("weed"):
        pytest.skip(
            "weed is not installed (pip install -r docker/tools.lock): the commands of compose.yaml are not started"
        )
    with short_folder() as folder:
        project = folder / "project"
        project.mkdir()
        (project / "params.yaml").write_text(PARAMS)
        made = Stack.make(folder, project)
        try:
            made.start_all()
            yield made
        finally:
            for process in reversed(made.running.values()):
                process.stop(10)


def call(stack: Stack, program_text: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a member of the team does inside the scheduler's container."""
    env = {**stack.environment("scheduler"), "PYTHONPATH": str(ROOT), **more}
    words = [sys.executable, "-c", textwrap.dedent(program_text)]
    return subprocess.run(words, env=env, cwd=stack.project, capture_output=True, text=True, timeout=120)


def get(url: str, **headers: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if body[:1] in b"{[" else body
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def count_rows(stack: Stack, database: str, query: str, user: str = "") -> int:
    password = stack.secrets[f"{(user or database).upper()}_DB_PASSWORD"]
    address = {"host": "127.0.0.1", "port": stack.ports["postgres"], "dbname": database}
    connection = psycopg2.connect(user=user or database, password=password, **address)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


def test_every_command_starts_and_becomes_healthy_by_its_own_check(stack: Stack) -> None:
    print("seconds until healthy:", stack.seconds)
    assert set(stack.seconds) == set(stack.services)
    assert all(process.alive() for process in stack.running.values())


def test_runs_go_to_postgres_and_their_files_through_mlflow_to_the_object_store(stack: Stack) -> None:
    logged = call(
        stack,
        """
        import boto3, mlflow, os
        with mlflow.start_run() as run:
            mlflow.log_metric("val/accuracy", 0.5)
            mlflow.log_text("tide", "note.txt")
        assert mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt") == "tide"
        found = boto3.client("s3").list_objects_v2(Bucket="tidemill", Prefix="mlflow/")["Contents"]
        print(run.info.run_id, *[item["Key"] for item in found])
        """,
    )
    assert logged.returncode == 0, logged.stderr
    run, *keys = logged.stdout.splitlines()[-1].split()
    assert any(key.startswith("mlflow/") and f"{run}/artifacts/note.txt" in key for key in keys)
    assert count_rows(stack, "mlflow", f"select count(*) from metrics where run_uuid = '{run}'") == 1


def test_checkpoints_go_to_the_object_store_by_s3_addresses(stack: Stack) -> None:
    saved = call(
        stack,
        """
        import os, torch
        from components import checkpoints
        from components.contract import State
        folder = os.environ["TIDEMILL_STORAGE"] + "/trial"
        state = State({"net/w": torch.arange(6.0).reshape(2, 3)}, {"epoch": 3})
        checkpoints.write(folder, 3, state, {"val/accuracy": 0.5})
        found = checkpoints.latest(folder)
        read, record = checkpoints.read(checkpoints.place_of(folder, 3))
        assert torch.equal(read.tensors["net/w"], state.tensors["net/w"]) and read.scalars == {"epoch": 3}
        print("epoch", found.epoch)
        """,
    )
    assert saved.returncode == 0, saved.stderr
    assert "epoch 3" in saved.stdout


@pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1:15000"])
def test_mlflow_answers_the_machine_itself_and_no_page_from_elsewhere(stack: Stack, host: str) -> None:
    search = f"http://127.0.0.1:{stack.ports['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1"
    assert get(search, Host=host)[0] == 200
    assert get(search, Host="evil.example")[0] == 403


def test_prefect_asks_for_the_password_and_knows_the_schedule(stack: Stack) -> None:
    api = f"http://127.0.0.1:{stack.ports['prefect']}/api"
    assert get(f"{api}/deployments/name/pipeline/nightly")[0] == 401
    login = base64.b64encode(f"tidemill:{stack.secrets['PREFECT_PASSWORD']}".encode()).decode()
    deadline = time.monotonic() + 20
    while (answer := get(f"{api}/deployments/name/pipeline/nightly", Authorization=f"Basic {login}"))[0] != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)
    assert answer[1]["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    assert count_rows(stack, "prefect", "select count(*) from deployment where name = 'nightly'") == 1


def test_ray_works_on_the_worker_for_whoever_has_the_token(stack: Stack) -> None:
    work = """
        import os, ray
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)

        @ray.remote(num_cpus=1)
        def where():
            return ray.get_runtime_context().get_node_id()

        head = [n["NodeID"] for n in ray.nodes() if n["Resources"].get("node:__internal_head__")]
        assert len(ray.nodes()) == 2 and ray.get(where.remote()) not in head
        print("worked")
        """
    worked = call(stack, work)
    assert worked.returncode == 0, worked.stderr
    assert "worked" in worked.stdout
    assert stack.check("ray-worker").returncode == 0
    assert stack.check("ray-worker", RAY_AUTH_TOKEN="0" * 48).returncode != 0


def test_a_server_reads_its_own_database_alone(stack: Stack) -> None:
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        count_rows(stack, "prefect", "select 1", user="mlflow")


def test_the_object_store_and_its_inner_parts_refuse_strangers(stack: Stack) -> None:
    assert get(f"http://127.0.0.1:{stack.ports['s3']}/tidemill?list-type=2")[0] == 403
    words = next(p for p in psutil.process_iter() if p.pid == stack.running["s3"].pid).cmdline()
    filer = next(word.partition("=")[2] for word in words if word.startswith("-filer.port="))
    assert get(f"http://127.0.0.1:{filer}/buckets/tidemill/")[0] == 401


def test_no_secret_is_on_a_command_line(stack: Stack) -> None:
    lines = []
    for process in stack.running.values():
        for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                lines.append(" ".join(member.cmdline()))
            except psutil.Error:
                continue
    assert len(lines) > len(stack.running)
    hidden = [value for name, value in stack.secrets.items() if name != "TIDEMILL_USER"]
    assert not [line for line in lines if any(value in line for value in hidden)]


def test_all_stop_when_told_and_leave_nothing(stack: Stack) -> None:
    """Last: it ends the stack."""
    members = [m for p in stack.running.values() for m in psutil.Process(p.pid).children(recursive=True)]
    stack.stop_all()
    assert not [m for m in members if m.is_running() and m.status() != psutil.STATUS_ZOMBIE]
