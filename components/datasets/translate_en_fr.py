"""17,355 texts of programs in English and French, as seven packages ship them to translate what they show to people.

They are gettext catalogues (.mo): Django, Wagtail and JupyterLab's language pack (BSD-3-Clause), Sphinx (BSD-2-Clause),
Indico (MIT), CKAN and pretix (AGPL-3.0, which asks something of those who pass it on or serve it: here it is only read,
and nothing of it is in this repository). What a translator has marked as doubtful (fuzzy) is in no compiled catalogue.

Spaces and line breaks, however many and of whatever kind, are one space. Placeholders (%s, %(name)s, {name}) and tags
stay as they are. A message with a plural is two pairs: singular and last form. Left out is what has no word besides
its placeholders, what is longer than 300 characters on either side, and what was not translated, which is more than
three words that are the same in French. An English text is there once, with what the first package in the order of
PACKAGES makes of it: so nothing is taught in two ways, and one reference stands for one text.

The split is ours, 85/5/10, by a hash of the English text without case, signs and spaces.

One row: id 101, english "Enter a valid URL.", french "Saisissez une URL valide.", package "Django", split "train".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from .. import letters
from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations
from . import splits
from .packages import Members, Reader

PACKAGES = (
    Members(
        "Django",
        "5.2.19",
        r"django/.*/fr/LC_MESSAGES/\w+\.mo",
        "b05b5ba2a3a564018e55bfc74cace29ad61c8522d7cf8382201f1c552c0d78cf",
    ),
    Members(
        "wagtail",
        "8.0.1",
        r"wagtail/.*/fr/LC_MESSAGES/\w+\.mo",
        "be12c6290c9e0f137c86f911eb909423f1b88eb454e25326878db155e0554379",
    ),
    Members(
        "ckan",
        "2.12.0",
        r"ckan/i18n/fr/LC_MESSAGES/\w+\.mo",
        "57154c8c78dea5f73fdd4f45f306299cb704ae1943d35ea69f927032ef5b270d",
    ),
    Members(
        "Sphinx",
        "9.0.4",
        r"sphinx/locale/fr/LC_MESSAGES/\w+\.mo",
        "5dc2ee840b17e6fde674d5df0ff2d4086fca26a56460ee69685264f85aaf0640",
    ),
    Members(
        "jupyterlab-language-pack-fr-FR",
        "4.5.post3",
        r".*/fr_FR/LC_MESSAGES/\w+\.mo",
        "5aec565944eee29100c26ceb807be72d32e2626a0304a46233b3d15053caf703",
    ),
    Members(
        "indico",
        "3.2.9",
        r"indico/translations/fr_FR/LC_MESSAGES/\w+\.mo",
        "cb166f12cda801832cdbf4232b5d87be8f31aee6371c26636166d16bf6ed2df1",
    ),
    Members(
        "pretix",
        "2026.8.0",
        r"pretix/locale/fr/LC_MESSAGES/\w+\.mo",
        "bc34296e5c7dcdfb8fc6a1de1e22b9092a18b3b8b4216ff9f443c2c8eaab4dfb",
    ),
)
SOURCE = "; ".join(map(str, PACKAGES))
LONGEST = 300  # characters
_PLACEHOLDER = re.compile(r"%\(\w+\)\w|%\w|\{[^{}]*\}|<[^<>]*>")
_WORD = re.compile(r"[^\W\d_]{2}")


def build(read: Reader) -> pa.Table:
    """Columns id, english, french, package, split."""
    first: dict[str, tuple[str, str]] = {}  # english → french, package
    for package in PACKAGES:
        for content in read(package).values():
            for english, french in pairs(content):
                if _is_kept(english, french):
                    first.setdefault(english, (french, package.package))
    hashes = splits.row_hashes(pa.table({"english": pa.array(letters.bare(list(first)))}))
    columns = {
        "id": pa.array(range(len(first)), pa.int64()),
        "english": pa.array(first),
        "french": pa.array([french for french, _ in first.values()]),
        "package": pa.array([package for _, package in first.values()]),
    }
    return pa.table({**columns, SPLIT: splits.assign(hashes, np.zeros(len(hashes)), val=0.05, test=0.1)})


def pairs(catalogue: bytes) -> Iterator[tuple[str, str]]:
    """Each message of a compiled catalogue and its translation, spaces made plain. The head's message is empty.

    The standard library's reader keeps no English plural, so this is the format itself: 7 numbers of 4 bytes, of which
    the third counts the messages and the two behind say where the tables of lengths and places begin.
    """
    count, *tables = struct.unpack_from("<3I", catalogue, 8)
    for at in range(count):
        english, french = (_entry(catalogue, table + 8 * at).split("\0") for table in tables)
        english[0] = english[0].rpartition("\x04")[2]  # before it stands what the message is used for
        for form in dict.fromkeys((0, len(english) - 1)):
            yield " ".join(english[form].split()), " ".join(french[-1 if form else 0].split())


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="number", min=0, max=20_000),
            "english": ColumnRule(kind="text", longest=LONGEST, unknown=0.05),
            "french": ColumnRule(role="target", kind="text", longest=LONGEST, unknown=0.05),
            "package": ColumnRule(role="ignored", kind="category", values=sorted(p.package for p in PACKAGES)),
        }
    )


def _entry(catalogue: bytes, place: int) -> str:
    length, start = struct.unpack_from("<2I", catalogue, place)
    return catalogue[start : start + length].decode()


def _is_kept(english: str, french: str) -> bool:
    said = bool(french and _WORD.search(_PLACEHOLDER.sub("", english)))
    untranslated = english == french and len(english.split()) > 3
    return said and not untranslated and max(len(english), len(french)) <= LONGEST
