"""mlp: tables of every kind of column, and what scoring may bring that training never saw."""

from __future__ import annotations

from .cases import Case, table

HEART = {"dropout": 0.0, "weight_decay": 0.0, "average": 0.0, "lr": 0.01, "width": 64}
SMALL = {"width": 32, "dropout": 0.2}
CASES = [
    Case("classification", table("classification"), SMALL, HEART, reached=0.02),
    Case("regression", table("regression"), SMALL, HEART, reached=1.0, heart_epochs=300),
]
