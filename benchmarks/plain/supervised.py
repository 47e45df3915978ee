"""Families that predict what stands beside each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils import rnn

from components import families, images, ratings, series, text_pairs
from components.contract import Data
from components.tables import truth
from components.texts import PAD

from . import Plain


def targets(data: Data, split: str) -> torch.Tensor:
    return torch.from_numpy(truth(data.spec, data.splits[split], split))


def judged(logits_NK: torch.Tensor, y_N: torch.Tensor) -> tuple[float, float]:
    """Log loss and accuracy."""
    return float(functional.cross_entropy(logits_NK, y_N)), float((logits_NK.argmax(1) == y_N).float().mean())


def mlp(net: Any, data: Data) -> Plain:
    (x_NF, c_NC), (val_NF, val_NC) = (net.encoder(data.splits[split]) for split in ("train", "val"))
    y_N, val_N = targets(data, "train"), targets(data, "val")

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(net.embed(x_NF[rows], c_NC[rows])), y_N[rows])

    return Plain(loss, lambda: judged(net(net.embed(val_NF, val_NC)), val_N), len(y_N))


def cnn(net: Any, data: Data) -> Plain:
    x_NCHW, val_NCHW = (images.read(data.spec, data.splits[split]) for split in ("train", "val"))
    y_N, val_N, settings = targets(data, "train"), targets(data, "val"), families.family("cnn").Settings()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(images.augmented(x_NCHW[rows].float(), settings.augment)), y_N[rows])

    def validate() -> tuple[float, float]:
        return judged(torch.cat([net(x_BCHW.float()) for x_BCHW in val_NCHW.split(256)]), val_N)

    return Plain(loss, validate, len(y_N))


def cnn1d(net: Any, data: Data) -> Plain:
    x_NCT, val_NCT = (net.standardised(data.splits[split]) for split in ("train", "val"))
    y_N, val_N, settings = targets(data, "train"), targets(data, "val"), families.family("cnn1d").Settings()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(series.augmented(x_NCT[rows], settings.augment)), y_N[rows])

    return Plain(loss, lambda: judged(torch.cat([net(x) for x in val_NCT.split(64)]), val_N), len(y_N))


def recurrent(net: Any, data: Data) -> Plain:
    """Texts of any length meet in a batch."""
    read = {split: net.read(data.splits[split]) for split in ("train", "val")}
    parts = {
        split: [list(torch.split(part.ids_T, part.lengths_N.tolist())) for part in (rows.tokens, rows.grams)]
        for split, rows in read.items()
    }
    y_N, val_N, settings = targets(data, "train"), targets(data, "val"), net.settings

    def logits(split: str, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, grams = ([part[row] for row in rows] for part in parts[split])
        ids_BT = rnn.pad_sequence(tokens, batch_first=True, padding_value=PAD)
        there_BT1 = (ids_BT != PAD)[:, :, None]
        if net.training:
            ids_BT = ids_BT.masked_fill((torch.rand(ids_BT.shape) < settings.token_dropout) & there_BT1[:, :, 0], 1)
        lengths = torch.tensor([len(ids) for ids in tokens])
        packed = rnn.pack_padded_sequence(net.dropout(net.embedding(ids_BT)), lengths, True, False)
        x_BTH, _ = rnn.pad_packed_sequence(net.rnn(packed)[0], batch_first=True)
        largest_BH = x_BTH.masked_fill(~there_BT1, -torch.inf).amax(1)
        x_BD = torch.cat([largest_BH, x_BTH.sum(1) / lengths[:, None]], 1)
        counts = torch.tensor([len(ids) for ids in grams])
        kept = functional.dropout(torch.ones(int(counts.sum())), settings.token_dropout, net.training)
        weight, starts = net.ratio_GK + net.linear_GK, counts.cumsum(0) - counts
        bags_BK = functional.embedding_bag(torch.cat(grams), weight, starts, mode="sum", per_sample_weights=kept)
        linear_BK = net.scale * bags_BK * counts.clamp(min=1).rsqrt()[:, None] + net.bias_K
        return net.last(net.dropout(x_BD)), linear_BK

    def loss(rows: torch.Tensor) -> torch.Tensor:
        both = logits("train", rows.tolist())
        smooth = settings.label_smoothing
        return sum(functional.cross_entropy(y_BK, y_N[rows], label_smoothing=smooth) for y_BK in both)  # type: ignore[return-value]

    def validate() -> tuple[float, float]:
        parts = [sum(logits("val", rows.tolist())) for rows in torch.arange(len(val_N)).split(256)]
        return judged(torch.cat(parts), val_N)  # type: ignore[arg-type]

    return Plain(loss, validate, int(read["train"].tokens.lengths_N.sum()))


def recommender(net: Any, data: Data) -> Plain:
    matcher, spec = net.matcher, data.spec
    user_N, item_N = (torch.from_numpy(side.numbers(data.splits["val"])) for side in (net.users, net.items))
    rating_N = torch.from_numpy(ratings.targets(data.splits["val"], spec, "val"))

    def vectors(u_B: torch.Tensor, i_B: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p_BD, b_B = matcher.of_users(u_B, matcher.x_UF[u_B], matcher.c_UC[u_B])
        q_BD, c_B = matcher.of_items(i_B, matcher.x_IF[i_B], matcher.c_IC[i_B])
        return p_BD, b_B, q_BD, c_B

    def loss(rows: torch.Tensor) -> torch.Tensor:
        p_BD, b_B, q_BD, c_B = vectors(matcher.user_P[rows].long(), matcher.item_P[rows].long())
        error_B = (p_BD * q_BD).sum(1) + b_B + c_B - matcher.rest_P[rows]
        sizes = (p_BD.square().sum(1) + q_BD.square().sum(1) + b_B.square() + c_B.square()).mean()
        return error_B.square().mean() + net.settings.penalty * matcher.penalty * sizes

    def validate() -> float:
        parts = []
        for u_B, i_B in zip(user_N.split(8192), item_N.split(8192), strict=True):
            p_BD, b_B, q_BD, c_B = vectors(u_B, i_B)
            parts.append((p_BD * q_BD).sum(1) + b_B + c_B + matcher.b_U[u_B] + matcher.b_I[i_B] + matcher.mean)
        return float((torch.cat(parts) - rating_N).square().mean().sqrt())

    return Plain(loss, validate, len(matcher.rest_P))


def writer(net: Any, data: Data) -> Plain:
    """Texts of any length meet in a batch."""
    train, val = (
        text_pairs.pairs(data.spec, data.splits[split], net.known, net.settings) for split in ("train", "val")
    )

    def loss(rows: torch.Tensor) -> torch.Tensor:
        logits_BTV, ids_BT = net.logits(train, rows)
        smooth = net.settings.label_smoothing
        return functional.cross_entropy(
            logits_BTV.flatten(0, 1), ids_BT.flatten(), ignore_index=PAD, label_smoothing=smooth
        )

    def validate() -> float:
        total = 0.0
        for rows in torch.arange(len(val)).split(256):
            logits_BTV, ids_BT = net.logits(val, rows)
            lost = functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT, ignore_index=PAD, reduction="sum")
            total += float(lost)
        return total / int(val.target.lengths_N.sum())

    return Plain(loss, validate, int(train.target.lengths_N.sum()))
