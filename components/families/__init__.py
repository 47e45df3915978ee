"""The table of families. A family of your own needs no line here: name it `package.module:Class` in params.yaml."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from ..contract import Family
from ..errors import ParamsError

FAMILIES = {
    "mlp": "components.families.mlp:Mlp",
    "cnn": "components.families.cnn:Cnn",
    "cnn1d": "components.families.cnn1d:Cnn1d",
    "autoencoder": "components.families.autoencoder:Autoencoder",
    "rnn": "components.families.rnn:Rnn",
    "seq2seq": "components.families.seq2seq:Seq2seq",
    "transformer": "components.families.transformer:Transformer",
    "dqn": "components.families.dqn:Dqn",
    "ddpg": "components.families.ddpg:Ddpg",
    "recommender": "components.families.recommender:Recommender",
    "vae": "components.families.vae:Vae",
    "geom": "components.families.geom:Geom",
    "gan": "components.families.gan:Gan",
    "diffusion": "components.families.diffusion:Diffusion",
}


def import_path(name: str) -> str:
    """`module:Class` of a family in the table, or of one named by its import path."""
    if name in FAMILIES:
        return FAMILIES[name]
    if ":" in name:
        return name
    close = difflib.get_close_matches(name, FAMILIES, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ParamsError(
        f"unknown family {name!r}", fix=f"{hint}use one of {', '.join(FAMILIES)}, or package.module:Class of your own"
    )


def family(name: str) -> Family[Any]:
    """The family of that name."""
    module_name, _, class_name = import_path(name).partition(":")
    try:
        made: Family[Any] = getattr(importlib.import_module(module_name), class_name)()
    except (ImportError, AttributeError) as error:
        raise ParamsError(
            f"family {name!r} cannot be imported",
            why=str(error),
            fix="is its package installed, and the class named right?",
        ) from error
    return made
