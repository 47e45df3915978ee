"""Every pipeline beside its rivals on the same rows, over several seeds: make benchmark, or
python -m benchmarks.families [PIPELINE…]. Writes benchmarks/results.json and its twin results.md, misses included.

A pipeline must have run: its winner is the first of the seeds. Its configuration is trained again with each other one,
for as many epochs, and held to the test rows likewise. Rows of pipelines that are not named stay as they were.
A row with folds is trained on all but one part of all rows, val rows among them, so the epoch is the winner's last.
A row with a varied setting trains the winner's configuration once for each of its values.
It takes hours. Stopped, it goes on where it was: see benchmarks/once.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from components import receipts
from components.contract import Metrics
from components.errors import TidemillError

from .once import once
from .rows import Row, rows
from .trained import Figure, Figures, learnt, resolved, rivalled

HERE = Path(__file__).parent
AT_ONCE = 2


@dataclass(frozen=True)
class Outcome:
    """One row measured."""

    row: Row
    family: str
    ours: list[float]
    rivals: dict[str, list[float]]

    @property
    def misses(self) -> list[str]:
        """What the mean of ours does not reach, in words."""
        mean, row = statistics.fmean(self.ours), self.row
        rivals = {name: statistics.fmean(self.rivals[name]) for name in (*row.above, *row.level)}
        missed = [f"{name} {rivals[name]:.4f}" for name in row.above if not self._better(mean, rivals[name])]
        missed += [f"{name} {rivals[name]:.4f}" for name in row.level if not self._reached(mean, rivals[name])]
        if row.mark is not None and not self._reached(mean, row.mark):
            missed.append(f"mark {row.mark:g}")
        return missed

    def _better(self, a: float, b: float) -> bool:
        return a > b if self.row.mode == "max" else a < b

    def _reached(self, a: float, b: float) -> bool:
        return a == b or self._better(a, b)

    def to_json(self) -> dict[str, Any]:
        row = self.row
        said = {"pipeline": row.pipeline, "family": self.family, "metric": row.metric, "ours": self.ours}
        held = {"mark": row.mark, "above": list(row.above), "level": list(row.level)}
        return said | {"rivals": self.rivals, **held, "met": not self.misses}


# ── measuring ───────────────────────────────────────────────────────────────────────────────────────────


Work: TypeAlias = tuple[Any, ...]  # a function, a pipeline, and what else the function is asked: see benchmarks/once.py


class Measurements:
    """What trainings and rivals reach, by a pool: all that the rows want is begun at once in their order, each once,
    whoever asks for it, and what an earlier benchmark found is not sought again."""

    def __init__(self, pool: Executor, asked: Sequence[Row]) -> None:
        wanted: dict[Work, dict[Figure, None]] = {}  # and what is found beside metrics, each once
        for row in asked:
            for name in (row.pipeline, *row.beside):
                for work in _trainings(name, row):
                    wanted.setdefault(work, {}).update({row.figures: None} if row.figures else {})
            wanted.update({work: {} for work in _rivals(row) if work not in wanted})
        self._begun: dict[Work, Future[Any]] = {
            work: pool.submit(once, *work, **({"figures": tuple(found)} if found else {}))
            for work, found in wanted.items()
        }

    def ours(self, pipeline: str, row: Row) -> list[Metrics]:
        return [self._begun[work].result() for work in _trainings(pipeline, row)]

    def rivals(self, row: Row) -> list[Figures]:
        return [self._begun[work].result() for work in _rivals(row)]


def _trainings(pipeline: str, row: Row) -> list[Work]:
    if row.varied:
        name, values = row.varied
        return [(learnt, pipeline, 0, False, 0, (name, value)) for value in values]
    return [(learnt, pipeline, row.folds, row.new_users, run) for run in range(row.runs)]


def _rivals(row: Row) -> list[Work]:
    return [(rivalled, row.pipeline, row.rivals, row.folds, row.new_users, run) for run in range(row.runs)]


def measured(row: Row, done: Measurements) -> Outcome:
    test = f"test/{row.metric}"
    values = {name: [float(metrics[test]) for metrics in done.ours(name, row)] for name in (row.pipeline, *row.beside)}
    figures = done.rivals(row)
    rivals = {name: [float(each[name][row.metric]) for each in figures] for name in figures[0]}
    return Outcome(row, resolved(row.pipeline).block.family, values.pop(row.pipeline), rivals | values)


# ── writing it down ─────────────────────────────────────────────────────────────────────────────────────


def write(outcomes: Sequence[dict[str, Any]]) -> None:
    """results.json and results.md, sorted by pipeline and metric."""
    ordered = sorted(outcomes, key=lambda one: (one["pipeline"], one["metric"]))
    receipts.write_file(HERE / "results.json", (json.dumps(ordered, indent=1) + "\n").encode())
    lines = [
        "# Every family beside its rivals",
        "Written by `make benchmark`: means over seeds, ± the standard deviation. Same rows, same command.",
        "",
        "| pipeline | family | metric | ours | rivals | must reach | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in ordered:
        rivals = "<br>".join(f"{name} {_mean(values)}" for name, values in one["rivals"].items()) or "–"
        marks = ([] if one["mark"] is None else [f"{one['mark']:g}"]) + one["above"]
        marks += [f"{name} at least" for name in one.get("level", [])]  # rows measured before there was any lack it
        met = ("yes" if one["met"] else "**no**") if marks else "–"
        told = [one["pipeline"], one["family"], one["metric"], _mean(one["ours"]), rivals, ", ".join(marks) or "–", met]
        lines.append(f"| {' | '.join(told)} |")
    lines += _signatures({one["metric"] for one in ordered})
    receipts.write_file(HERE / "results.md", ("\n".join(lines) + "\n").encode())


def _signatures(metrics: set[str]) -> list[str]:
    """How sacrebleu computed the figures that have its name."""
    if not metrics & {"bleu", "chrf"}:
        return []
    from components import wording

    wording.compared(["a"], [["a"]])  # one reference for a text, as every dataset with these metrics has it
    return ["", *(f"{name}: {said}  " for name, said in wording.signatures().items() if name in metrics)]


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def main() -> int:
    told = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    told.add_argument("pipelines", nargs="*", metavar="PIPELINE")
    asked = told.parse_args().pipelines
    chosen = [row for row in rows() if not asked or row.pipeline in asked]
    strangers = set(asked) - {row.pipeline for row in chosen}
    if strangers:
        told.error(
            f"no row for {', '.join(sorted(strangers))}; there are {', '.join(sorted({r.pipeline for r in rows()}))}"
        )
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            return 1 if _missed(chosen, Measurements(pool, chosen)) else 0
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A signal to the command alone ends it without a word to its pool, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _missed(chosen: Sequence[Row], done: Measurements) -> int:
    """Measure the rows and write down each pipeline's once they are there; how many miss or cannot be measured."""
    file = HERE / "results.json"
    missed = 0
    for pipeline in dict.fromkeys(row.pipeline for row in chosen):
        try:
            outcomes = [measured(row, done) for row in chosen if row.pipeline == pipeline]
        except TidemillError as error:
            print(error, file=sys.stderr)
            missed += 1
            continue
        for outcome in outcomes:
            verdict = f"missed: {', '.join(outcome.misses)}" if outcome.misses else "met"
            print(f"{pipeline:20} {outcome.row.metric:20} {_mean(outcome.ours)}  {verdict}", flush=True)
        missed += sum(bool(outcome.misses) for outcome in outcomes)
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []  # by now, others may have written
        write([one for one in kept if one["pipeline"] != pipeline] + [outcome.to_json() for outcome in outcomes])
    return missed


if __name__ == "__main__":
    sys.exit(main())
