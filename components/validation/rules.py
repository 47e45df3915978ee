"""From what a dataset promises to the expectations that Great Expectations checks, in the order they are read.

`meta` of each says which rule it is and of which column, in the words of the failure's message. A column that is
absent or of another kind is held to nothing else: its type says enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeAlias

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from ..contract import SPLIT, SPLITS
from ..datasets import episodes
from ..expectations import ColumnRule, Expectations
from ..tensors import is_series
from . import alike, rated
from .checks import (
    ExpectClassesToBeBalanced,
    ExpectColumnMissingShareToBeAtMost,
    ExpectColumnNotToGiveAwayTheTarget,
    ExpectEpisodesToEndOnce,
    ExpectEpisodesToKeepToOneSplit,
    ExpectRepeatedRowShareToBeAtMost,
    ExpectStepsToBeContiguous,
    ExpectTextShareToBeAtMost,
    ExpectTextsToDifferAcrossSplits,
    ExpectWordsToBeKnown,
    percent,
)
from .summary import CONTENT, NEARLY, held

Checks: TypeAlias = Iterator[Expectation]

ROWS = "*"  # stands for the column where a rule is about whole rows
NUMBERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)] + [
    "float16",
    "float32",
    "float64",
    "bool",
]
TYPES = {"number": NUMBERS, "category": ["str"], "text": ["str"], "date": ["datetime64[us]"]}
# A tensor of one value shows nothing, unless it is a vector of fewer elements: a few counts may well all be 0.
BLANK_ELEMENTS = 8
LARGEST = float(np.finfo(np.float64).max)


def rules(rows: pd.DataFrame, expectations: Expectations) -> list[Expectation]:
    """Everything that the rows are held to."""
    checks = [*_schema(expectations)]
    sound = {name: rule for name, rule in held(expectations).items() if name in rows}
    for name, rule in list(sound.items()):
        checks += _type(name, rule, rows)
        if not _is_sound(rows, name, rule):
            del sound[name]
    for name, rule in sound.items():
        checks += _tensor(name, rule) if rule.kind == "tensor" else _values(name, rule, rows)
        if rule.is_learnt_text and rows[name].notna().any():
            checks += _text(name, rule)
    if expectations.environment:  # whose frames may well be blank
        checks += _episodes(rows, sound)
    else:
        checks += _samples(rows, sound, expectations)
        checks += rated.checks(sound, expectations.ratings) if expectations.ratings else ()
    return checks


def _schema(expectations: Expectations) -> Checks:
    wanted = [*held(expectations)]
    if expectations.environment:
        wanted += [name for name in episodes.COLUMNS if name not in wanted]
    yield gxe.ExpectTableColumnsToMatchSet(column_set=wanted, exact_match=False, meta=_meta(ROWS, "column present"))
    for split in SPLITS:
        yield gxe.ExpectTableRowCountToBeBetween(
            min_value=1,
            row_condition=Column(SPLIT) == split,
            description=f"at least one row in split {split}",
            meta=_meta(ROWS, "rows", split=split),
        )


def _type(name: str, rule: ColumnRule, rows: pd.DataFrame) -> Checks:
    if rule.kind == "tensor":
        for part, wanted in (("shape", str(rule.shape)), ("dtype", rule.dtype)):
            yield gxe.ExpectColumnValuesToBeInSet(
                column=f"{name}.{part}", value_set=[wanted], meta=_meta(name, f"tensor {part}")
            )
    elif rows[name].notna().any():  # a column of nothing is missing values, not a type
        meta, (first, *others) = _meta(name, "type", kind=rule.kind), TYPES[rule.kind]
        if others:
            yield gxe.ExpectColumnValuesToBeInTypeList(column=name, type_list=[first, *others], meta=meta)
        else:  # a list of types does not know pandas' str
            yield gxe.ExpectColumnValuesToBeOfType(column=name, type_=first, meta=meta)


def _is_sound(rows: pd.DataFrame, name: str, rule: ColumnRule) -> bool:
    if rule.kind == "tensor":
        return f"{name}.min" in rows
    return rows[name].isna().all() or rows[name].dtype in [pd.api.types.pandas_dtype(t) for t in TYPES[rule.kind]]


# ── one column ──────────────────────────────────────────────────────────────────────────────────────────


def _values(name: str, rule: ColumnRule, rows: pd.DataFrame) -> Checks:
    yield _missing(name, rule)
    if not rows[name].notna().any():
        return
    if rule.role == "id":
        yield gxe.ExpectColumnValuesToBeUnique(column=name, meta=_meta(name, "unique id"))
    if rule.values is not None:
        allowed = [float(v) for v in rule.values] if rule.kind == "number" else rule.values
        yield gxe.ExpectColumnValuesToBeInSet(column=name, value_set=allowed, meta=_meta(name, "allowed values"))
    floats = rows[name].dtype.kind == "f"
    if rule.kind == "number" and (floats or rule.min is not None or rule.max is not None):
        yield _between(name, name, rule)
    elif rule.kind == "date" and (rule.min is not None or rule.max is not None):
        low, high = (None if edge is None else datetime.fromisoformat(str(edge)) for edge in (rule.min, rule.max))
        yield gxe.ExpectColumnValuesToBeBetween(
            column=name, min_value=low, max_value=high, meta=_meta(name, "range", allowed=[rule.min, rule.max])
        )


def _missing(name: str, rule: ColumnRule) -> Expectation:
    return ExpectColumnMissingShareToBeAtMost(
        column=name,
        share=rule.missing,
        description=f"at most {percent(rule.missing)} of the values of any split missing",
        meta=_meta(name, "missing values"),
    )


def _between(column: str, name: str, rule: ColumnRule) -> Expectation:
    """Numbers within the rule's bounds; where it has none, at least finite."""
    low = -LARGEST if rule.min is None else float(rule.min)
    high = LARGEST if rule.max is None else float(rule.max)
    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, meta=_meta(name, "range", allowed=[rule.min, rule.max])
    )


def _tensor(name: str, rule: ColumnRule) -> Checks:
    """A tensor with elements that are no number counts as a missing one."""
    yield _missing(name, rule)
    yield _none(f"{name}.nan", name, "elements that are no number", rule.missing)
    for column in (f"{name}.min", f"{name}.max"):
        yield _between(column, name, rule)


def _text(name: str, rule: ColumnRule) -> Checks:
    if rule.longest is not None or rule.role == "target":  # nothing can be learnt of what is to be an empty text
        yield gxe.ExpectColumnValuesToBeBetween(
            column=f"{name}.characters",
            min_value=1,
            max_value=rule.longest,
            meta=_meta(name, "characters", allowed=[1, rule.longest]),
        )
    for part, share, what in (
        ("damaged", rule.damaged, "decoded wrongly (U+FFFD, control characters, mojibake)"),
        ("foreign", rule.foreign, "mostly in a script that the training rows do not use"),
    ):
        yield ExpectTextShareToBeAtMost(
            column=f"{name}.{part}",
            share=share,
            description=f"at most {percent(share)} of the texts of any split {what}",
            meta=_meta(name, f"{part} text"),
        )
    yield ExpectWordsToBeKnown(
        column=name,
        share=rule.unknown,
        description=f"at most {percent(rule.unknown)} of the words of any split not in the training rows",
        meta=_meta(name, "unknown words"),
    )
    if rule.role == "input":  # what is written may well be what was written before
        yield ExpectTextsToDifferAcrossSplits(
            column=name,
            share=rule.alike,
            description=f"at most {percent(rule.alike)} of the texts of any split with {alike.WORDS} words or more and "
            f"{percent(1 - alike.DIFFER)} of them as in a text of an earlier split",
            meta=_meta(name, "texts alike across splits"),
        )


def _none(column: str, name: str, rule: str, share: float = 0.0) -> Expectation:
    """`rule` says what is 0 in a sound row."""
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=0,
        max_value=0,
        mostly=1 - share,
        description=f"at most {percent(share)} of the rows with {rule}",
        meta=_meta(name, rule),
    )


# ── samples with a target ───────────────────────────────────────────────────────────────────────────────


def _samples(rows: pd.DataFrame, sound: dict[str, ColumnRule], expectations: Expectations) -> Checks:
    for name, rule in sound.items():
        if rule.kind == "tensor" and (len(rule.shape) > 1 or rule.shape[0] >= BLANK_ELEMENTS):
            yield _none(f"{name}.constant", name, _blank(rule), rule.missing)  # a blank one counts as a missing one
    target = expectations.column("target")
    if target in sound:
        yield from _variety(target, sound[target], expectations)
    whole = all(n in sound for n, r in held(expectations).items() if r.role in ("input", "target"))
    if CONTENT in rows and whole:  # rows without all of their columns are alike for another reason
        for across in (False, True):
            share = expectations.duplicates.across if across else expectations.duplicates.within
            other = "of an earlier split" if across else "of the same split"
            yield ExpectRepeatedRowShareToBeAtMost(
                share=share,
                across=across,
                description=f"at most {percent(share)} of the rows of any split repeating a row {other}",
                meta=_meta(ROWS, "duplicates across splits" if across else "duplicates within a split"),
            )
    if NEARLY in rows and whole:
        share = expectations.duplicates.near
        yield ExpectRepeatedRowShareToBeAtMost(
            share=share,
            across=True,
            of=NEARLY,
            description=f"at most {percent(share)} of the rows of any split nearly repeating a row of an earlier split",
            meta=_meta(ROWS, "near-duplicates across splits"),
        )
    if target in sound and sound[target].kind != "text" and rows[target].notna().any():
        yield from _leakage(target, sound, expectations)


def _blank(rule: ColumnRule) -> str:
    if is_series(rule.shape, rule.parts) and rule.shape[0] > 1:
        return "series with a channel of one value"
    return f"{'series' if len(rule.shape) == 1 or is_series(rule.shape, rule.parts) else 'images'} of one value"


def _variety(target: str, rule: ColumnRule, expectations: Expectations) -> Checks:
    if rule.values is None:
        yield gxe.ExpectColumnUniqueValueCountToBeBetween(
            column=target,
            min_value=2,
            row_condition=Column(SPLIT) == SPLITS[0],
            description="at least two different values in the training rows",
            meta=_meta(target, "a target that varies", split=SPLITS[0]),
        )
    elif share := expectations.class_share:
        yield ExpectClassesToBeBalanced(
            column=target,
            classes=rule.values,
            share=share,
            description=f"at least two classes, and the rarest in at least {percent(share)} of the training rows",
            meta=_meta(target, "class balance", split=SPLITS[0]),
        )


def _leakage(target: str, sound: dict[str, ColumnRule], expectations: Expectations) -> Checks:
    classes = sound[target].values is not None
    for name, rule in sound.items():
        if rule.role != "input" or rule.kind == "text":  # a text is there once: it gives nothing away by itself
            continue
        for column in (f"{name}.min", f"{name}.max") if rule.kind == "tensor" else (name,):
            yield ExpectColumnNotToGiveAwayTheTarget(
                column=column,
                target=target,
                classes=classes,
                score=expectations.leakage,
                description=f"at most {expectations.leakage:g} in predicting the target from this column alone",
                meta=_meta(name, "target leakage"),
            )


# ── recorded episodes ───────────────────────────────────────────────────────────────────────────────────


def _episodes(rows: pd.DataFrame, sound: dict[str, ColumnRule]) -> Checks:
    for name in (episodes.OBSERVATION, episodes.ACTION):
        if f"{name}.outside" in rows:
            yield _none(f"{name}.outside", name, "elements outside the environment's space")
    if episodes.EPISODE not in sound:
        return
    yield ExpectEpisodesToKeepToOneSplit(
        episode=episodes.EPISODE,
        description="all rows of an episode are in one split",
        meta=_meta(episodes.EPISODE, "one split an episode"),
    )
    if episodes.STEP in sound:
        yield ExpectStepsToBeContiguous(
            episode=episodes.EPISODE,
            step=episodes.STEP,
            description="the rows of an episode count its steps from 0, one by one",
            meta=_meta(episodes.STEP, "contiguous steps"),
        )
    if all(name in sound for name in episodes.ENDS):
        yield ExpectEpisodesToEndOnce(
            episode=episodes.EPISODE,
            ends=[*episodes.ENDS],
            description="the last row of an episode, and no other, is terminated or truncated",
            meta=_meta(episodes.EPISODE, "episodes end once"),
        )


def _meta(column: str, rule: str, **more: Any) -> dict[str, Any]:
    return {"column": column, "rule": rule, **more}
