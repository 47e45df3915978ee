"""mlp: a plain multilayer perceptron for tables and short series, after Gorishniy et al. 2021, "Revisiting deep
learning models for tabular data", and Kadra et al. 2021, "Well-tuned simple nets excel on tabular datasets".

How it differs: numbers are scaled robustly and squashed instead of mapped to quantiles, tensors are flattened and
standardised; a linear path runs beside the hidden layers (Cheng et al. 2016, "Wide & deep"), so that what a linear
model can do on a small table, the net can do at once; of Kadra's cocktail only weight decay, dropout and averaged
weights are kept.

Legend: B rows of a batch, N rows of a split, F number features, C category columns, E width of the input once
the categories are embedded, K outputs (classes, or 1 for regression).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from .. import metrics
from ..contract import (
    Choice,
    Codes,
    Data,
    Domain,
    Epoch,
    Hyper,
    Kind,
    Learning,
    Metrics,
    Objective,
    Outcomes,
    Spec,
    State,
    Task,
    Uniform,
)
from ..devices import device, seeded
from ..settings import configure
from ..states import unpack
from ..tables import Encoder, Rows, class_columns, classified, fit_encoder, truth
from ..training import Lesson, adam, cosine, learn, lesson_of

SCORING_ROWS = 8192  # rows that go through the net at once: their activations stay in the cache


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    weight_decay  for a table of 1,000 training rows; it falls as the rows grow, as the weight of a prior does
    batch_rows   0: by the number of training rows
    average      decay of the weights' running average
    horizon      epochs over which the learning rate falls along a cosine; 0: it stays
    whole        serve a second net that learns from val rows too; val then chooses settings only. Twice the work
    """

    depth: int = 2
    width: int = 128
    dropout: float = 0.1
    lr: float = 2e-3
    weight_decay: float = 2.0
    label_smoothing: float = 0.0
    batch_rows: int = 0
    clip: float = 1.0
    average: float = 0.98
    horizon: int = 0
    whole: bool = False


class Net(nn.Module):
    """Hidden layers beside a linear path, from an encoder's features to K logits or to the standardised target.

    `target` is the mean and deviation of a regression's target among the training rows.
    """

    def __init__(self, spec: Spec, encoder: Encoder, target: tuple[float, float], settings: Settings) -> None:
        super().__init__()
        self.spec, self.encoder, self.target = spec, encoder, target
        outputs = len(spec.classes) or 1
        widths = [min(32, round(1.6 * v.codes**0.56)) for v in encoder.vocabularies]  # fastai's rule of thumb
        self.embeddings = nn.ModuleList(
            # The unknown category stays the zero vector: it says nothing, as nothing was learnt of it.
            nn.Embedding(v.codes, width, padding_idx=0)
            for v, width in zip(encoder.vocabularies, widths, strict=True)
        )
        inputs = encoder.features + sum(widths)
        layers: list[nn.Module] = []
        for index in range(settings.depth):
            layers += [nn.Linear(settings.width if index else inputs, settings.width), nn.ReLU()]
            layers += [nn.Dropout(settings.dropout)]
        self.hidden = nn.Sequential(*layers)
        self.deep = nn.Linear(settings.width if settings.depth else inputs, outputs)
        self.wide = nn.Linear(inputs, outputs)
        with torch.no_grad():
            for weight in self.embeddings.parameters():
                weight.mul_(0.1)  # categories begin nearly alike
            self.deep.weight.zero_()
            self.wide.weight.zero_()

    def embed(self, x_BF: torch.Tensor, c_BC: torch.Tensor) -> torch.Tensor:
        return torch.cat([x_BF, *(e(c_BC[:, i]) for i, e in enumerate(self.embeddings))], 1) if c_BC.shape[1] else x_BF

    def forward(self, x_BE: torch.Tensor) -> torch.Tensor:
        y_BK: torch.Tensor = self.deep(self.hidden(x_BE)) + self.wide(x_BE)
        return y_BK


class Mlp:
    learning: ClassVar[Learning] = "supervised"
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "regression")
    kinds: ClassVar[tuple[Kind, ...]] = ("number", "category", "date", "tensor")
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:
        """Log loss rather than accuracy: on a small table many trials, and many epochs of a trial, get the same
        rows right, and the first lucky one would be served."""
        return Objective("loss" if spec.task == "classification" else "rmse", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "depth": Choice((0, 1, 2)),  # none: logistic or linear regression, which small tables often want
            "width": Choice((64, 128, 256)),
            "dropout": Uniform(0.0, 0.4),
            "lr": Uniform(1e-3, 4e-3, log=True, mutable=True),
            "weight_decay": Uniform(0.1, 5.0, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings = configure(Settings, hyper)
        seeded(seed)
        lesson = lesson_of(data, settings.whole, lambda rows: _lesson(self, data, rows, settings))
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        fitted = state.scalars["model"]
        mean, deviation = fitted["target"]
        net = Net(spec, Encoder.from_json(fitted["encoder"]), (mean, deviation), configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        rows = data.splits[split]
        return _outcomes(_predict(net, *_inputs(net, rows)), truth(data.spec, rows, split))

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:
        if spec.classes:
            return metrics.classification(split, outcomes["predicted"], outcomes["truth"])
        return metrics.regression(split, outcomes["predicted"][:, 0], outcomes["truth"])

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:  # noqa: ARG002
        """The shares of the classes among the training rows, or their mean target."""
        train_N, truth_N = (truth(data.spec, data.splits[name], name) for name in ("train", split))
        if data.spec.classes:
            return metrics.class_shares(split, train_N, truth_N, len(data.spec.classes))
        return metrics.mean_target(split, train_N, truth_N)

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        predicted = _predict(net, *_inputs(net, batch))
        if net.spec.classes:
            return classified(predicted, net.spec.classes)
        return pa.record_batch([pa.array(predicted[:, 0].numpy())], schema=self.outputs(net.spec))

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The last hidden layer; the embedded inputs where there is none."""
        x_NF, c_NC = _inputs(net, batch)
        batches = zip(torch.split(x_NF, SCORING_ROWS), torch.split(c_NC, SCORING_ROWS), strict=True)
        codes: Codes = torch.cat([net.hidden(net.embed(x_BF, c_BC)).float().cpu() for x_BF, c_BC in batches]).numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:
        return class_columns(spec.classes) if spec.classes else pa.schema([("prediction", pa.float64())])


def _lesson(learner: Mlp, data: Data, rows: pa.Table, settings: Settings) -> Lesson:
    """A new net that learns from these rows."""
    spec = data.spec
    encoder, truth_N = fit_encoder(rows, spec.columns), truth(spec, rows, "train")
    target = (0.0, 1.0) if spec.classes else (float(truth_N.mean()), float(truth_N.std()) or 1.0)
    net = Net(spec, encoder, target, settings).to(device())
    x_NF, c_NC = _inputs(net, rows)
    y_N = torch.from_numpy(truth_N if spec.classes else (truth_N - target[0]) / target[1]).to(x_NF.device)
    val, val_truth_N = _inputs(net, data.splits["val"]), truth(spec, data.splits["val"], "val")

    def loss(rows_B: torch.Tensor) -> torch.Tensor:
        x_BE, y_B = net.embed(x_NF[rows_B], c_NC[rows_B]), y_N[rows_B]
        y_BK = net(x_BE).float()
        if spec.classes:
            return functional.cross_entropy(y_BK, y_B, label_smoothing=settings.label_smoothing)
        return functional.mse_loss(y_BK[:, 0], y_B.float())

    return Lesson(
        net=net,
        optimizer=adam(net.parameters(), settings.lr, min(settings.weight_decay * 1000 / len(y_N), 30.0)),
        rows=len(y_N),
        batch_rows=settings.batch_rows or _batch_rows(len(y_N)),
        loss=loss,
        evaluate=lambda served: learner.measure(spec, _outcomes(_predict(served, *val), val_truth_N), "val"),
        objective=learner.objective(spec),
        fitted=lambda _: {"encoder": encoder.to_json(), "target": list(target)},
        clip=settings.clip,
        average=settings.average,
        schedule=cosine(settings.horizon),
    )


def _batch_rows(rows: int) -> int:
    """About fifty steps an epoch on a middling table, within what learns well and what runs fast."""
    return int(2 ** np.clip(round(np.log2(max(rows, 1) / 50)), 5, 10))


def _inputs(net: Net, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """x_NF and c_NC where the net is."""
    where = next(net.parameters()).device
    x_NF, c_NC = net.encoder(rows)
    return x_NF.to(where), c_NC.to(where)


@torch.inference_mode()
def _predict(net: Net, x_NF: torch.Tensor, c_NC: torch.Tensor) -> torch.Tensor:
    """Probabilities (N × K), or predictions in the target's units (N × 1, float64), on the CPU."""
    net.eval()
    batches = zip(torch.split(x_NF, SCORING_ROWS), torch.split(c_NC, SCORING_ROWS), strict=True)
    parts = [net(net.embed(x_BF, c_BC)).cpu() for x_BF, c_BC in batches]
    y_NK = torch.cat(parts)
    if net.spec.classes:
        return y_NK.softmax(1)
    mean, deviation = net.target
    return y_NK.double() * deviation + mean


def _outcomes(predicted: torch.Tensor, truth_N: NDArray[Any]) -> Outcomes:
    return {"predicted": predicted.numpy(), "truth": truth_N}
