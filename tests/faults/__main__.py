"""`make faults`: every fault, many rounds of each, at seeded random moments; prints a table. Exit code 1 if anything
was lost."""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import traceback
from pathlib import Path

from .injections import FAULTS, Round, may_mount, play
from .world import World, made


def main() -> int:
    told = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    told.add_argument("--rounds", type=int, default=20, help="of each fault")
    told.add_argument("faults", nargs="*", metavar="FAULT", help=f"default: all of {', '.join(FAULTS)}")
    asked = told.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers must not outlive this
    lost = 0
    with tempfile.TemporaryDirectory() as place, made(Path(place)) as world:
        print(f"undisturbed: {world.seconds:.0f} s")
        print(f"{'fault':16}{'rounds':>8}{'losses':>8}{'median s until whole':>22}{'longest':>9}")
        for fault in asked.faults or FAULTS:
            if fault == "disk full" and not may_mount(Path(place) / "mount"):
                print(f"{fault:16}  not played: only root can make a disk that is full")
                continue
            rounds = [_played(world, fault, number) for number in range(asked.rounds)]
            lost += sum(bool(one.losses) for one in rounds)
            _print(fault, rounds)
    return 1 if lost else 0


def _played(world: World, fault: str, number: int) -> Round:
    try:
        return play(world, fault, number)
    except AssertionError:
        return Round(fault, number, (traceback.format_exc(),), float("nan"))


def _print(fault: str, rounds: list[Round]) -> None:
    lost = [one for one in rounds if one.losses]
    seconds = [one.seconds for one in rounds if not one.losses]
    middle, longest = (statistics.median(seconds), max(seconds)) if seconds else (float("nan"), float("nan"))
    print(f"{fault:16}{len(rounds):>8}{len(lost):>8}{middle:>22.0f}{longest:>9.0f}", flush=True)
    for one in lost:
        print(f"  round {one.number}: {'; '.join(one.losses)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
