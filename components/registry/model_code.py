"""A registered model as MLflow runs it: this file and what lies beside it are all that it needs.

MLflow copies this file into the model ("models from code": nothing is pickled). Beside it lie the model folder
and a package with the code that the model was trained with (bundle.py). It needs torch, safetensors, pyarrow,
pandas and mlflow, and nothing of the project that made it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

with warnings.catch_warnings():  # of MLflow's own type hints, whenever it is first imported
    warnings.simplefilter("ignore")
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel


class FromCode(PythonModel):  # type: ignore[misc]
    """`model` is what batch scoring uses: score(RecordBatch), outputs(), evaluate(splits, split)."""

    model: Any

    def load_context(self, context: Any) -> None:
        self.model = load(Path(context.artifacts["code"]), Path(context.artifacts["model"]))

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Output columns for input columns, row for row, under the index of the input."""
        batch = arrow(model_input, self.model.spec)
        scored: pd.DataFrame = self.model.score(batch).to_pandas()
        return scored.set_index(model_input.index)


def load(code: Path, model: Path) -> Any:
    """The model in folder `model`, run by the package in folder `code`.

    Raises ImportError if the package is not the code that was registered, and the package's own RegistryError
    if the weights are not.
    """
    packages = sorted(code.glob("tidemill_model_*"))
    if len(packages) != 1:
        raise ImportError(f"{code} holds {len(packages)} packages of model code, expected one")
    package, found = packages[0], sources(packages[0])
    digits = package.name.rpartition("_")[2]
    if len(digits) < SHORTEST or digest(package.name, found) != digits:
        raise ImportError(f"{package}: the code is not what was registered")
    if not any(isinstance(finder, Sources) and finder.package.name == package.name for finder in sys.meta_path):
        sys.meta_path.insert(0, Sources(package, found))
    return importlib.import_module(f"{package.name}.components.model").load(model)


SHORTEST = 12  # hex digits in a package's name, as the first versions had them


def sources(package: Path) -> dict[str, str]:
    """The text of every source file of a package, by its path in the package."""
    return {f.relative_to(package).as_posix(): f.read_text(encoding="utf-8") for f in sorted(package.rglob("*.py"))}


def digest(name: str, texts: dict[str, str]) -> str:
    """As many hex digits as end a package's name, for its sources, in which that name counts as ending in zeros."""
    prefix, _, digits = name.rpartition("_")
    whole = hashlib.sha256()
    for path, text in sorted(texts.items()):
        unnamed = text.replace(name, f"{prefix}_{'0' * len(digits)}")
        whole.update(f"{path}\0{hashlib.sha256(unnamed.encode()).hexdigest()}\n".encode())
    return whole.hexdigest()[: len(digits)]


class Sources(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):  # type: ignore[misc]
    """Imports a package from the very text that was held against its hash. What else lies beside the sources, bytecode
    or extension modules, is never looked at; nor need the folder stay."""

    def __init__(self, package: Path, texts: dict[str, str]) -> None:
        self.package, self._texts = package, texts

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG002
        return importlib.util.spec_from_loader(fullname, self) if self._path(fullname) else None

    def get_filename(self, fullname: str) -> str:
        return str(self.package / self._path(fullname))

    def get_data(self, path: str | bytes) -> bytes:
        return self._texts[Path(str(path)).relative_to(self.package).as_posix()].encode()

    def _path(self, fullname: str) -> str:
        """Where in the package a module's source is; "" if it is none of it."""
        top, *parts = fullname.split(".")
        places = ("/".join([*parts, "__init__.py"]), "/".join(parts) + ".py") if top == self.package.name else ()
        return next((place for place in places if place in self._texts), "")


# ── pandas to Arrow ─────────────────────────────────────────────────────────────────────────────────────


def arrow(frame: pd.DataFrame, spec: Any) -> pa.RecordBatch:
    """The model's input columns of a frame. Tensor cells are arrays or nested lists of the shape, or flat ones; a wide
    table has a column of its own for each element. Of ratings the user alone must be there."""
    wide = [c for c in spec.columns if c.name not in frame and c.is_wide and set(c.parts) <= set(frame)]
    frame = frame.assign(**{c.name: list(frame[list(c.parts)].to_numpy(c.dtype)) for c in wide})
    if getattr(spec, "user", None) in frame:  # the code of older versions knows of no user
        frame = frame.reindex(columns=[c.name for c in spec.columns])
    missing = [c.name for c in spec.columns if c.name not in frame]
    if missing:
        raise ValueError(f"the input lacks the columns {', '.join(missing)}")
    return pa.RecordBatch.from_arrays([_array(frame[c.name], c) for c in spec.columns], [c.name for c in spec.columns])


def _array(values: pd.Series, column: Any) -> pa.Array:
    if column.kind == "tensor":
        rows = [np.asarray(_lists(cell), column.dtype).reshape(column.shape) for cell in values]
        stacked = np.stack(rows) if rows else np.empty((0, *column.shape), column.dtype)
        return pa.FixedShapeTensorArray.from_numpy_ndarray(stacked)
    if column.kind == "number":
        return pa.array(pd.to_numeric(values).astype("float64"), pa.float64(), from_pandas=True)
    if column.kind == "date":
        return pa.array(pd.to_datetime(values).astype("datetime64[us]"), pa.timestamp("us"), from_pandas=True)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # cells of several types
        return pa.array([None if pd.isna(cell) else str(cell) for cell in values], pa.string())


def _lists(cell: Any) -> Any:
    """Arrays of arrays, as pandas reads nested lists from Parquet, as lists of lists."""
    return [_lists(part) for part in cell] if isinstance(cell, np.ndarray) and cell.dtype == object else cell


if __name__.startswith("code_model_"):  # the name under which MLflow runs this file; importing it does nothing
    set_model(FromCode())
