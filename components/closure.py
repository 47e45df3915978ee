"""Which source files a module needs: its imports, followed through the project's own code.

Run keys hash these files, so that a change of code is new work; a registered model carries copies of them.
Sources are read, never run. Only import statements are followed, wherever they stand in a file, except under
`if TYPE_CHECKING:`. Names given to `importlib.import_module` are not: name such modules beside the rest.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .errors import ParamsError


def closure(modules: Sequence[str]) -> dict[str, Path]:
    """Module name → source file of `modules`, of what they import and of the packages around them, sorted.

    The project's own code is what lies outside the interpreter's library folders, and the packages of `modules`
    wherever they lie. Raises ParamsError if one of `modules` has no source file.
    """
    return dict(sorted(_Walk(modules).found.items()))


def outside(modules: Sequence[str]) -> set[str]:
    """Top-level names of the installed packages that the closure of `modules` imports, without the standard library."""
    return _Walk(modules).outside - sys.stdlib_module_names


def code_hash(modules: Sequence[str]) -> str:
    """SHA-256 over names and sources of the closure of `modules`."""
    digest = hashlib.sha256()
    for name, file in closure(modules).items():
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def own(modules: Iterable[str]) -> list[str]:
    """Those of the modules that are the project's own code, sorted."""
    folders = {name: _search(name.partition(".")[0]) for name in modules}
    return sorted(name for name, found in folders.items() if found and not any(_is_library(f) for f in found))


def needed(module: str) -> set[str]:
    """Names of what importing one module imports, by its own source, wherever that lies; what its functions import is
    left out. Empty if it has no source."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return set()
    source = Path(spec.origin)
    tree = ast.parse(source.read_bytes(), str(source))
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return set(_named(tree, module, source))


class _Walk:
    def __init__(self, modules: Sequence[str]) -> None:
        self.found: dict[str, Path] = {}
        self.outside: set[str] = set()
        self._tops: dict[str, list[Path]] = {}  # top-level name of own code → the folders that may hold it
        self._named = {name.partition(".")[0] for name in modules}
        for name in modules:
            if not self._follow(name):
                raise ParamsError(f"no source file for the module {name!r}", fix="is its package installed?")

    def _follow(self, name: str) -> bool:
        """Take in one module, the packages around it and what they import. False: there is no such module here."""
        file = self._file(name)
        if file is None:
            return False
        waiting = [name]
        while waiting:
            module = waiting.pop()
            source = self._file(module)
            if source is None or module in self.found:
                continue
            parent = module.rpartition(".")[0]
            if parent:
                waiting.append(parent)
            if source.is_dir():  # a namespace package has no source of its own
                continue
            self.found[module] = source
            changed = source.stat()
            waiting += _imported(module, source, changed.st_mtime_ns, changed.st_size)
        return True

    def _file(self, name: str) -> Path | None:
        top, _, rest = name.partition(".")
        for folder in self._folders(top):
            path = folder.joinpath(top, *rest.split(".")) if rest else folder / top
            for candidate in (path / "__init__.py", path.with_name(path.name + ".py")):
                if candidate.is_file():
                    return candidate
            if path.is_dir() and any(path.glob("*.py")):
                return path
        return None

    def _folders(self, top: str) -> list[Path]:
        if top not in self._tops:
            folders = _search(top)
            if top not in self._named and (not folders or any(_is_library(f) for f in folders)):
                self.outside.add(top)
                folders = []
            self._tops[top] = folders
        return self._tops[top]


def _search(top: str) -> list[Path]:
    """The folders on the path that hold the top-level module, without importing it."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module made by hand, such as __main__
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(place).parent for place in spec.submodule_search_locations]
    return [Path(spec.origin).parent] if spec.has_location and spec.origin else []


@functools.cache
def _is_library(folder: Path) -> bool:
    libraries = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(folder.resolve().is_relative_to(library) for library in libraries)


@functools.lru_cache(maxsize=1024)
def _imported(module: str, source: Path, *_version: int) -> tuple[str, ...]:
    """Names that a source imports, absolute; of `from a import b` both a and a.b, since b may be a module."""
    return tuple(_names(module, source))


def _names(module: str, source: Path) -> Iterator[str]:
    yield from _named(ast.parse(source.read_bytes(), str(source)), module, source)


def _named(tree: ast.AST, module: str, source: Path) -> Iterator[str]:
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement that can run, in the order of the file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for other in node.orelse:
                yield from statements(ast.Module([other], []))
        else:
            yield from statements(node)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )
