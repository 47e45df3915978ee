"""The code that a registered model carries: copies of the few modules that it needs, in a package of its own.

The package's name holds the hash of its sources, so that an old champion keeps its own code beside newer code
in one process. `model_code.py` loads such a package in a process that knows nothing of this project.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from .. import errors
from ..closure import closure, outside, statements
from ..contract import Codes, Metrics, Outcomes, Spec
from ..errors import TidemillError
from ..model import Model

PREFIX = "tidemill_model_"
UNNAMED = PREFIX + "0" * 32  # the package's name while its sources are hashed


def roots(family: str) -> list[str]:
    """The modules that a model of this family (`module:Class`) starts from."""
    return ["components.model", family.partition(":")[0]]


def requirements(family: str) -> set[str]:
    """Top-level names of the installed packages that the model's code imports."""
    return outside(roots(family))


def write(family: str, folder: Path) -> Path:
    """Copy what a model of this family needs into a new package below `folder`; returns the package's folder."""
    from .model_code import digest, sources

    modules = closure(roots(family))
    own = {name.partition(".")[0] for name in modules}
    texts = {"__init__.py": f'"""Code of a Tidemill model: {family}."""\n'}
    for module, file in modules.items():
        end = "/__init__.py" if file.name == "__init__.py" else ".py"
        texts[module.replace(".", "/") + end] = _renamed(file.read_text(encoding="utf-8"), own)
    unnamed = folder / UNNAMED
    for path, text in texts.items():
        (unnamed / path).parent.mkdir(parents=True, exist_ok=True)
        (unnamed / path).write_text(text, encoding="utf-8")
    package = unnamed.rename(folder / (PREFIX + digest(UNNAMED, sources(unnamed))))
    for path, text in texts.items():
        if UNNAMED in text:
            (package / path).write_text(text.replace(UNNAMED, package.name), encoding="utf-8")
    return package


def _renamed(source: str, own: set[str]) -> str:
    """The source with its absolute imports of own code led into the package; relative ones hold as they are."""
    lines = source.encode().splitlines(keepends=True)
    for node in reversed(list(statements(ast.parse(source)))):
        wanted = _import(node, own)
        if wanted and node.end_lineno and node.end_col_offset is not None:
            first, last = node.lineno - 1, node.end_lineno - 1
            head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
            lines[first : last + 1] = [head + wanted.encode() + tail]
    return b"".join(lines).decode()


def _import(node: ast.Import | ast.ImportFrom, own: set[str]) -> str:
    """What an import statement becomes; "" if it stays."""
    if isinstance(node, ast.ImportFrom):
        if node.level or (node.module or "").partition(".")[0] not in own:
            return ""
        return ast.unparse(ast.ImportFrom(f"{UNNAMED}.{node.module}", node.names, 0))
    if not any(alias.name.partition(".")[0] in own for alias in node.names):
        return ""
    parts: list[str] = []
    for alias in node.names:
        top = alias.name.partition(".")[0]
        if top not in own:
            parts.append(ast.unparse(ast.Import([alias])))
        elif alias.asname:
            parts.append(f"import {UNNAMED}.{alias.name} as {alias.asname}")
        else:  # `import a.b` binds a
            parts += [f"import {UNNAMED}.{alias.name}", f"from {UNNAMED} import {top}"]
    return "; ".join(parts)


# ── running a model by its own code ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Shipped(Model):
    """A registered model as the rest of the project knows models; `own` is the one of its own code, which works."""

    own: Any = field(kw_only=True)

    @classmethod
    def of(cls, own: Any) -> Shipped:
        spec = Spec.from_json(own.spec.to_json())
        profile = getattr(own, "profile", None)  # the code of older versions knows of none
        return cls(own.family, spec, own.hyper, own.net, own.weights_sha256, profile, own=own)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        with our_errors(), torch.inference_mode():
            return self.own.score(batch)

    def outputs(self) -> pa.Schema:
        with our_errors():
            return self.own.outputs()

    def encode(self, batch: pa.RecordBatch) -> Codes:
        with our_errors():
            codes: Codes = self.own.encode(batch)
            return codes

    def sample(self, count: int, seed: int) -> pa.RecordBatch:
        with our_errors():
            return self.own.sample(count, seed)

    def decode(self, codes: Codes) -> pa.RecordBatch:
        with our_errors():
            return self.own.decode(codes)

    def judge(self, splits: dict[str, pa.Table], split: str) -> Outcomes:
        with our_errors():
            outcomes: Outcomes = self.own.judge(splits, split)
            return outcomes

    def measured_by(self, evaluation: Mapping[str, range]) -> Model:
        """The code of older versions knows of no episodes but its own, and is judged on those."""
        return Shipped.of(self.own.measured_by(evaluation)) if hasattr(self.own, "measured_by") else self

    def measure(self, outcomes: Outcomes, split: str) -> Metrics:
        with our_errors():
            metrics: Metrics = self.own.measure(outcomes, split)
            return metrics


@contextlib.contextmanager
def our_errors() -> Iterator[None]:
    """Raise the errors of shipped code as this process's own classes, so that callers can catch them."""
    try:
        yield
    except Exception as error:
        kind, told = getattr(errors, type(error).__name__, None), vars(error)
        if isinstance(error, TidemillError) or kind is None or "what" not in told:
            raise
        raise kind(told["what"], where=told["where"], why=told["why"], fix=told["fix"]) from error
