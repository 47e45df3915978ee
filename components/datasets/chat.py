"""The Chit-Chat Challenge: 7,168 conversations of two people about anything, and what was said in reply to what.

From chitchat-dataset 0.9.0 (MIT), member chitchat_dataset/dataset.json: each conversation's messages in order, with
their senders; those that one person sends one after the other are one turn here. Half of the conversations got no
answer and give no row.

A row is a turn of 1 to 40 words, and the three turns before it, or as many as there were, a line each: the last line is
what it replies to. Of what was said the last 400 characters are kept, from a whole word on; other spaces are one space.

The split is ours, 90/5/5, by a hash of the conversation's words, so a conversation is in one split. What everybody says
("hi" to "hello") is in all of them.

One row: id "a07edb12-6b91-4138-b11e-02421888d699 3", said three lines of which the last is "Im alright, I just took a
nap. …", reply "oh wow haha so you still feel tired huh?", split "train".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import letters
from ..contract import SPLIT
from ..expectations import ColumnRule, Duplicates, Expectations
from . import splits
from .packages import Member, Reader

MEMBER = Member(
    "chitchat-dataset",
    "0.9.0",
    "chitchat_dataset/dataset.json",
    "d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a",
)
SOURCE = str(MEMBER)
TURNS, SAID = 3, 400  # turns before, and characters of them
REPLY, WORDS = 300, range(1, 41)  # characters and words


def build(read: Reader) -> pa.Table:
    """Columns id (conversation and number of the turn, from 0), said, reply, split."""
    conversations = {name: turns(found["messages"]) for name, found in json.loads(read(MEMBER)).items()}
    words = pa.table({"said": letters.bare(["\n".join(said) for said in conversations.values()])})
    assigned = splits.assign(splits.row_hashes(words), np.zeros(len(words)), val=0.05, test=0.05).to_pylist()
    rows = [
        (f"{name} {at}", before(said, at), said[at], split)
        for (name, said), split in zip(conversations.items(), assigned, strict=True)
        for at in range(1, len(said))
        if len(said[at]) <= REPLY and len(said[at].split()) in WORDS
    ]
    columns = zip(*rows, strict=True)
    return pa.table(
        {name: pa.array(values) for name, values in zip(("id", "said", "reply", SPLIT), columns, strict=True)}
    )


def turns(messages: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """What the two said by turns, each turn on one line; who says nothing has no turn."""
    spoken = ((one["sender"], " ".join(one["text"].split())) for group in messages for one in group)
    return [
        " ".join(text for _, text in said)
        for _, said in itertools.groupby((each for each in spoken if each[1]), key=lambda each: each[0])
    ]


def before(said: Sequence[str], at: int) -> str:
    """The turns before number `at`, as much of them as a row keeps."""
    told = "\n".join(said[max(0, at - TURNS) : at])
    if len(told) <= SAID:
        return told
    kept = told[-SAID - 1 :]
    start = next((place for place, sign in enumerate(kept) if sign.isspace()), 0)
    return kept[start + 1 :]


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="text"),
            "said": ColumnRule(kind="text", longest=SAID, unknown=0.05),
            "reply": ColumnRule(role="target", kind="text", longest=REPLY, unknown=0.05),
        },
        duplicates=Duplicates(within=0.002, across=0.005, near=0.03),
    )
