"""Imports are followed through the project's own code and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.closure import closure, code_hash, outside
from components.errors import ParamsError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "shore/__init__.py": "",
        "shore/sand.py": "from . import stone\nfrom .deep.water import salt\nimport numpy as np\n",
        "shore/stone.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import never\n",
        "shore/never.py": "",
        "shore/unused.py": "",
        "shore/deep/__init__.py": "def late():\n    from ..shell import pearl\n    return pearl\n",
        "shore/deep/water.py": "salt = 1\nimport gull.wing\n",
        "shore/shell.py": "pearl = 1\n",
        "gull/__init__.py": "raise RuntimeError('sources are read, not run')\n",
        "gull/wing.py": "import json, lone\n",
        "lone.py": "import torch.nn as nn\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_follows_relative_absolute_late_and_single_file_imports(package: Path) -> None:
    found = closure(["shore.sand"])
    names = "gull gull.wing lone shore shore.deep shore.deep.water shore.sand shore.shell shore.stone"
    assert list(found) == names.split()
    assert found["shore.deep"] == package / "shore/deep/__init__.py"
    assert outside(["shore.sand"]) == {"numpy", "torch"}


def test_the_hash_follows_what_is_imported_and_nothing_else(package: Path) -> None:
    before = code_hash(["shore.sand"])
    (package / "shore/unused.py").write_text("x = 1\n")
    assert code_hash(["shore.sand"]) == before
    (package / "lone.py").write_text("import torch\n")
    assert code_hash(["shore.sand"]) != before


def test_a_model_needs_few_of_our_modules() -> None:
    assert set(closure(["components.model", "components.families"])) == {
        "components", "components.contract", "components.errors", "components.families", "components.model",
    }  # fmt: skip
    assert outside(["components.model"]) == {"numpy", "pyarrow", "safetensors", "torch"}


def test_the_hash_is_the_same_in_another_process_and_folder(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    code = "from components.closure import code_hash; print(code_hash(['components.model']))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == code_hash(["components.model"])


def test_an_absent_module_is_named() -> None:
    with pytest.raises(ParamsError, match=r"nowhere\.at_all"):
        closure(["nowhere.at_all"])


def test_a_package_of_the_library_folders_is_followed_only_if_named() -> None:
    assert "safetensors.torch" in closure(["safetensors.torch"])
    assert not any(name.startswith("safetensors") for name in closure(["components.model"]))
