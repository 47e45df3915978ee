"""The files of a version: an MLflow model made from a model folder, without a pickle.

The model folder as the train stage left it, the code that runs it, `model_code.py` that MLflow loads, a signature,
an example, and the packages that it needs, pinned to what is installed here.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from .. import model
from ..contract import Data, Spec
from ..errors import RegistryError
from ..tracking.store import Store
from . import bundle
from .bundle import Shipped

# Where in the files MLflow puts the two artifacts that model_code.py loads.
CODE, MODEL = "artifacts/code", "artifacts/model"
EXAMPLE_ROWS = 3
_saving = threading.Lock()  # MLflow keeps the model-from-code that it saves in a global


def build(folder: Path, data: Data, place: Path) -> Path:
    """Make the MLflow model of a model folder below `place`; returns its folder."""
    from . import model_code  # first: it keeps the import of mlflow.pyfunc quiet

    import mlflow.pyfunc  # isort: skip

    family, spec = model.describe(folder)["family"], data.spec
    bundle.write(family, place / "code")
    shutil.copytree(folder, place / "model")
    example = data.splits["test"].slice(0, EXAMPLE_ROWS).select([c.name for c in spec.columns])
    with _saving:
        mlflow.pyfunc.save_model(
            path=place / "built",
            python_model=model_code.__file__,
            artifacts={"code": str(place / "code"), "model": str(place / "model")},
            signature=_signature(spec, example.schema, model.load(folder).outputs()),
            input_example=_frame(example, spec),
            pip_requirements=_requirements(family),
            metadata={"tidemill": {"family": family, "spec": spec.to_json()}},
        )
    return place / "built"


def load(folder: Path) -> Shipped:
    """Run such files by the code among them."""
    from . import model_code

    with bundle.our_errors():
        return Shipped.of(model_code.load(folder / CODE, folder / MODEL))


def put(store: Store, built: Path, model_id: str, location: str) -> None:
    """Store the files in their place. MLflow would register absent ones as well, so what can be read is compared."""
    for cache in list(built.rglob("__pycache__")):  # of measuring the model
        shutil.rmtree(cache)
    store.client.log_model_artifacts(model_id, str(built))
    if lost := damaged(built, location):
        raise RegistryError("a file was not stored as it was written", where=str(lost), fix="is the disk full?")


def damaged(built: Path, location: str) -> Path | None:
    """The first stored file of code or model that is not what was built; None for a place on another machine."""
    place = local(location)
    if place is None:
        return None
    for file in sorted((built / "artifacts").rglob("*.*")):
        copy = place / file.relative_to(built)
        same = copy.is_file() and model.sha256(copy) == model.sha256(file) if file.is_file() else True
        if not same and file.suffix != ".pyc":
            return copy
    return None


def local(location: str) -> Path | None:
    """The folder of a location on this machine."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _signature(spec: Spec, inputs: pa.Schema, outputs: pa.Schema) -> Any:
    """Columns in and out as MLflow knows them. Whole numbers, tensors and whatever else MLflow would refuse to
    convert are "any": the model's own code checks them, with better words and a thousand times faster. A frame may hold
    a tensor as one column or each of its elements in a column."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    # Of ratings the user alone.
    needed = {c.name for c in spec.columns if spec.user in (None, c.name) and not c.is_wide}
    taken = [ColSpec(_input_type(inputs.field(c.name).type), c.name, c.name in needed) for c in spec.columns]
    taken += [ColSpec(AnyType(), part, required=False) for c in spec.columns if c.is_wide for part in c.parts]
    given = [ColSpec(_output_type(field.type), field.name) for field in outputs]
    return ModelSignature(Schema(taken), Schema(given))


def _input_type(kind: pa.DataType) -> Any:
    from mlflow.types.schema import AnyType, DataType

    if pa.types.is_floating(kind):
        return DataType.double
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return DataType.string
    return DataType.datetime if pa.types.is_timestamp(kind) and kind.tz is None else AnyType()


def _output_type(kind: pa.DataType) -> Any:
    from mlflow.types.schema import AnyType, Array, DataType

    if hasattr(kind, "value_type") and not pa.types.is_dictionary(kind):
        return Array(_output_type(kind.value_type))
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return DataType.float
    if pa.types.is_integer(kind):
        return DataType.long
    if pa.types.is_boolean(kind):
        return DataType.boolean
    known = _input_type(kind)
    return DataType.string if isinstance(known, AnyType) and pa.types.is_dictionary(kind) else known


def _frame(rows: pa.Table, spec: Spec) -> Any:
    """Rows as pandas; tensors as nested lists, which JSON can hold."""
    import pandas as pd

    columns = {}
    for column in spec.columns:
        values = rows.column(column.name).combine_chunks()
        if column.kind == "tensor":
            columns[column.name] = list(values.to_numpy_ndarray().tolist())
        else:
            columns[column.name] = values.to_pandas()
    return pd.DataFrame(columns)


def _requirements(family: str) -> list[str]:
    """What a process that loads the model must have, pinned to what is installed here."""
    needed = bundle.requirements(family) | {"mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch"}
    # A local part such as +cpu says how a wheel was built: it cannot be asked for.
    found = sorted((d.name, d.version.partition("+")[0]) for top in needed if (d := _distribution(top)))
    return [f"{name}=={version}" for name, version in found]


def _distribution(top: str) -> importlib.metadata.Distribution | None:
    """The installed distribution of a package, mostly of the same name; to look all of them through takes seconds."""
    try:
        return importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
        return importlib.metadata.distribution(names[0]) if names else None
