"""What came of each pipeline's last run, read from its receipts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import families, plan, receipts
from .contract import Json
from .plan import Project


@dataclass(frozen=True)
class Result:
    """One line of `tidemill results`. What has not happened yet is None. `metric` is the gate's, on the test rows."""

    pipeline: str
    metric: str | None = None
    value: float | None = None
    baseline: float | None = None
    version: str | None = None
    promoted: bool | None = None
    reason: str | None = None
    trials: int | None = None
    rows_scored: int | None = None
    run_key: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    def to_row(self) -> dict[str, str]:
        """Texts for a table."""
        return {
            "pipeline": self.pipeline,
            "metric": self.metric or "–",
            "value": _figure(self.value),
            "baseline": _figure(self.baseline),
            "version": self.version or "–",
            "promoted": {None: "–", True: "yes", False: "no"}[self.promoted],
            "trials": str(self.trials or "–"),
            "rows scored": f"{self.rows_scored:,}" if self.rows_scored is not None else "–",
            "seconds": f"{sum(self.seconds.values()):.0f}" if self.seconds else "–",
            "run key": (self.run_key or "–")[:12],
            "reason": self.reason or "–",
        }


def results(project: Project, names: Sequence[str]) -> list[Result]:
    """The last run of each pipeline, in the order of `names`. A stage counts if its receipt belongs to the
    training that the pipeline's last train stage left."""
    return [_result(project, name) for name in names]


def _result(project: Project, name: str) -> Result:
    found = {stage: receipts.read(project.workspace, name, stage) for stage in plan.STAGES}
    seconds: dict[str, float] = {stage: receipt.seconds for stage, receipt in found.items() if receipt}
    train, register, score = found["train"], found["register"], found["score"]
    if train is None:
        return Result(name, seconds=seconds)
    facts: dict[str, Any] = {k: train.facts[k] for k in ("metric", "value", "baseline", "trials")}
    if register and register.inputs["train"] == train.key:
        facts |= {k: register.facts[k] for k in ("metric", "value", "baseline", "version", "promoted", "reason")}
        if score and score.inputs["champion"] == register.facts["champion"]:
            facts["rows_scored"] = score.facts["rows"]
    return Result(name, run_key=train.key, seconds=seconds, **facts)


def report(project: Project, result: Result) -> str:
    """The same as Markdown, with where to look."""
    rows = "\n".join(f"| {name} | {text} |" for name, text in result.to_row().items())
    folder = project.workspace.results(result.pipeline, "train")
    uri = project.workspace.tracking_uri
    return (
        f"# {result.pipeline}\n\n| | |\n| --- | --- |\n{rows}\n\n"
        f"Runs: experiment `{result.pipeline}` at `{uri}`. Plots and metrics: `{folder}`.\n"
    )


def describe(project: Project) -> list[dict[str, Json]]:
    """`tidemill pipelines`: what params.yaml holds, a line each."""
    return [
        {
            "name": name,
            "family": block.family,
            "dataset": block.dataset,
            "learning": families.family(block.family).learning,
            "tags": block.tags,
            "schedule": block.schedule,
        }
        for name, block in project.params.pipelines.items()
    ]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
