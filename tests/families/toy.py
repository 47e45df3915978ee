"""A family for tests, named by its import path: least squares by Adam with dropout, and faults on demand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from components.contract import (
    Choice,
    Column,
    Data,
    Domain,
    Epoch,
    Hyper,
    Integer,
    Metrics,
    Objective,
    Outcomes,
    Spec,
    State,
    Uniform,
)
from tests.families import disk  # noqa: F401 - so that workers know disk://


@dataclass(frozen=True)
class Settings:
    lr: float = 0.01
    width: int = 4
    drop: float = 0.1
    shape: tuple[int, ...] = (2, 2)
    sleep_s: float = 0.0
    fault: str = (
        ""  # raise | nan | die | both | quiet | wait, at epoch fault_at of configurations with fault_lr or less
    )
    fault_at: int = 2
    fault_lr: float = 1.0
    die_lr: float = 0.0  # with "both": these die, the others raise
    marker: str = ""  # a folder: "die" happens once for each configuration; processes leave their pid there


class Toy:
    learning = "supervised"
    tasks = ("regression",)
    kinds = ("number", "tensor")
    Settings = Settings

    def objective(self, spec: Spec) -> Objective:
        return Objective("loss", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:
        return {
            "lr": Uniform(1e-3, 0.1, log=True, mutable=True),
            "width": Integer(2, 8),
            "shape": Choice(((2, 2), (4,))),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None) -> Iterator[Epoch]:
        settings = Settings(**hyper)
        x_BF, y_B = _arrays(data, "train")
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(x_BF.shape[1], settings.width),
            torch.nn.Dropout(settings.drop),
            torch.nn.Linear(settings.width, 1),
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=settings.lr)
        number, best, kept = 0, float("nan"), {}
        if state is not None:
            number, best = state.scalars["epoch"], float(state.scalars["best"])
            kept = {k: v.clone() for k, v in state.served().tensors.items()}
            _load(net, optimizer, state)
        if settings.marker:
            (Path(settings.marker) / f"pid-{os.getpid()}").touch()
        while True:
            number += 1
            torch.manual_seed(seed * 1000 + number)
            time.sleep(settings.sleep_s)
            _fault(settings, number)
            net.train()
            for rows in torch.randperm(len(x_BF)).split(16):
                optimizer.zero_grad()
                loss = ((net(x_BF[rows])[:, 0] - y_B[rows]) ** 2).mean()
                loss.backward()
                optimizer.step()
            metrics = {"train/loss": float(loss.detach()), "val/loss": _loss(net, data, "val")}
            if settings.fault == "nan" and settings.lr <= settings.fault_lr and number >= settings.fault_at:
                metrics["val/loss"] = float("nan")
            if settings.fault == "quiet":
                del metrics["val/loss"]
            if not kept or metrics.get("val/loss", 0.0) < best:
                best = metrics.get("val/loss", 0.0)
                kept = {f"model/{k}": v.clone() for k, v in net.state_dict().items()}
            yield Epoch(number, metrics, lambda n=number, b=best, k=kept: _state(net, optimizer, n, b, k))

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Any:
        raise NotImplementedError

    def judge(self, net: Any, data: Data, split: str) -> Outcomes:
        x_BF, y_B = _arrays(data, split)
        net.eval()
        with torch.no_grad():
            return {"error": (net(x_BF)[:, 0] - y_B).numpy()}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        return {f"{split}/loss": float((outcomes["error"] ** 2).mean())}

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        _, y_B = _arrays(data, split)
        return {f"{split}/loss": float(y_B.var())}

    def score(self, net: Any, batch: pa.RecordBatch) -> pa.RecordBatch:
        raise NotImplementedError

    def outputs(self, spec: Spec) -> pa.Schema:
        return pa.schema([("value", pa.float32())])


def data(rows: int = 64) -> Data:
    """Rows whose target is nearly linear in three inputs, and a tensor column as images have."""
    generator = np.random.default_rng(0)
    splits = {}
    for split in ("train", "val", "test"):
        x_BF = generator.normal(size=(rows, 3)).astype(np.float32)
        y_B = x_BF @ np.array([1.0, -2.0, 0.5], np.float32) + generator.normal(size=rows).astype(np.float32) * 0.1
        image = pa.FixedShapeTensorArray.from_numpy_ndarray(generator.integers(0, 255, (rows, 2, 2), dtype=np.uint8))
        splits[split] = pa.table({"a": x_BF[:, 0], "b": x_BF[:, 1], "c": x_BF[:, 2], "image": image, "y": y_B})
    columns = (*(Column(n, "number") for n in "abc"), Column("image", "tensor", "uint8", (2, 2)))
    return Data(Spec("toy", "regression", columns, target="y"), splits)


def _arrays(data: Data, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    table = data.splits[split]
    x_BF = np.stack([table[name].to_numpy() for name in "abc"], axis=1)
    return torch.tensor(x_BF), torch.tensor(table["y"].to_numpy())


def _loss(net: Any, data: Data, split: str) -> float:
    x_BF, y_B = _arrays(data, split)
    net.eval()
    with torch.no_grad():
        return float(((net(x_BF)[:, 0] - y_B) ** 2).mean())


def _fault(settings: Settings, number: int) -> None:
    if number != settings.fault_at or settings.lr > settings.fault_lr:
        return
    dies = settings.fault == "die" or (settings.fault == "both" and settings.lr <= settings.die_lr)
    if dies:
        once = Path(settings.marker) / f"died-{settings.lr}"
        if not settings.marker or not once.exists():
            if settings.marker:
                once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif settings.fault == "wait":
        while not (Path(settings.marker) / "go").exists():
            time.sleep(0.05)
    elif settings.fault in ("raise", "both"):
        raise ValueError(f"no luck with lr {settings.lr}")


def _state(net: Any, optimizer: Any, number: int, best: float, kept: Mapping[str, torch.Tensor]) -> State:
    tensors = {f"net/{k}": v.clone() for k, v in net.state_dict().items()} | dict(kept)
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": v.clone() for k, v in moments.items()}
    return State(tensors, {"epoch": number, "best": best, "model": {}})


def _load(net: Any, optimizer: Any, state: State) -> None:
    net.load_state_dict({k.removeprefix("net/"): v for k, v in state.tensors.items() if k.startswith("net/")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in state.tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
