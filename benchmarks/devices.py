"""What a GPU makes of each family: python -m benchmarks.devices [FAMILY…] [--seconds S].

The same settings on the same rows, once on the GPU, as `devices` has it (mixed precision, larger batches), once on one
thread of the processor, as a trial has it here. Epochs are timed by the clock from the second on, the median counts;
each is measured in a process of its own, one at a time on the GPU and one at a time on the processor. `val` is the
objective at the best epoch of the time: batches that grow must not cost what is learnt.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from components import families
from components.devices import device, precision

from .throughput import ENTRIES, REPOSITORY, SEED, Entry, data_of

ROWS = 4000  # of each split at most where texts are written, whose epochs are long


def measured(entry: Entry, seconds: float) -> dict[str, Any]:
    """On the device of this process."""
    torch.set_num_threads(1)
    where, family = device(), families.family(entry.family)
    data = data_of(dataclasses.replace(entry, rows=ROWS if entry.rows else 0))
    objective = family.objective(data.spec)
    taken, values = [], []
    began = started = time.perf_counter()
    for epoch in family.fit(data, entry.hyper, SEED, None):
        now = time.perf_counter()
        taken.append(now - started)
        values.append(epoch.metrics[f"val/{objective.metric}"])
        if len(taken) > 2 and now - began > seconds:
            break
        started = time.perf_counter()
    rows = len(data.splits["train"])
    return {
        "device": torch.cuda.get_device_name() if where.type == "cuda" else where.type,
        "precision": str(precision(where)).removeprefix("torch."),
        "batch": epoch.metrics.get("train/batch_rows"),
        "rows": rows / statistics.median(taken[1:]),
        "gb": torch.cuda.max_memory_allocated() / 1e9 if where.type == "cuda" else float("nan"),
        "epochs": len(taken),
        "metric": objective.metric,
        "value": min(values) if objective.mode == "min" else max(values),
    }


def elsewhere(entry: Entry, seconds: float, gpu: bool) -> dict[str, Any]:
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.devices", entry.family, "--seconds", str(seconds), "--here"]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | hidden, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{entry.family}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices", description=__doc__.splitlines()[0])
    parser.add_argument("family", nargs="*", help="all that are in the table, unless named")
    parser.add_argument("--seconds", type=float, default=6, help="of each family on each device, and three epochs")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [entry for entry in ENTRIES if entry.family in (options.family or families.FAMILIES)]
    if options.here:
        print(json.dumps(measured(chosen[0], options.seconds)))
        return 0
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here")

    def all_on(gpu: bool) -> list[dict[str, Any]]:
        return [elsewhere(entry, options.seconds, gpu) for entry in chosen]

    with ThreadPoolExecutor(2) as pool:
        on_gpu, on_cpu = pool.map(all_on, (True, False))
    print(
        f"{on_gpu[0]['device']}, {on_gpu[0]['precision']}, beside one thread of a processor, {on_cpu[0]['precision']}"
    )
    print(f"{'family':12} {'dataset':18} {'GPU':>11} {'processor':>11} rows a second, and their ratio")
    for entry, gpu, cpu in zip(chosen, on_gpu, on_cpu, strict=True):
        batch = f"batches of {gpu['batch']:.0f}, " if gpu["batch"] else ""
        print(
            f"{entry.family:12} {entry.dataset:18} {gpu['rows']:11,.0f} {cpu['rows']:11,.0f} "
            f"{gpu['rows'] / cpu['rows']:6.1f}   {batch}{gpu['gb']:.2f} GB; "
            f"val {gpu['metric']} {gpu['value']:.4f} ({gpu['epochs']} epochs), {cpu['value']:.4f} ({cpu['epochs']})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
