"""What a device makes of a family is measured by its own epochs, in a process that sees that device alone."""

from __future__ import annotations

import pytest

from benchmarks import devices
from benchmarks.throughput import ENTRIES

from ..components import cases


def test_epochs_are_timed_and_say_what_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "data_of", lambda _: cases.table("classification"))
    found = devices.measured(ENTRIES[0], 0.0)
    assert found["epochs"] == 3 and found["rows"] > 0
    assert found["metric"] == "loss" and 0 < found["value"] < 2


def test_without_a_gpu_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["devices"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        devices.main()
