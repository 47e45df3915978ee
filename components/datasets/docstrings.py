"""15,000 docstrings of eight packages: what follows the first paragraph of each, and that paragraph, its summary.

From the Python sources in the wheels of NumPy, SciPy, pandas, scikit-learn, NetworkX, SymPy and Django (BSD-3-Clause)
and Matplotlib (its own licence, like Python's), tests and numpy's and scipy's __config__.py left out: the sources are
the same in the wheels of every platform, and are parsed, never imported. The docstrings are those of modules, classes
and functions. PEP 257 wants a summary in one line; here it may go on until the first empty line.

The body is what comes after, on one line: underlines of headings and what is typed at a prompt (>>> and on to the next
empty line) are dropped, and it ends with the last whole word before 600 characters. Left out are summaries of less than
3 or more than 30 words, without a full stop at their end or with an underline; bodies of less than 5 words, bodies that
begin with their summary, and bodies that are there before but for case, signs and spaces. Two docstrings are about
damaged text, and hold some.

The split is ours, 85/5/10, by a hash of the body's first 140 letters and digits: the parameters that a family of
functions has in common stand there, so that bodies which begin alike are in one split.

One row: id "numpy/lib/_twodim_base_impl.py:tril_indices", body "Parameters n : int The row dimension of the arrays
for …", summary "Return the indices for the lower-triangle of an (n, m) array.", split "train".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from .. import letters
from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations
from . import splits
from .packages import Members, Reader


def _sources(package: str, version: str, sha256: str, folder: str = "") -> Members:
    return Members(package, version, rf"{folder or package}/(?!(.*/)?(tests/|__config__)).*\.py", sha256)


PACKAGES = (
    _sources("numpy", "2.4.6", "7b6705fc3c0a622b20d823e7b2e9281f504275d7fa293b65981cdedb1f0782e2"),
    _sources("scipy", "1.17.1", "9aed41a9db773b79f3b2121b1b601aaa19c9837d59dec567c1152cb92d828db4"),
    _sources("pandas", "3.1.1", "33f4655b5693efa98fac4c91196b0bd2d9136f9f3e28de201c4b74c43453bdb5"),
    _sources("scikit-learn", "1.9.1", "618baa498ddec6b79d625fbfac1d65be80f8e3f12f144e805cab89ae6f5e95eb", "sklearn"),
    _sources("matplotlib", "3.11.2", "a45ffda3e1cee1bd1de68840bfe3d0e04b3c29c6ef9b4105a0cb2fc3822b0ade"),
    _sources("sympy", "1.14.0", "f841818b4b2f76805143f89cd5450a38bf7115c97b5a67d75f4a1873b27b3a6f"),
    _sources("networkx", "3.6.1", "8d40b8f6f0a6641dcfd3a0309478bc314c3f843358df200a300ba3b4e2f54009"),
    _sources("django", "5.2.19", "949bcc6d679b5c90b9cbb1446a4cda5598ad2e8ed0b1d9ef3d1e59c31c78dda8"),
)
SOURCE = "; ".join(map(str, PACKAGES))
LONGEST, ALIKE = 600, 140  # characters of a body; of its beginning, bare
SUMMARY_WORDS, BODY_WORDS = range(3, 31), 5
_GAP = re.compile(r"\n[^\S\n]*\n\s*")
_PROMPT = re.compile(r"^[ \t]*>>>.*", re.MULTILINE | re.DOTALL)
_UNDERLINE = re.compile(r"""[-=~^"*`#]{3,}""")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def build(read: Reader) -> pa.Table:
    """Columns id (path:qualified name), body, summary, split."""
    found: dict[str, tuple[str, str]] = {}  # id → body, summary
    seen: set[str] = set()
    for package in PACKAGES:
        for path, source in read(package).items():
            for name, docstring in documented(ast.parse(source)):
                body, summary = parts(docstring)
                bare, begins = (str(text) for text in letters.bare([body, summary]))
                if _is_kept(body, summary) and not bare.startswith(begins) and bare not in seen:
                    seen.add(bare)
                    found.setdefault(f"{path}:{name}", (body, summary))
    bodies = [body for body, _ in found.values()]
    heads = [str(bare)[:ALIKE] for bare in letters.bare(bodies)]
    split = splits.assign(splits.row_hashes(pa.table({"body": heads})), np.zeros(len(heads)), val=0.05, test=0.1)
    summaries = [summary for _, summary in found.values()]
    return pa.table({"id": pa.array(found), "body": bodies, "summary": summaries, SPLIT: split})


def documented(module: ast.Module) -> Iterator[tuple[str, str]]:
    """The qualified name and the docstring of the module ("") and of all in it that has one, but what is defined
    under a condition."""
    waiting: list[tuple[str, Documented]] = [("", module)]
    while waiting:
        name, node = waiting.pop()
        if docstring := ast.get_docstring(node):
            yield name, docstring
        within = [each for each in node.body if isinstance(each, Documented)]
        waiting += [(f"{name}.{each.name}".lstrip("."), each) for each in reversed(within)]


def parts(docstring: str) -> tuple[str, str]:
    """Body and summary, each on one line."""
    summary, *paragraphs = _GAP.split(docstring)
    told = " ".join(_PROMPT.sub("", paragraph) for paragraph in paragraphs)
    body = " ".join(word for word in told.split() if not _UNDERLINE.fullmatch(word))
    if len(body) > LONGEST:
        body = body[: LONGEST + 1].rpartition(" ")[0]
    return body, " ".join(summary.split())


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="text"),
            "body": ColumnRule(kind="text", longest=LONGEST, damaged=0.001, unknown=0.05),
            "summary": ColumnRule(role="target", kind="text", longest=400, damaged=0.001, unknown=0.05),
        }
    )


def _is_kept(body: str, summary: str) -> bool:
    words = summary.split()
    said = len(words) in SUMMARY_WORDS and summary.endswith(".") and not any(map(_UNDERLINE.fullmatch, words))
    return said and len(body.split()) >= BODY_WORDS
