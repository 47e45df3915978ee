"""diffusion: images out of noise."""

from __future__ import annotations

from .cases import Case, one_thread  # noqa: F401
from .cases import images as bars

BARS = bars("generation")
SMALL = {"width": 8, "batch_rows": 16, "passes": 2, "sampling_steps": 8, "average": 0.9}
HEART = {**SMALL, "passes": 30, "lr": 4e-3}
CASES = [Case("images", BARS, SMALL, HEART, reached=0.1, epochs=5)]
