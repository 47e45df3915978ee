"""A full disk says how much is missing where."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from components import checkpoints, receipts, room
from components.contract import State
from components.errors import NoRoom


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota"), RuntimeError("I/O error: full (os error 28)")],
)
def test_a_full_disk_is_told_with_what_is_missing(tmp_path: Path, error: Exception) -> None:
    place = tmp_path / "not" / "there" / "yet"
    with pytest.raises(NoRoom) as caught, room.required(place, 3 * 2**20):
        raise error
    assert caught.value.where == str(place)
    assert "3 MiB were to be written" in caught.value.why and "are free" in caught.value.why
    assert "tidemill clean" in caught.value.fix


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ValueError("os error")])
def test_other_errors_are_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, room.required(tmp_path):
        raise error
    assert caught.value is error


def test_what_finds_no_room_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, content: bytes) -> None:
        file.write_bytes(content[:1])
        raise OSError(errno.ENOSPC, "full")

    place = checkpoints.write(str(tmp_path), 1, State({}, {}), {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_write_synced", full)
        with pytest.raises(NoRoom, match="bytes were to be written"):
            checkpoints.write(str(tmp_path), 2, State({}, {}), {})
        with pytest.raises(NoRoom):
            checkpoints.write_json(str(tmp_path / "sweep.json"), {})
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]
    checkpoints.read(place)


def test_a_stages_folder_that_finds_no_room_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "old").touch()
    with pytest.raises(NoRoom), receipts.replacing_folder(tmp_path / "train"):
        raise OSError(errno.ENOSPC, "full")
    assert [path.name for path in tmp_path.rglob("*")] == ["train", "old"]
