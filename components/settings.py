"""The settings of a configuration, checked and typed by a family's dataclass of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from .contract import Hyper, Json
from .errors import ParamsError

S = TypeVar("S")


def configure(kind: type[S], hyper: Hyper) -> S:
    """The settings of a configuration: `hyper` over the defaults of the dataclass `kind`.

    Raises ParamsError for an unknown setting or one of the wrong type.
    """
    known = {f.name: f.default for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in hyper:
        if name not in known:
            raise ParamsError(f"unknown setting {name!r}", fix=f"use one of {', '.join(known)}")
    return kind(**{name: _typed(name, value, type(known[name])) for name, value in hyper.items()})


def one_of(settings: object, name: str, known: Iterable[str]) -> None:
    """Raises ParamsError if the setting is none of the known."""
    names = list(known)
    if getattr(settings, name) not in names:
        raise ParamsError(f"setting {name!r} got {getattr(settings, name)!r}, expected one of {', '.join(names)}")


def _typed(name: str, value: Json, wanted: type[Any]) -> Any:
    """The value as the type of the setting's default: JSON and YAML know no tuples, and write 1.0 as 1."""
    if isinstance(value, bool) == (wanted is bool):
        if isinstance(value, wanted):
            return value
        if wanted is float and isinstance(value, int):
            return float(value)
        if wanted is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if wanted is tuple and isinstance(value, list):
            return tuple(value)
    raise ParamsError(f"setting {name!r} got {value!r}, expected {wanted.__name__}")
