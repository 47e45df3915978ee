"""Waits for `tidemill up` to go, however it goes, and stops what it left behind.

Started by it with a pipe that the kernel closes when it dies: `python -m flows.guard STATE KEEPER`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .roster import Roster


def main(state: str, keeper: str) -> None:
    sys.stdin.buffer.read()
    Roster(Path(state)).leave(keeper)


if __name__ == "__main__":
    main(*sys.argv[1:])
