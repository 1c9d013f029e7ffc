"""Files below a folder and files in an archive, read alike."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

from osmn_tf.errors import InputError

_MOST_BYTES = 1 << 30  # of an entry of an archive


class Folder:
    """Files below a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class Archive(contextlib.AbstractContextManager["Archive"]):
    """Files in a .zip; nothing of it is unpacked to the disk.

    Raises:
        InputError: it is none, or damaged; from `read`, an entry is larger than anything that this package reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: no .zip file, or a damaged one ({error})") from error

    def names(self) -> list[str]:
        return sorted(name for name in self._file.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        try:
            with self._file.open(name) as stream:
                content = stream.read(_MOST_BYTES + 1)
        except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise InputError(f"{self.path}: {name} is damaged or encrypted ({error})") from error
        if len(content) > _MOST_BYTES:
            raise InputError(f"{self.path}: {name} is larger than {_MOST_BYTES >> 20} MiB")
        return content

    def __exit__(self, *exception: object) -> None:
        self._file.close()
