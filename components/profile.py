"""What a model's training inputs were like, kept beside its weights, and counting other rows in the same bins.

A profile looks at plain features of rows: numbers and dates (in days) as they are, categories as text, of a tensor its
summary (smallest and largest element, mean, deviation, how many are no number), of a text another (characters, words,
share of characters that are not ASCII, share of words that are rare or unseen in the training rows) and, where there
are tensors or texts, elements of a row's code, which is what the net itself makes of a row. Each feature has bins and
how many training rows fell into each. The last bin holds missing values; a category's last but one, values that are
rare or were never seen.

Legend: N rows, F features, D elements of a code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from . import letters, tables, tensors
from .contract import Codes, Column, Json, Spec

FORMAT = 1
BINS = 10  # of a number: about as many training rows in each
SPIKE = 0.05  # a value that so large a share of the rows has gets a bin of its own
CATEGORIES, RARE = 50, 0.01  # most values with a bin of their own; a rarer one has none
WORDS = 5_000  # of a text column: the commonest, seen twice at least; any other is unknown
ELEMENTS = 32  # of a code: those that vary most over the training rows
# Rows that a profile is made from, and rows of a file that are compared with it, at most: evenly spread over all.
PROFILED, PROFILED_CODES = 100_000, 5_000
COMPARED, COMPARED_CODES = 20_000, 2_000
_PIECE_ROWS = 1024  # go through the net at once

Values: TypeAlias = NDArray[np.float64] | pa.Array  # numbers, NaN where missing; or text
Words: TypeAlias = Mapping[str, frozenset[str]]  # text column → the words that are known
Counts: TypeAlias = dict[str, list[int]]  # feature → rows in each bin


class Encoder(Protocol):
    """What a profile needs of a model."""

    @property
    def spec(self) -> Spec: ...
    def encode(self, batch: pa.RecordBatch) -> Codes: ...


def measure(model: Encoder, train: pa.Table) -> Json:
    """The profile of training rows: the same rows and net give the same profile, on however many processors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums that are split among threads end in other bits
    try:
        return _measured(model, train)
    finally:
        torch.set_num_threads(threads)


def _measured(model: Encoder, train: pa.Table) -> Json:
    spec = model.spec
    rows = _inputs(train.take(_spread(train.num_rows, PROFILED)), spec)
    words = {c.name: _common_words(rows.column(c.name)) for c in spec.columns if c.kind == "text"}
    known = {name: frozenset(common) for name, common in words.items()}
    features = {name: _bins(values) | {"of": of} for name, of, values in _plain(spec, rows, known)}
    profile: dict[str, Json] = {"format": FORMAT, "rows": rows.num_rows, "features": features, "codes": []}
    if words:
        profile["words"] = words
    if _is_coded(spec) and rows.num_rows:
        codes_ND = _codes(model, rows.take(pa.array(_spread(rows.num_rows, PROFILED_CODES))))
        varied = np.argsort(-codes_ND.std(axis=0, dtype=np.float64), kind="stable")[:ELEMENTS]
        profile["codes"] = sorted(varied.tolist())
        features |= {name: _bins(values) | {"of": "codes"} for name, values in _elements(profile, codes_ND)}
    return profile


class Tally:
    """Rows of a stream counted in a profile's bins: so many of them, evenly spread, however many come. What is held
    meanwhile is the bin of each feature of each such row. The rows that count depend on the stream's order alone, not
    on how it comes in batches."""

    def __init__(self, model: Encoder, profile: Json) -> None:
        self._model, self._profile = model, profile
        self._words = {name: frozenset(common) for name, common in profile.get("words", {}).items()}
        self._features, self._coded = _Spread(COMPARED), _Spread(COMPARED_CODES)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count rows as the model reads them."""
        spec, features = self._model.spec, self._profile["features"]
        taken = self._features.choose(batch.num_rows)
        if len(taken):
            plain = _plain(spec, _taken(batch, taken), self._words)
            found = [bin_of(features[name], values) for name, _, values in plain]
            self._features.hold(np.stack(found, axis=1) if found else np.zeros((len(taken), 0), np.uint8))
        taken = self._coded.choose(batch.num_rows) if self._profile["codes"] else taken[:0]
        if len(taken):
            elements = _elements(self._profile, _codes(self._model, _taken(batch, taken)))
            self._coded.hold(np.stack([bin_of(features[name], values) for name, values in elements], axis=1))

    def counts(self) -> Counts:
        features = self._profile["features"]
        held = {"codes": self._coded.held(), "": self._features.held()}
        at = dict.fromkeys(held, 0)
        counted: Counts = {}
        for name in [n for n, _, _ in _named(self._model.spec)] + [_element(i) for i in self._profile["codes"]]:
            of = "codes" if features[name]["of"] == "codes" else ""
            bins = len(features[name]["counts"])
            bins_N = held[of][:, at[of]] if held[of].size else np.zeros(0, np.uint8)
            counted[name] = np.bincount(bins_N, minlength=bins).tolist()
            at[of] += 1
        return counted


def add(parts: Iterator[Counts]) -> Counts:
    """The counts of several files together."""
    whole: dict[str, NDArray[np.int64]] = {}
    for part in parts:
        for name, counts in part.items():
            whole[name] = whole.get(name, np.zeros(len(counts), np.int64)) + np.array(counts, np.int64)
    return {name: counts.tolist() for name, counts in whole.items()}


class _Spread:
    """Every so many-th row of a stream, so that never more than `most` are held: the step doubles as the rows come."""

    def __init__(self, most: int) -> None:
        self._most, self._step, self._seen = most, 1, 0
        self._parts: list[NDArray[np.uint8]] = []

    def choose(self, rows: int) -> NDArray[np.int64]:
        """Which of the stream's next rows are held; their bins go to `hold`."""
        while -(-(self._seen + rows) // self._step) > self._most:
            self._step *= 2
            if self._parts:
                self._parts = [np.concatenate(self._parts)[::2]]
        chosen = np.arange(-self._seen % self._step, rows, self._step)
        self._seen += rows
        return chosen

    def hold(self, bins_NF: NDArray[np.uint8]) -> None:
        self._parts.append(bins_NF)

    def held(self) -> NDArray[np.uint8]:
        return np.concatenate(self._parts) if self._parts else np.zeros((0, 0), np.uint8)


# ── features ────────────────────────────────────────────────────────────────────────────────────────────

_SUMMARY = (".min", ".max", ".nan", ".mean", ".std")
_TEXT_SUMMARY = (".characters", ".words", ".non_ascii", ".unknown")


def _named(spec: Spec) -> Iterator[tuple[str, str, Column]]:
    """(feature, what it is of, column) without codes."""
    for column in spec.columns:
        if column.kind in ("tensor", "text"):
            keys = _SUMMARY if column.kind == "tensor" else _TEXT_SUMMARY
            yield from ((column.name + key, "summary", column) for key in keys)
        else:
            yield column.name, "column", column


def _plain(spec: Spec, rows: pa.RecordBatch, words: Words) -> Iterator[tuple[str, str, Values]]:
    """The features of rows, without codes, in the order of `_named`."""
    summaries: dict[str, Mapping[str, Values]] = {}
    for name, of, column in _named(spec):
        if of == "summary":
            if column.name not in summaries:
                values, known = rows.column(column.name), words.get(column.name)
                summaries[column.name] = _summary(values) if known is None else _text_summary(values, known)
            yield name, of, summaries[column.name][name.removeprefix(column.name)]
        elif column.kind == "category":
            yield name, of, tables.text(rows, name)
        elif column.kind == "date":
            time_us, missing = tables.microseconds(rows, name)
            yield name, of, np.where(missing, np.nan, time_us / tables.DAY_US)
        else:
            yield name, of, tables.numbers(rows, name).astype(np.float64, copy=False)


def _summary(column: pa.Array) -> dict[str, Values]:
    parts = [
        tensors.extent(elements) | tensors.moments(elements)
        for elements, _ in tensors.blocks(pa.chunked_array([column]))
    ]
    return {key: np.concatenate([p[key] for p in parts] or [np.zeros(0)]).astype(np.float64) for key in _SUMMARY}


def _text_summary(column: pa.Array, known: frozenset[str]) -> dict[str, Values]:
    texts = column.to_pylist()
    told = letters.told(texts, ()) | {"unknown": letters.unknown_each(texts, known)}
    return {key: told[key.removeprefix(".")] for key in _TEXT_SUMMARY}


def _common_words(column: pa.Array) -> list[str]:
    """Sorted. A word seen once is as good as unseen: so the share of unknown words is alike in rows of another day."""
    counts = sorted((-count, word) for word, count in letters.words(column.to_pylist()).items() if count > 1)
    return sorted(word for _, word in counts[:WORDS])


def _codes(model: Encoder, rows: pa.RecordBatch) -> Codes:
    pieces = [rows.slice(start, _PIECE_ROWS) for start in range(0, rows.num_rows, _PIECE_ROWS)]
    return np.concatenate([model.encode(piece) for piece in pieces])


def _elements(profile: Json, codes_ND: Codes) -> Iterator[tuple[str, Values]]:
    for at in profile["codes"]:
        yield _element(at), codes_ND[:, at].astype(np.float64)


def _element(at: int) -> str:
    return f"codes[{at}]"


def _is_coded(spec: Spec) -> bool:
    return any(column.kind in ("tensor", "text") for column in spec.columns)


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────


def _spread(rows: int, most: int) -> NDArray[np.int64]:
    """At most so many rows, evenly spread."""
    return np.arange(rows) if rows <= most else np.linspace(0, rows - 1, most).astype(np.int64)


def _inputs(rows: pa.Table, spec: Spec) -> pa.RecordBatch:
    names = [column.name for column in spec.columns]
    return pa.RecordBatch.from_arrays([tables.column(rows, name) for name in names], names)


def _taken(batch: pa.RecordBatch, chosen: NDArray[np.int64]) -> pa.RecordBatch:
    return batch if len(chosen) == batch.num_rows else batch.take(pa.array(chosen))


# ── bins ────────────────────────────────────────────────────────────────────────────────────────────────


def bin_of(feature: Json, values: Values) -> NDArray[np.uint8]:
    """The bin of each value."""
    if not isinstance(values, np.ndarray):
        last = len(feature["values"])
        found = pc.fill_null(pc.index_in(values, pa.array(feature["values"], pa.string()), skip_nulls=True), last)
        return np.where(values.is_null(), last + 1, found.to_numpy(zero_copy_only=False)).astype(np.uint8)
    edges = feature["edges"]
    bins = np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), len(edges) + 1, bins).astype(np.uint8)


def name_of(feature: Json, at: int) -> str:
    """What lies in a bin, for people."""
    if at == len(feature["counts"]) - 1:
        return "missing"
    if feature["kind"] == "category":
        return str([*feature["values"], "other"][at])
    edges = feature["edges"]
    low, high = (edges[at - 1] if at else None), (edges[at] if at < len(edges) else None)
    if low is not None and high is not None and high == np.nextafter(low, np.inf):
        return f"{low:.6g}"
    return f"below {high:.6g}" if low is None and high is not None else _from(low, high)


def _from(low: float | None, high: float | None) -> str:
    if low is None:
        return "any"
    return f"from {low:.6g}" if high is None else f"{low:.6g} to {high:.6g}"


def _bins(values: Values) -> dict[str, Any]:
    """Bins of a feature and how many of these rows fall into each."""
    feature: dict[str, Any]
    if isinstance(values, np.ndarray):
        feature = {"kind": "number", "edges": _edges(values[np.isfinite(values)])}
        bins = len(feature["edges"]) + 2
    else:
        feature = {"kind": "category", "values": _common(values)}
        bins = len(feature["values"]) + 2
    return feature | {"counts": np.bincount(bin_of(feature, values), minlength=bins).tolist()}


def _edges(values: NDArray[np.float64]) -> list[float]:
    """Quantiles of the values; a spike lies between itself and the next number."""
    if not len(values):
        return []
    edges = set(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf").tolist())
    found, counts = np.unique(values, return_counts=True)
    spikes = found[counts >= SPIKE * len(values)]
    return sorted(edges | set(spikes.tolist()) | set(np.nextafter(spikes, np.inf).tolist()))


def _common(values: pa.Array) -> list[str]:
    counts = pc.value_counts(values.drop_null())
    pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
    return [value for _, value in sorted((-n, value) for value, n in pairs if n >= RARE * len(values))[:CATEGORIES]]
