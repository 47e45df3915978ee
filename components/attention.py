"""Layers of transformers: attention with keys and values that can be kept, for stacks that read and stacks that write.

A layer is attention to its own sequence, to a source where there is one, and two linear layers around a ReLU (Vaswani
et al. 2017); norms stand before each of these and one after the last layer (Xiong et al. 2020, "On layer normalization
in the transformer architecture"). A token's place is told by turning queries and keys, in looks at the source too (Su
et al. 2021, "RoFormer"): what counts is how far apart two tokens are, so there is no longest text.

Legend: B rows, S tokens of a source, T of the own sequence, D width, h heads, d = D / h. `kv`: keys and values, B × 2 ×
h × tokens × d.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from .states import NOTHING

SLOWEST = 10_000.0  # tokens by which the slowest pair of a head's parts turns by nearly one radian


@dataclass(frozen=True)
class Sizes:
    """`wider`: width of a layer's inner part over D. `dropout`: of what each part of a layer adds."""

    width: int
    heads: int
    depth: int
    wider: int
    dropout: float


@dataclass(frozen=True)
class View:
    """Where a batch's tokens stand, as `turns` says it, and what they see: `own` of their sequence, `source` of
    another. Masks are B × 1 × 1 × tokens, None where nothing is hidden. `causal`: nor is what comes later seen."""

    turn: torch.Tensor
    causal: bool = False
    own: torch.Tensor | None = None
    source: torch.Tensor | None = None


def sight(there_BT: torch.Tensor) -> torch.Tensor | None:
    """A mask for `View`; none if all is there: attention is faster without."""
    return None if there_BT.all() else there_BT[:, None, None]


def turns(at_BT: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """Complex numbers B × T × 1 × d/2 for tokens at these places, slower from pair to pair."""
    pairs = sizes.width // sizes.heads // 2
    speed = SLOWEST ** -(torch.arange(pairs, device=at_BT.device) / pairs)
    angle = at_BT[:, :, None, None] * speed
    return torch.polar(torch.ones_like(angle), angle)


class Stack(nn.Module):
    """Layers, and a norm after the last. `reads`: whether there is a source."""

    def __init__(self, sizes: Sizes, reads: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes, reads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(
        self, x_BTD: torch.Tensor, view: View, kept: Mapping[str, torch.Tensor] = NOTHING
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """x_BTD, and by layer its "own" kv, that in `kept` included. `kept` has what is to be "read" by layer, too."""
        own = {}
        for at, layer in enumerate(self.layers):
            x_BTD, own[f"{at}/own"] = layer(x_BTD, view, kept.get(f"{at}/own"), kept.get(f"{at}/read"))
        return self.norm(x_BTD), own

    def remembered(self, x_BSD: torch.Tensor, turn: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is to be "read" of a source, by layer."""
        layers = cast("Iterable[Layer]", self.layers)
        return {f"{at}/read": layer.remembered(x_BSD, turn) for at, layer in enumerate(layers)}


class Layer(nn.Module):
    def __init__(self, sizes: Sizes, reads: bool) -> None:
        super().__init__()
        width, inner, self.heads = sizes.width, sizes.wider * sizes.width, sizes.heads
        self.own_norm, self.qkv, self.own = nn.LayerNorm(width), plain(width, 3 * width), plain(width, width)
        if reads:
            self.read_norm, self.query = nn.LayerNorm(width), plain(width, width)
            self.kv, self.read = plain(width, 2 * width), plain(width, width)
        self.last_norm, self.wide, self.narrow = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(sizes.dropout)
        for linear in (part for part in self.modules() if isinstance(part, nn.Linear)):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        for adds in (self.own, self.narrow, *([self.read] if reads else [])):  # so that a deep sum stays as it begins
            adds.weight.data *= (3 * sizes.depth) ** -0.5

    def forward(
        self, x_BTD: torch.Tensor, view: View, past: torch.Tensor | None, source: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_BTD, and its kv behind that of `past`. `source`: kv to read."""
        q_BThd, k_BThd, v_BThd = self._parted(self.qkv(self.own_norm(x_BTD)), 3)
        kv = paired(turned(k_BThd, view.turn), v_BThd)
        kv = kv if past is None else torch.cat([past, kv], 3)
        x_BTD = x_BTD + self.dropout(self.own(seen(turned(q_BThd, view.turn), kv, view.own, view.causal)))
        if source is not None:
            (q_BThd,) = self._parted(self.query(self.read_norm(x_BTD)), 1)
            x_BTD = x_BTD + self.dropout(self.read(seen(turned(q_BThd, view.turn), source, view.source)))
        return x_BTD + self.dropout(self.narrow(self.wide(self.last_norm(x_BTD)).relu())), kv

    def remembered(self, x_BSD: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        k_BShd, v_BShd = self._parted(self.kv(x_BSD), 2)
        return paired(turned(k_BShd, turn), v_BShd)

    def _parted(self, x_BTD: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        return x_BTD.view(*x_BTD.shape[:2], parts, self.heads, -1).unbind(2)


def plain(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def paired(k_BThd: torch.Tensor, v_BThd: torch.Tensor) -> torch.Tensor:
    """kv."""
    return torch.stack([k_BThd, v_BThd], 1).transpose(2, 3)


def turned(x_BThd: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Pairs of parts as complex numbers, turned."""
    pairs = torch.view_as_complex(x_BThd.float().view(*x_BThd.shape[:3], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(3).to(x_BThd.dtype)


def seen(q_BThd: torch.Tensor, kv: torch.Tensor, mask: torch.Tensor | None, causal: bool = False) -> torch.Tensor:
    """x_BTD, the values that the queries look at."""
    k, v = kv.unbind(1)
    x_BhTd = functional.scaled_dot_product_attention(q_BThd.transpose(1, 2), k, v, mask, is_causal=causal)
    return x_BhTd.transpose(1, 2).flatten(2)
