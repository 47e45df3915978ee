"""What scoring delivers: whole Parquet files, each carrying its own key, and a receipt that is written last.

The files are their own record: every footer holds the key of what made the file, so that after a death the next
run keeps what is whole, with nothing to remember beside it. The receipt adds the hashes, and says "complete".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import receipts
from ..contract import Json
from ..errors import BadInput, Busy, ParamsError, TidemillError
from ..intake import PARQUET

KEY = "tidemill.key"  # in a Parquet footer
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")  # as receipts.replacing names them


@dataclass(frozen=True)
class Part:
    """One finished output file. `key` is the hash of everything that made it."""

    source: str
    source_sha256: str
    key: str
    sha256: str
    rows: int


class Delivery:
    """The output of one scoring: a Parquet file, or a folder of them by name. Use inside `opened`."""

    def __init__(self, output: Path, folder: bool) -> None:
        self.output, self.folder = output, folder
        beside = output.with_name(f"{output.name}.receipt.json")
        # The underscore because readers of a folder of Parquet files pass over such names.
        self.receipt = output / "_receipt.json" if folder else beside
        self._told = self._read()

    def path(self, name: str) -> Path:
        return self.output / name if self.folder else self.output

    def names(self) -> list[str]:
        """Files that readers would take for output."""
        if not self.folder:
            return [self.output.name] if self.output.exists() else []
        below = (p.relative_to(self.output) for p in self.output.rglob("*") if p.is_file())
        return sorted(name.as_posix() for name in below if not any(part[0] in "._" for part in name.parts))

    def standing(self, name: str, source: str, source_sha256: str, key: str) -> Part | None:
        """The file of that name if it is there for that key, whole."""
        file = self.path(name)
        if footer_key(file) != key:
            return None
        told = self._told.get("files", {}).get(name)
        part = Part(source, source_sha256, key, receipts.sha256(file), pq.read_metadata(file).num_rows)
        if told and told["key"] == key and told["sha256"] != part.sha256:
            file.unlink()  # altered since: must not pass for whole once the receipt is gone
            return None
        return part

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path whose file takes the place of `name`; the receipt is withdrawn just before."""
        with receipts.replacing(self.path(name)) as temporary:
            yield temporary
            self.receipt.unlink(missing_ok=True)

    def close(self, parts: Mapping[str, Part], facts: Mapping[str, Json]) -> bool:
        """Drop files of earlier runs that are no part of this one and write the receipt.

        Returns whether everything, the receipt included, stood already.
        """
        told = {**facts, "files": {name: asdict(part) for name, part in parts.items()}}
        left = set(self.names()) - set(parts)
        if not left and self._read() == told:
            return True
        if left:
            self.receipt.unlink(missing_ok=True)
        for name in left:
            self.path(name).unlink()
        receipts.write_json(self.receipt, told)
        return False

    def _read(self) -> dict[str, Json]:
        """The receipt; empty if there is none, or something else in its place."""
        try:
            told: dict[str, Json] = json.loads(self.receipt.read_text(encoding="utf-8"))
            return told if isinstance(told["files"], dict) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


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
        with _held(output):
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
    for file in output.rglob(".*.tmp") if folder else output.parent.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(file.name)
        if match and (folder or match[1] in (output.name, f"{output.name}.receipt.json")):
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
