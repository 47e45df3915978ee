"""transformer: texts that become texts, by attention alone (Vaswani et al. 2017, "Attention is all you need").

Two nets. "encoder-decoder" is the paper's: an encoder reads the source in both directions, a decoder writes the target
and looks at what the encoder made of it. "decoder" is one stack that reads source, START and target as one sequence,
from left to right (Radford et al. 2018, "Improving language understanding by generative pre-training"; 2019, "Language
models are unsupervised multitask learners"). It, too, learns from the target's tokens alone, for these are what is
measured; with `both` from the source's as well, which pays where sources are made like targets (what was said in a
conversation): there are more of them, and the net has read them anyway.

How it differs from the paper: layers normalise first and tell places by turning (attention.py says whose ideas these
are), which on a CPU costs little more than adding waves, and knows no longest text; the target's embeddings are the
output's weights (Press & Wolf 2017), and the source's embeddings too where one vocabulary serves both; linear layers of
attention have no bias, and its weights no dropout, which would rule out fused kernels; tokens that are read, of source
and target, may be hidden at random (Bowman et al. 2016, "Generating sentences from a continuous space"); AdamW with a
cosine for Adam with an inverse root; and what is served is a running average of the weights, not the mean of the last
checkpoints. With `grams` a token is read together with those before it: pairs, triples, … of up to `order` tokens have
vectors of their own, which they share by a hash (Pagnoni et al. 2024, "Byte latent transformer", hash n-gram
embeddings, there of bytes). They cost no multiplication, and tell a small net what it would be slow to learn.

Legend: B rows of a batch, H hypotheses, S tokens of a source, T of a target, N of source and target, D width, K tokens
that stand before one.
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
from ..attention import Sizes, Stack, View, sight, turns
from ..contract import (
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
from ..errors import ParamsError
from ..settings import configure, one_of
from ..states import unpack
from ..text_pairs import Pairs, Ranges, Vocabularies
from ..texts import PAD, START, UNKNOWN, Tokens
from ..training import learn

NETS = ("encoder-decoder", "decoder")
_PRIME = 1_000_003  # where runs of tokens fall in the table is chance


@dataclass(frozen=True)
class Settings(text_pairs.Settings):
    """Settings beside those of every family that writes.

    net            encoder-decoder or decoder, which needs one kind of vocabulary for source and target
    depth          layers of the encoder and of the decoder each
    wider          width of a layer's inner part, over that of the net
    dropout        of embeddings and of what each sublayer adds
    token_dropout  share of the tokens read that are hidden from a step
    both           whether a decoder learns to foretell the source's tokens too
    grams, order   vectors for what a token and those before it are together, shared by all runs of 2 to `order` tokens
    gram_dropout   share of these runs that are not seen in a step: rare ones are learnt by heart soon
    gram_lr        their learning rate over the net's
    """

    ranges: ClassVar[Ranges] = (
        *text_pairs.Settings.ranges,
        *((name, 1, math.inf) for name in ("width", "heads", "depth", "wider")),
        *((name, 0.0, 1.0) for name in ("dropout", "token_dropout")),
        ("grams", 0, math.inf),
        ("order", 2, 8),
        ("gram_dropout", 0.0, 0.999),
        ("gram_lr", 0.0, math.inf),
    )

    net: str = "encoder-decoder"
    width: int = 128
    heads: int = 8
    depth: int = 2
    wider: int = 2
    lr: float = 1.5e-3
    batch_rows: int = 32
    dropout: float = 0.1
    token_dropout: float = 0.0
    both: bool = False
    grams: int = 0
    order: int = 3
    gram_dropout: float = 0.0
    gram_lr: float = 0.5

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.width, self.heads, self.depth, self.wider, self.dropout)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "net", NETS)
        if self.width % (2 * self.heads):
            raise ParamsError(f"setting 'width' got {self.width}, expected a multiple of 2 × {self.heads} heads")
        if self.net == "decoder" and self.source != self.target:
            raise ParamsError(
                f"settings 'source' and 'target' got {self.source!r} and {self.target!r}, expected the same for both",
                why="net 'decoder' reads both as one sequence",
                fix="give both one kind, or take net 'encoder-decoder'",
            )


class Net(nn.Module):
    def __init__(self, spec: Spec, known: Vocabularies, settings: Settings) -> None:
        super().__init__()
        self.spec, self.known, self.settings = spec, known, settings
        joined = settings.net == "decoder"
        self.target = nn.Embedding(known.target.size, settings.width)
        self.source = None if known.shared else nn.Embedding(known.source.size, settings.width)
        self.encoder = None if joined else Stack(settings.sizes, reads=False)
        self.decoder = Stack(settings.sizes, reads=not joined)
        self.grams = nn.Embedding(settings.grams, settings.width, sparse=True) if settings.grams else None
        self.dropout = nn.Dropout(settings.dropout)
        for table in (self.target, self.source):
            if table is not None:
                nn.init.normal_(table.weight, std=settings.width**-0.5)
        if self.grams is not None:
            nn.init.zeros_(self.grams.weight)

    def logits(self, pairs: Pairs, rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids_BT, _ = pairs.target.padded(rows_B)
        if self.encoder is None:
            x_BTD, ids_BT = self._along(pairs.source, rows_B, ids_BT)
        else:
            _, cache = self.read(pairs.source, rows_B)
            last_BT = functional.pad(ids_BT[:, :-1], (1, 0), value=START)
            view = View(self._turns(torch.arange(last_BT.shape[1])[None]), causal=True, source=sight(cache["there"]))
            x_BTD, _ = self.decoder(self._embedded(last_BT), view, cache)
        return self._said(x_BTD), ids_BT.to(x_BTD.device)

    def learnt(self, pairs: Pairs) -> torch.Tensor:
        along = self.encoder is None and self.settings.both
        return pairs.target.lengths_N + pairs.source.lengths_N if along else pairs.target.lengths_N

    def _along(self, source: Tokens, rows_B: torch.Tensor, ids_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x_BTD and ids_BT of targets that follow right behind their sources, so that only ends of rows are padded,
        and what comes later is not seen anyway: no mask. To learn `both`: of sources and targets."""
        ids_BS, sources_B = source.padded(rows_B)
        said_BT = functional.pad(ids_BT, (1, 0), value=START)
        at_BT = sources_B[:, None] + torch.arange(said_BT.shape[1])
        ids_BN = functional.pad(ids_BS, (0, said_BT.shape[1]), value=PAD).scatter(1, at_BT, said_BT)
        ids_BN = ids_BN[:, : int((ids_BN != PAD).sum(1).max())]
        turn = self._turns(torch.arange(ids_BN.shape[1] - 1)[None])
        x_BND, _ = self.decoder(self._embedded(ids_BN[:, :-1]), View(turn, causal=True))
        if self.training and self.settings.both:
            return x_BND, ids_BN[:, 1:]
        at_BT1 = at_BT[:, :-1, None].clamp(max=x_BND.shape[1] - 1).to(x_BND.device)
        return x_BND.gather(1, at_BT1.expand(-1, -1, x_BND.shape[2])), ids_BT

    def read(self, source: Tokens, rows_B: torch.Tensor) -> tuple[torch.Tensor, Cache]:
        """x_BSD of the sources, and what `step` goes on from: keys and values by layer, to be "read" or as the
        decoder's "own"; where the source is "there", and which tokens the decoder has "written" or read itself."""
        ids_BS, lengths_B = source.padded(rows_B)
        there_BS = (ids_BS != PAD).to(self.target.weight.device)
        turn, x_BSD = self._turns(torch.arange(ids_BS.shape[1])[None]), self._embedded(ids_BS, source=True)
        if self.encoder is None:
            x_BSD, own = self.decoder(x_BSD, View(turn, causal=True))
            last_BK = lengths_B[:, None] + torch.arange(self._before)
            before_BK = functional.pad(ids_BS, (self._before, 0), value=PAD).gather(1, last_BK)
            return x_BSD, {**own, "written": there_BS, "before": before_BK.to(there_BS.device)}
        x_BSD, _ = self.encoder(x_BSD, View(turn, own=sight(there_BS)))
        before_BK = torch.full((len(ids_BS), self._before), PAD, device=there_BS.device)
        said = {"there": there_BS, "written": there_BS[:, :0], "before": before_BK}
        return x_BSD, {**self.decoder.remembered(x_BSD, turn), **said}

    def begin(self, source: Tokens, rows_B: torch.Tensor) -> Cache:
        return self.read(source, rows_B)[1]

    def step(self, last_H: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]:
        written_HT = functional.pad(cache["written"], (0, 1), value=True)
        turn = self._turns(written_HT.sum(1, keepdim=True) - 1)
        view = View(turn, own=sight(written_HT), source=sight(cache["there"]) if "there" in cache else None)
        x_H1D, own = self.decoder(self._embedded(last_H[:, None], before_BK=cache["before"]), view, cache)
        before_HK = torch.cat([cache["before"], last_H[:, None]], 1)[:, 1:]
        return self._said(x_H1D[:, 0]), {**cache, **own, "written": written_HT, "before": before_HK}

    @property
    def _before(self) -> int:
        """K"""
        return self.settings.order - 1 if self.grams is not None else 0

    def _turns(self, at_BT: torch.Tensor) -> torch.Tensor:
        return turns(at_BT.to(self.target.weight.device), self.settings.sizes)

    def _embedded(
        self, ids_BT: torch.Tensor, source: bool = False, before_BK: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.training and self.settings.token_dropout:
            hidden_BT = (torch.rand(ids_BT.shape) < self.settings.token_dropout) & (ids_BT != PAD) & (ids_BT != START)
            ids_BT = ids_BT.masked_fill(hidden_BT, UNKNOWN)
        table = self.source if source and self.source is not None else self.target
        ids_BT = ids_BT.to(table.weight.device)
        x_BTD = table(ids_BT)
        if self.grams is not None:
            if before_BK is None:
                ids_BN = functional.pad(ids_BT, (self._before, 0), value=PAD)
            else:
                ids_BN = torch.cat([before_BK, ids_BT], 1)
            for run_BT in runs(ids_BN, self._before):
                x_BTD = x_BTD + self._seen(self.grams(run_BT % self.settings.grams))
        embedded_BTD: torch.Tensor = self.dropout(x_BTD * self.settings.width**0.5)
        return embedded_BTD

    def _seen(self, x_BTD: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.settings.gram_dropout):
            return x_BTD
        share = 1 - self.settings.gram_dropout
        seen_BT1 = (torch.rand(x_BTD.shape[:2]) < share)[:, :, None].to(x_BTD)
        return x_BTD * seen_BT1 / share

    def _said(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return functional.linear(x_BTD, self.target.weight)


def runs(ids_BN: torch.Tensor, before: int) -> Iterator[torch.Tensor]:
    """A number for the pair, triple, … that ends with each token but the first `before`, which only stand before it."""
    run_BT = ids_BN[:, before:]
    for back in range(1, before + 1):
        run_BT = run_BT * _PRIME + ids_BN[:, before - back : ids_BN.shape[1] - back]
        yield run_BT


class Transformer:
    learning: ClassVar[Learning] = "supervised"
    tasks: ClassVar[tuple[Task, ...]] = ("text2text",)
    kinds: ClassVar[tuple[Kind, ...]] = ("text",)
    Settings: ClassVar[type[Settings]] = Settings

    def objective(self, spec: Spec) -> Objective:  # noqa: ARG002
        """Loss of all tokens: it is there after each epoch, texts are written only to be measured."""
        return Objective("loss", "min")

    def search_space(self, spec: Spec) -> Mapping[str, Domain]:  # noqa: ARG002
        return {
            "dropout": Uniform(0.0, 0.3),
            "token_dropout": Uniform(0.0, 0.1),
            "lr": Uniform(7e-4, 2e-3, log=True, mutable=True),
        }

    def fit(self, data: Data, hyper: Hyper, seed: int, state: State | None = None) -> Iterator[Epoch]:
        settings = configure(Settings, hyper)
        seeded(seed)
        net = Net(data.spec, text_pairs.vocabularies(data, settings), settings).to(device())
        lesson = writing.lesson(net, data, settings, self.objective(data.spec), settings.gram_lr * settings.lr)
        yield from learn(lesson, seed, state)

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
        """The mean of what the encoder, or the one stack, makes of each token of the source."""
        source = text_pairs.sources(texts.read(net.spec, batch), net.known, net.settings)
        x_ND = torch.zeros(len(source), net.settings.width)
        for rows_B in texts.in_order(source.lengths_N, writing.JUDGING_ROWS):
            x_BSD, _ = net.read(source, rows_B)
            there_BS1 = (source.padded(rows_B)[0] != PAD)[:, :, None]
            x_ND[rows_B] = (x_BSD.float().cpu() * there_BS1).sum(1) / there_BS1.sum(1)
        codes: Codes = x_ND.numpy()
        return codes

    def outputs(self, spec: Spec) -> pa.Schema:  # noqa: ARG002
        return writing.OUTPUTS
