"""States are copies, and go back into what they were made of."""

from __future__ import annotations

import torch
from torch import nn

from components.states import pack, unpack
from components.training import adam


def test_packing_copies_and_unpacking_keeps_the_memory_layout() -> None:
    def part() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net, adam(net.parameters(), 0.1)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        torch.manual_seed(1)
        net(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    net, optimizer = part()
    step(net, optimizer)
    state = pack({"net": net, "optimizer": optimizer}, {"epoch": 1}, {"replay/x": torch.ones(2)})
    before = state.tensors["net/weight"].clone()
    step(net, optimizer)
    assert torch.equal(state.tensors["net/weight"], before) and state.scalars == {"epoch": 1}

    other, its = part()
    unpack(state, {"net": other, "optimizer": its})
    step(other, its)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert torch.equal(state.tensors["net/weight"], before), "loading must not tie the state to the module"
    assert its.state[other.weight]["exp_avg"].stride() == other.weight.stride()  # type: ignore[index]


def test_a_momentum_of_plain_descent_is_packed_too() -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    assert "sgd/0/momentum_buffer" in pack({"sgd": optimizer}).tensors
