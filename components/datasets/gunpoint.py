"""200 motions of a hand, 150 steps each: an actor draws a gun (class 1) or points a finger (class 2).

GunPoint of the UCR archive, 50 official training and 150 test series; the height of the hand in a video, filmed and
prepared by Ratanamahatana & Keogh 2004. Each series has mean 0 and deviation 1, as the source has it.

One row: id 17, series float32 [1, 150] (channel, step), class "2", split "train".
"""

from __future__ import annotations

from .ucr import Archive, member

ARCHIVE = Archive(
    member("GunPoint/GunPoint_TRAIN.ts", "f842401779fd9800d247d8b33121a1a4643710a19b24917dbdd9a060ca8630d5"),
    member("GunPoint/GunPoint_TEST.ts", "79332750788a6227b325b96bd0d70130c8eb707b9731f8d7dec62b7a7d36017e"),
    rows=200,
    steps=150,
    classes=("1", "2"),
    bound=10,
)
SOURCE = f"{ARCHIVE.train} {ARCHIVE.test}"
build, expectations = ARCHIVE.build, ARCHIVE.expectations
