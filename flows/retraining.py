"""Training that starts because what was scored is unlike what the champion was trained on: once for a champion and an
input, whoever scores it again.

A pipeline that scores by the clock has trained on the same data just before: its own score stage starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.plan import Project


def start_once(
    project: Project,
    name: str,
    drifted: tuple[str, str, str],
    due: Callable[[Project, list[str]], set[str]],
    run: Callable[[Project, list[str], bool], Any],
) -> bool:
    """Run the pipeline unless this champion (version, run key) met this input (its hash) before; whether it ran.

    Nothing is remembered where there is nothing to learn from: with newer rows the same input starts the training.
    """
    from components import receipts

    file = project.workspace.state / "drift" / name / f"{receipts.key({'drifted': list(drifted)})}.json"
    if file.is_file():
        project.say(f"{name}: training was started for this input once; it is not started again")
        return False
    if "train" not in due(project, [name]):
        project.say(f"{name}: training would give the same model again, its data and settings are unchanged")
        project.say("  newer rows are needed: bring them into the dataset, and this input starts the training")
        return False
    version, run_key, batch = drifted
    receipts.write_json(file, {"model_version": version, "run_key": run_key, "input": batch})
    project.say(f"{name}: training starts, since the input is unlike what version {version} was trained on")
    run(project, [name], True)
    return True
