"""Work counts as done only when all of it is there."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from components import receipts
from components.errors import TidemillError
from components.receipts import Receipt
from components.workspace import Workspace


def test_a_key_is_that_of_the_content_not_of_its_order() -> None:
    assert receipts.key({"a": 1, "b": [1.5, None]}) == receipts.key({"b": [1.5, None], "a": 1})
    assert receipts.key({"a": 1}) != receipts.key({"a": 2})


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    receipts.write_file(target, b"old")
    with pytest.raises(OSError, match="disk"), receipts.replacing(target) as temporary:
        temporary.write_bytes(b"ne")
        raise OSError("disk")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.bin"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "stage"
    with receipts.replacing_folder(target) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(ValueError, match="no"), receipts.replacing_folder(target) as temporary:
        (temporary / "a").write_text("2")
        raise ValueError("no")
    assert (target / "a").read_text() == "1"
    with receipts.replacing_folder(target) as temporary:
        (temporary / "b").write_text("3")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def _die_inside(folder: str) -> None:
    with receipts.replacing_folder(Path(folder)) as temporary:
        (temporary / "half").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    target = tmp_path / "stage"
    with receipts.replacing_folder(target) as temporary:
        (temporary / "a").write_text("1")
    child = multiprocessing.get_context("spawn").Process(target=_die_inside, args=(str(target),))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (target / "a").read_text() == "1"
    with receipts.replacing_folder(target) as temporary:
        (temporary / "c").write_text("1")
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def _receipt(workspace: Workspace) -> Receipt:
    folder = workspace.results("digits", "train")
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    made = Receipt("digits", "train", "k", {"a": 1}, receipts.hashes(folder), {"value": 0.5}, 1.5)
    return receipts.leave(workspace, made)


def test_a_receipt_comes_back_as_it_was(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert receipts.read(workspace, "digits", "train") is None
    left = _receipt(workspace)
    assert receipts.read(workspace, "digits", "train") == left
    assert receipts.intact(workspace, left)
    receipts.withdraw(workspace, "digits", "train")
    assert receipts.read(workspace, "digits", "train") is None


def test_altered_or_missing_outputs_undo_a_receipt(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    left = _receipt(workspace)
    file = workspace.results("digits", "train") / "metrics.json"
    file.write_text("{ }")
    assert not receipts.intact(workspace, left)
    file.unlink()
    assert not receipts.intact(workspace, left)


def test_a_damaged_receipt_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    _receipt(workspace)
    file = workspace.state / "receipts" / "digits" / "train.json"
    file.write_text("{")
    with pytest.raises(TidemillError, match="not a receipt"):
        receipts.read(workspace, "digits", "train")
