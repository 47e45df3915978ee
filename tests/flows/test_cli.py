"""What the command says when it is told to stop."""

from __future__ import annotations

import sys

import pytest

from flows import cli


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (KeyboardInterrupt("SIGTERM"), 143)])
def test_the_command_that_goes_on_can_be_copied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: KeyboardInterrupt, code: int
) -> None:
    def interrupted() -> None:
        raise SystemExit(130) from stop

    monkeypatch.setattr(cli, "app", interrupted)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["tidemill", "score", "digits", "new rows", "out"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().err.endswith("goes on from here: tidemill score digits 'new rows' out\n")
