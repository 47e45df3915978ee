"""rnn: a recurrent net for text: LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000) or GRU
(Cho et al. 2014), read in both directions (Schuster & Paliwal 1997), with embeddings learnt from scratch.

How it differs: a text's features are the largest and the mean output over its tokens, not the last output alone
(Conneau et al. 2017). Beside the net, with a loss of its own, learns a linear model of the tokens and pairs of tokens
that a text holds; it begins at their naive Bayes log count ratios (Wang & Manning 2012, "Baselines and bigrams"), and
what is served is the mean of both (log) predictions: on a small corpus a bag of words is hard to beat, and the two err
differently. Tokens are dropped at random (Iyyer et al. 2015), features may be mixed up (Zhang et al. 2018; of
sentences: Guo et al. 2019), and the weights served are a running average.

Legend: B texts of a batch, N rows of a split, T tokens of the longest text of a batch, E width of an embedding, D
features of a text, G tokens and pairs that the linear model knows, K outputs (classes, or 1 for regression).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from .. import metrics, texts
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
from ..settings import configure, one_of
from ..states import unpack
from ..tables import Rows, class_columns, classified, truth
from ..texts import PAD, UNKNOWN, Tokens, Vocabulary
from ..training import Lesson, adam, cosine, learn

SCORING_ROWS = 256  # texts that go through the net at once
CELLS, VOCABULARIES = {"lstm": nn.LSTM, "gru": nn.GRU}, {"words": texts.words, "pieces": texts.pieces}


@dataclass(frozen=True)
class Settings:
    """Settings that do not say it themselves.

    cell           lstm or gru
    vocabulary     words, or pieces of words (byte pair encoding)
    tokens         of the vocabulary at most; each is there `seen` times at least in the training rows
    longest        tokens of a text that are read
    token_dropout  share of the tokens that are hidden from a step
    mixup          of features and targets: both parameters of the beta distribution; 0: none
    linear         whether the linear model learns beside the net
    average        decay of the weights' running average
    horizon        epochs over which the learning rate falls along a cosine; 0: it stays
    """

    cell: str = "lstm"
    vocabulary: str = "words"
    tokens: int = 8000
    seen: int = 2
    longest: int = 256
    embedding: int = 100
    width: int = 64
    depth: int = 1
    dropout: float = 0.5
    token_dropout: float = 0.2
    mixup: float = 0.0
    linear: bool = True
    lr: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    batch_rows: int = 64
    clip: float = 5.0
    average: float = 0.99
    horizon: int = 0

    def __post_init__(self) -> None:
        one_of(self, "cell", CELLS)
        one_of(self, "vocabulary", VOCABULARIES)


@dataclass(frozen=True)
class Read:
    """Texts as the net reads them: their tokens in order, and the grams that they hold."""

    tokens: Tokens
    grams: Tokens


class Net(nn.Module):
    """`target`: mean and deviation that the outputs are scaled by; (0, 1) for classes. `begin`: gram_G, the codes of
    the linear model's grams, and ratio_GK, the weights that it begins at."""

    def __init__(
        self,
        spec: Spec,
        vocabulary: Vocabulary,
        target: tuple[float, float],
        begin: tuple[torch.Tensor, torch.Tensor],
        settings: Settings,
    ) -> None:
        super().__init__()
        self.spec, self.vocabulary, self.target, self.settings = spec, vocabulary, target, settings
        outputs = len(spec.classes) or 1
        self.embedding = nn.Embedding(vocabulary.size, settings.embedding, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.rnn = CELLS[settings.cell](
            settings.embedding, settings.width, settings.depth, bidirectional=True, batch_first=True
        )
        self.last = nn.Linear(4 * settings.width, outputs)
        self.dropout = nn.Dropout(settings.dropout)
        self.gram_G, self.ratio_GK = nn.Buffer(begin[0]), nn.Buffer(begin[1])
        self.linear_GK = nn.Parameter(torch.zeros_like(begin[1]))
        self.scale, self.bias_K = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(outputs))

    def read(self, rows: Rows) -> Read:
        tokens = self.vocabulary.encode(texts.read(self.spec, rows))
        return Read(tokens, texts.grams(tokens, self.vocabulary.size).among(self.gram_G.cpu()))

    def features(self, tokens: Tokens, rows_B: torch.Tensor) -> torch.Tensor:
        """x_BD."""
        ids_BT, lengths_B = tokens.padded(rows_B)
        if self.training and self.settings.token_dropout:
            hidden_BT = (torch.rand(ids_BT.shape) < self.settings.token_dropout) & (ids_BT != PAD)
            ids_BT = ids_BT.masked_fill(hidden_BT, UNKNOWN)
        x_BTE = self.dropout(self.embedding(ids_BT.to(self.scale.device)))
        packed = nn.utils.rnn.pack_padded_sequence(x_BTE, lengths_B, batch_first=True, enforce_sorted=False)
        x_BTH, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        there_BT1 = (ids_BT != PAD).to(x_BTH.device)[:, :, None]
        largest_BH = x_BTH.masked_fill(~there_BT1, -torch.inf).amax(1)
        mean_BH = x_BTH.sum(1) / there_BT1.sum(1)  # outputs beyond a text's end are 0
        return torch.cat([largest_BH, mean_BH], 1)

    def linear(self, grams: Tokens, rows_B: torch.Tensor) -> torch.Tensor:
        """The linear model's y_BK: weights of the grams, over the root of how many there are."""
        ids, starts_B = (part.to(self.scale.device) for part in grams.joined(rows_B))
        kept = functional.dropout(torch.ones(len(ids), device=ids.device), self.settings.token_dropout, self.training)
        y_BK = functional.embedding_bag(
            ids, self.ratio_GK + self.linear_GK, starts_B, mode="sum", per_sample_weights=kept
        )
        count_B = grams.lengths_N[rows_B].to(ids.device).clamp(min=1)
        return self.scale * y_BK * count_B.rsqrt()[:, None] + self.bias_K


class Rnn:
    learning: ClassVar[Learning] = "supervised"
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "regression")
    kinds: ClassVar[tuple[Kind, ...]] = ("text",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:
        """Log loss rather than accuracy, as for tables."""
        return Objective("loss" if spec.classes else "rmse", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "cell": Choice(("lstm", "gru")),
            "vocabulary": Choice(("words", "pieces")),
            "tokens": Choice((4000, 8000)),
            "dropout": Uniform(0.3, 0.6),
            "token_dropout": Uniform(0.1, 0.4),
            "mixup": Choice((0.0, 0.2)),
            "lr": Uniform(1e-3, 4e-3, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings, spec = configure(Settings, hyper), data.spec
        seeded(seed)
        truth_N, val_truth_N = (truth(spec, data.splits[name], name) for name in ("train", "val"))
        train = texts.read(spec, data.splits["train"])
        vocabulary = VOCABULARIES[settings.vocabulary](train, settings.tokens, settings.seen, settings.longest)
        net = _begun(spec, vocabulary, train, truth_N, settings).to(device())
        read, val = net.read(data.splits["train"]), net.read(data.splits["val"])
        mean, deviation = net.target
        y_N = torch.from_numpy(truth_N if spec.classes else (truth_N - mean) / deviation).to(net.scale.device)

        def loss(rows_B: torch.Tensor) -> torch.Tensor:
            at_B, y_B = rows_B.cpu(), y_N[rows_B]
            x_BD, share, other_B = _mixed(net.features(read.tokens, at_B), settings.mixup)
            y_BK = net.last(net.dropout(x_BD))
            total = _loss(y_BK, y_B, settings) * share
            total = total + _loss(y_BK, y_B[other_B], settings) * (1 - share) if share < 1 else total
            return total + _loss(net.linear(read.grams, at_B), y_B, settings) if settings.linear else total

        lesson = Lesson(
            net=net,
            optimizer=adam(net.parameters(), settings.lr, settings.weight_decay),
            rows=len(y_N),
            batch_rows=settings.batch_rows,
            loss=loss,
            evaluate=lambda served: self.measure(spec, _outcomes(_predict(served, val), val_truth_N), "val"),
            objective=self.objective(spec),
            fitted=lambda _: {"vocabulary": vocabulary.to_json(), "target": list(net.target)},
            clip=settings.clip,
            average=settings.average,
            schedule=cosine(settings.horizon),
            batches=partial(texts.buckets, read.tokens.lengths_N.numpy()),
        )
        yield from learn(lesson, seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        fitted = state.scalars["model"]
        mean, deviation = fitted["target"]
        start = state.tensors["model/gram_G"], state.tensors["model/ratio_GK"]
        net = Net(
            spec, Vocabulary.from_json(fitted["vocabulary"]), (mean, deviation), start, configure(Settings, hyper)
        )
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        return _outcomes(_predict(net, net.read(data.splits[split])), truth(data.spec, data.splits[split], split))

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
        predicted = _predict(net, net.read(batch))
        if net.spec.classes:
            return classified(predicted, net.spec.classes)
        return pa.record_batch([pa.array(predicted[:, 0].numpy())], schema=self.outputs(net.spec))

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The features before the last layer."""
        tokens = net.read(batch).tokens
        x_ND = torch.zeros(len(tokens), 4 * net.settings.width)
        for rows_B in texts.in_order(tokens.lengths_N, SCORING_ROWS):
            x_ND[rows_B] = net.features(tokens, rows_B).float().cpu()
        codes: Codes = x_ND.numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:
        return class_columns(spec.classes) if spec.classes else pa.schema([("prediction", pa.float64())])


def _begun(spec: Spec, vocabulary: Vocabulary, train: list[str], truth_N: NDArray[Any], settings: Settings) -> Net:
    """A net that has learnt nothing but counts."""
    grams = texts.grams(vocabulary.encode(train), vocabulary.size)
    start = texts.log_count_ratios(grams, truth_N if spec.classes else None, len(spec.classes))
    target = (0.0, 1.0) if spec.classes else (float(truth_N.mean()), float(truth_N.std()) or 1.0)
    return Net(spec, vocabulary, target, start, settings)


def _mixed(x_BD: torch.Tensor, strength: float) -> tuple[torch.Tensor, float, torch.Tensor]:
    """Features mixed with those of another row each; the first row's share; and which row the other is."""
    other_B = torch.randperm(len(x_BD)).to(x_BD.device)
    if not strength:
        return x_BD, 1.0, other_B
    share = float(torch.distributions.Beta(strength, strength).sample())
    return share * x_BD + (1 - share) * x_BD[other_B], share, other_B


def _loss(y_BK: torch.Tensor, y_B: torch.Tensor, settings: Settings) -> torch.Tensor:
    if y_B.is_floating_point():
        return functional.mse_loss(y_BK[:, 0].float(), y_B.float())
    return functional.cross_entropy(y_BK.float(), y_B, label_smoothing=settings.label_smoothing)


@torch.inference_mode()
def _predict(net: Net, read: Read) -> torch.Tensor:
    """Probabilities (N × K), or predictions in the target's units (N × 1, float64), on the CPU."""
    net.eval()
    classes = net.spec.classes
    y_NK = torch.zeros(len(read.tokens), len(classes) or 1)
    for rows_B in texts.in_order(read.tokens.lengths_N, SCORING_ROWS):
        made = [net.last(net.features(read.tokens, rows_B)).float()]
        made += [net.linear(read.grams, rows_B).float()] if net.settings.linear else []
        made = [y_BK.log_softmax(1) for y_BK in made] if classes else made
        y_NK[rows_B] = torch.stack(made).mean(0).cpu()
    mean, deviation = net.target
    return y_NK.softmax(1) if classes else y_NK.double() * deviation + mean


def _outcomes(predicted: torch.Tensor, truth_N: NDArray[Any]) -> Outcomes:
    return {"predicted": predicted.numpy(), "truth": truth_N}
