"""States made of modules and optimisers, and put back into them, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import nn

from .contract import Json, State

Part: TypeAlias = nn.Module | torch.optim.Optimizer | torch.amp.GradScaler
Parts: TypeAlias = Mapping[str, Part]  # name in the State → what is packed under it
NOTHING: Mapping[str, Any] = MappingProxyType({})


def pack(parts: Parts, scalars: Mapping[str, Json] = NOTHING, tensors: Mapping[str, torch.Tensor] = NOTHING) -> State:
    """A State of copies on the CPU: modules, optimisers and scalers under their names, further scalars, and
    further tensors (a replay buffer) under their full names.

    Learning rates and other settings are left out: they come from `hyper`, which may change on the way.
    """
    packed = {name: _copied(value) for name, value in tensors.items()}
    rest = dict(scalars)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            packed |= {f"{name}/{key}": _copied(value) for key, value in part.state_dict().items()}
        elif isinstance(part, torch.optim.Optimizer):
            for index, moments in part.state_dict()["state"].items():
                known = {key: torch.as_tensor(value) for key, value in moments.items() if value is not None}
                packed |= {f"{name}/{index}/{key}": _copied(value) for key, value in known.items()}
        else:
            rest[name] = part.state_dict()
    return State(packed, rest)


def unpack(state: State, parts: Parts) -> None:
    """Copy what `pack` packed under these names into modules, optimisers and scalers of the same shape.

    Raises RuntimeError, as torch does, if names or shapes differ.
    """
    for name, part in parts.items():
        if isinstance(part, torch.amp.GradScaler):
            if part.is_enabled() and state.scalars.get(name):
                part.load_state_dict(state.scalars[name])
            continue
        under = {
            key.removeprefix(f"{name}/"): value for key, value in state.tensors.items() if key.startswith(f"{name}/")
        }
        if isinstance(part, nn.Module):
            part.load_state_dict(under)  # copies into the module's own tensors
        else:
            _unpack_optimizer(part, under)


def _unpack_optimizer(optimizer: torch.optim.Optimizer, under: Mapping[str, torch.Tensor]) -> None:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for path, value in under.items():
        index, _, key = path.partition("/")
        moments.setdefault(int(index), {})[key] = value.clone()  # load_state_dict keeps what it is given
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    for parameter, own in optimizer.state.items():
        for key, value in own.items():
            if key == "step":  # SparseAdam's is a number, and powers of it are to have all their bits
                own[key] = value if value.is_floating_point() else int(value)
            elif value.shape == parameter.shape:
                # In the parameter's memory layout: fused steps go wrong, silently, with another.
                own[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
