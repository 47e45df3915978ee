"""Settings: the defaults with a configuration over them, and a wrong one named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from components.errors import ParamsError
from components.settings import configure


@dataclass(frozen=True)
class Settings:
    width: int = 8
    lr: float = 0.1
    bias: bool = True
    kernel: tuple[int, ...] = (3, 3)


def test_settings_are_the_defaults_with_the_configuration_over_them() -> None:
    assert configure(Settings, {"lr": 1, "width": 4.0, "kernel": [5]}) == Settings(4, 1.0, True, (5,))


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"widht": 3}, "unknown setting 'widht'"),
        ({"width": "big"}, "expected int"),
        ({"width": True}, "expected int"),
        ({"width": 2.5}, "expected int"),
        ({"bias": 1}, "expected bool"),
    ],
)
def test_a_wrong_setting_is_named(hyper: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        configure(Settings, hyper)
