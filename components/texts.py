"""What families on text share: reading the text column, vocabularies, rows of tokens, batches of like length.

A vocabulary is trained on the training rows alone, by the tokenizers library, and kept in the model as its JSON. It is
one of whole words, or of pieces of words (byte pair encoding, Sennrich et al. 2016) over bytes, which knows no unknown
word and gives back the very text. Rows are never padded to the longest of the corpus: a batch holds rows of like
length.

Legend: N rows of a split, B rows of a batch, T tokens (of all rows together; padded in B × T), V tokens of a
vocabulary, G grams (tokens and pairs of them), K classes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .contract import Column, Json, Spec
from .errors import BadInput, DataError
from .tables import Rows
from .tables import column as column_of

PAD, UNKNOWN, START, END = range(4)  # the first tokens of every vocabulary
SPECIALS = ("<pad>", "<unknown>", "<start>", "<end>")
WORD = r"\w+(?:['’]\w+)*|[^\w\s]"  # a word with its apostrophes, or one other sign
TEXT = (pa.string(), pa.large_string(), pa.string_view())
PARALLEL = "TOKENIZERS_PARALLELISM"
GRAMS = 200_000  # that are told apart at most
AT_ONCE = 2048  # texts that are cut into tokens: what the library says of each is many times as large as its tokens
PADDED = 8192  # tokens, padding included, that go through a net at once where nothing is learnt
POOL = 32  # batches whose rows are sorted by length together: enough for little padding, few enough to stay random

Ids = NDArray[np.int64]


# ── the column ──────────────────────────────────────────────────────────────────────────────────────────


def column(spec: Spec) -> Column:
    """The one text column. Raises DataError if the inputs are anything else."""
    if [c.kind for c in spec.columns] != ["text"]:
        raise DataError(
            "this family takes one column of text",
            where=spec.dataset,
            why=f"inputs are {', '.join(f'{c.name} ({c.kind})' for c in spec.columns) or 'none'}",
            fix="name it as `text: COLUMN` in the dataset's block, or choose another family",
        )
    return spec.columns[0]


def read(spec: Spec, rows: Rows) -> list[str]:
    """The texts; a missing one is empty. Raises BadInput if the column is absent or no text."""
    name = column(spec).name
    values = column_of(rows, name)
    if values.type not in TEXT:
        raise BadInput(f"column {name!r} is {values.type}, expected text")
    return [text or "" for text in values.to_pylist()]


# ── vocabularies ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Vocabulary:
    """Text to tokens and back. `longest`: tokens of a text at most; what goes beyond is cut off."""

    tokenizer: Tokenizer
    longest: int

    @property
    def size(self) -> int:
        """V, special tokens included."""
        return int(self.tokenizer.get_vocab_size())

    def to_json(self) -> Json:
        return {"tokenizer": json.loads(self.tokenizer.to_str()), "longest": self.longest}

    @classmethod
    def from_json(cls, value: Json) -> Vocabulary:
        return cls(Tokenizer.from_str(json.dumps(value["tokenizer"])), value["longest"])

    def __post_init__(self) -> None:
        # A text that has "<end>" in it means these five signs. It is not kept in the tokenizer's JSON.
        self.tokenizer.encode_special_tokens = True

    def encode(self, texts: Sequence[str], longest: int = 0, end: bool = False) -> Tokens:
        """Each text's tokens, not more than `longest` if it is given; one without any gets UNKNOWN. With `end`, a long
        text keeps its last tokens."""
        most = min(longest or self.longest, self.longest)
        kept = slice(-most, None) if end else slice(most)
        ids: list[list[int]] = []
        with _one_thread():
            for at in range(0, len(texts), AT_ONCE):
                found = self.tokenizer.encode_batch_fast(list(texts[at : at + AT_ONCE]), add_special_tokens=False)
                ids += [encoding.ids[kept] or [UNKNOWN] for encoding in found]
        return Tokens.of(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without the special ones."""
        return str(self.tokenizer.decode([i for i in ids if i >= len(SPECIALS)]))


def words(texts: Sequence[str], most: int, seen: int, longest: int, lower: bool = True) -> Vocabulary:
    """A vocabulary of whole words: at most V = `most` tokens, each of which the texts hold `seen` times or more."""
    made = Tokenizer(models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
    made.normalizer = _normalizer(lower)
    made.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    made.decoder = decoders.WordPiece(prefix="\0")  # spaces between words, none before signs
    trainer = trainers.WordLevelTrainer(
        vocab_size=most, min_frequency=seen, special_tokens=list(SPECIALS), show_progress=False
    )
    return _trained(made, trainer, texts, longest)


def characters(texts: Sequence[str], most: int, seen: int, longest: int, lower: bool = True) -> Vocabulary:
    """A vocabulary of single characters, spaces and all: at most V = `most`, each there `seen` times or more."""
    made = Tokenizer(models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
    made.normalizer = _normalizer(lower)
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    made.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=most, min_frequency=seen, special_tokens=list(SPECIALS), show_progress=False
    )
    return _trained(made, trainer, texts, longest)


def pieces(texts: Sequence[str], most: int, seen: int, longest: int, lower: bool = True) -> Vocabulary:
    """A vocabulary of pieces of words: all bytes, and pairs of pieces that the texts hold `seen` times or more joined
    into one until there are V = `most`."""
    made = Tokenizer(models.BPE())
    made.normalizer = _normalizer(lower)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=most,
        min_frequency=seen,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    return _trained(made, trainer, texts, longest)


def _normalizer(lower: bool) -> normalizers.Normalizer:
    """Signs that only look different are one (NFKC), capitals small; else only what is the same anyway (NFC): a text
    that is to be written must come out of its tokens as it went in."""
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()] if lower else [normalizers.NFC()])


def _trained(made: Tokenizer, trainer: trainers.Trainer, texts: Sequence[str], longest: int) -> Vocabulary:
    with _one_thread():
        made.train_from_iterator(texts, trainer)
    if made.get_vocab_size() <= len(SPECIALS):
        raise DataError("the training texts hold no word often enough", fix="give more text, or ask for rarer words")
    return Vocabulary(made, longest)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The library's own threads off: trials share the cores, and what is counted is counted in one order."""
    before = os.environ.get(PARALLEL)
    os.environ[PARALLEL] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARALLEL]
        else:
            os.environ[PARALLEL] = before


# ── rows of tokens ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Tokens:
    """The tokens of N rows, one after the other: ids_T, where each row starts, and how long each is."""

    ids_T: torch.Tensor
    starts_N: torch.Tensor
    lengths_N: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Tokens:
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        return cls.split(np.fromiter((i for row in rows for i in row), np.int64, int(lengths.sum())), lengths)

    @classmethod
    def split(cls, ids_T: Ids, lengths_N: Ids) -> Tokens:
        starts_N = np.cumsum(lengths_N) - lengths_N
        return cls(*(torch.from_numpy(np.asarray(part, np.int64)) for part in (ids_T, starts_N, lengths_N)))

    def __len__(self) -> int:
        return len(self.lengths_N)

    def padded(self, rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """ids_BT, PAD after each row's own, T that of the longest of these rows; and lengths_B. Both on the CPU."""
        lengths_B = self.lengths_N[rows_B]
        at_T = torch.arange(int(lengths_B.max()) if len(rows_B) else 0)
        there_BT = at_T < lengths_B[:, None]
        ids_BT = torch.full(there_BT.shape, PAD)
        ids_BT[there_BT] = self.ids_T[(self.starts_N[rows_B][:, None] + at_T)[there_BT]]
        return ids_BT, lengths_B

    def joined(self, rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of these rows one after the other, and where each row starts among them: bags, on the CPU."""
        lengths_B = self.lengths_N[rows_B]
        starts_B = lengths_B.cumsum(0) - lengths_B
        shift_B = self.starts_N[rows_B] - starts_B
        return self.ids_T[torch.arange(int(lengths_B.sum())) + shift_B.repeat_interleave(lengths_B)], starts_B

    def among(self, known_G: torch.Tensor) -> Tokens:
        """Each token as its place among `known_G`, which is sorted; others are left out."""
        place_T = torch.searchsorted(known_G, self.ids_T).clamp(max=max(len(known_G) - 1, 0))
        there_T = known_G[place_T] == self.ids_T if len(known_G) else torch.zeros(len(self.ids_T), dtype=torch.bool)
        row_T = torch.arange(len(self)).repeat_interleave(self.lengths_N)
        lengths_N = torch.bincount(row_T[there_T], minlength=len(self))
        return Tokens.split(place_T[there_T].numpy(), lengths_N.numpy())


def grams(tokens: Tokens, vocabulary: int) -> Tokens:
    """The different tokens and pairs of neighbours that each row holds, as codes, sorted: a token is its own number,
    the pair a, b is vocabulary × (a + 1) + b. What stands for unknown words is left out."""
    ids_T, lengths = tokens.ids_T.numpy(), tokens.lengths_N.numpy()
    row_T = np.repeat(np.arange(len(tokens)), lengths)
    known_T = ids_T > UNKNOWN
    together_T = known_T[:-1] & known_T[1:] & (row_T[:-1] == row_T[1:])
    codes = np.concatenate([ids_T[known_T], (vocabulary * (ids_T[:-1] + 1) + ids_T[1:])[together_T]])
    rows = np.concatenate([row_T[known_T], row_T[:-1][together_T]])
    span = vocabulary * (vocabulary + 1)
    found = np.unique(rows * span + codes)
    return Tokens.split(found % span, np.bincount(found // span, minlength=len(tokens)))


def log_count_ratios(
    grams: Tokens, class_N: NDArray[np.int64] | None, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """gram_G, the GRAMS commonest grams that stand in two texts or more, sorted; and ratio_GK, float32: how much
    likelier each is in texts of a class than in others, as a logarithm, each counted once more than it is there
    (Wang & Manning 2012, "Baselines and bigrams"). Without classes K is 1 and the ratios are 0."""
    codes, counts = np.unique(grams.ids_T.numpy(), return_counts=True)
    common = np.sort(codes[np.argsort(-counts, kind="stable")[: min(GRAMS, int((counts > 1).sum()))]])
    ratio_GK, gram_G = np.zeros((len(common), classes or 1), np.float32), torch.from_numpy(common)
    if class_N is not None and len(common):
        held = grams.among(gram_G)
        count_GK = np.ones((len(common), classes))
        np.add.at(count_GK, (held.ids_T.numpy(), np.repeat(class_N, held.lengths_N.numpy())), 1)
        other_GK = count_GK.sum(1, keepdims=True) - count_GK
        ratio_GK = np.log(count_GK / count_GK.sum(0) / (other_GK / other_GK.sum(0))).astype(np.float32)
    return gram_G, torch.from_numpy(ratio_GK)


def buckets(lengths_N: NDArray[np.int64], batch_rows: int) -> Callable[[np.random.Generator, int], list[Ids]]:
    """For Lesson.batches: every row once, about `batch_rows` in a batch, rows of like length together.

    Which rows meet, and the order of the batches, are drawn anew from each epoch's generator. A row is moved past at
    most POOL batches of others, so that an epoch does not go from short to long.
    """
    rows = len(lengths_N)
    count = max(1, round(rows / batch_rows))

    def drawn(generator: np.random.Generator, _: int) -> list[Ids]:
        order, made = generator.permutation(rows), []
        for pool in np.array_split(order, max(1, round(count / POOL))):
            ordered = pool[np.argsort(lengths_N[pool], kind="stable")]
            made += np.array_split(ordered, max(1, round(len(pool) * count / rows)))
        return [made[i] for i in generator.permutation(len(made))]

    return drawn


def in_order(lengths_N: torch.Tensor, batch_rows: int) -> Iterator[torch.Tensor]:
    """Row numbers from short to long, for passes in which no row matters to another: `batch_rows` at a time, or as many
    as make PADDED tokens."""
    order_N = torch.argsort(lengths_N, stable=True)
    sorted_N, done = lengths_N[order_N].tolist(), 0
    while done < len(sorted_N):
        rows = min(batch_rows, len(sorted_N) - done)
        while rows > 1 and rows * sorted_N[done + rows - 1] > PADDED:
            rows -= 1
        yield order_N[done : done + rows]
        done += rows
