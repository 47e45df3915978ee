"""Every command of compose.yaml starts as an ordinary process, and the servers work together as a team uses them."""

from __future__ import annotations

import base64
import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from .stack import ROOT, Stack, missing, stack

# One stack, whichever worker of xdist gets it.
pytestmark = pytest.mark.xdist_group("stack")

PARAMS = """\
datasets: {breast-cancer: {}}
pipelines:
  nightly: {dataset: breast-cancer, family: mlp, schedule: "0 3 * * *"}
"""


@pytest.fixture(scope="module")
def team() -> Iterator[Stack]:
    if lack := missing():
        pytest.skip(f"{lack}: the commands of compose.yaml are not started")
    with stack(PARAMS) as started:
        yield started


def work(team: Stack, program: str, at: str = "scheduler", **more: str) -> str:
    """What Python prints in a service's place, as a member of the team would run it there."""
    done = team.run(at, [sys.executable, "-c", textwrap.dedent(program)], PYTHONPATH=str(ROOT), **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def get(team: Stack, url: str, at: str = "scheduler", **headers: str) -> tuple[int, Any]:
    """HTTP status and JSON of the answer."""
    program = f"""
        import json, urllib.error, urllib.request
        try:
            answer = urllib.request.urlopen(urllib.request.Request({url!r}, headers={headers!r}), timeout=10)
            said = answer.read().decode()
            print(json.dumps([answer.status, json.loads(said) if said[:1] in ("{{", "[") else said[:99]]))
        except urllib.error.HTTPError as error:
            print(json.dumps([error.code, ""]))
        """
    code, said = json.loads(work(team, program, at))
    return int(code), said


def login(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def rows(team: Stack, database: str, query: str) -> list[str]:
    """What Postgres' own superuser sees."""
    asked = team.run("postgres", ["psql", "--username=postgres", f"--dbname={database}", "-Atc", query])
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.split()


def test_every_command_starts_and_becomes_healthy_by_its_own_check(team: Stack) -> None:
    print("seconds until healthy:", team.seconds)
    assert set(team.seconds) == set(team.services)
    assert all(process.alive() for process in team.running.values())


def test_runs_go_to_postgres_and_their_files_through_mlflow_to_the_object_store(team: Stack) -> None:
    told = work(
        team,
        """
        import boto3, mlflow
        with mlflow.start_run() as run:
            mlflow.log_metric("val/accuracy", 0.5)
            mlflow.log_text("tide", "note.txt")
        assert mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt") == "tide"
        found = boto3.client("s3").list_objects_v2(Bucket="tidemill", Prefix="mlflow/")["Contents"]
        print(run.info.run_id, *[item["Key"] for item in found])
        """,
    )
    run, *keys = told.splitlines()[-1].split()
    assert any(key.endswith(f"{run}/artifacts/note.txt") for key in keys)
    assert rows(team, "mlflow", f"select key, value from metrics where run_uuid = '{run}'") == ["val/accuracy|0.5"]


def test_checkpoints_go_to_the_object_store_by_s3_addresses(team: Stack) -> None:
    told = work(
        team,
        """
        import os, torch
        from components import checkpoints
        from components.contract import State
        folder = os.environ["TIDEMILL_STORAGE"] + "/trial"
        state = State({"net/w": torch.arange(6.0).reshape(2, 3)}, {"epoch": 3})
        checkpoints.write(folder, 3, state, {"val/accuracy": 0.5})
        read, record = checkpoints.read(checkpoints.place_of(folder, 3))
        assert torch.equal(read.tensors["net/w"], state.tensors["net/w"]) and read.scalars == {"epoch": 3}
        print("epoch", checkpoints.latest(folder).epoch)
        """,
    )
    assert told == "epoch 3"


def test_mlflow_answers_the_names_it_is_called_by_and_no_page_from_elsewhere(team: Stack) -> None:
    search = "http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1"
    member = {"Authorization": login("tidemill", team.secrets["MLFLOW_PASSWORD"])}
    assert get(team, search, **member)[0] == 200
    assert get(team, search, Host="localhost:5000", **member)[0] == 200
    assert get(team, search, Host="127.0.0.1:15000", **member)[0] == 200
    assert get(team, search, Host="evil.example", **member)[0] == 403


def test_mlflow_asks_for_the_password(team: Stack) -> None:
    server = "http://mlflow:5000"
    for path in (
        "/api/2.0/mlflow/experiments/search?max_results=1",
        "/api/2.0/mlflow-artifacts/artifacts",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        "/",
    ):
        assert get(team, server + path)[0] == 401
        assert get(team, server + path, Authorization=login("tidemill", "wrong"))[0] == 401
    assert get(team, f"{server}/health")[0] == 200


def test_prefect_asks_for_the_password_and_knows_the_schedule(team: Stack) -> None:
    assert get(team, "http://prefect:4200/api/deployments/name/pipeline/nightly")[0] == 401
    told = work(
        team,
        """
        from prefect.client.orchestration import get_client
        with get_client(sync_client=True) as client:
            print(client.read_deployment_by_name("pipeline/nightly").schedules[0].schedule.cron)
        """,
    )
    assert told.splitlines()[-1] == "0 3 * * *"
    assert rows(team, "prefect", "select name from deployment") == ["nightly"]


def test_ray_works_on_the_worker_for_a_driver_at_the_scheduler_that_has_the_token(team: Stack) -> None:
    told = work(
        team,
        """
        import os, ray
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)

        @ray.remote(num_cpus=1)
        def where():
            import socket
            return socket.gethostbyname("ray-worker") == ray.util.get_node_ip_address()

        print(len([node for node in ray.nodes() if node["Alive"]]), ray.get(where.remote()))
        """,
    )
    assert told.splitlines()[-1] == "3 True"
    assert team.check("ray-worker", RAY_AUTH_TOKEN="0" * 48).returncode != 0


def test_a_server_reads_its_own_database_alone(team: Stack) -> None:
    told = work(
        team,
        """
        import os, psycopg2
        address = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("+psycopg2", "")
        psycopg2.connect(address).close()
        for other in (address.replace("5432/mlflow", "5432/prefect"), address.replace("@", "x@")):
            try:
                psycopg2.connect(other).close()
            except psycopg2.OperationalError as error:
                print(" ".join(str(error).split()))
        """,
        at="mlflow",
    )
    denied, wrong = [line for line in told.splitlines() if "FATAL" in line]
    assert 'permission denied for database "prefect"' in denied
    assert "password authentication failed" in wrong


def test_the_object_store_and_its_inner_parts_refuse_strangers(team: Stack) -> None:
    assert get(team, "http://s3:8333/tidemill?list-type=2", at="prefect")[0] == 403
    assert get(team, "http://s3:8888/buckets/tidemill/", at="prefect")[0] == 401


def test_no_secret_is_on_a_command_line(team: Stack) -> None:
    lines = []
    for process in team.running.values():
        for member in psutil.Process(process.pid).children(recursive=True):
            try:
                lines.append(" ".join(member.cmdline()))
            except psutil.Error:
                continue
    assert len(lines) > 2 * len(team.running)
    hidden = [value for name, value in team.secrets.items() if name != "TIDEMILL_USER"]
    assert not [line for line in lines if any(value in line for value in hidden)]


def test_all_stop_when_told(team: Stack) -> None:
    """Last: it ends the stack."""
    team.stop_all()
    assert not team.running
