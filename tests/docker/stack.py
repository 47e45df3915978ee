"""compose.yaml as ordinary processes: each service's own command, environment, order and health check, with loopback
addresses and free ports in the place of containers' names."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flows.processes import Process, last_lines

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = DOCKER / "compose.yaml"
# The port that each service listens at inside its container.
PORTS = {"postgres": 5432, "s3": 8333, "mlflow": 5000, "prefect": 4200, "ray-head": 6379, "scheduler": 8080}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\}")


def program(name: str) -> str:
    """Where a program is: beside Python, in the folder of the docker tools, on the PATH, among Debian's Postgres."""
    folders = [Path(sys.executable).parent, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])) or ""


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """What compose does with ${NAME:?message} and ${NAME:-default}."""

    def one(match: re.Match[str]) -> str:
        name, kind, word = match["name"], match["kind"], match["word"]
        found = variables.get(name, "")
        if not found and kind == "?":
            raise KeyError(f"required variable {name} is missing a value: {word}")
        return found or (word if kind == "-" else "")

    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    return _VARIABLE.sub(one, value) if isinstance(value, str) else value


def services(variables: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services of compose.yaml, interpolated if `variables` are given."""
    raw: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return raw if variables is None else interpolate(raw, variables)


def make_secrets(file: Path) -> dict[str, str]:
    """What docker/secrets.sh writes."""
    subprocess.run([DOCKER / "secrets.sh", file], check=True, capture_output=True)
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@dataclass
class Stack:
    """The services under `folder`. `project` is what the scheduler sees as /project."""

    folder: Path
    project: Path
    secrets: dict[str, str]
    services: dict[str, dict[str, Any]]
    ports: dict[str, int]
    running: dict[str, Process] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, project: Path) -> Stack:
        found = make_secrets(folder / ".env")
        return cls(folder, project, found, services(found), {name: pick_port() for name in PORTS})

    def here(self, text: str) -> str:
        """A string of compose.yaml with this machine's addresses in the place of containers' names and ports."""
        for name, inner in PORTS.items():
            text = text.replace(f"{name}:{inner}", f"127.0.0.1:{self.ports[name]}")
            text = re.sub(rf"(?<![\w.-]){inner}(?![\w.-])", str(self.ports[name]), text)
        return (
            text.replace("0.0.0.0", "127.0.0.1")
            .replace("-ip=s3", "-ip=127.0.0.1")
            .replace("/data", f"{self.folder}/data")
        )

    def environment(self, name: str) -> dict[str, str]:
        """The service's own environment, as far as a container would have it, and nothing of the caller's."""
        said = {key: self.here(str(value)) for key, value in self.services[name].get("environment", {}).items()}
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        if name == "postgres":
            said["PGPORT"] = str(self.ports[name])
        return {"PATH": path, "HOME": str(self.folder), "NO_COLOR": "1", "DO_NOT_TRACK": "1", **said}

    def command(self, name: str) -> list[str]:
        words = [self.here(word) for word in self.services[name]["command"]]
        if name == "s3":  # the image's entry point is weed
            inner = {"master": 9333, "volume": 9340, "filer": 8888}
            return [program("weed"), *words, *(f"-{part}.port={pick_port()}" for part in inner)]
        if name.startswith("ray"):  # two nodes on one machine
            words += [
                "--node-ip-address=127.0.0.1",
                "--object-store-memory=100000000",
                f"--temp-dir={self.folder}/{name[4]}",
                "--min-worker-port=0",
                "--max-worker-port=0",
                f"--dashboard-agent-listen-port={pick_port()}",
            ]
            words += [] if "--head" in words else ["--num-cpus=1"]
        if name == "postgres":
            words += ["-D", f"{self.folder}/postgres", "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]
        return [program(words[0]), *words[1:]]

    def check(self, name: str, **more: str) -> subprocess.CompletedProcess[str]:
        """The service's own health check."""
        words = [self.here(word) for word in self.services[name]["healthcheck"]["test"][1:]]
        return subprocess.run(
            [program(words[0]), *words[1:]],
            env={**self.environment(name), **more},
            cwd=self.folder,
            capture_output=True,
            text=True,
        )

    def start(self, name: str) -> None:
        if name == "postgres":
            self._init_postgres()
        folder = self.project if name == "scheduler" else self.folder
        command, env = self.command(name), self.environment(name)
        if name == "postgres":
            command = as_postgres(command)
        self.running[name] = Process.start(command, self.log(name), env, folder)

    def start_all(self, patience_s: float = 300) -> None:
        """Each as soon as those that it depends on are healthy, as compose does."""
        begun, waiting, well = time.monotonic(), dict(self.services), set[str]()
        while len(well) < len(self.services):
            for name, service in list(waiting.items()):
                if set(service.get("depends_on", {})) <= well:
                    self.start(name)
                    del waiting[name]
            for name in sorted(set(self.running) - well):
                if not self.running[name].alive():
                    raise AssertionError(f"{name} stopped{self.running[name].how()}: {last_lines(self.log(name), 20)}")
                if self._listens(name) and self.check(name).returncode == 0:
                    well.add(name)
                    self.seconds[name] = round(time.monotonic() - begun, 1)
                    if name == "postgres":
                        self._make_databases()
            if time.monotonic() - begun > patience_s:
                sick = sorted(set(self.services) - well)
                raise AssertionError(f"not healthy: {[(name, last_lines(self.log(name), 8)) for name in sick]}")
            time.sleep(0.2)

    def stop_all(self, patience_s: float = 30) -> None:
        """TERM to each first process once those that depend on it are gone, as compose does."""
        while self.running:
            used = {other for name in self.running for other in self.services[name].get("depends_on", {})}
            last = {name: self.running[name] for name in set(self.running) - used}
            for process in last.values():
                os.kill(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + patience_s
            for name, process in last.items():
                while process.alive():
                    assert time.monotonic() < deadline, f"{name} is still running: {last_lines(self.log(name), 20)}"
                    time.sleep(0.05)
                process.stop(5)  # what it left in its group
                del self.running[name]

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _listens(self, name: str) -> bool:
        """Ask nobody expensively who does not listen yet."""
        port = self.ports.get("ray-head" if name == "ray-worker" else name)
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _init_postgres(self) -> None:
        """What the image's entry point does first: a cluster whose TCP clients must know the password."""
        (self.folder / "postgres").mkdir()
        password = self.folder / "postgres.password"
        password.write_text(self.secrets["POSTGRES_PASSWORD"])
        if os.getuid() == 0:
            for place in (self.folder, self.folder / "postgres", password):
                shutil.chown(place, "postgres")
        words = [
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--username=postgres",
            f"--pwfile={password}",
            "--no-sync",
        ]
        command = [program("initdb"), "-D", f"{self.folder}/postgres", *words]
        subprocess.run(as_postgres(command), check=True, capture_output=True, cwd=self.folder)

    def _make_databases(self) -> None:
        """What the image's entry point does next: databases.sh, over the socket."""
        path = {"PATH": f"{Path(program('psql')).parent}:/usr/bin:/bin"}
        subprocess.run(
            ["sh", DOCKER / "databases.sh"],
            env={**self.environment("postgres"), **path, "PGHOST": str(self.folder)},
            check=True,
            capture_output=True,
        )


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Ray and Postgres put sockets below it, whose paths may be 107 characters long."""
    folder = Path(tempfile.mkdtemp(prefix="tm"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_postgres(command: list[str]) -> list[str]:
    """Postgres refuses to run as root."""
    return (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command] if os.getuid() == 0 else command
    )


def pick_port() -> int:
    """A free port, and so is the one 10,000 above, where weed speaks gRPC; beside those that Ray and Linux hand out."""
    while True:
        port = 20_000 + secrets.randbelow(2_700)
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port
