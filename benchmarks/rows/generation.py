"""Families that make new rows: how likely they find rows that they have not seen, and how near theirs come to real ones
(components/fidelity.py)."""

from __future__ import annotations

from . import Row

SEEDS = 3  # a training takes six minutes

ROWS = [
    Row("digits-vae", "nll", "min"),
    Row("digits-vae", "frechet", "min"),
    Row("digits-gan", "frechet", "min", beside=("digits-vae",), above=("digits-vae",), seeds=SEEDS),
    Row("digits-gan", "class_spread", "min", mark=3.0, seeds=SEEDS),
    Row(
        "digits-diffusion",
        "frechet",
        "min",
        beside=("digits-vae", "digits-gan"),
        above=("digits-vae", "digits-gan"),
        seeds=SEEDS,
    ),
]
