"""expectations/NAME.yaml: what a table or recorded episodes promise, written once and then its owner's to edit."""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from .. import receipts
from ..errors import ParamsError
from ..expectations import ColumnRule, Expectations, clashes, seeds
from ..faults import fault, faults
from .episodes import COLUMNS, OBSERVATION

HEAD = """\
What {name} promises: inferred once from its training rows, then yours to edit. It is never written again;
delete it to have it inferred anew. After a change: tidemill data fetch {name}

role     input (default), target, id (names the row) or ignored (kept, never learnt from)
kind     number, category, date, text (free text, to be read or, as a target, to be written) or tensor
missing  highest share of missing values in a split (default 0)
min max  bounds of a number or a date; without them any will do
values   all values that may come, as text; without them any will do. Those of a target are its classes:
         a target of kind number without values is for regression
longest  most characters of a text; damaged, foreign, unknown: highest shares of texts decoded wrongly, of texts mostly
         in a script that the column's training rows do not use, and of words that they do not hold; alike: of texts
         of which a quarter of the words, or less, is not as in a text of an earlier split (default 1: looked at, never
         a fault)
dtype    of a date: how it is written where that is not ISO 8601, such as "%d/%m/%Y"
parts    of a tensor: the columns that it is put together from, in the order of its elements; or, where each file is
         one series, a column for each channel
duplicates   highest share of rows that repeat inputs and target of another: within a split, and across splits;
             near: across splits, once texts are without case, signs and spaces; of inputs alone if the target is a text
class_share  lowest share of training rows that the rarest class may have
leakage      highest score on held-out rows that one column alone may reach in predicting the target
ratings      where the target is what a user gave an item, the two columns and the highest shares of rows whose pair is
             rated again (repeats), and of val and test rows whose user or item is not among the training rows
"""

ENVIRONMENT_HEAD = """\
What {name} promises: inferred once from recorded episodes, then yours to edit. It is never written again;
delete it to have it inferred anew.

environment           as params.yaml has it, and so environment_settings and environment_wrappers, the innermost first
evaluation            of train, val or test: how many episodes measure a policy, as params.yaml has it, and the seed of
                      the first; those of val are played after each epoch
role, kind            of each column; the observation is what is learnt from
min max               bounds of a number, or of every element of a tensor
dtype, shape          of a tensor
"""


def read(file: Path) -> Expectations:
    """Raises ParamsError with a line for each fault: `NAME.yaml:LINE key.path: got X, expected Y`."""
    where = f"expectations/{file.name}"
    try:
        raw = YAML(typ="rt").load(file.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ParamsError(f"not YAML: {error.problem}", where=f"{where}:{line}", fix="mend the line") from error
    if not isinstance(raw, dict):
        raise ParamsError("holds no columns", where=f"{where}:1", fix="delete it to have it inferred anew")
    _dates_as_text(raw)
    try:
        read = Expectations.model_validate(raw)
    except ValidationError as error:
        found = faults(error, raw, where, Expectations)
    else:
        found = [fault(raw, where, loc, text) for loc, text in _cross_checks(read)]
        if not found:
            return read
    raise ParamsError("\n".join(line for _, line in sorted(set(found))))


def write(file: Path, expectations: Expectations, remarks: Mapping[str, str]) -> None:
    """Write the file in one step. `remarks` are for single columns."""
    columns = _columns(expectations, remarks)
    head, document = (HEAD, _of_rows) if not expectations.environment else (ENVIRONMENT_HEAD, _of_episodes)
    written = document(expectations, columns)
    written.yaml_set_start_comment(head.format(name=file.stem))
    yaml = YAML()
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(written, text)
    receipts.write_file(file, text.getvalue().encode())


def _columns(expectations: Expectations, remarks: Mapping[str, str]) -> CommentedMap:
    written = CommentedMap()
    for name, rule in expectations.columns.items():
        stated = CommentedMap({k: _as_written(v) for k, v in rule.model_dump(exclude_defaults=True).items()})
        if remarks.get(name):
            stated.yaml_add_eol_comment(remarks[name], "kind")
        written[name] = stated
    return written


def _of_rows(expectations: Expectations, columns: CommentedMap) -> CommentedMap:
    document = CommentedMap(columns=columns, duplicates=CommentedMap(expectations.duplicates.model_dump()))
    if expectations.ratings:
        document["ratings"] = CommentedMap(expectations.ratings.model_dump())
    document["class_share"], document["leakage"] = expectations.class_share, expectations.leakage
    return document


def _of_episodes(expectations: Expectations, columns: CommentedMap) -> CommentedMap:
    document = CommentedMap(environment=expectations.environment)
    if expectations.environment_settings:
        document["environment_settings"] = expectations.environment_settings
    if expectations.environment_wrappers:
        document["environment_wrappers"] = _as_written(expectations.environment_wrappers)
    if expectations.evaluation:
        told = {split: CommentedMap(of.model_dump()) for split, of in expectations.evaluation.items()}
        for one in told.values():
            one.fa.set_flow_style()
        document["evaluation"] = CommentedMap(told)
    document["columns"] = columns
    return document


def _as_written(value: Any) -> Any:
    """Lists on one line, whole numbers without a point."""
    if isinstance(value, list | tuple):
        written = CommentedSeq(value)
        written.fa.set_flow_style()
        return written
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _dates_as_text(raw: Any) -> None:
    """YAML takes a bare 2024-01-31 for a date; here it is a bound, which is text."""
    rules = raw.get("columns")
    for rule in rules.values() if isinstance(rules, dict) else ():
        for key in ("min", "max") if isinstance(rule, dict) else ():
            if isinstance(rule.get(key), dt.date):
                rule[key] = rule[key].isoformat()


def _cross_checks(read: Expectations) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Faults that one value alone does not show."""
    yield from _episode_checks(read) if read.environment else _row_checks(read)
    for key in ("environment_settings", "environment_wrappers", "evaluation"):
        if getattr(read, key) and not read.environment:
            yield (key,), f"got {key} without an environment, expected both"
    for name, rule in read.columns.items():
        at = ("columns", name)
        if rule.kind == "tensor" and not (rule.dtype and rule.shape):
            yield (*at, "kind"), "got a tensor without dtype and shape, expected both"
        yield from _bound_checks(rule, at)


def _row_checks(read: Expectations) -> Iterator[tuple[tuple[Any, ...], str]]:
    for role in ("target", "id"):
        named = [name for name, rule in read.columns.items() if rule.role == role]
        for name in named[1:]:
            yield ("columns", name, "role"), f"got a second {role}, expected one; {named[0]!r} is the first"
    if read.column("target") is None:
        yield ("columns",), "got no target, expected a column with `role: target`"
    if not any(rule.role == "input" for rule in read.columns.values()):
        yield ("columns",), "got no input, expected a column to learn from"
    yield from _rating_checks(read)
    for name, rule in read.columns.items():
        at = ("columns", name)
        if rule.role == "target" and rule.kind not in ("number", "category", "text"):
            yield (*at, "kind"), f"got {rule.kind!r} for a target, expected number, category or text"
        if rule.role == "target" and rule.kind == "text" and (inputs := _inputs(read)) != ["text"]:
            yield (*at, "kind"), f"got a text for inputs {', '.join(inputs) or 'none'}, expected one input, a text"
        if rule.role == "target" and (rule.kind == "category") != (rule.values is not None):
            yield (
                (*at, "kind"),
                f"got {rule.kind} {'without' if rule.values is None else 'with'} values, expected "
                "a target of kind category with values, or of kind number or text without",
            )
        if rule.role == "target" and rule.values is not None and len(set(rule.values)) < 2:
            yield (*at, "values"), f"got {rule.values!r}, expected two classes at least"
        if rule.longest is not None and rule.kind != "text":
            yield (*at, "longest"), f"got a length for a {rule.kind}, expected one of a text"
        if rule.parts and len(rule.parts) not in (math.prod(rule.shape), *rule.shape[:1]):
            expected = f"one for each of {math.prod(rule.shape)} elements, or for each channel"
            yield (*at, "parts"), f"got {len(rule.parts)} parts for shape {list(rule.shape)}, expected {expected}"


def _episode_checks(read: Expectations) -> Iterator[tuple[tuple[Any, ...], str]]:
    absent = [name for name in ("id", *COLUMNS) if name not in read.columns]
    if absent:
        yield ("columns",), f"got no column {', '.join(absent)}, expected all that recorded episodes have"
    for name, rule in read.columns.items():
        role = {"id": "id", OBSERVATION: "input"}.get(name, "ignored")
        if rule.role != role:
            yield ("columns", name, "role"), f"got {rule.role!r}, expected {role}, as recorded episodes have it"
    for split, wrong in clashes(seeds(read.evaluation)):
        yield ("evaluation", split), wrong


def _inputs(read: Expectations) -> list[str]:
    return [rule.kind for rule in read.columns.values() if rule.role == "input"]


def _rating_checks(read: Expectations) -> Iterator[tuple[tuple[Any, ...], str]]:
    if read.ratings is None:
        return
    for key in ("user", "item"):
        name = getattr(read.ratings, key)
        rule = read.columns.get(name)
        if rule is None or rule.role != "input" or rule.kind != "category":
            told = "no column of that name" if rule is None else f"its role is {rule.role}, its kind {rule.kind}"
            yield ("ratings", key), f"got {name!r}, expected an input of kind category; {told}"
    if read.ratings.user == read.ratings.item:
        yield ("ratings", "item"), f"got {read.ratings.item!r} for both, expected another column than the user's"
    target = read.column("target")
    if target and read.columns[target].values is not None:
        yield ("columns", target, "values"), "got classes for a rating, expected a target of kind number without values"


def _bound_checks(rule: ColumnRule, at: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    for key in ("min", "max"):
        bound = getattr(rule, key)
        if bound is None:
            continue
        if rule.kind == "date" and not _is_date(bound):
            yield (*at, key), f"got {bound!r}, expected a date such as 2024-01-31"
        elif rule.kind in ("number", "tensor") and isinstance(bound, str):
            yield (*at, key), f"got {bound!r}, expected a number"
        elif rule.kind in ("category", "text"):
            yield (*at, key), f"got a bound of a {rule.kind}, expected one of a number or a date"
    if rule.min is not None and type(rule.min) is type(rule.max) and rule.min > rule.max:  # type: ignore[operator]
        yield (*at, "max"), f"got {rule.max!r}, expected no less than min, {rule.min!r}"


def _is_date(bound: object) -> bool:
    try:
        dt.datetime.fromisoformat(str(bound))
    except ValueError:
        return False
    return True
