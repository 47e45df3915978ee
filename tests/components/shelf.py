"""A small table and small models trained on it: what the tests of MLflow's corner stand on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa

from components import families, model
from components.contract import Column, Data, Objective, Spec
from components.registry import Candidate
from components.tracking.store import open_store
from components.workspace import Workspace

SPEC = Spec(
    dataset="tides",
    task="classification",
    columns=(Column("height", "number"), Column("wind", "number"), Column("port", "category"), Column("day", "date")),
    target="flood",
    classes=("no", "yes"),
    id="station",
)
OBJECTIVE = Objective("loss", "min")


def table(rows: int, seed: int) -> pa.Table:
    """Two numbers, one of them whole and sometimes missing, a category, a date; the target follows from them."""
    rng = np.random.default_rng(seed)
    height, wind = rng.normal(size=rows), rng.integers(0, 12, rows)
    port = rng.choice(["brest", "cuxhaven", "dover"], rows)
    flood = height + 0.3 * (wind - 6) + (port == "dover") > 0
    days = np.datetime64("2024-01-01") + rng.integers(0, 300, rows).astype("timedelta64[D]")
    return pa.table(
        {
            "height": height,
            "wind": pa.array(wind, pa.int64(), mask=rng.random(rows) < 0.1),
            "port": pa.array(port),
            "day": pa.array(days.astype("datetime64[us]")),
            "flood": pa.array(np.where(flood, "yes", "no")),
            "station": pa.array([f"s{i}" for i in range(rows)]),
        }
    )


def tides() -> Data:
    return Data(
        SPEC,
        {split: table(rows, seed) for seed, (split, rows) in enumerate([("train", 200), ("val", 60), ("test", 60)])},
    )


def train(folder: Path, data: Data, epochs: int, seed: int = 0, family: str = "mlp") -> Path:
    """A model folder after so many epochs."""
    hyper = {"width": 16, "depth": 1, "average": 0.5, "lr": 0.02}
    learner = families.family(family)
    *_, last = itertools.islice(learner.fit(data, hyper, seed, None), epochs)
    model.save(folder, families.import_path(family), data.spec, hyper, last.state())
    return folder


def candidate(workspace: Workspace, folder: Path, data: Data, run_key: str) -> Candidate:
    """The model of a folder with a run of its own."""
    store = open_store(workspace)
    run = store.client.create_run(store.experiment("tides"))
    family = families.family("mlp")
    return Candidate("tides", folder, run_key, run.info.run_id, "0" * 32, "c0ffee", family.baseline(data, "test", {}))
