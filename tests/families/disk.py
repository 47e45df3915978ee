"""disk:///path: a storage on disk that, like an object store, is written file by file and knows no rename."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Disk(fsspec.AbstractFileSystem):  # type: ignore[misc]
    protocol = "disk"
    root_marker = "/"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._disk = LocalFileSystem()

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        return self._disk.ls(self._strip_protocol(path), detail=detail, **options)

    def info(self, path: str, **options: Any) -> Any:
        return self._disk.info(self._strip_protocol(path), **options)

    def cat_file(self, path: str, **options: Any) -> Any:
        return self._disk.cat_file(self._strip_protocol(path), **options)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._disk.makedirs(self._parent(path), exist_ok=True)
        self._disk.pipe_file(self._strip_protocol(path), value, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._disk.makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    def rm(self, path: str, **options: Any) -> None:
        self._disk.rm(self._strip_protocol(path), **options)


fsspec.register_implementation("disk", Disk, clobber=True)
