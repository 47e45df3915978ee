"""The table of datasets, and how a dataset's promises and rows are had, wherever it comes from.

A dataset of your own needs no line here: name its module as `source: package.module` in params.yaml, its file as
`table: PATH`, or an environment to record episodes of as `environment: ID`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:  # params.py reads the table below: nothing heavy may come with it
    import pyarrow as pa

    from ..contract import Data, Json, Task
    from ..expectations import Expectations
    from ..params import DatasetBlock
    from ..workspace import Workspace
    from .packages import Reader

BUILT_IN = {
    "digits": "components.datasets.digits",
    "breast-cancer": "components.datasets.breast_cancer",
    "cartpole": "components.datasets.cartpole",
    "pendulum": "components.datasets.pendulum",
    "reacher": "components.datasets.reacher",
    "movies": "components.datasets.movies",
    "gunpoint": "components.datasets.gunpoint",
    "arrowhead": "components.datasets.arrowhead",
    "italy-power": "components.datasets.italy_power",
    "movie-sentiment": "components.datasets.movie_sentiment",
    "spelling-to-sound": "components.datasets.spelling_to_sound",
    "translate-en-fr": "components.datasets.translate_en_fr",
    "summarize-docstrings": "components.datasets.docstrings",
    "chat": "components.datasets.chat",
    "series-anomaly": "components.datasets.series_anomaly",
    "ecg-anomaly": "components.datasets.ecg_anomaly",
}


class Dataset(Protocol):
    """What a dataset's module holds.

    SOURCE   one line that names everything the rows are made from; another line: they are built again
    """

    SOURCE: str

    def build(self, read: Reader, /) -> pa.Table:
        """All rows in a fixed order, with the split of each. `read` has the bytes of a file in a package, or of many
        files of one."""

    def expectations(self) -> Expectations: ...


def module(name: str, block: DatasetBlock) -> Dataset:
    """The module of a dataset that is neither a table nor an environment."""
    from ..errors import ParamsError

    source = block.source or name
    try:
        found = importlib.import_module(BUILT_IN.get(source, source))
    except ImportError as error:
        raise ParamsError(
            f"dataset module {source!r} cannot be imported",
            where=f"params.yaml datasets.{name}.source",
            why=str(error),
            fix=f"is its package installed? Built in: {', '.join(BUILT_IN)}",
        ) from error
    absent = [word for word in ("SOURCE", "build", "expectations") if not hasattr(found, word)]
    if absent:
        raise ParamsError(
            f"module {source!r} is no dataset: it has no {' and no '.join(absent)}",
            where=f"params.yaml datasets.{name}.source",
            fix="give it what components/datasets/digits.py has",
        )
    return cast(Dataset, found)


def expectations(workspace: Workspace, name: str, block: DatasetBlock) -> Expectations:
    """What a dataset promises. What a table or an environment does is inferred and written to expectations/NAME.yaml
    if absent.

    Raises ParamsError with a line for each fault in that file, DataError if the table cannot be read, or the
    environment not be recorded.
    """
    if block.environment:
        from . import environment

        return environment.expectations(workspace, name, environment.named(name, block))
    if not block.table:
        return module(name, block).expectations()
    from .table import expectations as stated

    return stated(workspace, name, block)


@dataclass(frozen=True)
class Recipe:
    """How a dataset's file is made.

    `note` names everything that the file is made from. `pinned`: the same note must give the same bytes, whatever
    the machine. `remark` is worth saying whenever the file is looked after.
    """

    note: Json
    build: Callable[[], pa.Table]
    pinned: bool
    remark: str = ""


def recipe(workspace: Workspace, name: str, block: DatasetBlock, say: Callable[[str], None]) -> Recipe:
    """How data/NAME.parquet is made; `say` is told what is downloaded. Raises as `expectations` does."""
    from . import packages

    if block.environment:
        from . import environment

        recorded = environment.named(name, block)
        environment.expectations(workspace, name, recorded)
        return Recipe(recorded.note(), recorded.rows, False)
    if not block.table:
        found = module(name, block)
        read = packages.Reader(workspace.state / "packages", lambda text: say(f"{name}: {text}"))
        return Recipe({"source": found.SOURCE}, partial(found.build, read), (block.source or name) in BUILT_IN)
    from . import table as tables

    stated = expectations(workspace, name, block)
    source = tables.find(workspace, name, block)
    parts = [part for rule in stated.columns.values() for part in rule.parts]
    strangers = [column for column in source.names if column not in (*stated.columns, *parts, "split")]
    remark = f"left out, since expectations/{name}.yaml does not name them: {', '.join(strangers)}" if strangers else ""
    return Recipe(tables.note(source, stated, workspace), partial(tables.build, source, stated), False, remark)


def load(workspace: Workspace, name: str, expectations: Expectations, task: Task) -> Data:
    """The rows of data/NAME.parquet by split: the id, the inputs in the order of the spec, the target.

    Recorded episodes come with all their columns: validation looks at whole episodes.
    Raises DataError if the file is absent, damaged, lacks a column or a split.
    """
    import pyarrow.compute as pc

    from ..contract import SPLIT, SPLITS, Data
    from ..errors import DataError
    from . import parquet

    file, fix = workspace.data(name), f"tidemill data fetch {name}"
    if not file.is_file():
        raise DataError(f"dataset {name!r} is not there yet", where=str(file), fix=fix)
    spec = expectations.spec(name, task)
    learnt = (spec.id, *(column.name for column in spec.columns), spec.target)
    wanted = list(expectations.columns) if spec.environment else [name for name in learnt if name is not None]
    absent = sorted({*wanted, SPLIT} - set(parquet.names(file)))
    if absent:
        raise DataError(f"no column {', '.join(map(repr, absent))}", where=str(file), fix=fix)
    rows = parquet.read(file, [*wanted, SPLIT])
    splits = {split: rows.filter(pc.equal(rows[SPLIT], split)).drop([SPLIT]).combine_chunks() for split in SPLITS}
    empty = [split for split, part in splits.items() if not part.num_rows]
    if empty:
        raise DataError(f"no rows in split {', '.join(empty)}", where=str(file), fix=fix)
    return Data(spec, {split: part.replace_schema_metadata() for split, part in splits.items()})
