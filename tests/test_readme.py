"""The README's tree names every source file, and none that is not there; docs/families.md has every family."""

from __future__ import annotations

import re

from components.families import FAMILIES

from .conftest import REPOSITORY


def test_the_tree_has_one_line_a_file() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    named, folder = set(), ""
    for line in text.partition("## What is where\n```\n")[2].partition("```")[0].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        folder = "/".join([*folder.split("/")[: len(indent) // 2], name.rstrip("/,")])
        named.add(folder)
    for top in ("components", "flows", "benchmarks"):
        there = {
            (file.parent if file.name == "__init__.py" else file).relative_to(REPOSITORY).as_posix()
            for file in (REPOSITORY / top).rglob("*.py")
        }
        assert {name for name in named if name.split("/")[0] == top} == there | {top}
    assert all((REPOSITORY / name).exists() for name in named)


def test_each_family_has_a_section() -> None:
    text = (REPOSITORY / "docs" / "families.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (.+)$", text, re.MULTILINE)) == set(FAMILIES)
