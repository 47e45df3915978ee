"""7,501 steps of an arterial blood pressure (about 41 beats) with one anomaly: noise in 12 of them, 4187 to 4198.

Number 135 (InternalBleeding16) of the UCR anomaly archive (Wu & Keogh 2021, "Current time series anomaly detection
benchmarks are flawed and are creating the illusion of progress"), as aeon 1.6.0 (BSD) ships it. Its first 1,200 steps
are normal and for training; the package's TEST file holds them once more, and so the whole series. Here 0 to 899 are
train, 900 to 1199 val, and the official test steps, 1200 to 7500, are test. Val holds no anomaly, as in the source.

One row: step 64, window float32 [1, 128] (the steps around it; a beat has about 183), kind "normal", split "train".
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
    "aeon",
    "1.6.0",
    "aeon/datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TEST.csv",
    "fe26577b94896943e8205d04d56bf2511fe05c008df535a1ec3826adff3597e2",
)
SOURCE = str(MEMBER)
WINDOW, STEPS = 128, 7501
STRETCHES = {"train": range(900), "val": range(900, 1200), "test": range(1200, STEPS)}


def build(read: Callable[[Member], bytes]) -> pa.Table:
    """See windows.cut."""
    source = csv.read_csv(io.BytesIO(read(MEMBER)))
    values = source["value"].to_numpy().astype("float32")
    return windows.cut(values, source["is_anomaly"].to_numpy() == 1, WINDOW, STRETCHES)


def expectations() -> Expectations:
    return windows.expectations(STEPS, WINDOW, low=0, high=300)  # mmHg
