"""Where a net learns and serves: which device, in what precision, from which seed."""

from __future__ import annotations

import contextlib

import numpy as np
import torch


def seeded(seed: int, epoch: int = 0) -> np.random.Generator:
    """Seed torch's global generators (dropout takes no other) and return numpy's, for one epoch (0: before the first).

    Also puts back what an earlier trial of the same process may have left behind.
    """
    source = np.random.SeedSequence([seed % 2**63, epoch])
    torch.manual_seed(int(source.generate_state(1, np.uint64)[0] >> 1))
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return np.random.default_rng(source)


def device() -> torch.device:
    """CUDA where there is one, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision(where: torch.device) -> torch.dtype:
    """What a GPU computes in: bfloat16 where it is native, else float16. A CPU keeps float32."""
    if where.type == "cpu":
        return torch.float32
    native = where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def autocast(where: torch.device) -> contextlib.AbstractContextManager[object]:
    """Mixed precision on a GPU, nothing on a CPU."""
    dtype = precision(where)
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(where.type, dtype)


def grad_scaler(where: torch.device) -> torch.amp.GradScaler:
    """Keeps float16 gradients from vanishing; passes everything through in any other precision."""
    return torch.amp.GradScaler(where.type, enabled=precision(where) == torch.float16)
