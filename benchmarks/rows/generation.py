"""Families that make new rows: how likely they find rows that they have not seen, and how near theirs come to real ones
(components/fidelity.py)."""

from __future__ import annotations

from . import Row

ROWS = [
    Row("digits-vae", "nll", "min"),
    Row("digits-vae", "frechet", "min"),
]
