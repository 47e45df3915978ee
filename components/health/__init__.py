"""What may be wrong with a project, found and repaired: `tidemill doctor`.

A check is a function from a project to its findings; a new one is one function and one line in CHECKS. A finding that
can be repaired brings its repair, and is looked at again afterwards: what counts is what is found then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..errors import TidemillError
from ..plan import Project
from . import disk, locks, models, packages, records
from .finding import Check, Finding

__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "examine"]

CHECKS: Mapping[str, Check] = {
    "locks": locks.stale,
    "runs": models.orphans,
    "champions": models.champions,
    "cache": records.cache,
    "receipts": records.receipts_read,
    "disk": disk.space,
    "packages": packages.as_locked,
}


@dataclass(frozen=True)
class Diagnosis:
    """One finding as it is told. `repaired`: it was a problem, and is found no more."""

    check: str
    status: Literal["ok", "problem", "repaired"]
    finding: str
    meaning: str
    way_out: str


def examine(project: Project, checks: Mapping[str, Check], fix: bool = False) -> list[Diagnosis]:
    """What each check finds; with `fix`, what is left after every repair, and what was repaired."""
    return [told for name, check in checks.items() for told in _examine(project, name, check, fix)]


def _examine(project: Project, name: str, check: Check, fix: bool) -> list[Diagnosis]:
    found = _look(project, check)
    wrong = [one for one in found if one.repair is not None]
    if not fix or not wrong:
        return [_told(name, one) for one in found]
    in_vain = {one.finding: why for one in wrong if (why := _repair(one))}
    left = _look(project, check)
    still = {one.finding for one in left}
    repaired = [one for one in wrong if one.finding not in still]
    return [
        *(Diagnosis(name, "repaired", one.finding, one.meaning, "") for one in repaired),
        *(_told(name, one, in_vain.get(one.finding, "")) for one in left if not (one.ok and repaired)),
    ]


def _look(project: Project, check: Check) -> list[Finding]:
    try:
        return check(project)
    except TidemillError as error:
        return [Finding.wrong(f"{error.where}: {error.what}" if error.where else error.what, error.why, error.fix)]
    except Exception as error:  # one check that fails must not silence the others
        why = f"{type(error).__name__}: {error}"
        return [
            Finding.wrong(f"this check itself has failed: {why}", "what it looks at is not known", "mend that first")
        ]


def _repair(one: Finding) -> str:
    """Repair it; returns why it could not be, "" if it could."""
    assert one.repair is not None
    try:
        one.repair()
    except (TidemillError, OSError) as error:
        return " ".join(str(error).split())
    return ""


def _told(name: str, one: Finding, in_vain: str = "") -> Diagnosis:
    meaning = f"{one.meaning}; not repaired: {in_vain}" if in_vain else one.meaning
    return Diagnosis(name, "ok" if one.ok else "problem", one.finding, meaning, one.way_out)
