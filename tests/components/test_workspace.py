"""What is put into the environment for a while."""

from __future__ import annotations

import os

import pytest

from components.workspace import exported


def test_variables_are_put_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_MINE", "mine")
    monkeypatch.delenv("TIDEMILL_NONE", raising=False)
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), exported({"TIDEMILL_MINE": "ours", "TIDEMILL_NONE": "ours too"}):
        assert (os.environ["TIDEMILL_MINE"], os.environ["TIDEMILL_NONE"]) == ("ours", "ours too")
        del os.environ["TIDEMILL_NONE"]  # somebody inside may
        raise ZeroDivisionError
    assert dict(os.environ) == before
