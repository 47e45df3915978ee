"""What a train stage costs beside bare Ray Tune and torch: python benchmarks/overhead.py [--quick] [--repeats N].

`tidemill stage train` and a bare script learn the same net with the same configurations for the same epochs on
data/digits.parquet, turn about, each as one command from start to end; medians are compared. The bare script is
what somebody would write for this one table: processes used again, one thread a trial, data by ray.put, the
weights of each trial saved at its end. It has no validation receipt, no checkpoints on the way, no tracking, no
plots, no evaluation on test rows, and can't go on when it is killed. Every configuration gets all epochs, since a
bare sweep has no rungs.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

MARK = 1.25
SEED = 7
PARAMS = """\
seed: {seed}
datasets:
  digits: {{}}
pipelines:
  overhead:
    dataset: digits
    family: cnn
    search: {{trials: {trials}, epochs: {epochs}, first_rung: {epochs}}}
"""


# ── Tidemill ────────────────────────────────────────────────────────────────────────────────────────────


def prepare(project: Path, trials: int, epochs: int) -> None:
    """A project with one pipeline whose data has passed validation."""
    (project / "params.yaml").write_text(PARAMS.format(seed=SEED, trials=trials, epochs=epochs), encoding="utf-8")
    (project / "data").mkdir()
    shutil.copy(REPOSITORY / "data" / "digits.parquet", project / "data")
    shutil.copy(REPOSITORY / "data.dvc", project)
    tidemill(project, "validate")


def tidemill(project: Path, stage: str) -> None:
    shutil.rmtree(project / "results" / "overhead" / stage, ignore_errors=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    environment |= {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "stage", stage, "overhead"]
    subprocess.run(command, cwd=project, env=environment, check=True, stdout=sys.stderr)


def learnt(project: Path) -> list[dict[str, Any]]:
    """The trials of the last train stage."""
    trials: list[dict[str, Any]] = json.loads((project / "results" / "overhead" / "train" / "trials.json").read_text())
    return trials


# ── bare ────────────────────────────────────────────────────────────────────────────────────────────────


def bare(project: Path, output: Path, epochs: int) -> None:
    subprocess.run(
        [sys.executable, __file__, "--bare", str(project), str(output), str(epochs)],
        check=True,
        stdout=sys.stderr,
        cwd=project,
    )


def run_bare(project: Path, output: Path, epochs: int) -> None:
    """The bare sweep, in a process of its own: final loss of each configuration to `output`/losses.json."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import logging

    import numpy as np
    import pyarrow.parquet as pq
    import ray
    from ray import tune

    table = pq.read_table(REPOSITORY / "data" / "digits.parquet")
    splits = {}
    for split in ("train", "val"):
        rows = table.filter(np.array(table["split"].to_pylist()) == split)
        image = next(name for name in rows.column_names if hasattr(rows.schema.field(name).type, "shape"))
        pixels = rows[image].combine_chunks().to_numpy_ndarray()
        target = next(n for n in rows.column_names if n not in (image, "split", "row", "id"))
        splits[split] = (pixels, np.array([int(v) for v in rows[target].to_pylist()]))
    configurations = json.loads((project / "configurations.json").read_text())
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    data = ray.put(splits)

    def train(config: dict[str, Any]) -> None:
        learn_bare(config["hyper"], ray.get(data), epochs, output)

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"hyper": tune.grid_search(configurations)},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(output), verbose=0),
    )
    losses = [result.metrics["loss"] for result in tuner.fit()]
    (output / "losses.json").write_text(json.dumps(losses))
    ray.shutdown()


def learn_bare(hyper: dict[str, Any], splits: Any, epochs: int, output: Path) -> None:
    """One trial: what the cnn family does, as a script."""
    import torch
    from ray import tune
    from safetensors.torch import save_file
    from torch.nn import functional

    from components.contract import Column, Spec
    from components.families.cnn import Net, Settings
    from components.images import augmented

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    settings = Settings(**hyper)
    (x_N, y_N), (val_N, truth_N) = ([torch.tensor(part) for part in splits[split]] for split in ("train", "val"))
    x_N, val_N = (x.reshape(len(x), 1, *x.shape[-2:]) for x in (x_N, val_N))
    column = Column("image", "tensor", "uint8", tuple(x_N.shape[1:]))
    spec = Spec("digits", "classification", (column,), "digit", tuple(map(str, range(10))))
    net = Net(spec, float(x_N.float().mean()), float(x_N.float().std()), settings)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net).requires_grad_(False)
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, fused=True)
    steps = 0
    for _ in range(epochs):
        net.train()
        for rows in torch.randperm(len(x_N)).split(settings.batch_rows):
            logits = net(augmented(x_N[rows].float(), settings.augment, settings.flip))
            loss = functional.cross_entropy(logits, y_N[rows], label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            share = 1 - min(settings.average, (1 + steps) / (10 + steps))
            with torch.no_grad():
                for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
                    if mean.is_floating_point():
                        mean.lerp_(value, share)
                    else:
                        mean.copy_(value)
        average.eval()
        with torch.inference_mode():
            logits_NK = torch.cat([average(batch.float()) for batch in val_N.split(256)])
        accuracy = float((logits_NK.argmax(1) == truth_N).float().mean())
        tune.report({"loss": float(functional.cross_entropy(logits_NK, truth_N)), "accuracy": accuracy})
    weights = {name: value.contiguous() for name, value in average.state_dict().items()}
    save_file(weights, str(output / f"{tune.get_context().get_trial_id()}.safetensors"))


# ── side by side ────────────────────────────────────────────────────────────────────────────────────────


def compare(trials: int, epochs: int, repeats: int) -> dict[str, Any]:
    """Seconds of both, turn about, and the ratio of their medians."""
    seconds: dict[str, list[float]] = {"tidemill": [], "bare": []}
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        project = Path(folder) / "project"
        project.mkdir()
        prepare(project, trials, epochs)
        for repeat in range(repeats):
            seconds["tidemill"].append(_timed(lambda: tidemill(project, "train")))
            done = learnt(project)
            assert all(len(trial["curve"]) == epochs for trial in done), "all configurations learn all epochs"
            (project / "configurations.json").write_text(json.dumps([trial["hyper"] for trial in done]))
            output = Path(folder) / f"bare-{repeat}"
            output.mkdir()
            seconds["bare"].append(_timed(lambda output=output: bare(project, output, epochs)))
            losses = json.loads((output / "losses.json").read_text())
            print(
                f"{repeat + 1}/{repeats}: {seconds['tidemill'][-1]:.1f} s, bare {seconds['bare'][-1]:.1f} s",
                file=sys.stderr,
            )
            best = min(trial["best"] for trial in done)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "trials": trials,
        "epochs": epochs,
        "seconds": seconds,
        "tidemill_s": medians["tidemill"],
        "bare_s": medians["bare"],
        "ratio": medians["tidemill"] / medians["bare"],
        "mark": MARK,
        "best_loss": best,
        "bare_best_loss": min(losses),
    }


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two configurations, two epochs, once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        run_bare(Path(options.bare[0]), Path(options.bare[1]), int(options.bare[2]))
        return
    shape = (2, 2, 1) if options.quick else (options.trials, options.epochs, options.repeats)
    found = compare(*shape)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['trials']} configurations × {found['epochs']} epochs, median of {shape[2]}")
    print(f"tidemill stage train {found['tidemill_s']:8.1f} s   best val/loss {found['best_loss']:.4f}")
    print(f"bare Ray Tune        {found['bare_s']:8.1f} s   best val/loss {found['bare_best_loss']:.4f}")
    print(f"ratio                {found['ratio']:8.2f}     (mark: at most {MARK})")


if __name__ == "__main__":
    main()
