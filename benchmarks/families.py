"""Every pipeline beside its rivals on the same rows, over several seeds: make benchmark, or
python -m benchmarks.families [PIPELINE…]. Writes benchmarks/results.json and its twin results.md, misses included.

A pipeline must have run: its winner's configuration is trained again with each seed, for as many epochs, and the best
epoch on the val rows is held to the test rows, as in a sweep. Rows of pipelines that are not named stay as they were.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components import datasets, params, plan, receipts
from components.contract import Data, Metrics
from components.errors import TidemillError
from components.plan import Project, Resolved
from components.workspace import Workspace

from .rows import Row, rows

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
        mean = statistics.fmean(self.ours)
        wanted = {name: statistics.fmean(self.rivals[name]) for name in self.row.above}
        missed = [f"{name} {value:.4f}" for name, value in wanted.items() if not self._better(mean, value)]
        if self.row.mark is not None and not (mean == self.row.mark or self._better(mean, self.row.mark)):
            missed.append(f"mark {self.row.mark:g}")
        return missed

    def _better(self, a: float, b: float) -> bool:
        return a > b if self.row.mode == "max" else a < b

    def to_json(self) -> dict[str, Any]:
        row = self.row
        said = {"pipeline": row.pipeline, "family": self.family, "metric": row.metric, "ours": self.ours}
        return said | {"rivals": self.rivals, "mark": row.mark, "above": list(row.above), "met": not self.misses}


# ── measuring ───────────────────────────────────────────────────────────────────────────────────────────


def learnt(pipeline: str, seed: int) -> Metrics:
    """The test metrics of the winner's configuration, trained with another seed."""
    import torch

    torch.set_num_threads(1)
    asked = resolved(pipeline)
    facts = _trained(asked).facts
    data, family, hyper = data_of(asked), asked.family, {**asked.block.settings, **facts["hyper"]}
    state = None
    for epoch in family.fit(data, hyper, seed, None):
        if epoch.number == facts["winner"]["epochs"]:
            state = epoch.state()
            break
    assert state is not None
    net = family.load(data.spec, hyper, state.served())
    return family.measure(data.spec, family.judge(net, data, "test"), "test")


def measured(group: Sequence[Row]) -> Iterator[Outcome]:
    """The rows of one pipeline; its trainings serve them all."""
    pipeline, seeds = group[0].pipeline, max(row.seeds for row in group)
    asked = resolved(pipeline)
    _trained(asked)
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        ours = list(pool.map(partial(learnt, pipeline), range(seeds)))
    for row in group:
        found = [row.rivals(data_of(asked), seed) for seed in range(row.seeds)]
        rivals = {name: [float(each[name]) for each in found] for name in found[0]}
        values = [float(each[f"test/{row.metric}"]) for each in ours[: row.seeds]]
        yield Outcome(row, asked.block.family, values, rivals)


def resolved(pipeline: str) -> Resolved:
    """A pipeline of the project here."""
    workspace = Workspace.find()
    project = Project(workspace, params.load(workspace), print, lambda _: None)  # type: ignore[arg-type, return-value]
    return plan.resolve(project, pipeline)


def data_of(asked: Resolved) -> Data:
    return datasets.load(asked.workspace, asked.block.dataset, asked.expectations, asked.spec.task)


def _trained(asked: Resolved) -> receipts.Receipt:
    found = receipts.read(asked.workspace, asked.name, "train")
    if found is None:
        raise TidemillError(f"{asked.name} has not been trained", fix=f"tidemill run {asked.name}")
    return found


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
        told = [one["pipeline"], one["family"], one["metric"], _mean(one["ours"]), rivals]
        lines.append(f"| {' | '.join([*told, ', '.join(marks) or '–', 'yes' if one['met'] else '**no**'])} |")
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


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
    file = HERE / "results.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    missed = 0
    for pipeline in dict.fromkeys(row.pipeline for row in chosen):
        try:
            outcomes = list(measured([row for row in chosen if row.pipeline == pipeline]))
        except TidemillError as error:
            print(error, file=sys.stderr)
            missed += 1
            continue
        for outcome in outcomes:
            verdict = f"missed: {', '.join(outcome.misses)}" if outcome.misses else "met"
            print(f"{pipeline:20} {outcome.row.metric:12} {_mean(outcome.ours)}  {verdict}")
        kept = [one for one in kept if one["pipeline"] != pipeline] + [outcome.to_json() for outcome in outcomes]
        missed += sum(bool(outcome.misses) for outcome in outcomes)
        write(kept)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
