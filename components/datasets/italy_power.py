"""1,096 days of electricity demand in Italy, 24 hours each: October to March (class 1) or April to September (class 2).

ItalyPowerDemand of the UCR archive, 67 official training and 1,029 test series; first used by Keogh et al. 2006,
"Intelligent icons". Each series has mean 0 and deviation 1, as the source has it.

One row: id 17, series float32 [1, 24] (channel, hour), class "2", split "train".
"""

from __future__ import annotations

from .ucr import Archive, member

FOLDER = "ItalyPowerDemand/ItalyPowerDemand"
ARCHIVE = Archive(
    member(
        "ItalyPowerDemand/ItalyPowerDemand_TRAIN.ts", "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c"
    ),
    member(
        "ItalyPowerDemand/ItalyPowerDemand_TEST.ts", "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144"
    ),
    rows=1096,
    steps=24,
    classes=("1", "2"),
    bound=10,
)
SOURCE = f"{ARCHIVE.train} {ARCHIVE.test}"
build, expectations = ARCHIVE.build, ARCHIVE.expectations
