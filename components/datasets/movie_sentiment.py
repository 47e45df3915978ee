"""10,605 snippets of film reviews, each with the mean of twenty people's scores: negative, neutral or positive.

From vaderSentiment 3.3.2 (MIT), in its source archive additional_resources/hutto_ICWSM_2014.tar.gz, in that
movieReviewSnippets_GroundTruth.txt: a line has a number, a score from -4 to 4 and the snippet, between tabs. Hutto &
Gilbert 2014, "VADER", divide the score by 4 and cut at ±0.05; 186 snippets, 1.75 %, are neutral then, and the others
are about even.

The split follows the paper's protocol, training on half and testing on the other half: 50 % test; val, of which the
paper knows nothing, is a tenth of the training half. It is by a hash of the snippet without case, signs and spaces,
evenly over the classes, so that the same snippet is never on two sides.

One row: id 3, text "Effective but too tepid biopic", sentiment "negative", split "train".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from .. import letters
from ..contract import SPLIT
from ..expectations import ColumnRule, Duplicates, Expectations
from . import splits
from .packages import Member

MEMBER = Member(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    sdist="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    inside="hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
)
SOURCE = str(MEMBER)
CLASSES = ("negative", "neutral", "positive")
CUT, SCALE = 0.05, 4.0


def build(read: Callable[[Member], bytes]) -> pa.Table:
    """Columns id (the source's own number), text, sentiment, split."""
    lines = [line.split("\t") for line in read(MEMBER).decode("utf-8").splitlines()]
    number, score, text = ([line[at].strip() for line in lines] for at in range(3))
    score_N = np.array(score, np.float64) / SCALE
    class_N = 1 + (score_N >= CUT).astype(np.int64) - (score_N <= -CUT)
    columns = {"id": pa.array([int(n) for n in number]), "text": pa.array(text)}
    sentiment = pa.array([CLASSES[k] for k in class_N.tolist()])
    hashes = splits.row_hashes(pa.table({"text": pa.array(letters.bare(text))}))
    # A snippet that is there twice counts for its first class, or its two rows could fall apart.
    _, first, same = np.unique(hashes, return_index=True, return_inverse=True)
    split = splits.assign(hashes, class_N[first][same], val=0.05, test=0.5)
    return pa.table({**columns, "sentiment": sentiment, SPLIT: split})


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="number", min=1, max=10605),
            "text": ColumnRule(kind="text", longest=600, unknown=0.2),
            "sentiment": ColumnRule(role="target", kind="category", values=list(CLASSES)),
        },
        duplicates=Duplicates(within=0.01),
        class_share=0.01,
    )
