"""Where a net learns and serves: which device, in what precision, from which seed, how many rows at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch

ENOUGH_STEPS = 20  # in an epoch

# Mixed precision is where `autocast` says so. By itself cuDNN would round float32 to TensorFloat-32, and what a row
# scores would hang on those beside it.
torch.backends.cudnn.allow_tf32 = False


def seeded(seed: int, epoch: int = 0) -> np.random.Generator:
    """Seed torch's global generators (dropout takes no other) and return numpy's, for one epoch (0: before the first).

    Also puts back what an earlier trial of the same process may have left behind.
    """
    source = np.random.SeedSequence([seed % 2**63, epoch])
    # Without a GPU the CPU's generator is all there is; torch.manual_seed would write the stack down for GPUs to come.
    sow = torch.default_generator.manual_seed if device().type == "cpu" else torch.manual_seed
    sow(int(source.generate_state(1, np.uint64)[0] >> 1))
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return np.random.default_rng(source)


def device() -> torch.device:
    """CUDA where there is one, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def batch_factor(where: torch.device) -> int:
    """How many of a configuration's batches are one here. With CUDA 4: a step of a small net is mostly the launching
    of its kernels, which takes as long with more rows. Elsewhere 1: time goes with the rows."""
    return 4 if where.type == "cuda" else 1


def batch_rows(asked: int, rows: int, where: torch.device) -> int:
    """Rows of a batch where a configuration asks for so many: more only as long as an epoch keeps ENOUGH_STEPS."""
    return max(asked, min(asked * batch_factor(where), rows // ENOUGH_STEPS))


@torch.inference_mode()
def in_blocks(
    what: Callable[[torch.Tensor], torch.Tensor], x_N: torch.Tensor, rows: int, where: torch.device
) -> torch.Tensor:
    """What a net says of each row, the first axis, in float32 on the CPU: asked with so many rows at a time, so that
    what lies between fits the memory; of no rows at all once too, which tells the other axes."""
    return torch.cat([what(x_B.to(where)).float().cpu() for x_B in torch.split(x_N, rows)])


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
