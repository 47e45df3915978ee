"""Hold a dataset to what it promises, by Great Expectations, before anything learns from it.

Whatever the samples are made of, what is checked is a table of one row per sample (summary.py). The expectations
come from what the dataset promises (rules.py); this file runs them and says what failed. This file and
its neighbours validation_*.py are the only ones that import great_expectations.
"""

from __future__ import annotations

import dataclasses
import fcntl
import html
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from .. import receipts
from ..contract import SPLIT, Data, Json
from ..errors import ValidationFailed
from ..expectations import Expectations
from . import episodes, summary
from .summary import ROW

SHOWN = 8  # failures that a message names; the page has them all
# Great Expectations keeps its current project in a variable of the process: one validation at a time.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Failure:
    """One broken rule of one column ("*": of whole rows).

    `count` rows offend in all. `rows` are the ids of the first of them, five at most, or their numbers in the split
    where rows have no id; all of them are in `split`, which is empty where the rule is not about rows.
    """

    column: str
    rule: str
    count: int
    rows: tuple[str | int, ...]
    split: str
    detail: str

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows)) + (", …" if self.count > len(self.rows) else "")
        where = f" ({self.split} {shown})" if self.rows else ""
        count = f"{self.count} row{'s' * (self.count != 1)}{where}: " if self.count else ""
        return f"{self.column}: {self.rule}: {count}{self.detail}"


@dataclass(frozen=True)
class Validation:
    """What came of validating `dataset`: how many checks there were, and which failed. `docs_page` opens offline."""

    dataset: str
    passed: bool
    checks: int
    failures: tuple[Failure, ...]
    docs_page: Path

    def to_json(self) -> Json:
        """The same for the same rows and expectations, wherever and whenever."""
        return {
            "dataset": self.dataset,
            "passed": self.passed,
            "checks": self.checks,
            "failures": [{**dataclasses.asdict(f), "rows": list(f.rows)} for f in self.failures],
        }


def validate(data: Data, expectations: Expectations, docs: Path) -> Validation:
    """Check every row of every split. Leaves Great Expectations' context and Data Docs in the folder `docs`.

    Data Docs appear as a whole, in place of those before. Threads and processes that validate at the same time
    wait for each other.
    """
    rows = summary.summarise(data, expectations)
    if expectations.environment:
        rows = rows.join(episodes.outside(data))
    docs.parent.mkdir(parents=True, exist_ok=True)
    with _ONE_AT_A_TIME, _alone(docs), receipts.replacing_folder(docs) as folder:
        results = _check(rows, expectations, data.spec.dataset, folder)
        failures = tuple(failure for result in results if not result.success for failure in _failures(result, rows))
        _lay_out(folder, failures, len(results))
    return Validation(data.spec.dataset, not failures, len(results), failures, docs / "index.html")


def raise_for_failures(validation: Validation) -> None:
    """Raise ValidationFailed, which names every failure up to SHOWN, unless all is well."""
    if validation.passed:
        return
    name, failures = validation.dataset, validation.failures
    more = len(failures) - SHOWN
    told = [str(f) for f in failures[:SHOWN]] + ([f"and {more} more"] if more > 0 else [])
    raise ValidationFailed(
        f"{len(failures)} failures in {validation.checks} checks",
        where=f"data/{name}.parquet",
        why="\n       ".join(told),
        fix=f"mend the rows, or what is promised of them (expectations/{name}.yaml, or the dataset's own "
        f"module if it is built in); all rules and rows: {validation.docs_page}",
    )


def _alone(docs: Path) -> IO[str]:
    """Hold the folder against other processes; the hold goes with the process, however it ends."""
    lock = docs.with_name(f"{docs.name}.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


# ── Great Expectations ──────────────────────────────────────────────────────────────────────────────────


def _check(rows: pd.DataFrame, expectations: Expectations, name: str, folder: Path) -> list[Any]:
    """The result of every check, in order. The folder is new, so everything in it is added, nothing updated."""
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction
    from great_expectations.data_context.types.base import ProgressBarsConfig

    from . import checks, docs, rules

    context = gx.get_context(mode="file", project_root_dir=folder)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.enable_analytics(False)
    context.update_data_docs_site("local_site", docs.site("uncommitted/data_docs/local_site"))
    suite = context.suites.add(gx.ExpectationSuite(name, expectations=rules.rules(rows, expectations)))
    asset = context.data_sources.add_pandas("tidemill").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("rows")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[definition],
        actions=[UpdateDataDocsAction(name="data docs")],
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": checks.FIRST_ROWS,
            "return_unexpected_index_query": False,
        },
    )
    result = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows})
    (found,) = result.run_results.values()
    # Great Expectations groups them its own way; people read them in the suite's order.
    places = {check.id: place for place, check in enumerate(suite.expectations)}
    return sorted(found.results, key=lambda one: places[one.expectation_config.id])


def _lay_out(folder: Path, failures: tuple[Failure, ...], checks: int) -> None:
    """Put the page of results where it is easily found, failures first; drop the fonts that no page uses."""
    site = folder / "gx" / "uncommitted" / "data_docs" / "local_site"
    (page,) = site.rglob("validations/**/*.html")
    told = "".join(f"<li>{html.escape(str(failure))}</li>" for failure in failures)
    count = f"{len(failures)} failures in {checks} checks"
    head = f'<section class="failures"><h2>{count}</h2><ul>{told}</ul></section>' if failures else ""
    text = page.read_text(encoding="utf-8").replace("<main>", f"<main>{head}", 1)
    (folder / "index.html").write_text(text, encoding="utf-8")
    shutil.rmtree(site / "static")


# ── from results to failures ────────────────────────────────────────────────────────────────────────────


def _failures(result: Any, rows: pd.DataFrame) -> Iterator[Failure]:
    """What a check that did not succeed says; one failure for each absent column."""
    meta, found = result.expectation_config.meta, result.result
    absent = found.get("details", {}).get("mismatched", {}).get("missing", [])
    yield from (Failure(name, meta["rule"], len(rows), (), "", "no such column") for name in absent)
    if absent:
        return
    first = rows.loc[found.get("partial_unexpected_index_list") or [], [SPLIT, ROW]]
    split = meta.get("split") or (first[SPLIT].iloc[0] if len(first) else "")
    named = tuple(_plain(row) for row in first[ROW][first[SPLIT] == split])
    # A rule that names no rows is about all of those that it looked at.
    looked_at = int((rows[SPLIT] == split).sum()) if split else len(rows)
    count = int(found.get("unexpected_count", looked_at))
    yield Failure(meta["column"], meta["rule"], count, named, split, _detail(result))


def _detail(result: Any) -> str:
    config, found = result.expectation_config, result.result
    raised = list(_raised(result.exception_info))
    if raised:
        return f"could not be checked: {raised[0]}"
    if config.description:
        observed = found.get("observed_value", f"{found.get('unexpected_percent', 0):.3g}% of the rows")
        return f"got {observed}, expected {config.description}"
    values = found.get("partial_unexpected_list", [])
    if "kind" in config.meta:
        given = found.get("observed_value") or type(values[0]).__name__
        return f"values are {given}, expected a {config.meta['kind']}"
    got = f"got {_list([_show(v) for v in values])}"
    if "value_set" in config.kwargs:
        return f"{got}, expected {_list([_show(v) for v in config.kwargs['value_set']])}"
    if "allowed" in config.meta:
        return f"{got}, expected {_range(*config.meta['allowed'])}"
    return got


def _range(low: Any, high: Any) -> str:
    if low is None and high is None:
        return "any finite number"
    shown = [edge if isinstance(edge, str) else _show(edge) for edge in (low, high)]
    return f"{shown[1]} or less" if low is None else f"{shown[0]} or more" if high is None else " to ".join(shown)


def _raised(info: Any) -> Iterator[str]:
    """Messages of exceptions: Great Expectations keeps one, or one for each metric."""
    for one in [info, *(v for v in (info or {}).values() if isinstance(v, dict))]:
        if one and one.get("raised_exception"):
            yield str(one.get("exception_message"))


def _list(values: list[str], most: int = 10) -> str:
    distinct = list(dict.fromkeys(values))
    return ", ".join(distinct[:most]) + (f", … ({len(distinct)} in all)" if len(distinct) > most else "")


def _show(value: Any) -> str:
    if isinstance(value, str):
        return repr(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str | int:
    """The id of a row as JSON knows it."""
    if isinstance(value, int | float | np.number) and float(value).is_integer():
        return int(value)
    return str(value)
