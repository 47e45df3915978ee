"""`dvc repro` in a fresh clone: no server, then up to date, and forced it gives the same bytes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from ..conftest import REPOSITORY, Home, borrow_data

PARAMS = """\
seed: 5
datasets: {breast-cancer: {}}
pipelines:
  cancer:
    dataset: breast-cancer
    family: mlp
    search: {trials: 2, epochs: 4, first_rung: 2}
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """What a clone of a small project holds, data fetched: the repository's own dvc.yaml with one pipeline."""
    home = Home(tmp_path_factory.mktemp("clone"))
    shutil.copy(REPOSITORY / "dvc.yaml", home.root)
    shutil.copy(REPOSITORY / ".dvcignore", home.root)
    shutil.copytree(REPOSITORY / "expectations", home.root / "expectations")
    shutil.copytree(REPOSITORY / "components", home.root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    home.params(PARAMS)
    borrow_data(home, "breast-cancer")
    for words in (("git", "init", "-q"), ("dvc", "init", "-q")):
        assert home.call(*words).returncode == 0
    # data.dvc names every built-in dataset; this clone uses one.
    lines = (home.root / "data.dvc").read_text().splitlines(keepends=True)
    (home.root / "data.dvc").write_text("".join(_only(lines, "breast-cancer")))
    done = home.call("dvc", "repro", timeout_s=400)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return home


def _only(lines: list[str], dataset: str) -> list[str]:
    """The lines of data.dvc with the one entry of `outs` that is this dataset's."""
    entries: list[list[str]] = []
    for line in lines[1:]:
        if line.lstrip().startswith("- "):
            entries.append([])
        entries[-1].append(line)
    return [lines[0], *next(e for e in entries if any(f"data/{dataset}.parquet" in line for line in e))]


def hashes(home: Home) -> dict[str, str]:
    files = sorted((home.root / "results").rglob("*"))
    return {
        f.relative_to(home.root).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
        if f.is_file() and not f.name.endswith("receipt.json")
    }


def test_every_stage_was_reproduced_without_a_server(clone: Home) -> None:
    assert (clone.root / "dvc.lock").is_file()
    assert (clone.root / "results/cancer/train/model/weights.safetensors").is_file()
    assert (clone.root / "results/cancer/score/scores.parquet").is_file()
    assert not (clone.root / ".tidemill/prefect").exists()
    [row] = clone.json("results")
    assert row["promoted"] is True


def test_it_is_up_to_date_then(clone: Home) -> None:
    lock = (clone.root / "dvc.lock").read_bytes()
    done = clone.call("dvc", "repro")
    assert done.returncode == 0
    assert "up to date" in done.stdout
    assert (clone.root / "dvc.lock").read_bytes() == lock
    assert {step["action"] for step in clone.json("plan")} == {"unchanged"}, "the flow agrees with DVC"


def test_metrics_and_plots_can_be_shown_offline(clone: Home) -> None:
    done = clone.call("dvc", "metrics", "show", "--json")
    assert done.returncode == 0, done.stderr
    assert '"test/' in done.stdout or "test" in done.stdout
    done = clone.call("dvc", "plots", "show", "-o", "plots")
    assert done.returncode == 0, done.stderr
    page = (clone.root / "plots/index.html").read_text()
    assert "https://" not in page.replace("https://vega.github.io/schema", ""), "the page loads nothing from elsewhere"


def test_a_schedule_is_not_a_reason_to_train_again(clone: Home) -> None:
    weights = clone.root / "results/cancer/train/model/weights.safetensors"
    before = weights.stat().st_mtime_ns
    clone.params(PARAMS + '    schedule: "0 6 * * *"\n')
    done = clone.call("dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert weights.stat().st_mtime_ns == before


def test_a_forced_reproduction_trains_again_and_gives_the_same_bytes(clone: Home) -> None:
    before = hashes(clone)
    weights = clone.root / "results/cancer/train/model/weights.safetensors"
    written = weights.stat().st_mtime_ns
    done = clone.call("dvc", "repro", "--force", "--single-item", "train@cancer", timeout_s=400)
    assert done.returncode == 0, done.stderr
    assert hashes(clone) == before
    assert weights.stat().st_mtime_ns > written


def test_a_partly_fetched_data_folder_does_not_become_the_new_version(clone: Home, tmp_path: Path) -> None:
    other = tmp_path / "partly"
    shutil.copytree(clone.root, other)
    home = Home(other)
    (other / "data/breast-cancer.parquet").unlink()
    tracked = (other / "data.dvc").read_bytes()
    done = home.call("dvc", "repro")
    assert done.returncode != 0
    assert (other / "data.dvc").read_bytes() == tracked
