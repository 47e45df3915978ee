"""A scoring in MLflow: one run of kind "score" in the experiment of its pipeline, found again by its key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from .. import receipts
from ..contract import Json
from ..workspace import Workspace
from . import KIND, runs
from .runs import TAG, Record
from .store import answering, open_store


def record(workspace: Workspace, pipeline: str, run_key: str, file: Path) -> str:
    """Keep a comparison with the training rows, as its file tells it; told twice it is one run, whose id this returns.

    `run_key` is that of the model's training. Raises Unreachable if MLflow does not answer.
    """
    text = file.read_text(encoding="utf-8")
    compared, sha256 = json.loads(text), receipts.sha256(file)
    store = open_store(workspace)
    with answering(store.uri):
        experiment_id = store.experiment(pipeline)
        runs.bury(store, experiment_id)
        identity = {KIND: "score", f"{TAG}score_key": str(compared["key"])}
        found = next(runs.find(store, experiment_id, identity), None)
        if found is None:
            own = {"pipeline": pipeline, "run_key": run_key, "process": runs.process()}
            own |= {"model_version": str(compared["model"]["version"])}
            tags = identity | {TAG + name: value for name, value in own.items()}
            tags |= {"mlflow.user": runs.user(), "mlflow.source.name": "tidemill"}
            run = runs.create(store, experiment_id, f"score {str(compared['key'])[:8]}", tags)
        else:
            run = Record(store, found)
        digest = f"{TAG}drift_sha256"
        if found is None or found.data.tags.get(digest) != sha256:
            run.wake()
            run.figures(_figures(compared), int(time.time() * 1000))
            store.client.log_text(run.run_id, text, "drift.json")
            run.tag({digest: sha256, f"{TAG}drifting": ", ".join(compared["drifting"])[:5000]})
        run.end("FINISHED")
    return run.run_id


def _figures(compared: Mapping[str, Json]) -> dict[str, float]:
    rows = {f"rows/{name}": float(compared[name]) for name in ("rows_in", "rows", "quarantined")}
    return {"drift/psi_max": compared["psi_max"], "drift/columns": float(len(compared["drifting"]))} | rows
