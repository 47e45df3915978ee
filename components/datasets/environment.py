"""An environment of the user's choice: `environment: ID` in params.yaml makes its recorded episodes a dataset.

    datasets:
      climb:
        environment: MountainCar-v0                        # a gymnasium id, or "package.module:Id-v0" to import first
        environment_settings: {max_episode_steps: 500}     # what gymnasium.make is told beside it
        environment_wrappers: ["gymnasium.wrappers:FlattenObservation"]   # the innermost first; each as it comes
        episodes: 100                                      # recorded
        evaluation: {val: 20, test: 50}                    # episodes that measure a policy, val's after each epoch

How episodes are recorded: episodes.py. What they promise is inferred once and stands in expectations/NAME.yaml from
then on (promises.py): the environment, its settings and wrappers, the episodes that measure a policy where they are
not the usual ones, with the seed of the first, and bounds of what is seen, done and paid. Edges of a
space that has them, with two digits and outward; elsewhere, and of rewards, those of all recorded rows with room, as
bounds.py gives it to a table's. There is no training on these rows, so val and test may say what is usual too.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from .. import closure
from ..contract import EVALUATION, Json
from ..errors import ParamsError
from ..expectations import ColumnRule, Expectations, Measured, Split, seeds
from ..params import DatasetBlock
from ..workspace import Workspace
from . import bounds, promises
from .episodes import COUNT, EPISODE, OBSERVATION, REWARD, Recorder, Recording

_LARGEST = 1e6  # some spaces write the largest float for no bound


class Environment(Recorder):
    """A recorder that records once, and can say what its rows hang on."""

    @cached_property
    def recording(self) -> Recording:
        return self.record()

    def rows(self) -> pa.Table:
        return self.recording.rows

    def note(self) -> Json:
        """All that the rows are made from: the environment, how it is made, how much of it; versions of the packages
        that bring it and its wrappers, and of what these import (of a robot that is MuJoCo); and a hash of what of its
        code is the project's own. Raises DataError as `opened` does."""
        made = self.opened()
        named = (path.partition(":") for path in (self.environment, *self.wrappers))
        modules = {*_modules(made), *(module for module, colon, _ in named if colon)}
        made.close()
        own = closure.own(modules)
        imported = {name for module in modules.difference(own) for name in (module, *closure.needed(module))}
        packages = {name.partition(".")[0] for name in imported} | closure.outside(own)
        return {
            "environment": self.environment,
            "settings": dict(self.settings),
            "wrappers": list(self.wrappers),
            "episodes": self.count,
            "versions": _versions(packages),
            "code": closure.code_hash(own) if own else None,
        }


def named(name: str, block: DatasetBlock) -> Environment:
    """The environment of a dataset's block."""
    return Environment(
        name,
        str(block.environment),
        block.episodes or COUNT,
        json.loads(json.dumps(block.environment_settings)),
        tuple(block.environment_wrappers),
        {
            split: Measured(episodes=count, first_seed=EVALUATION[split].start)
            for split, count in block.evaluation.items()
            if count != len(EVALUATION[split])
        },
    )


def expectations(workspace: Workspace, name: str, environment: Environment) -> Expectations:
    """What expectations/NAME.yaml says; recorded, inferred and written if there is no such file.

    Raises ParamsError if file and params.yaml differ on the environment or on how many episodes measure a policy (which
    ones the file alone says), DataError if it is no use.
    """
    file = workspace.expectations(name)
    if not file.is_file():
        promises.write(file, infer(environment), {})
    stated = promises.read(file)
    _check_agreed(name, environment, stated)
    # Equal, and plain: values of a YAML file carry their comments, and the spec goes to other processes.
    return stated.model_copy(update={"environment_settings": dict(environment.settings)})


def infer(environment: Environment) -> Expectations:
    """What the recorded episodes promise. Any number of them may come: how many are recorded is for params.yaml."""
    recording, rows = environment.recording, environment.rows()
    promised = environment.expectations(
        recording.longest,
        observation=_seen(rows, recording.observation),
        action=_done(recording.action),
        reward=ColumnRule(role="ignored", kind="number", **_between(bounds.numbers(rows[REWARD]))),
    )
    every = promised.columns[EPISODE].model_copy(update={"max": None})
    return promised.model_copy(update={"columns": {**promised.columns, EPISODE: every}})


def _seen(rows: pa.Table, space: Any) -> ColumnRule:
    bounded = (np.abs([space.low, space.high]) < _LARGEST).all()
    edges = _edges(space) if bounded else _between(bounds.numbers(rows[OBSERVATION]))
    return ColumnRule(kind="tensor", dtype="float32", shape=space.shape, **edges)


def _done(space: Any) -> ColumnRule:
    if hasattr(space, "n"):
        first = int(space.start)
        return ColumnRule(role="ignored", kind="number", min=first, max=first + int(space.n) - 1)
    return ColumnRule(role="ignored", kind="tensor", dtype="float32", shape=space.shape, **_edges(space))


def _edges(space: Any) -> dict[str, Any]:
    """Of all elements, as float32 has them."""
    low, high = float(np.float32(space.low.min())), float(np.float32(space.high.max()))
    return _between((bounds.outward(low, -1), bounds.outward(high, 1)))


def _between(edges: tuple[float | None, float | None]) -> dict[str, Any]:
    return dict(zip(("min", "max"), edges, strict=True))


def _check_agreed(name: str, environment: Environment, stated: Expectations) -> None:
    wanted = {
        "environment": environment.environment,
        "environment_settings": environment.settings,
        "environment_wrappers": environment.wrappers,
    }
    says = {key: getattr(stated, key) for key in wanted} | _counts(stated.evaluation)
    for key, value in {**wanted, **_counts(environment.evaluation)}.items():
        if says[key] != value:
            raise ParamsError(
                f"params.yaml says that {key} is {_shown(value)}, expectations/{name}.yaml says {_shown(says[key])}",
                where=f"params.yaml datasets.{name}",
                fix=f"make them agree, or delete expectations/{name}.yaml to have it inferred anew",
            )


def _counts(evaluation: Mapping[Split, Measured]) -> dict[str, int]:
    return {f"evaluation.{split}": len(each) for split, each in seeds(evaluation).items()}


def _shown(value: Any) -> str:
    return (repr(list(value)) if isinstance(value, tuple) else repr(value)) if value else "none"


# ── what the rows hang on ───────────────────────────────────────────────────────────────────────────────


def _modules(made: Any) -> Iterator[str]:
    """Names of the modules that what makes the environment, its class, its wrappers' and the classes below them are
    written in."""
    maker = made.spec.entry_point
    yield maker.partition(":")[0] if isinstance(maker, str) else maker.__module__
    while True:
        names = {kind.__module__ for kind in type(made).__mro__}
        yield from (name for name in names if name.partition(".")[0] not in sys.stdlib_module_names)
        if made is made.unwrapped:
            return
        made = made.env


def _versions(packages: set[str]) -> dict[str, str]:
    """Versions of what is installed, by the name of its distribution, which mostly is the package's own: to ask which
    it is takes half a second."""
    found: dict[str, str] = {}
    strange = []
    for name in packages - sys.stdlib_module_names - {"typing_extensions"}:  # which does nothing
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            strange.append(name)
    brought = importlib.metadata.packages_distributions() if strange else {}
    found |= {each: importlib.metadata.version(each) for name in strange for each in brought.get(name, ())}
    return dict(sorted(found.items()))
