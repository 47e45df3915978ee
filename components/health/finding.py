"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..plan import Project

FIX = "tidemill doctor --fix"


@dataclass(frozen=True)
class Finding:
    """`finding` says what was found, `meaning` what follows from it, `way_out` the command or edit that puts it right.
    `repair` does the same; None where only a person can."""

    ok: bool
    finding: str
    meaning: str = ""
    way_out: str = ""
    repair: Callable[[], object] | None = None

    @classmethod
    def well(cls, finding: str) -> Finding:
        return cls(True, finding)

    @classmethod
    def wrong(
        cls, finding: str, meaning: str, way_out: str = FIX, repair: Callable[[], object] | None = None
    ) -> Finding:
        return cls(False, finding, meaning, way_out, repair)


Check = Callable[[Project], list[Finding]]
