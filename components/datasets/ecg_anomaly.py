"""7,500 steps of an electrocardiogram, 21 seconds and 26 beats at 360 Hz, one of them abnormal: it comes too early,
after 6,936, and the 352 steps from there are labelled.

An excerpt of the MIT-BIH arrhythmia database (Moody & Mark 2001, "The impact of the MIT-BIH arrhythmia database"), in
millivolts, as sktime 1.2.0 (BSD) ships it. It has no split of its own: here 0 to 3999 are train, 4000 to 5199 val, 5200
to 7499 test. All that is labelled lies in test; in val there is nothing to find.

One row: step 160, window float32 [1, 320] (the steps around it; a beat has about 288), kind "normal", split "train".
"""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa
from pyarrow import csv

from ..expectations import Expectations
from . import windows
from .packages import Member

MEMBER = Member(
    "sktime",
    "1.2.0",
    "sktime/datasets/data/mitdb/mitdb.csv",
    "d4f2539a5e85e1ac1e7f8bba152b5e60a02356282463a8a1c97848ad3e1bb386",
)
SOURCE = str(MEMBER)
WINDOW, STEPS = 320, 7500
STRETCHES = {"train": range(4000), "val": range(4000, 5200), "test": range(5200, STEPS)}


def build(read: Callable[[Member], bytes]) -> pa.Table:
    """See windows.cut."""
    source = csv.read_csv(io.BytesIO(read(MEMBER)))
    values = source["data"].to_numpy().astype("float32")
    return windows.cut(values, source["label"].to_numpy() == 1, WINDOW, STRETCHES)


def expectations() -> Expectations:
    return windows.expectations(STEPS, WINDOW, low=-5, high=5)  # mV
