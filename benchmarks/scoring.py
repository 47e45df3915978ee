"""Batch scoring beside a bare pyarrow + torch loop: python benchmarks/scoring.py [--memory] [--quick] [--json FILE].

Both read the same Parquet file (1,000,000 rows × 20 float64 columns), push it through the same mlp in batches of
the same size, and write Parquet, turn about; medians are compared. Tidemill compares the rows with the training rows
besides, and is ready to set rows aside, as params.yaml has it by default. The bare loop has no checks, no hashes, no
ids, no keys and no receipt, and is taken at its better number of threads: one, or as many as torch likes.
`--memory` measures peak resident memory at 1 and 5 million rows, each in a fresh process (Linux).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from components import model as models
from components import profile, scoring
from components.contract import Column, Data, Spec
from components.families import family, import_path
from components.model import Model

COLUMNS = [f"x{i:02}" for i in range(20)]
BATCH_ROWS = scoring.Job("", "").batch_rows
PIECE_ROWS = 8192


def table(rows: int, seed: int) -> pa.Table:
    """Rows of noise, and a target that a net can learn something of."""
    drawn_NF = np.random.default_rng(seed).standard_normal((rows, len(COLUMNS)))
    classes_N = np.where(drawn_NF[:, 0] * drawn_NF[:, 1] + drawn_NF[:, 2] > 0, "yes", "no")
    return pa.table({**dict(zip(COLUMNS, drawn_NF.T, strict=True)), "target": classes_N})


def write_input(file: Path, rows: int, chunk: int = 250_000) -> None:
    """A Parquet file of `rows` rows, written piece by piece."""
    inputs = table(1, 0).select(COLUMNS)
    with pq.ParquetWriter(file, inputs.schema, use_dictionary=False) as writer:
        for start in range(0, rows, chunk):
            writer.write_table(table(min(chunk, rows - start), 1 + start).select(COLUMNS))


def train(folder: Path) -> Model:
    """An mlp with default settings after one epoch on a few rows."""
    spec = Spec("benchmark", "classification", tuple(Column(c, "number") for c in COLUMNS), "target", ("no", "yes"))
    data = Data(spec, {split: table(2000, seed) for seed, split in enumerate(("train", "val", "test"))})
    epoch = next(iter(family("mlp").fit(data, {}, 0, None)))
    models.save(folder, import_path("mlp"), spec, {}, epoch.state())
    models.keep_profile(folder, profile.measure(models.load(folder), data.splits["train"]))
    return models.load(folder)


# ── the two ─────────────────────────────────────────────────────────────────────────────────────────────


def tidemill(model: Model, source: Path, output: Path) -> None:
    output.unlink(missing_ok=True)
    job = scoring.Job("1", "benchmark", BATCH_ROWS, quarantine=0.1, drift=scoring.drift.Terms())
    scoring.score(model, source, output, job)


class Bare(torch.nn.Module):
    """The same net with its scaling as two tensors, as somebody would write it who has this one table."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        scales = model.net.encoder.scales
        self.shift_F1 = torch.tensor([[s.shift] for s in scales])
        self.factor_F1 = torch.tensor([[s.factor] for s in scales])
        self.net = model.net

    def forward(self, x_FN: torch.Tensor) -> torch.Tensor:
        x_FN.sub_(self.shift_F1).mul_(self.factor_F1)
        x_FN.mul_((x_FN * x_FN).mul_(1 / 9).add_(1).rsqrt_())
        x_NF = x_FN.T
        return (self.net.deep(self.net.hidden(x_NF)) + self.net.wide(x_NF)).softmax(1)


@torch.inference_mode()
def bare(model: Model, source: Path, output: Path) -> None:
    net, schema = Bare(model).eval(), model.outputs()
    classes = pa.array(model.spec.classes)
    with pq.ParquetFile(source) as opened, pq.ParquetWriter(output, schema, use_dictionary=["class"]) as writer:
        for batch in opened.iter_batches(BATCH_ROWS, columns=COLUMNS):
            x_FN = np.empty((len(COLUMNS), batch.num_rows), np.float32)
            for x_N, column in zip(x_FN, batch.columns, strict=True):
                x_N[:] = column.to_numpy()
            # Pieces whose activations fit the cache: several times faster than a whole batch at once.
            probability_NK = torch.cat([net(piece) for piece in torch.from_numpy(x_FN).split(PIECE_ROWS, dim=1)])
            named = classes.take(pa.array(probability_NK.argmax(1).numpy()))
            shares = [pa.array(p_N) for p_N in probability_NK.T.contiguous().numpy()]
            writer.write_batch(pa.RecordBatch.from_arrays([named, *shares], schema=schema))


def same(ours: Path, bares: Path) -> bool:
    """Whether both gave every row the same probabilities, to rounding."""
    wanted = [name for name in pq.read_schema(bares).names if name.startswith("probability")]
    pairs = zip(pq.read_table(ours, columns=wanted).columns, pq.read_table(bares, columns=wanted).columns, strict=True)
    return all(np.allclose(a.to_numpy(), b.to_numpy(), atol=1e-5) for a, b in pairs)


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────


def speed(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    model, source = train(folder / "model"), folder / "input.parquet"
    write_input(source, rows)
    threads = torch.get_num_threads()
    runs = {"bare, 1 thread": (bare, 1), f"bare, {threads} threads": (bare, threads), "tidemill": (tidemill, threads)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first one warms up
        for name, (run, used) in runs.items():
            torch.set_num_threads(used)
            started = time.perf_counter()
            run(model, source, folder / f"{run.__name__}.parquet")
            if turn:
                seconds[name].append(time.perf_counter() - started)
    if not same(folder / "tidemill.parquet", folder / "bare.parquet"):
        raise SystemExit("the two loops disagree")
    per_second = {name: rows / statistics.median(taken) for name, taken in seconds.items()}
    ratio = per_second["tidemill"] / max(found for name, found in per_second.items() if name != "tidemill")
    return {"rows": rows, "rounds": rounds, "rows_per_s": per_second, "ratio": ratio, "seconds": seconds}


def memory(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Peak resident MiB of a fresh process that scores so many rows."""
    train(folder / "model")
    peaks: dict[str, float] = {}
    for rows in sizes:
        source = folder / f"{rows}.parquet"
        write_input(source, rows)
        command = [sys.executable, __file__, "--child", str(folder), str(source)]
        peaks[str(rows)] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        source.unlink()
    found = list(peaks.values())
    return {"peak_mib": peaks, "ratio": found[-1] / found[0]}


def child(folder: Path, source: Path) -> None:
    tidemill(models.load(folder / "model"), source, folder / "scores.parquet")
    # Not resource.getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(re.findall(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="peak memory at 1 and 5 million rows, not speed")
    parser.add_argument("--quick", action="store_true", help="a smoke run: a fiftieth of the rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(*given.child)
    part = 50 if given.quick else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.memory:
            figures = memory(folder, [1_000_000 // part, 5_000_000 // part])
            for rows, peak in figures["peak_mib"].items():
                print(f"{int(rows):>9,} rows: peak {peak:.0f} MiB")
            print(f"ratio {figures['ratio']:.3f} (mark: at most 1.2)")
        else:
            figures = speed(folder, 1_000_000 // part, 2 if given.quick else 5)
            for run, per_second in figures["rows_per_s"].items():
                print(f"{run:>15}: {per_second:,.0f} rows/s")
            print(f"ratio {figures['ratio']:.3f} (mark: at least 0.8)")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
