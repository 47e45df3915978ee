"""Every pipeline beside its rivals on the same rows, over several seeds: make benchmark, or
python -m benchmarks.families [PIPELINE…]. Writes benchmarks/results.json and its twin results.md, misses included.

A pipeline must have run: its winner is the first of the seeds. Its configuration is trained again with each other one,
for as many epochs, and held to the test rows likewise. Rows of pipelines that are not named stay as they were.
A row with folds is trained on all but one part of all rows, val rows among them, so the epoch is the winner's last.
A row with a varied setting trains the winner's configuration once for each of its values.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from components.contract import Json, Metrics
from components.errors import TidemillError

from .rows import Figures, Rivals, Row, rows
from .trained import Figure, data_of, facts, folded, learnt, resolved

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


How: TypeAlias = tuple[str, int, bool, int] | tuple[str, int, bool, int, tuple[str, Json]]  # what trained.learnt takes


class Trainings:
    """Test metrics of trainings by a pool: those of all rows are begun at once, each once, whoever asks for it."""

    def __init__(self, pool: Executor, asked: Sequence[Row]) -> None:
        pairs = ((name, row) for row in asked for name in (row.pipeline, *row.beside))
        hows: dict[How, dict[Figure, None]] = {}  # and what is found beside metrics, each once
        for name, row in pairs:
            for how in self._hows(name, row):
                hows.setdefault(how, {}).update({row.figures: None} if row.figures else {})
        self._begun: dict[How, Future[Metrics]] = {
            how: pool.submit(learnt, *how, **({"figures": tuple(found)} if found else {}))
            for how, found in hows.items()
        }

    def __call__(self, pipeline: str, row: Row) -> list[Metrics]:
        return [self._begun[how].result() for how in self._hows(pipeline, row)]

    def _hows(self, pipeline: str, row: Row) -> list[How]:
        if row.varied:
            name, values = row.varied
            return [(pipeline, 0, False, 0, (name, value)) for value in values]
        return [(pipeline, row.folds, row.new_users, run) for run in range(row.runs)]


def measured(group: Sequence[Row], trained: Trainings) -> Iterator[Outcome]:
    """The rows of one pipeline. Its trainings serve them all, and so does what one rival made of a seed or a fold."""
    asked = resolved(group[0].pipeline)
    for pipeline in {asked.name, *(name for row in group for name in row.beside)}:
        facts(resolved(pipeline))
    data = data_of(asked)
    found: dict[tuple[Rivals, int, bool, int], Figures] = {}
    for row in group:
        test, how = f"test/{row.metric}", (row.rivals, row.folds, row.new_users)
        ours = {name: trained(name, row) for name in (row.pipeline, *row.beside)}
        values = {name: [float(metrics[test]) for metrics in each] for name, each in ours.items()}
        for run in range(row.runs):
            if (*how, run) not in found:
                part = folded(data, run, row.folds, row.new_users) if row.folds else data
                found[(*how, run)] = row.rivals(part, run)
        figures = [found[(*how, run)] for run in range(row.runs)]
        rivals = {name: [float(each[name][row.metric]) for each in figures] for name in figures[0]}
        yield Outcome(row, asked.block.family, values.pop(row.pipeline), rivals | values)


# ── writing it down ─────────────────────────────────────────────────────────────────────────────────────


def write(outcomes: Sequence[dict[str, Any]]) -> None:
    """results.json and results.md, sorted by pipeline and metric."""
    ordered = sorted(outcomes, key=lambda one: (one["pipeline"], one["metric"]))
    (HERE / "results.json").write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
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
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


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
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        try:
            return 1 if _missed(chosen, Trainings(pool, chosen)) else 0
        finally:
            pool.shutdown(cancel_futures=True)


def _missed(chosen: Sequence[Row], trained: Trainings) -> int:
    """Measure the rows and write down each pipeline's once they are there; how many miss or cannot be measured."""
    file = HERE / "results.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    missed = 0
    for pipeline in dict.fromkeys(row.pipeline for row in chosen):
        try:
            outcomes = list(measured([row for row in chosen if row.pipeline == pipeline], trained))
        except TidemillError as error:
            print(error, file=sys.stderr)
            missed += 1
            continue
        for outcome in outcomes:
            verdict = f"missed: {', '.join(outcome.misses)}" if outcome.misses else "met"
            print(f"{pipeline:20} {outcome.row.metric:20} {_mean(outcome.ours)}  {verdict}", flush=True)
        kept = [one for one in kept if one["pipeline"] != pipeline] + [outcome.to_json() for outcome in outcomes]
        missed += sum(bool(outcome.misses) for outcome in outcomes)
        write(kept)
    return missed


if __name__ == "__main__":
    sys.exit(main())
