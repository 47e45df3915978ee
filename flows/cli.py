"""The `tidemill` command. Data goes to stdout, progress to stderr; heavy imports stay inside the commands."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import ParamsError, TidemillError

from . import backfills, champions, codes, datasets, lineage, retraining, samples, upkeep
from .codes import IgnoreExtra, Output, RowId, Source
from .printing import AsJson, show

if TYPE_CHECKING:
    from components.plan import Project

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
datasets.add(app)
champions.add(app)
codes.add(app)
backfills.add(app)
lineage.add(app)
upkeep.add(app)
samples.add(app)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Pipelines of params.yaml.")]
All = Annotated[bool, typer.Option("--all", help="Every pipeline.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="Every pipeline with this tag.")]


@app.callback()
def tidemill() -> None:
    """Deep-learning pipelines: validate, train, register, score.

    Exit codes: 0 done, 2 params.yaml or command line, 3 data, 4 validation, 5 training, 6 registry,
    7 a server does not answer, 8 somebody else is at work, 9 doctor has found something wrong,
    10 a version came out otherwise when trained again, 130 interrupted.
    """


@app.command()
def run(names: Names = None, every: All = False, tag: Tag = None, as_json: AsJson = False) -> None:
    """Run pipelines now; what is unchanged is not run again."""
    project = _project()
    chosen = _choose(project, names, every, tag)
    if not _play(project, chosen):
        project.say("nothing to do: every stage is unchanged (tidemill plan says why)")
    _print_results(project, chosen, as_json)
    _where_to_look(project)


def _play(project: Project, chosen: list[str]) -> set[str]:
    """Run what is due; which stages that was."""
    due = _due(project, chosen)
    if due:
        _run(project, chosen, training="train" in due)
    else:
        from . import orphans

        orphans.bury_alone(project)
    return due


def _due(project: Project, chosen: list[str]) -> set[str]:
    from components import stages

    stages.fetch(project, chosen)
    for name in chosen:
        stages.settle(project, name)
    return {step.stage for step in _steps(project, chosen) if step.action == "run"}


@app.command()
def resume(as_json: AsJson = False) -> None:
    """Go on with whatever was left unfinished: by a process that died, by Ctrl-C, or by an error since mended."""
    from components import holds

    project = _project()
    left = {name: who for name, who in holds.unfinished(project.workspace).items() if name in project.params.pipelines}
    for name, who in left.items():
        project.say(f"{name}: left by {who}")
    if left:
        run(list(left), as_json=as_json)
    else:
        project.say("nothing to resume: no pipeline was left unfinished")


def _run(project: Project, chosen: list[str], training: bool) -> None:
    from contextlib import ExitStack

    from components import stages

    from . import servers
    from .progress import screen

    servers.require_addresses()
    if training:
        stages.require_computing(project)
    with ExitStack() as stack:
        # The server outlives Ray: what is logged while Ray ends still has somewhere to go.
        stack.enter_context(servers.prefect_server(project.workspace, project.say))
        if training:
            stack.enter_context(stages.computing(project))
        from . import orphans
        from .pipeline import pipelines

        orphans.bury(project)
        stack.enter_context(screen.live())
        pipelines(chosen, str(project.workspace.root))


@app.command("plan")
def show_plan(names: Names = None, every: All = False, tag: Tag = None, as_json: AsJson = False) -> None:
    """Say what `run` would do, stage by stage, and why."""
    import dataclasses

    project = _project()
    steps = _steps(project, _choose(project, names, every or not (names or tag), tag))
    show([dataclasses.asdict(step) for step in steps], as_json)


@app.command()
def stage(name: Annotated[str, typer.Argument(metavar="STAGE")], pipeline: str) -> None:
    """Play one stage of one pipeline, without Prefect (DVC calls this).

    STAGE is plan, validate, train, register or score.
    """
    from components import holds, stages

    project = _project()
    project.params.pipeline(pipeline)  # its lock is a file of that name
    with holds.working(project.workspace, pipeline):
        if name == "plan":
            stages.settle(project, pipeline)
        elif name in stages.PLAY:
            from .progress import screen

            with screen.live():
                stages.PLAY[name](project, pipeline)
        else:
            raise ParamsError(f"no stage {name!r}", fix=f"use one of plan, {', '.join(stages.PLAY)}")


@app.command()
def score(
    pipeline: str,
    source: Source,
    output: Output,
    ignore_extra: IgnoreExtra = False,
    row_id: RowId = None,
    as_json: AsJson = False,
) -> None:
    """Write the champion's predictions for a table."""
    from components import scores

    project = _project()
    project.params.pipeline(pipeline)
    scored = scores.score_table(project, pipeline, source, output, ignore_extra=ignore_extra, row_id=row_id)
    batch = scored.pop("input")
    show([scored], as_json)
    if scored["drifting"] and project.params.pipeline(pipeline).scoring.drift.then == "train":
        retraining.start_once(project, pipeline, (scored["model_version"], scored["run_key"], batch), _due, _run)


@app.command()
def results(names: Names = None, every: All = False, tag: Tag = None, as_json: AsJson = False) -> None:
    """Show what came of each pipeline's last run."""
    project = _project()
    _print_results(project, _choose(project, names, every or not (names or tag), tag), as_json)


@app.command()
def pipelines(as_json: AsJson = False) -> None:
    """List the pipelines of params.yaml."""
    from components.results import describe

    show(describe(_project()), as_json)


@app.command()
def up() -> None:
    """Start the Prefect server, the MLflow pages and the scheduler; Ctrl-C stops them."""
    from . import servers

    project = _project()
    servers.up(project.workspace, project.params, project.say)


@app.command()
def schema(output: Annotated[Path, typer.Argument()] = Path("params.schema.json")) -> None:
    """Write the JSON Schema of params.yaml, for editors."""
    from components import params, receipts

    receipts.write_file(output.resolve(), params.schema().encode())
    print(output)


# ── small steps ─────────────────────────────────────────────────────────────────────────────────────────


def _project() -> Project:
    from .project import open_project

    return open_project()


def _choose(project: Project, names: list[str] | None, every: bool, tags: list[str] | None) -> list[str]:
    """Pipelines that were asked for, in the order of params.yaml."""
    if not (names or every or tags):
        raise ParamsError("no pipeline named", fix="tidemill run NAME…, --tag TAG or --all")
    wanted = {project.params.pipeline(name) and name for name in names or []}
    known_tags = {tag for block in project.params.pipelines.values() for tag in block.tags}
    for tag in tags or []:
        if tag not in known_tags:
            raise ParamsError(
                f"no pipeline has the tag {tag!r}", fix=f"known: {', '.join(sorted(known_tags)) or 'none'}"
            )
    return [
        name
        for name, block in project.params.pipelines.items()
        if every or name in wanted or not set(tags or []).isdisjoint(block.tags)
    ]


def _steps(project: Project, names: Sequence[str]) -> list[Any]:
    from components import plan

    return [step for name in names for step in plan.plan(plan.resolve(project, name))]


def _print_results(project: Project, names: Sequence[str], as_json: bool) -> None:
    from components.results import results as read

    rows = read(project, names)
    show([row.to_json() if as_json else row.to_row() for row in rows], as_json)


def _where_to_look(project: Project) -> None:
    from . import servers

    project.say("\nwhere to look next:")
    for name, url in servers.addresses(project.workspace).items():
        project.say(f"  {url:<30} {name}'s page")
    project.say("  results/PIPELINE/train/plots   learning curves, confusion matrix, worst examples")
    project.say("  tidemill up                    the MLflow and Prefect pages, and the schedules")
    project.say("  tidemill score NAME IN OUT     score a table of your own with the champion")


def main() -> None:
    """Run a command; turn errors into a few lines on stderr and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler if os.name == "nt" else _terminate)
    try:
        app()
    except TidemillError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as ending:
        stop = _interrupt_behind(ending)
        if stop is None:
            raise
        print(f"stopped; the same command goes on from here: tidemill {shlex.join(sys.argv[1:])}", file=sys.stderr)
        sys.exit(143 if stop.args == ("SIGTERM",) else 130)


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Typer exits where it is interrupted, and keeps what interrupted it as the cause."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _terminate(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt("SIGTERM")


if __name__ == "__main__":
    main()
