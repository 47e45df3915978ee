"""Families that make new rows: how likely they find rows that they have not seen, and how near theirs come to real ones
(components/fidelity.py)."""

from __future__ import annotations

from . import Row

ROWS = [
    Row("digits-vae", "nll", "min"),
    Row("digits-vae", "frechet", "min"),
    Row("digits-gan", "frechet", "min", beside=("digits-vae",), above=("digits-vae",)),
    Row("digits-gan", "class_spread", "min", mark=3.0),
    Row(
        "digits-diffusion",
        "frechet",
        "min",
        beside=("digits-vae", "digits-gan"),
        above=("digits-vae", "digits-gan"),
        seeds=3,
    ),
]
