"""What scoring delivers: whole Parquet files, each carrying its own key, and a receipt that is written last.

The files are their own record: every footer holds the key of what made the file, so that after a death the next
run keeps what is whole, with nothing to remember beside it. A file that is whole waits under a hidden name until all
are, and the input as a whole may be delivered: until then what stood there stands. The receipt adds the hashes, and
says "complete".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import receipts, room
from ..contract import Json
from ..errors import BadInput, Busy, ParamsError, TidemillError
from ..intake import PARQUET
from ..profile import Counts

KEY, MADE = "tidemill.key", "tidemill.made"  # in a Parquet footer
QUARANTINE = "quarantine"
_TEMPORARY = re.compile(r"\.(.+?)\.\d+\.\d+\.tmp")  # as receipts.replacing names them


@dataclass(frozen=True)
class Made:
    """What came of the rows of a file, as its footer says: read, scored or quarantined, and their bins, if counted."""

    rows_in: int
    rows: int
    quarantined: int
    counts: Counts


@dataclass(frozen=True)
class Part:
    """One finished output file. `key` is the hash of everything that made it."""

    source: str
    source_sha256: str
    key: str
    sha256: str
    made: Made = field(repr=False)
    quarantine_sha256: str | None = None

    def to_json(self) -> Json:
        """Without the bins: they are in the footer."""
        own: dict[str, Json] = {"source": self.source, "source_sha256": self.source_sha256}
        own |= {"key": self.key, "sha256": self.sha256}
        own |= {"rows": self.made.rows, "quarantined": self.made.quarantined}
        return own | ({"quarantine_sha256": self.quarantine_sha256} if self.quarantine_sha256 else {})


class Delivery:
    """The output of one scoring: a Parquet file, or a folder of them by name. Use inside `opened`."""

    def __init__(self, output: Path, folder: bool) -> None:
        self.output, self.folder = output, folder
        self.receipt = self.beside("receipt.json")
        self._told = self._read()

    def beside(self, name: str) -> Path:
        """A file about the whole output. The underscore because readers of a folder of Parquet files pass over such
        names."""
        return self.output / f"_{name}" if self.folder else self.output.with_name(f"{self.output.name}.{name}")

    def path(self, name: str) -> Path:
        return self.output / name if self.folder else self.output

    def quarantine(self, name: str) -> Path:
        """Where the rows lie that could not be scored, of which a file may have none."""
        return self.output / f"_{QUARANTINE}" / name if self.folder else self.beside(f"{QUARANTINE}.parquet")

    def standing_quarantine(self, name: str) -> Path:
        """The same, or where it waits."""
        return next(file for file in _places(self.quarantine(name)) if file.exists())

    def names(self) -> list[str]:
        """Files that readers would take for output."""
        if not self.folder:
            return [self.output.name] if self.output.exists() else []
        below = (p.relative_to(self.output) for p in self.output.rglob("*") if p.is_file())
        return sorted(name.as_posix() for name in below if not any(part[0] in "._" for part in name.parts))

    def may_stand(self, name: str) -> bool:
        return any(file.exists() for file in _places(self.path(name)))

    def standing(self, name: str, source: str, source_sha256: str, key: str) -> Part | None:
        """The file of that name if it is there for that key, whole, delivered or waiting; with its quarantine."""
        file = next((file for file in _places(self.path(name)) if footer_key(file) == key), None)
        if file is None:
            return None
        made, put_aside = _made(file), None
        if made.quarantined:
            aside = next((f for f in _places(self.quarantine(name)) if footer_key(f) == key), None)
            if aside is None or pq.read_metadata(aside).num_rows != made.quarantined:
                return None
            put_aside = receipts.sha256(aside)
        part = Part(source, source_sha256, key, receipts.sha256(file), made, put_aside)
        told = self._told.get("files", {}).get(name)
        if told and told["key"] == key and file == self.path(name) and told != part.to_json():
            file.unlink()  # altered since: must not pass for whole once the receipt is gone
            return None
        return part

    @contextlib.contextmanager
    def waiting(self, place: Path) -> Iterator[Path]:
        """Yield a temporary path whose file then waits for its place."""
        with receipts.replacing(_waiting(place)) as temporary:
            yield temporary

    def discard(self) -> None:
        """Remove what waits: it will not be delivered."""
        for file in self._hidden():
            file.unlink()

    def close(self, parts: Mapping[str, Part], facts: Mapping[str, Json], beside: Mapping[str, Json]) -> bool:
        """Deliver what waits, drop files of earlier runs that are no part of this one, write the files that lie beside
        (name → JSON, None for one that must not be there), and the receipt.

        Returns whether everything, the receipt included, stood already.
        """
        told = {**facts, "files": {name: part.to_json() for name, part in parts.items()}}
        # The quarantine first: scores never stand without the rows that they lack.
        wanted = {self.quarantine(name): part.key for name, part in parts.items() if part.made.quarantined}
        wanted |= {self.path(name): part.key for name, part in parts.items()}
        files = {self.beside(name): value for name, value in beside.items()}
        stale = [file for file, value in files.items() if not _says(file, value)]
        left = [file for file in self._delivered() if file not in wanted]
        waits = self._hidden()
        if not left and not stale and not waits and self._read() == told:
            return True
        self.receipt.unlink(missing_ok=True)
        for place, key in wanted.items():
            if footer_key(_waiting(place)) == key:  # what a run that died has left may be of another
                _waiting(place).replace(place)
        for file in (*left, *self._hidden()):
            file.unlink()
        for file in stale:
            file.unlink(missing_ok=True) if files[file] is None else receipts.write_json(file, files[file])
        receipts.write_json(self.receipt, told)
        return False

    def _delivered(self) -> list[Path]:
        """Every file of scores or of quarantined rows that stands here."""
        scores = [self.path(name) for name in self.names()]
        if not self.folder:
            return scores + [file for file in [self.quarantine("")] if file.exists()]
        return scores + [p for p in (self.output / f"_{QUARANTINE}").rglob("*.parquet") if p.name[0] != "."]

    def _hidden(self) -> list[Path]:
        if not self.folder:
            both = (_waiting(self.output), _waiting(self.quarantine("")))
            return [file for file in both if file.exists()]
        return list(self.output.rglob(f".*{_WAITS}"))

    def _read(self) -> dict[str, Json]:
        """The receipt; empty if there is none, or something else in its place."""
        try:
            told: dict[str, Json] = json.loads(self.receipt.read_text(encoding="utf-8"))
            return told if isinstance(told["files"], dict) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


_WAITS = ".whole"


def _waiting(place: Path) -> Path:
    return place.with_name(f".{place.name}{_WAITS}")


def _places(place: Path) -> tuple[Path, Path]:
    return _waiting(place), place


def _says(file: Path, value: Json) -> bool:
    """Whether a file says just that; None: whether there is none."""
    if value is None or not file.is_file():
        return value is None and not file.exists()
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")) == value)
    except ValueError:
        return False


def names(source: Path, output: Path, sources: Collection[str]) -> dict[str, str]:
    """Name of an input file → name of the file it becomes: its own, with .parquet after any other ending."""
    if source.is_file():
        return {source.name: output.name}
    become = {name: name if name.lower().endswith(PARQUET) else f"{name}.parquet" for name in sources}
    twice = [name for name in become if become[name] != name and become[name] in sources]
    if twice:
        raise BadInput(f"{twice[0]} and {become[twice[0]]} would become one file", where=str(source), fix="rename one")
    return become


@contextlib.contextmanager
def opened(output: Path, folder: bool) -> Iterator[Delivery]:
    """Hold the output: nobody else writes it meanwhile, and what a dead run left half-written is gone.

    Raises ParamsError if the output cannot be there or holds files of others, Busy if somebody else holds it.
    """
    try:
        (output if folder else output.parent).mkdir(parents=True, exist_ok=True)
        with room.required(output), _held(output):
            delivery = Delivery(output, folder)
            _refuse_foreign(delivery)
            _sweep(output, folder)
            yield delivery
    except OSError as error:
        raise TidemillError(
            "the output cannot be written",
            where=str(output),
            why=str(error),
            fix="make room, or choose a place that you may write to",
        ) from error


def footer_key(file: Path) -> str | None:
    """The key that a Parquet file was written with; None if scoring did not write it."""
    try:
        found = (pq.read_metadata(file).metadata or {}).get(KEY.encode())
    except (pa.ArrowException, OSError):
        return None
    return found.decode() if found else None


def _made(file: Path) -> Made:
    return Made(**json.loads(pq.read_metadata(file).metadata[MADE.encode()]))


def footer(key: str, made: Made) -> dict[str, str]:
    """What a file of scores says of itself."""
    return {KEY: key, MADE: receipts.canonical(asdict(made))}


def _refuse_foreign(delivery: Delivery) -> None:
    below = delivery.output.rglob("*") if delivery.folder else ()
    if links := [found for found in below if found.is_symlink() and found.is_dir()]:
        raise ParamsError(
            "leads out of the output", where=str(links[0]), fix="remove the link, or choose another place"
        )
    told = delivery._told.get("files", {})
    foreign = [n for n in delivery.names() if n not in told and footer_key(delivery.path(n)) is None]
    if foreign:
        shown = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise ParamsError(
            f"holds what scoring did not write: {shown}"
            if delivery.folder
            else "there is a file that scoring did not write",
            where=str(delivery.output),
            fix="choose another place for the output, or move it away",
        )


def _sweep(output: Path, folder: bool) -> None:
    """Remove temporary files of runs that died; whoever holds the output knows that no live one is left."""
    about = ("receipt.json", "drift.json", "blocked.json")
    whole = (_waiting(output).name, _waiting(Delivery(output, folder).quarantine("")).name)
    ours = (output.name, *(f"{output.name}.{name}" for name in about), *whole)
    for file in output.rglob(".*.tmp") if folder else output.parent.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(file.name)
        if match and (folder or match[1] in ours):
            file.unlink()


@contextlib.contextmanager
def _held(output: Path) -> Iterator[None]:
    """Hold a lock beside the output; it goes with the process, however that ends."""
    file = output.with_name(f".{output.name}.lock")
    while True:
        with file.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    "somebody else is writing this output", where=str(output), fix="wait for it, or choose another"
                ) from None
            # Whoever held it before has removed the file: a lock on a removed file keeps nobody out.
            if file.exists() and os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                try:
                    yield
                finally:
                    file.unlink()
                return
