"""A running average of weights and buffers, with more weight on the first steps than its decay says."""

from __future__ import annotations

import torch
from torch import nn

from components.averages import Average


def test_weights_and_buffers_are_averaged_and_counts_are_copied() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = Average(net, 0.9)
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    for steps in (1, 5, 1000):
        with torch.no_grad():
            for weight in net.parameters():
                weight.normal_()
        net(torch.randn(4, 2))  # moves the norm's buffers
        average.follow(steps)
        share = 1 - min(0.9, (1 + steps) / (10 + steps))
        for name, value in net.state_dict().items():
            moved = torch.lerp(expected[name], value, share) if value.is_floating_point() else value
            expected[name] = moved.clone()
            assert average.net.state_dict()[name].equal(expected[name]), name
    assert average.net[1].num_batches_tracked == 3  # type: ignore[index]
    assert not any(weight.requires_grad for weight in average.net.parameters())


def test_a_buffer_put_in_another_s_place_is_followed() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.seen = nn.Buffer(torch.zeros(()))

    net = Counting()
    average = Average(net, 0.5)
    net.seen = net.seen + 2
    average.follow(1000)
    assert float(average.net.seen) == 1  # type: ignore[arg-type]
