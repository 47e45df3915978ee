"""Which bytes a dataset is: fetching, recording, adding, and that DVC itself agrees."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components import datasets, digests, params, versioning
from components.datasets import parquet
from components.errors import Busy, DataError, DatasetChanged, ParamsError
from components.params import DatasetBlock, Params
from components.versioning import tracked
from components.workspace import Workspace

BIN = Path(sys.executable).parent
ROWS = "".join(f"{i},{i * 0.37 % 5:.3f},{'abc'[i % 3]},{'yes' if i % 7 < 3 else 'no'}\n" for i in range(200))
TABLE = "id,size,kind,sold\n" + ROWS


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A project with two tables, `boats` and `nets`."""
    for name in ("boats", "nets"):
        (tmp_path / f"{name}.csv").write_text(TABLE if name == "boats" else TABLE.replace(",a,", ",d,"))
    (tmp_path / "params.yaml").write_text(
        "datasets:  # ours\n"
        "  boats: {table: boats.csv, target: sold}\n"
        "  nets:\n    table: nets.csv  # from the harbour\n    target: sold\n"
        "\n# what runs\npipelines: {}\n"
    )
    return Workspace(tmp_path)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A project whose one built-in dataset, `tiny`, is made here, and counts how often it is built."""
    monkeypatch.setitem(datasets.BUILT_IN, "tiny", "tiny_rows")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tiny_rows.py").write_text(
        "import pyarrow as pa\nSOURCE, VALUE, BUILT = 'tiny 1', 1.0, []\n"
        "def build(read):\n    BUILT.append(1)\n"
        "    return pa.table({'x': [VALUE, 2.0, 3.0], 'split': ['train', 'val', 'test']})\n"
        "def expectations(): ...\n"
    )
    yield Workspace(tmp_path)
    sys.modules.pop("tiny_rows", None)


def fetch(workspace: Workspace, *names: str, record: bool = False) -> tuple[list[str], list[str]]:
    """(what was done to each dataset, what was said)."""
    said: list[str] = []
    known = params.load(workspace)
    fetched = versioning.fetch(workspace, known, list(names) or None, said.append, record=record)
    return [f.action for f in fetched], said


def fetch_tiny(workspace: Workspace, record: bool = False) -> versioning.Fetched:
    known = Params(datasets={"tiny": DatasetBlock()})
    (fetched,) = versioning.fetch(workspace, known, None, lambda _: None, record=record)
    return fetched


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


# ── fetch ───────────────────────────────────────────────────────────────────────────────────────────────


def test_fetching_builds_what_is_absent_and_leaves_the_rest(workspace: Workspace) -> None:
    done, said = fetch(workspace)
    assert done == ["built", "built"]
    assert said[0] == "boats: building data/boats.parquet"
    assert said[1] == "boats: 200 rows (120 train, 40 val, 40 test), 0.0 MB"
    before = workspace.data("boats").stat().st_mtime_ns
    assert fetch(workspace) == (["unchanged", "unchanged"], [])
    assert workspace.data("boats").stat().st_mtime_ns == before
    workspace.data("nets").unlink()
    assert fetch(workspace)[0] == ["unchanged", "built"]
    with pytest.raises(ParamsError, match=r"no dataset 'boat'(.|\n)*known: boats, nets"):
        fetch(workspace, "boat")


def test_a_table_comes_out_byte_for_byte_again(workspace: Workspace, tmp_path: Path) -> None:
    fetch(workspace, "boats")
    first = workspace.data("boats").read_bytes()
    for left in (workspace.data("boats"), workspace.expectations("boats")):
        left.unlink()
    shutil.rmtree(workspace.state)
    fetch(workspace, "boats")
    assert workspace.data("boats").read_bytes() == first


def test_a_damaged_file_is_built_again(workspace: Workspace) -> None:
    fetch(workspace, "boats", record=True)
    whole = workspace.data("boats").read_bytes()
    workspace.data("boats").write_bytes(whole[:500])
    assert fetch(workspace, "boats")[0] == ["built"]
    assert workspace.data("boats").read_bytes() == whole


def test_only_an_explicit_fetch_records(workspace: Workspace) -> None:
    fetch(workspace)
    assert not (workspace.root / tracked.FILE).exists()
    _, said = fetch(workspace, record=True)
    assert said == ["data.dvc: recorded data/boats.parquet", "data.dvc: recorded data/nets.parquet"]
    assert (workspace.root / tracked.FILE).read_text() == (
        f"outs:\n- md5: {md5(workspace.data('boats'))}\n  size: {workspace.data('boats').stat().st_size}\n"
        f"  hash: md5\n  path: data/boats.parquet\n"
        f"- md5: {md5(workspace.data('nets'))}\n  size: {workspace.data('nets').stat().st_size}\n"
        f"  hash: md5\n  path: data/nets.parquet\n"
    )
    assert fetch(workspace, record=True) == (["unchanged", "unchanged"], [])


def test_a_changed_source_is_built_and_said_but_recorded_only_when_told(workspace: Workspace) -> None:
    fetch(workspace, record=True)
    before, named = md5(workspace.data("boats")), (workspace.root / tracked.FILE).read_bytes()
    (workspace.root / "boats.csv").write_text(TABLE + "900,1.5,a,yes\n")
    done, said = fetch(workspace)
    assert done == ["built", "unchanged"]
    assert said[-1] == "boats: a new version; `tidemill data fetch boats` records it in data.dvc"
    version = versioning.data_version(workspace, "boats")
    assert (version.tracked_md5, version.md5) == (before, md5(workspace.data("boats")))
    assert version.md5 != before
    assert (workspace.root / tracked.FILE).read_bytes() == named
    assert fetch(workspace, "boats") == (
        ["unchanged"],
        ["boats: data.dvc names another version; `tidemill data fetch boats` records this one"],
    )
    assert fetch(workspace, "boats", record=True)[1][-1] == "data.dvc: recorded data/boats.parquet"
    version = versioning.data_version(workspace, "boats")
    assert version.md5 == version.tracked_md5


def test_without_its_source_a_table_is_used_as_it_is(workspace: Workspace) -> None:
    fetch(workspace, "boats")
    (workspace.root / "boats.csv").unlink()
    done, said = fetch(workspace, "boats")
    assert (done, said) == (["unchanged"], ["boats: boats.csv is not there; data/boats.parquet is used as it is"])
    workspace.data("boats").unlink()
    with pytest.raises(DataError, match=r"boats\.csv: no such file or folder"):
        fetch(workspace, "boats")


def test_a_failing_build_leaves_what_was_there(workspace: Workspace) -> None:
    fetch(workspace, "boats", record=True)
    before = {p: p.read_bytes() for p in (workspace.data("boats"), workspace.root / tracked.FILE)}
    (workspace.root / "boats.csv").write_text(TABLE.replace("1.110", "much"))
    with pytest.raises(DataError, match=r"column 'size', row 3: got 'much', expected a number"):
        fetch(workspace, "boats", record=True)
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(p.name for p in workspace.data("boats").parent.iterdir()) == ["boats.parquet"]


# ── pinned datasets ─────────────────────────────────────────────────────────────────────────────────────


def test_a_built_in_dataset_with_other_bytes_is_refused(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch_tiny(own, record=True)
    import tiny_rows

    own.data("tiny").unlink()
    monkeypatch.setattr(tiny_rows, "VALUE", 1.5)
    with pytest.raises(DatasetChanged) as caught:
        fetch_tiny(own, record=True)
    text = str(caught.value)
    assert f"data.dvc says {first.md5}" in text and "MD5 is " in text and "tidemill data fetch tiny" in text
    assert list(own.data("tiny").parent.iterdir()) == []
    assert first.md5 in (own.root / tracked.FILE).read_text()
    # The way out that it names: without the entry, the new bytes are recorded.
    (own.root / tracked.FILE).write_text("outs: []\n")
    again = fetch_tiny(own, record=True)
    assert again.recorded and again.md5 != first.md5


def test_a_built_in_dataset_that_somebody_touched_is_put_right(own: Workspace) -> None:
    first = fetch_tiny(own, record=True)
    import tiny_rows

    table = pa.table({"x": [9.0, 2.0, 3.0], "split": ["train", "val", "test"]})
    parquet.write(table, own.data("tiny"), {"source": "tiny 1"})
    again = fetch_tiny(own)
    assert (again.action, again.md5, len(tiny_rows.BUILT)) == ("built", first.md5, 2)
    assert parquet.read(own.data("tiny"))["x"][0].as_py() == 1.0


def test_another_source_is_another_version(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_tiny(own)
    import tiny_rows

    assert fetch_tiny(own).action == "unchanged"
    monkeypatch.setattr(tiny_rows, "SOURCE", "tiny 2")
    assert fetch_tiny(own).action == "built"


# ── add ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_adding_a_file_makes_a_dataset(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    given = tmp_path_factory.mktemp("downloads") / "Old Ships.CSV"
    given.write_text(TABLE)
    said: list[str] = []
    fetched = versioning.add(workspace, "ships", given, {"target": "sold"}, said.append)
    assert fetched.action == "built" and fetched.recorded
    assert workspace.params.read_text() == (
        "datasets:  # ours\n"
        "  boats: {table: boats.csv, target: sold}\n"
        "  nets:\n    table: nets.csv  # from the harbour\n    target: sold\n"
        "  ships:\n    table: data/sources/ships.csv\n    target: sold\n"
        "\n# what runs\npipelines: {}\n"
    )
    assert tracked.md5s(workspace) == {
        "data/ships.parquet": md5(workspace.data("ships")),
        "data/sources/ships.csv": md5(given),
    }
    assert "ships: added to params.yaml; what it promises is in expectations/ships.yaml" in said
    given.unlink()
    assert fetch(workspace, "ships") == (["unchanged"], [])
    assert sorted(p.name for p in (workspace.root / "data" / "sources").iterdir()) == ["ships.csv"]


def test_adding_again_is_a_new_version(workspace: Workspace, tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    given.write_text(TABLE)
    first = versioning.add(workspace, "ships", given, {"target": "sold"}, lambda _: None)
    text, promised = workspace.params.read_text(), workspace.expectations("ships").read_text()
    given.write_text(TABLE + "900,1.5,a,yes\n")
    second = versioning.add(workspace, "ships", given, {}, lambda _: None)
    assert second.md5 != first.md5 and second.recorded
    assert (workspace.params.read_text(), workspace.expectations("ships").read_text()) == (text, promised)
    assert (workspace.root / "data/sources/ships.csv").read_text() == given.read_text()


def test_a_table_with_text_is_added_with_its_column(workspace: Workspace, tmp_path: Path) -> None:
    lines = "".join(f"the {i} ships of no {i * 7},{'yes' if i % 2 else 'no'}\n" for i in range(200))
    (tmp_path / "given.csv").write_text("log,sold\n" + lines)
    versioning.add(workspace, "ships", tmp_path / "given.csv", {"target": "sold", "text": "log"}, lambda _: None)
    block = params.load(workspace).datasets["ships"]
    assert (block.text, block.target) == ("log", "sold")
    assert parquet.read(workspace.data("ships")).num_rows == 200
    with pytest.raises(ParamsError, match="text is 'log' already, got 'sold'"):
        versioning.add(workspace, "ships", tmp_path / "given.csv", {"text": "sold"}, lambda _: None)


def test_series_and_ratings_are_added_with_what_says_so(workspace: Workspace, tmp_path: Path) -> None:
    """A wide table, a folder of recordings by class, and ratings: no line of params.yaml is written by hand."""
    draw = np.random.default_rng(0)
    wide = "".join(f"m{i},{'ab'[i % 2]},{draw.normal():.3f},{draw.normal():.3f}\n" for i in range(60))
    (tmp_path / "wide.csv").write_text("id,state,t0,t1\n" + wide)
    versioning.add(workspace, "wide", tmp_path / "wide.csv", {"target": "state", "series": "t*"}, lambda _: None)
    for i in range(60):
        file = tmp_path / "recordings" / "ab"[i % 2] / f"{i}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x,y\n" + "".join(f"{draw.normal():.3f},{draw.normal():.3f}\n" for _ in range(5)))
    versioning.add(workspace, "recordings", tmp_path / "recordings", {"series": "files"}, lambda _: None)
    rated = "".join(f"u{i % 20},i{i // 20},{draw.integers(1, 6)}\n" for i in range(200))
    (tmp_path / "rated.csv").write_text("who,what,stars\n" + rated)
    said = {"target": "stars", "user": "who", "item": "what"}
    versioning.add(workspace, "rated", tmp_path / "rated.csv", said, lambda _: None)
    blocks = params.load(workspace).datasets
    assert (blocks["wide"].series, blocks["recordings"].series) == ("t*", "files")
    assert (blocks["rated"].user, blocks["rated"].item) == ("who", "what")
    shapes = {n: parquet.read(workspace.data(n))["series"].type.shape for n in ("wide", "recordings")}
    assert shapes == {"wide": [1, 2], "recordings": [2, 5]}


def test_adding_a_folder_tracks_each_file(workspace: Workspace, tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / f"{i}.csv").write_text(TABLE.replace("\n", f"\n{i}9").rpartition("\n")[0] + "\n")
    versioning.add(workspace, "ships", tmp_path / "parts", {"target": "sold"}, lambda _: None)
    assert list(tracked.md5s(workspace)) == [
        "data/ships.parquet",
        "data/sources/ships/0.csv",
        "data/sources/ships/1.csv",
    ]
    assert parquet.read(workspace.data("ships")).num_rows == 400
    assert fetch(workspace, "ships") == (["unchanged"], [])


@pytest.mark.parametrize(
    ("name", "content", "target", "fault"),
    [
        ("ships", TABLE, None, r"no target given(.|\n)*columns are id, size, kind, sold(.|\n)*--target COLUMN"),
        ("ships", TABLE, "solt", r"no column 'solt'(.|\n)*did you mean 'sold'\?"),
        ("ships", TABLE.replace("yes", "no"), "sold", r"target has one value only, 'no'"),
        ("boats", TABLE, "sold", r"dataset 'boats' is there already, and reads boats\.csv"),
        ("../ships", TABLE, "sold", r"'\.\./ships' is no name for a dataset"),
        ("ships", None, "sold", r"no such file or folder"),
    ],
)
def test_adding_what_is_no_use_changes_nothing(
    workspace: Workspace, tmp_path: Path, name: str, content: str | None, target: str | None, fault: str
) -> None:
    if content is not None:
        (tmp_path / "given.csv").write_text(content)
    before = sorted(p for p in workspace.root.rglob("*") if ".tidemill" not in p.parts and p.is_file())
    text = workspace.params.read_text()
    with pytest.raises((ParamsError, DataError), match=fault):
        versioning.add(workspace, name, tmp_path / "given.csv", {"target": target} if target else {}, lambda _: None)
    assert sorted(p for p in workspace.root.rglob("*") if ".tidemill" not in p.parts and p.is_file()) == before
    assert workspace.params.read_text() == text


def test_an_environment_is_recorded_named_and_promised(workspace: Workspace) -> None:
    said: list[str] = []
    block = {"environment": "CartPole-v1", "environment_settings": {"max_episode_steps": 20}, "episodes": 5}
    added = versioning.add_environment(workspace, "poles", block, said.append)
    assert added.action == "built" and added.recorded
    assert workspace.params.read_text() == (
        "datasets:  # ours\n"
        "  boats: {table: boats.csv, target: sold}\n"
        "  nets:\n    table: nets.csv  # from the harbour\n    target: sold\n"
        "  poles:\n    environment: CartPole-v1\n    environment_settings:\n      max_episode_steps: 20\n"
        "    episodes: 5\n"
        "\n# what runs\npipelines: {}\n"
    )
    assert tracked.md5s(workspace) == {"data/poles.parquet": md5(workspace.data("poles"))}
    assert "poles: added to params.yaml; what it promises is in expectations/poles.yaml" in said
    assert fetch(workspace, "poles") == (["unchanged"], [])
    again = versioning.add_environment(workspace, "poles", block, lambda _: None)
    assert (again.action, again.recorded, again.md5) == ("unchanged", False, added.md5)
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace("episodes: 5", "episodes: 6"))
    assert fetch(workspace, "poles")[0] == ["built"], "more episodes are other rows, and nothing that was promised"


@pytest.mark.parametrize(
    ("name", "block", "fault"),
    [
        ("poles", {"environment": "CartPool-v1"}, r"no environment 'CartPool-v1'"),
        ("poles", {"environment": "CartPole-v1", "environment_wrappers": ["gymnasium"]}, r"no wrapper 'gymnasium'"),
        ("poles", {"environment": "CliffWalking-v1", "episodes": 5}, r"observations are Discrete\(48\), not a Box"),
        ("boats", {"environment": "CartPole-v1"}, r"dataset 'boats' is there already, and its block is another"),
        ("../poles", {"environment": "CartPole-v1"}, r"is no name for a dataset"),
    ],
)
def test_adding_an_environment_that_is_no_use_changes_nothing(
    workspace: Workspace, name: str, block: dict[str, Any], fault: str
) -> None:
    before = {p: p.read_bytes() for p in workspace.root.rglob("*") if ".tidemill" not in p.parts and p.is_file()}
    with pytest.raises((ParamsError, DataError), match=fault):
        versioning.add_environment(workspace, name, block, lambda _: None)
    assert before == {
        p: p.read_bytes() for p in workspace.root.rglob("*") if ".tidemill" not in p.parts and p.is_file()
    }


@pytest.mark.parametrize(
    "text",
    [
        "seed: 3\n",
        "datasets: {}\nseed: 3\n",
        "datasets: {digits: {}}  # kept\nseed: 3\n",
        "seed: 3\ndatasets:\n    digits: {}\n",
        "seed: 3\ndatasets:\n  digits: {}",
        "datasets:\n  digits: {}\n  # the last word\n\n# next\nseed: 3\n",
    ],
)
def test_a_block_is_added_wherever_datasets_stand(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path)
    workspace.params.write_text(text)
    (tmp_path / "given.csv").write_text(TABLE)
    versioning.add(workspace, "ships", tmp_path / "given.csv", {"target": "sold"}, lambda _: None)
    known = params.load(workspace)
    assert known.seed == (3 if "seed" in text else 0)
    assert list(known.datasets) == [*(["digits"] if "digits" in text else []), "ships"]
    for comment in ("# kept", "# the last word", "# next"):
        assert (comment in text) == (comment in workspace.params.read_text())


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, memory, read = tmp_path / "rows", tmp_path / "memory", []
    file.write_bytes(b"one")
    whole = digests._hash
    monkeypatch.setattr(digests, "_hash", lambda f, a: read.append(f) or whole(f, a))
    assert digests.digest(file, "md5", memory) == hashlib.md5(b"one").hexdigest()
    assert digests.digest(file, "md5", memory) == hashlib.md5(b"one").hexdigest()
    assert len(read) == 1
    state = file.stat()
    file.write_bytes(b"two")  # same size; and the same time, were it not for the nanoseconds
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert digests.digest(file, "md5", memory) == hashlib.md5(b"two").hexdigest()
    for note in memory.iterdir():
        note.write_text("{half")
    assert digests.digest(file, "sha256", memory) == hashlib.sha256(b"two").hexdigest()
    assert digests.digest(file, "md5", memory) == hashlib.md5(b"two").hexdigest()


def test_the_version_is_that_of_the_bytes(workspace: Workspace) -> None:
    fetch(workspace, "boats", record=True)
    version = versioning.data_version(workspace, "boats")
    assert version == versioning.DataVersion("boats", md5(workspace.data("boats")), md5(workspace.data("boats")))
    with workspace.data("boats").open("ab") as opened:
        opened.write(b"x")
    assert versioning.data_version(workspace, "boats").md5 == md5(workspace.data("boats")) != version.md5


@pytest.mark.parametrize("text", ["outs: [", "outs: 3\n", "- a\n", "outs:\n- md5: abc\n"])
def test_a_broken_data_dvc_is_named(workspace: Workspace, text: str) -> None:
    (workspace.root / tracked.FILE).write_text(text)
    with pytest.raises(DataError, match=r"data\.dvc(.|\n)*git checkout data\.dvc"):
        fetch(workspace, "boats", record=True)
    assert (workspace.root / tracked.FILE).read_text() == text


def test_other_entries_and_keys_of_data_dvc_stay(workspace: Workspace) -> None:
    fetch(workspace, "boats")
    (workspace.root / tracked.FILE).write_text(
        "# ours\nouts:\n- md5: abc\n  size: 3\n  hash: md5\n"
        "  path: data/zebras.parquet\n  remote: far\nmeta: {by: us}\n"
    )
    fetch(workspace, "boats", record=True)
    text = (workspace.root / tracked.FILE).read_text()
    assert text.startswith("# ours\nouts:\n- md5: ") and text.endswith("  remote: far\nmeta: {by: us}\n")
    assert list(tracked.md5s(workspace)) == ["data/boats.parquet", "data/zebras.parquet"]


def _slow_write(folder: str) -> None:
    """Dies while a dataset's file is half-written."""

    def half(table: pa.Table, file: Path, note: object) -> None:
        file.write_bytes(b"PAR1 half")
        os.kill(os.getpid(), signal.SIGKILL)

    parquet.write = half
    workspace = Workspace(Path(folder))
    versioning.fetch(workspace, params.load(workspace), ["boats"], lambda _: None, record=True)


def test_a_killed_fetch_leaves_nothing_that_counts(workspace: Workspace) -> None:
    fetch(workspace, "nets", record=True)
    child = multiprocessing.get_context("spawn").Process(target=_slow_write, args=(str(workspace.root),))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not workspace.data("boats").exists()
    assert list(tracked.md5s(workspace)) == ["data/nets.parquet"]
    assert fetch(workspace, "boats", record=True)[0] == ["built"]
    assert sorted(p.name for p in workspace.data("boats").parent.iterdir()) == ["boats.parquet", "nets.parquet"]


def test_threads_may_fetch_the_same_dataset_at_once(workspace: Workspace) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(workspace, record=True), range(4)))
    assert len(found) == 4
    assert list(tracked.md5s(workspace)) == ["data/boats.parquet", "data/nets.parquet"]
    assert versioning.data_version(workspace, "boats").tracked_md5 == md5(workspace.data("boats"))
    assert sorted(p.name for p in workspace.data("boats").parent.iterdir()) == ["boats.parquet", "nets.parquet"]


# ── git ─────────────────────────────────────────────────────────────────────────────────────────────────


def git(workspace: Workspace, *words: str) -> str:
    names = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *words], cwd=workspace.root, env=os.environ | names, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert versioning.commit(workspace) == ""
    git(workspace, "init", "-q")
    assert versioning.commit(workspace) == ""
    git(workspace, "add", "params.yaml")
    git(workspace, "commit", "-qm", "first")
    head = git(workspace, "rev-parse", "HEAD")
    assert versioning.commit(workspace) == head  # untracked files make no difference
    workspace.params.write_text(workspace.params.read_text() + "# more\n")
    assert versioning.commit(workspace) == f"{head}-dirty"
    monkeypatch.setenv("PATH", str(workspace.root))
    assert versioning.commit(workspace) == ""


# ── DVC ─────────────────────────────────────────────────────────────────────────────────────────────────

PIPELINE = """\
stages:
  count:
    foreach: [boats, nets]
    do:
      cmd: wc -c data/${item}.parquet > ${item}.txt
      deps: ["data/${item}.parquet"]
      outs: ["${item}.txt"]
"""


def dvc(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "dvc"), *words]
    return subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def with_dvc(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(workspace.root / ".dvc" / "site"))
    git(workspace, "init", "-q")
    (workspace.root / ".gitignore").write_text("/data/*\n!/data/.gitignore\n.tidemill/\n")
    (workspace.root / "data").mkdir()
    (workspace.root / "data" / ".gitignore").write_text("*\n!.gitignore\n")
    assert dvc(workspace, "init", "-q").returncode == 0
    return workspace


def test_dvc_agrees_with_what_was_recorded(with_dvc: Workspace) -> None:
    fetch(with_dvc, record=True)
    named = (with_dvc.root / tracked.FILE).read_bytes()
    assert dvc(with_dvc, "status").stdout.strip() == "Data and pipelines are up to date."
    (with_dvc.root / "dvc.yaml").write_text(PIPELINE)
    done = dvc(with_dvc, "repro")
    assert done.returncode == 0, done.stderr
    assert (with_dvc.root / tracked.FILE).read_bytes() == named
    assert (with_dvc.root / "data" / ".gitignore").read_text() == "*\n!.gitignore\n"
    # Its cache has the bytes: a lost file comes back without its source.
    before = md5(with_dvc.data("boats"))
    with_dvc.data("boats").unlink()
    assert dvc(with_dvc, "checkout", "data.dvc").returncode == 0
    assert md5(with_dvc.data("boats")) == before


def test_a_partly_fetched_folder_is_never_recorded(with_dvc: Workspace) -> None:
    """What one entry a dataset is for: with one for the folder, DVC would take what is left for the new version."""
    fetch(with_dvc, record=True)
    (with_dvc.root / "dvc.yaml").write_text(PIPELINE)
    named = (with_dvc.root / tracked.FILE).read_bytes()
    with_dvc.data("nets").unlink()
    for force in ([], ["--force"]):
        done = dvc(with_dvc, "repro", *force)
        assert done.returncode != 0 and "missing data 'source': data/nets.parquet" in done.stderr
        assert (with_dvc.root / tracked.FILE).read_bytes() == named
    fetch(with_dvc)
    assert dvc(with_dvc, "repro").returncode == 0
    assert (with_dvc.root / tracked.FILE).read_bytes() == named


def test_the_lock_of_a_killed_dvc_is_cleared_and_of_a_living_one_kept(with_dvc: Workspace) -> None:
    rwlock = with_dvc.root / ".dvc" / "tmp" / "rwlock"
    (with_dvc.root / "dvc.yaml").write_text(
        "stages: {nap: {cmd: touch napping && sleep 60, outs: [{napping: {cache: false}}]}}"
    )
    command = [str(BIN / "dvc"), "repro", "nap"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, cwd=with_dvc.root, start_new_session=True, **quiet)
    try:
        until((with_dvc.root / "napping").exists)
        held = json.loads(rwlock.read_text())
        assert held["write"]
        versioning.clear_stale_lock(with_dvc)
        assert json.loads(rwlock.read_text()) == held
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    versioning.clear_stale_lock(with_dvc)
    assert json.loads(rwlock.read_text()) == {"write": {}, "read": {}}


def test_recording_while_dvc_holds_the_project_says_so(with_dvc: Workspace) -> None:
    fetch(with_dvc)
    code = (
        "import time; from dvc.repo import Repo; repo = Repo('.')\n"
        "with repo.lock: open('held', 'w').close(); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=with_dvc.root)
    try:
        until((with_dvc.root / "held").exists)
        with pytest.raises(Busy, match=r"DVC works on this project now(.|\n)*dvc commit data\.dvc"):
            fetch(with_dvc, "boats", record=True)
    finally:
        child.kill()
        child.wait()
    assert "not in cache" in dvc(with_dvc, "status").stdout
    assert dvc(with_dvc, "commit", "data.dvc").returncode == 0  # the way out that it names
    assert dvc(with_dvc, "status").stdout.strip() == "Data and pipelines are up to date."


def until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def rwlock(workspace: Workspace) -> Path:
    file = workspace.root / ".dvc" / "tmp" / "rwlock"
    file.parent.mkdir(parents=True)
    return file


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_locks_of_dead_processes_are_cleared(workspace: Workspace, rwlock: Path) -> None:
    dead, mine = {"pid": dead_pid(), "cmd": "dvc repro"}, {"pid": os.getpid(), "cmd": "dvc repro"}
    rwlock.write_text(json.dumps({"write": {"/a": dead, "/b": mine}, "read": {"/c": [dead, mine], "/d": [dead]}}))
    versioning.clear_stale_lock(workspace)
    # This process is alive, but it is no DVC: its number was another's when the lock was taken.
    assert json.loads(rwlock.read_text()) == {"write": {}, "read": {}}


@pytest.mark.parametrize("text", ["", '{"write": {"/a": {"pi', "[]", '{"write": {"/a": 3}}'])
def test_a_half_written_lock_is_cleared(workspace: Workspace, rwlock: Path, text: str) -> None:
    rwlock.write_text(text)
    versioning.clear_stale_lock(workspace)
    assert json.loads(rwlock.read_text()) == {"write": {}, "read": {}}


def test_no_lock_is_no_fault(workspace: Workspace) -> None:
    versioning.clear_stale_lock(workspace)
    assert not (workspace.root / ".dvc").exists()
