"""Which rows are train, val and test where nobody has said so: by a seeded hash of each row's own content.

So the split needs no file of its own, does not depend on the order of rows, and rows with the same content
always fall together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..contract import SPLIT, SPLITS
from ..errors import DataError

Hashes = npt.NDArray[np.uint64]

# From this many different rows in a stratum, a row's split hangs on its own hash alone.
STEADY = 1000


def row_hashes(table: pa.Table, seed: int = 0) -> Hashes:
    """One hash a row of the values in all columns, whatever the order of the columns. Shape [rows].

    Numbers hash by value, so that 1 and 1.0 agree; every NaN and every missing value is alike.
    """
    total = np.zeros(table.num_rows, np.uint64)
    for name in table.column_names:
        total += mix(_values(table[name]) ^ _digest(f"{seed}/{name}".encode()))
    return mix(total)


def assign(hashes: Hashes, strata: npt.ArrayLike, val: float = 0.2, test: float = 0.2) -> pa.Array:
    """The split of each row, as text.

    Within a stratum, rows are ordered by hash; the first share `test` of them is the test split, the next
    share `val` is val. A stratum of STEADY different rows or more is cut at hash values instead of ranks: its
    shares are then only nearly exact, but a row stays in its split however many rows join the table later.
    Rows with one hash share one split.
    """
    split = np.full(len(hashes), SPLITS.index("train"), np.int64)
    _, stratum = np.unique(np.asarray(strata), return_inverse=True)
    order = np.argsort(stratum, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        distinct, inverse = np.unique(hashes[rows], return_inverse=True)
        place = distinct / 2.0**64
        cuts = (test, test + val)
        if len(distinct) < STEADY:
            place = np.arange(len(distinct), dtype=np.float64)
            n_test, n_val = (int(len(distinct) * share + 0.5) for share in (test, val))
            cuts = (n_test, n_test + n_val)
        cut = np.where(place < cuts[0], SPLITS.index("test"), np.where(place < cuts[1], SPLITS.index("val"), 0))
        split[rows] = cut[inverse]
    return pa.DictionaryArray.from_arrays(pa.array(split, pa.int32()), list(SPLITS)).dictionary_decode()


def given(split: pa.Array, hashes: Hashes, strata: npt.NDArray[np.int64], where: str) -> pa.Array:
    """A table's own split. If it has no val, a fifth of its training rows become val. Raises DataError that names
    `where` if it holds anything else."""
    strange = split.filter(pc.invert(pc.is_in(split, pa.array(SPLITS))))
    if len(strange):
        raise DataError(
            f"column {SPLIT!r} holds {strange[0].as_py()!r}, expected {', '.join(SPLITS)}",
            where=where,
            why="a column of this name says which rows are which",
            fix="rename the column, or give it these values",
        )
    stated = split.to_numpy(zero_copy_only=False)
    if "val" in stated:
        return split
    train = stated == SPLITS[0]
    stated[train] = assign(hashes[train], strata[train], val=0.2, test=0.0).to_numpy(zero_copy_only=False)
    return pa.array(stated, pa.string())


def repeats(hashes: Hashes) -> float:
    """The share of rows that repeat an earlier one."""
    return 1 - float(pc.count_distinct(pa.array(hashes)).as_py()) / max(len(hashes), 1)


def apart(hashes: Hashes) -> Hashes:
    """Hashes that differ for rows that repeat each other: each counts how many there were before it."""
    order = np.argsort(hashes, kind="stable")
    _, first, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    before = np.empty(len(hashes), np.uint64)
    before[order] = np.arange(len(hashes)) - np.repeat(first, counts)
    return mix(hashes ^ mix(before))


def counts(splits: pa.Array) -> Mapping[str, int]:
    """Rows of each split."""
    found = {x["values"]: x["counts"] for x in pc.value_counts(splits).to_pylist()}
    return {name: found.get(name, 0) for name in SPLITS}


def mix(x: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of x moves every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = x ^ (x >> np.uint64(31))
    return mixed


def _digest(content: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))


def _values(column: pa.ChunkedArray) -> Hashes:
    """A 64-bit stand-in for each value of a column."""
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        rows = column.combine_chunks().to_numpy_ndarray()
        return np.array([_digest(np.ascontiguousarray(row).tobytes()) for row in rows], np.uint64)
    if pa.types.is_temporal(kind):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = column.cast(pa.float64(), safe=False).to_numpy()
        numbers = np.where(np.isnan(numbers), np.nan, numbers + 0.0)  # one NaN, one zero
        return numbers.view(np.uint64)
    encoded = pc.dictionary_encode(column.cast(pa.string()), null_encoding="encode").combine_chunks()
    distinct = [_digest(b"" if v is None else b"=" + v.encode()) for v in encoded.dictionary.to_pylist()]
    found: Hashes = np.array(distinct, np.uint64)[encoded.indices.to_numpy()]
    return found
