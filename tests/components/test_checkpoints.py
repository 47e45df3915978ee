"""A checkpoint is whole or it does not exist, on a disk and on a storage that knows no rename."""

from __future__ import annotations

import json
import multiprocessing
import time
import uuid
from pathlib import Path

import pytest
import torch

from components import checkpoints
from components.checkpoints import Damaged
from components.contract import State
from tests.families import disk

TIED = torch.arange(6, dtype=torch.float32).reshape(2, 3)
STATE = State(
    {
        "net/weight": TIED,
        "model/weight": TIED,  # the same tensor
        "net/row": TIED[1],  # part of its storage
        "net/flat": TIED.view(6),  # all of it, in another shape
        "net/transposed": TIED.T,  # not contiguous
        "optimizer/step": torch.tensor(7),  # no dimension, int64
        "replay/done": torch.tensor([True, False]),
        "empty/a": torch.zeros(0, 3),
        "empty/b": torch.zeros(0),
        "half": torch.full((2,), 0.5, dtype=torch.bfloat16),
    },
    {"epoch": 3, "generator": 2**127 + 1, "text": "é", "nested": {"list": [1, 2.5, None]}},
)


@pytest.fixture(params=["folder", "file", "memory", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A trial's folder: a path, its URL, a storage in memory, and one on disk that is reached as if it were remote."""
    assert disk.Disk.protocol == "disk"
    return {
        "folder": str(tmp_path / "trial"),
        "file": f"file://{tmp_path}/trial",
        "memory": f"memory://{uuid.uuid4().hex}/trial",
        "remote": f"disk://{tmp_path}/trial",
    }[request.param]


def same(a: State, b: State) -> bool:
    return (
        a.scalars == b.scalars
        and sorted(a.tensors) == sorted(b.tensors)
        and all(torch.equal(t, b.tensors[n]) and t.dtype == b.tensors[n].dtype for n, t in a.tensors.items())
    )


def test_a_state_comes_back_as_it_was(folder: str) -> None:
    place = checkpoints.write(folder, 3, STATE, {"epoch": 3, "curve": [{"val/loss": 0.5}]})
    state, record = checkpoints.read(place)
    assert same(state, STATE)
    assert record == {"epoch": 3, "curve": [{"val/loss": 0.5}]}
    state.tensors["net/weight"].zero_()
    assert torch.equal(state.tensors["model/weight"], TIED), "what was tied is tied on the storage alone"


def test_equal_states_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        checkpoints.write(str(tmp_path / name), 1, STATE, {"epoch": 1})
    one, two = (sorted((tmp_path / name / "000001").iterdir()) for name in ("one", "two"))
    assert [(p.name, p.read_bytes()) for p in one] == [(p.name, p.read_bytes()) for p in two]


def test_nothing_there_is_nothing(folder: str) -> None:
    assert checkpoints.latest(folder) is None
    assert checkpoints.newest_record(folder) is None
    checkpoints.prune(folder)
    checkpoints.remove(folder)
    with pytest.raises(Damaged):
        checkpoints.read(checkpoints.place_of(folder, 1))


def test_the_newest_is_found_up_to_an_epoch(folder: str) -> None:
    for epoch in (2, 10, 9):
        checkpoints.write(folder, epoch, STATE, {"epoch": epoch})
    newest, ninth = checkpoints.latest(folder), checkpoints.latest(folder, until=9)
    assert newest is not None and ninth is not None
    assert (newest.epoch, ninth.epoch) == (10, 9)
    found = checkpoints.newest_record(folder)
    assert found == (newest.place, {"epoch": 10})


@pytest.mark.parametrize("damage", ["flip", "truncate", "no tensors", "no json", "half json"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    folder = str(tmp_path / "trial")
    for epoch in (1, 2):
        checkpoints.write(folder, epoch, STATE, {"epoch": epoch})
    place = Path(checkpoints.place_of(folder, 2))
    _damage(place, damage)
    with pytest.raises(Damaged):
        checkpoints.read(str(place))
    found = checkpoints.latest(folder)
    assert found is not None and found.epoch == 1 and same(found.state, STATE)
    checkpoints.write(folder, 2, STATE, {"epoch": 2})
    again = checkpoints.latest(folder)
    assert again is not None and again.epoch == 2, "a damaged copy is written over"


def _damage(place: Path, how: str) -> None:
    tensors = next(place.glob("*.safetensors"))
    description = place / checkpoints.DESCRIPTION
    if how == "flip":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif how == "truncate":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    elif how == "no tensors":
        tensors.unlink()
    elif how == "no json":
        description.unlink()
    else:
        description.write_bytes(description.read_bytes()[:40])


def test_the_first_whole_copy_is_kept(folder: str) -> None:
    place = checkpoints.write(folder, 1, STATE, {"writer": "first"})
    assert checkpoints.write(folder, 1, State({}, {}), {"writer": "second"}) == place
    assert checkpoints.read(place)[1] == {"writer": "first"}


def test_on_a_remote_storage_tensors_without_their_json_do_not_exist(tmp_path: Path) -> None:
    folder = f"disk://{tmp_path}/trial"
    place = checkpoints.write(folder, 1, STATE, {})
    (tmp_path / "trial" / "000001" / checkpoints.DESCRIPTION).unlink()
    assert checkpoints.latest(folder) is None
    with pytest.raises(Damaged):
        checkpoints.read(place)


def test_old_checkpoints_go_and_needed_ones_stay(folder: str) -> None:
    for epoch in range(1, 7):
        checkpoints.write(folder, epoch, STATE, {"epoch": epoch})
    checkpoints.prune(folder, keep={2})
    kept = [e for e in range(1, 7) if (c := checkpoints.latest(folder, until=e)) and c.epoch == e]
    assert kept == [2, 5, 6]


def test_what_a_dead_writer_left_goes_too(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    (folder / ".aside-000009-of-a-dead-process").mkdir(parents=True)
    checkpoints.write(str(folder), 1, STATE, {})
    checkpoints.prune(str(folder))
    assert [p.name for p in folder.iterdir()] == ["000001"]


def _write_for_ever(folder: str) -> None:
    for epoch in range(1, 100_000):
        checkpoints.write(folder, epoch, State({"w": torch.full((50_000,), float(epoch))}), {"epoch": epoch})
        checkpoints.prune(folder)


def test_a_reader_beside_a_writer_that_is_killed_never_sees_half(tmp_path: Path) -> None:
    folder = str(tmp_path / "trial")
    writer = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(folder,))
    writer.start()
    try:
        deadline = time.monotonic() + 60
        while not checkpoints.latest(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(30):
            found = checkpoints.latest(folder)
            assert found is not None
            assert found.state.tensors["w"].unique().tolist() == [found.epoch] == [found.record["epoch"]]
    finally:
        writer.kill()
        writer.join()
    found = checkpoints.latest(folder)
    assert found is not None and found.state.tensors["w"].unique().tolist() == [found.epoch]


def test_json_is_written_whole_and_read_back(folder: str) -> None:
    place = f"{folder}/sweep.json"
    assert checkpoints.read_json(place) is None
    checkpoints.write_json(place, {"a": [1, None]})
    checkpoints.write_json(place, {"a": [2, None]})
    assert checkpoints.read_json(place) == {"a": [2, None]}


def test_nothing_is_pickled(tmp_path: Path) -> None:
    place = Path(checkpoints.write(str(tmp_path), 1, STATE, {"epoch": 1}))
    assert sorted(p.suffix for p in place.iterdir()) == [".json", ".safetensors"]
    described = json.loads((place / checkpoints.DESCRIPTION).read_bytes())
    assert described["scalars"]["generator"] == 2**127 + 1
