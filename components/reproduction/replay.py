"""One trial learnt again, by the code of another commit: run as a program, not imported.

    python -P replay.py build|train TASK.json

`components` is whatever lies first on the import path: the checkout of that commit, which may be older than this
file. So it keeps to the contract of families and to what `plan` has always had. News are lines of JSON on stdout;
whatever else the family prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Json = Any
Tell = Callable[..., None]


def build(task: Json, tell: Tell) -> None:
    """Build the task's dataset where it lies, from its source as of this commit."""
    from components import params, versioning
    from components.workspace import Workspace

    workspace = Workspace(Path.cwd())
    versioning.fetch(workspace, params.load(workspace), [task["dataset"]], lambda line: tell(say=line))


def train(task: Json, tell: Tell) -> None:
    """Tell the hash of the code; if it is the one on record, the metrics of each epoch, the test metrics and the
    weights' hash."""
    from components import plan
    from components.contract import Spec

    inputs, spec = task["inputs"], Spec.from_json(task["inputs"]["spec"])
    code = plan.settled(_resolved(inputs, spec), "train")["code"]
    tell(code=code)
    if code != inputs["code"]:
        return
    data = _data(spec)
    state = _learn(task, data, tell)
    _measure(task, data, state, tell)


def _resolved(inputs: Json, spec: Any) -> Any:
    """A pipeline as `plan.settled` reads it, from what it once settled."""

    def said(value: Json) -> Any:
        return SimpleNamespace(model_dump=lambda **_: value)

    block = SimpleNamespace(
        family=inputs["family"],
        settings=inputs["settings"],
        search=said(inputs["search"]),
        resources=said(inputs["resources"]),
    )
    project = SimpleNamespace(params=SimpleNamespace(seed=inputs["seed"]))
    return SimpleNamespace(block=block, spec=spec, project=project)


def _data(spec: Any) -> Any:
    from components import datasets
    from components.datasets import parquet
    from components.workspace import Workspace

    workspace = Workspace(Path.cwd())
    names = dict.fromkeys(parquet.names(workspace.data(spec.dataset)))
    names.pop("split", None)
    promised: Any = SimpleNamespace(columns=names, spec=lambda *_: spec)
    return datasets.load(workspace, spec.dataset, promised, spec.task)


def _learn(task: Json, data: Any, tell: Tell) -> Any:
    """The state after the last epoch. Begins as a trial's process does: see tuning/segments.py."""
    import numpy as np
    import torch

    from components import families

    inputs, seed = task["inputs"], task["inputs"]["seed"]
    torch.set_num_threads(inputs["resources"]["cpus"])
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(seed % 2**63)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    family, state = families.family(inputs["family"]), None
    for part in task["parts"]:
        for epoch in family.fit(data, part["hyper"], seed, state):
            tell(epoch=epoch.number, metrics={name: float(value) for name, value in epoch.metrics.items()})
            if epoch.number == part["until"]:
                state = epoch.state()
                break
        else:
            raise RuntimeError(f"{inputs['family']} stopped learning before epoch {part['until']}")
    return state


def _measure(task: Json, data: Any, state: Any, tell: Tell) -> None:
    """As the train stage measures: the weights saved and loaded, on the threads of its own process."""
    import torch

    from components import model

    torch.set_num_threads(task["threads"])
    weights = model.save(Path(task["model"]), task["inputs"]["family"], data.spec, task["parts"][-1]["hyper"], state)
    metrics = model.load(Path(task["model"])).evaluate(dict(data.splits), "test")
    tell(weights_sha256=weights, metrics=metrics)


def main() -> None:
    news = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def tell(**what: Json) -> None:
        news.write(json.dumps(what) + "\n")

    task = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    {"build": build, "train": train}[sys.argv[1]](task, tell)


if __name__ == "__main__":
    main()
