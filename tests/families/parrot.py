"""A family for tests that writes texts, named by its import path: which word stands at which place follows from which
words are read.

Legend: B texts, R words that are read, W words that are written (END among them), P places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from components import texts
from components.contract import (
    Codes,
    Data,
    Domain,
    Epoch,
    Hyper,
    Json,
    Metrics,
    Objective,
    Outcomes,
    Spec,
    State,
    Uniform,
)
from components.errors import BadInput
from components.tables import Rows

END = ""


@dataclass(frozen=True)
class Settings:
    lr: float = 0.1
    steps: int = 30


@dataclass
class Net:
    spec: Spec
    linear: torch.nn.Linear
    read: list[str]
    written: list[str]
    places: int

    def bags(self, rows: Rows) -> torch.Tensor:
        """x_BR, how often each word is read."""
        x_BR = torch.zeros(len(rows), len(self.read))
        for row, text in enumerate(texts.read(self.spec, rows)):
            if not text:
                raise BadInput("an empty text")
            for word in text.split():
                if word in self.read:
                    x_BR[row, self.read.index(word)] += 1
        return x_BR

    def wanted(self, rows: Rows) -> torch.Tensor:
        """The number of the word at each place, w_BP."""
        found = [[*text.split(), *[END] * self.places][: self.places] for text in _wanted(self.spec, rows)]
        return torch.tensor([[self.written.index(w) if w in self.written else 0 for w in words] for words in found])

    def logits(self, rows: Rows) -> torch.Tensor:
        """y_BWP."""
        return self.linear(self.bags(rows)).view(len(rows), len(self.written), self.places)  # type: ignore[no-any-return]


class Parrot:
    learning = "supervised"
    tasks = ("text2text",)
    kinds = ("text",)
    Settings = Settings

    def objective(self, spec: Spec) -> Objective:
        return Objective("loss", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:
        return {"lr": Uniform(0.02, 0.2, log=True)}

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None) -> Iterator[Epoch]:
        train, settings = data.splits["train"], Settings(**hyper)
        read = sorted({word for text in texts.read(data.spec, train) for word in text.split()})
        wanted = [text.split() for text in _wanted(data.spec, train)]
        written = [END, *sorted({word for words in wanted for word in words})]
        told = {"read": read, "written": written, "places": max(map(len, wanted)) + 1}
        torch.manual_seed(seed)
        net = _net(data.spec, told)
        number = 0
        if state is not None:
            number = state.scalars["epoch"]
            net.linear.load_state_dict({k.removeprefix("model/"): v for k, v in state.tensors.items()})
        optimizer, w_BP = torch.optim.Adam(net.linear.parameters(), lr=settings.lr), net.wanted(train)
        while True:
            number += 1
            for _ in range(settings.steps):
                optimizer.zero_grad()
                loss = functional.cross_entropy(net.logits(train), w_BP)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            metrics = self.measure(data.spec, self.judge(net, data, "val"), "val")
            yield Epoch(number, {"train/loss": float(loss.detach())} | metrics, lambda n=number: _state(net, n, told))  # type: ignore[misc]

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = _net(spec, state.scalars["model"])
        net.linear.load_state_dict({k.removeprefix("model/"): v for k, v in state.tensors.items()})
        return net

    @torch.no_grad()
    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        rows = data.splits[split]
        logits_BWP, w_BP = net.logits(rows), net.wanted(rows)
        loss_BP = functional.cross_entropy(logits_BWP, w_BP, reduction="none")
        wrong_B = (logits_BWP.argmax(1) != w_BP).any(1)
        return {"loss": loss_BP.mean(1).numpy(), "wrong": wrong_B.float().numpy()}

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        loss, wrong = (float(outcomes[name].mean()) for name in ("loss", "wrong"))
        return {f"{split}/loss": loss, f"{split}/perplexity": float(np.exp(loss)), f"{split}/wer": wrong}

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        words = len({word for text in _wanted(data.spec, data.splits["train"]) for word in text.split()})
        loss = float(np.log(words))
        return {f"{split}/loss": loss, f"{split}/perplexity": float(words), f"{split}/wer": 1.0}

    @torch.no_grad()
    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        best_BP, word_BP = net.logits(batch).log_softmax(1).max(1)
        said = [" ".join(net.written[word] for word in words if word) for words in word_BP.tolist()]
        return pa.record_batch([pa.array(said, pa.string()), best_BP.mean(1).double().numpy()], self.outputs(net.spec))

    def outputs(self, spec: Spec) -> pa.Schema:
        return pa.schema([("text", pa.string()), ("score", pa.float64())])

    @torch.no_grad()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        return net.linear(net.bags(batch)).numpy()  # type: ignore[no-any-return]


def _wanted(spec: Spec, rows: Rows) -> list[str]:
    return rows.column(spec.target or "").to_pylist()  # type: ignore[no-any-return]


def _net(spec: Spec, told: Json) -> Net:
    linear = torch.nn.Linear(len(told["read"]), len(told["written"]) * told["places"])
    return Net(spec, linear, told["read"], told["written"], told["places"])


def _state(net: Net, number: int, told: Json) -> State:
    tensors = {f"model/{k}": v.clone() for k, v in net.linear.state_dict().items()}
    return State(tensors, {"epoch": number, "model": told})
