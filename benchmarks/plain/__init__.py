"""What each family learns, as a person writes it who wants no more than that: what throughput.py compares them with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Plain:
    """What a script holds beside its net: the loss of a batch's rows, and figures of the val rows. `units`: rows or
    tokens of an epoch."""

    loss: Callable[[torch.Tensor], torch.Tensor]
    validate: Callable[[], Any]
    units: int
