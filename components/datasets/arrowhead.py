"""211 outlines of arrowheads, 251 steps each, of three kinds (classes 0, 1, 2).

ArrowHead of the UCR archive, 36 official training and 175 test series; outlines of photographs by their angles, after
Ye & Keogh 2009, "Time series shapelets". Each series has mean 0 and deviation 1, as the source has it.

One row: id 17, series float32 [1, 251] (channel, step), class "2", split "train".
"""

from __future__ import annotations

from .ucr import Archive, member

ARCHIVE = Archive(
    member("ArrowHead/ArrowHead_TRAIN.ts", "a83c470aaf611a5f5284377cce27a5fc9f6292bc3d110257b0fd4905ced5ee72"),
    member("ArrowHead/ArrowHead_TEST.ts", "5417dab42626d41df5e435bb22458c2df40dfad4bcd3b59559bbe72e20e84904"),
    rows=211,
    steps=251,
    classes=("0", "1", "2"),
    bound=10,
    repeated=0.01,  # one of the test series
)
SOURCE = f"{ARCHIVE.train} {ARCHIVE.test}"
build, expectations = ARCHIVE.build, ARCHIVE.expectations
