"""A pipeline of the project here that has run: its data, its winner, and the winner's configuration trained again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from components import datasets, model, params, plan, ratings, receipts, tables
from components.contract import SPLITS, Data, Json, Metrics
from components.errors import TidemillError
from components.model import Model
from components.plan import Project, Resolved
from components.receipts import Receipt
from components.workspace import Workspace

Figure: TypeAlias = Callable[
    [Model, Data], Metrics
]  # what is found of a model on its test rows, beyond its family's own
Figures: TypeAlias = Mapping[str, Metrics]  # rival → metric → value
Rivals: TypeAlias = Callable[[Data, int], Figures]


def resolved(pipeline: str) -> Resolved:
    workspace = Workspace.find()
    project = Project(workspace, params.load(workspace), print, lambda _: None)  # type: ignore[arg-type, return-value]
    return plan.resolve(project, pipeline)


def data_of(asked: Resolved) -> Data:
    return datasets.load(asked.workspace, asked.block.dataset, asked.expectations, asked.spec.task)


def receipt(asked: Resolved) -> Receipt:
    """What the train stage has left. Raises TidemillError if it has not run."""
    found = receipts.read(asked.workspace, asked.name, "train")
    if found is None:
        raise TidemillError(f"{asked.name} has not been trained", fix=f"tidemill run {asked.name}")
    return found


def facts(asked: Resolved) -> Json:
    return receipt(asked).facts


def settings(pipeline: str) -> Any:
    """The winner's, as its family has them."""
    asked = resolved(pipeline)
    return asked.family.Settings(**{**asked.block.settings, **facts(asked)["hyper"]})


def steps(pipeline: str) -> int:
    """Of the environment, that the winner has learnt from."""
    winner, *_ = json.loads((resolved(pipeline).workspace.results(pipeline, "train") / "trials.json").read_text())
    return int(winner["curve"][-1]["train/steps"])


def learnt(
    pipeline: str,
    folds: int,
    new_users: bool,
    run: int,
    other: tuple[str, Json] | None = None,
    figures: Sequence[Figure] = (),
) -> Metrics:
    """The test metrics of the winner's configuration, with `figures` among them. Run 0 is the winner itself, the others
    are trained with seeds of their own; with folds, each run is trained on the fold of its number; with `other`, a
    setting and its value, that takes the place of the winner's."""
    import torch

    torch.set_num_threads(1)
    asked = resolved(pipeline)
    told = facts(asked)
    if not folds and not run and other is None:
        found = {name: value for name, value in told["metrics"].items() if name.startswith("test/")}
        if figures:
            winner = model.load(asked.workspace.results(asked.name, "train") / "model")
            found |= _found(winner, data_of(asked), figures)
        return found
    data = folded(data_of(asked), run, folds, new_users) if folds else data_of(asked)
    seed = run if folds else asked.project.params.seed + run
    family, hyper = asked.family, {**asked.block.settings, **told["hyper"], **(dict([other]) if other else {})}
    state = None
    for epoch in family.fit(data, hyper, seed, None):
        if epoch.number == told["winner"]["epochs"]:
            state = epoch.state()
            break
    assert state is not None
    made = Model(family, data.spec, hyper, family.load(data.spec, hyper, state.served()), "")
    return made.evaluate(dict(data.splits), "test") | _found(made, data, figures)


def rivalled(pipeline: str, rivals: Rivals, folds: int, new_users: bool, run: int) -> Figures:
    """What the rivals reach on the pipeline's rows or, with folds, on the fold of the run's number."""
    import torch

    torch.set_num_threads(1)
    data = data_of(resolved(pipeline))
    return rivals(folded(data, run, folds, new_users) if folds else data, run)


def _found(made: Model, data: Data, figures: Sequence[Figure]) -> Metrics:
    return {f"test/{name}": value for figure in figures for name, value in figure(made, data).items()}


def folded(data: Data, fold: int, folds: int, new_users: bool = False) -> Data:
    """All rows cut anew: one part in `folds`, drawn by chance with a fixed seed, to test on, the others to learn from.
    With `new_users` it is users who are drawn. Every tenth row to learn from is a val row as well: nothing is chosen by
    them."""
    rows = pa.concat_tables(data.splits[split] for split in SPLITS).combine_chunks()
    drawn_N = np.arange(len(rows))
    if new_users:
        names = tables.text(rows, ratings.pair(data.spec)[0]).to_numpy(zero_copy_only=False).astype(str)
        drawn_N = np.unique(names, return_inverse=True)[1]
    part_N = (np.random.default_rng(0).permutation(1 + drawn_N.max()) % folds)[drawn_N]
    train = rows.take(pa.array(np.flatnonzero(part_N != fold)))
    test = rows.take(pa.array(np.flatnonzero(part_N == fold)))
    return Data(data.spec, {"train": train, "val": train.take(pa.array(np.arange(0, len(train), 10))), "test": test})
