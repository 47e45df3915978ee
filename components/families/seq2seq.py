"""seq2seq: texts that become texts, by a recurrent encoder and decoder with attention (Bahdanau, Cho & Bengio 2015,
"Neural machine translation by jointly learning to align and translate").

The encoder reads the source in both directions, the decoder writes the target, and before each token looks at all that
the encoder made of the source, weighted by a small net of both (additive attention).

How it differs: cells are GRU (Cho et al. 2014, as in the paper) or LSTM (Hochreiter & Schmidhuber 1997, with the forget
gate of Gers et al. 2000). The decoder begins at what both directions end with, the paper's at the backward one's. With
`fed` what was looked at is read by the decoder beside the last token, as in the paper, so training goes token by
token. Without, which is the default, it is looked at from the decoder's new state and only said with (Luong, Pham &
Manning 2015, "Effective approaches to attention-based neural machine translation", global attention): all tokens of a
target go through the decoder at once; docs/families.md has what either costs and reaches. One layer of tanh and
dropout stands before the output, the paper's is of maxout. Tokens that are read, of source and target, may be hidden at
random (Bowman et al. 2016, "Generating sentences from a continuous space"), labels are smoothed, and what is served is
a running average of the weights.

Legend: B rows of a batch, H hypotheses, N rows of a split, S tokens of the longest source of a batch, T of the longest
target, E width of an embedding, D of what encoder and decoder give, A of the attention, L layers, P state tensors of a
cell (2 of an LSTM, 1 of a GRU), V tokens of the target's vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from .. import text_pairs, texts, writing
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
from ..decoding import Cache
from ..devices import device, seeded
from ..settings import configure, one_of
from ..states import unpack
from ..text_pairs import Pairs, Ranges, Vocabularies
from ..texts import PAD, START, UNKNOWN, Tokens
from ..training import learn

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class Settings(text_pairs.Settings):
    """Settings beside those of every family that writes.

    cell           gru or lstm
    width          of each direction of the encoder; the decoder has twice as much
    depth          layers of the encoder and of the decoder each
    attention      A
    fed            whether the decoder reads what was looked at
    token_dropout  share of the tokens read that are hidden from a step
    """

    ranges: ClassVar[Ranges] = (
        *text_pairs.Settings.ranges,
        *((name, 1, math.inf) for name in ("embedding", "width", "depth", "attention")),
        *((name, 0.0, 1.0) for name in ("dropout", "token_dropout")),
    )

    cell: str = "gru"
    embedding: int = 64
    width: int = 128
    depth: int = 1
    attention: int = 128
    fed: bool = False
    dropout: float = 0.1
    token_dropout: float = 0.0
    lr: float = 3e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "cell", CELLS)


class Net(nn.Module):
    """What it remembers of sources: `memory`, the encoder's outputs (B × S × D), their `keys` (B × S × A), which of
    them are `there` (B × S), and the decoder's `state` (B × L × PD)."""

    def __init__(self, spec: Spec, known: Vocabularies, settings: Settings) -> None:
        super().__init__()
        self.spec, self.known, self.settings = spec, known, settings
        cell, embedding, depth, D = CELLS[settings.cell], settings.embedding, settings.depth, 2 * settings.width
        between = settings.dropout if depth > 1 else 0.0  # torch warns of dropout between the layers of one
        self.P = 2 if settings.cell == "lstm" else 1
        self.source, self.target = (
            nn.Embedding(side.size, embedding, padding_idx=PAD) for side in (known.source, known.target)
        )
        for table in (self.source, self.target):
            nn.init.normal_(table.weight, std=0.1)
        self.encoder = cell(embedding, D // 2, depth, dropout=between, batch_first=True, bidirectional=True)
        self.decoder = cell(embedding + settings.fed * D, D, depth, dropout=between, batch_first=True)
        self.first = nn.Linear(D, self.P * D)
        self.key, self.query = nn.Linear(D, settings.attention), nn.Linear(D, settings.attention, bias=False)
        self.energy = nn.Linear(settings.attention, 1, bias=False)
        self.both, self.last = nn.Linear(2 * D, D), nn.Linear(D, known.target.size)
        self.dropout = nn.Dropout(settings.dropout)

    def logits(self, pairs: Pairs, rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cache, made = self.begin(pairs.source, rows_B), []
        ids_BT, _ = pairs.target.padded(rows_B)
        x_BTE = self._embedded(self.target, functional.pad(self._hidden(ids_BT[:, :-1]), (1, 0), value=START))
        # Padding stands behind a row's END: what comes of it changes nothing before it, and no loss counts it.
        for part in torch.split(x_BTE, 1, 1) if self.settings.fed else (x_BTE,):
            y, cache = self._go_on(part, cache)
            made.append(y)
        return self._said(torch.cat(made, 1)), ids_BT.to(x_BTE.device)

    def learnt(self, pairs: Pairs) -> torch.Tensor:
        return pairs.target.lengths_N

    def begin(self, source: Tokens, rows_B: torch.Tensor) -> Cache:
        ids_BS, lengths_B = source.padded(rows_B)
        x_BSE = self._embedded(self.source, self._hidden(ids_BS))
        packed = nn.utils.rnn.pack_padded_sequence(x_BSE, lengths_B, batch_first=True, enforce_sorted=False)
        y, ended = self.encoder(packed)
        memory_BSD, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
        ended = ended[0] if self.P == 2 else ended  # 2L × B × D/2, the directions of a layer one after the other
        ended_BLD = ended.unflatten(0, (-1, 2)).permute(2, 0, 1, 3).flatten(2)
        return {
            "memory": memory_BSD,
            "keys": self.key(memory_BSD),
            "there": (ids_BS != PAD).to(memory_BSD.device),
            "state": self.first(ended_BLD).tanh(),
        }

    def step(self, last_H: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]:
        y_H1Y, cache = self._go_on(self._embedded(self.target, last_H[:, None]), cache)
        return self._said(y_H1Y)[:, 0], cache

    def _go_on(self, x_BTE: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]:
        """The decoder's outputs over these tokens and what was looked at, side by side (B × T × 2D). T is 1 if that is
        fed."""
        parts = [part.contiguous() for part in cache["state"].transpose(0, 1).chunk(self.P, 2)]
        seen_BTD = self._looked(parts[0][-1][:, None], cache) if self.settings.fed else None
        if seen_BTD is not None:
            x_BTE = torch.cat([x_BTE, seen_BTD], 2)
        y_BTD, state = self.decoder(x_BTE, tuple(parts) if self.P == 2 else parts[0])
        y_BTD = self.dropout(y_BTD)
        if seen_BTD is None:
            seen_BTD = self._looked(y_BTD, cache)
        state = torch.cat(state, 2) if self.P == 2 else state
        return torch.cat([y_BTD, seen_BTD], 2), {**cache, "state": state.transpose(0, 1)}

    def _looked(self, from_BTD: torch.Tensor, cache: Cache) -> torch.Tensor:
        """What the encoder made of the source, as looked at from each of these states."""
        return self.weights(from_BTD, cache) @ cache["memory"]

    def weights(self, from_BTD: torch.Tensor, cache: Cache) -> torch.Tensor:
        """B × T × S: how much each state looks at each token of the source; together 1, and nothing at padding."""
        inner_BTSA = (self.query(from_BTD)[:, :, None] + cache["keys"][:, None]).tanh()
        energy_BTS = self.energy(inner_BTSA)[:, :, :, 0].masked_fill(~cache["there"][:, None], -torch.inf)
        weights_BTS: torch.Tensor = energy_BTS.softmax(2)
        return weights_BTS

    def _said(self, y: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.dropout(self.both(y).tanh()))
        return logits

    def _hidden(self, ids_BT: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.settings.token_dropout:
            return ids_BT
        hidden_BT = (torch.rand(ids_BT.shape) < self.settings.token_dropout) & (ids_BT != PAD)
        return ids_BT.masked_fill(hidden_BT, UNKNOWN)

    def _embedded(self, table: nn.Embedding, ids_BT: torch.Tensor) -> torch.Tensor:
        x_BTE: torch.Tensor = self.dropout(table(ids_BT.to(table.weight.device)))
        return x_BTE


class Seq2seq:
    learning: ClassVar[Learning] = "supervised"
    tasks: ClassVar[tuple[Task, ...]] = ("text2text",)
    kinds: ClassVar[tuple[Kind, ...]] = ("text",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        """Loss of all tokens: it is there after each epoch, texts are written only to be measured."""
        return Objective("loss", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "cell": Choice(("gru", "lstm")),
            "width": Choice((96, 128)),
            "dropout": Uniform(0.0, 0.3),
            "token_dropout": Uniform(0.0, 0.1),
            "lr": Uniform(1e-3, 5e-3, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings = configure(Settings, hyper)
        seeded(seed)
        net = Net(data.spec, text_pairs.vocabularies(data, settings), settings).to(device())
        yield from learn(writing.lesson(net, data, settings, self.objective(data.spec)), seed, state)

    def load(self, spec: Spec, hyper: Hyper, state: State) -> Net:
        net = Net(spec, Vocabularies.from_json(state.scalars["model"]), configure(Settings, hyper))
        unpack(state, {"model": net})
        return net.to(device()).eval()

    def judge(self, net: Net, data: Data, split: str) -> Outcomes:
        return writing.judge(net, data, split)

    def measure(self, spec: Spec, outcomes: Outcomes, split: str) -> Metrics:  # noqa: ARG002
        return writing.told(outcomes, split)

    def baseline(self, data: Data, split: str, hyper: Hyper) -> Metrics:
        return writing.baseline(data, split, configure(Settings, hyper))

    def score(self, net: Net, batch: pa.RecordBatch) -> pa.RecordBatch:
        return writing.score(net, batch)

    @torch.inference_mode()
    def encode(self, net: Net, batch: pa.RecordBatch) -> Codes:
        """The mean of what the encoder made of each token of the source."""
        source = text_pairs.sources(texts.read(net.spec, batch), net.known, net.settings)
        x_ND = torch.zeros(len(source), 2 * net.settings.width)
        for rows_B in texts.in_order(source.lengths_N, writing.JUDGING_ROWS):
            memory_BSD = net.begin(source, rows_B)["memory"]  # 0 at padding
            x_ND[rows_B] = memory_BSD.float().sum(1).cpu() / source.lengths_N[rows_B][:, None]
        codes: Codes = x_ND.numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return writing.OUTPUTS
