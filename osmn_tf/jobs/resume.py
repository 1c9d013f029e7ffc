"""What a job leaves beside its results so that the same command goes on: the record of the run, and its state."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import atomic_path, remove_leftovers, write_text
from osmn_tf.version import __version__


def signature(files: Iterable[str | os.PathLike[str]], facts: Any) -> str:
    """Digest of everything that results depend on: a run continues only what the same command began.

    Args:
        files: what is read; a file that was changed since is another one.
        facts: the settings, as JSON takes them. The package's version is added.
    """
    stats = [(str(Path(file).resolve()), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([__version__, stats, facts]).encode()).hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Digest of the values and the shape of an array."""
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()


class Record:
    """Which command has begun the results called `name` in the folder `out`, whether it has finished them, and which
    single files it has written. (Folders know by themselves: `OwnFolder`.)"""

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / f".{name}.osmn.json"
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        content = content if isinstance(content, dict) else {}
        self.signature = content.get("signature")
        self.complete = content.get("complete") is True
        files = content.get("files")
        self._files: dict[str, list[int] | None] = files if isinstance(files, dict) else {}

    def owns(self, path: Path) -> bool:
        """Whether the file was written by this package and is as it was then, or is not there."""
        if not path.exists():
            return True
        key = str(path.resolve())
        return key in self._files and self._files[key] in (None, _stamp(path))

    def begin(self, signature: str, files: Iterable[Path]) -> None:
        """Claims `files`, which are going to be written."""
        self.signature, self.complete = signature, False
        self._files |= {str(path.resolve()): None for path in files}
        self._save()

    def finish(self, complete: bool) -> None:
        """Notes how the claimed files were left."""
        self.complete = complete
        self._files = {key: _stamp(Path(key)) for key in self._files if Path(key).exists()}
        self._save()

    def withdraw(self, keep: bool) -> None:
        """Forgets the run, of which nothing is left, unless `keep`; files of earlier runs may be there still."""
        self.finish(complete=False)
        if not keep and not self._files:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        content = {"signature": self.signature, "complete": self.complete, "files": self._files}
        write_text(self.path, json.dumps(content) + "\n")


def _stamp(path: Path) -> list[int]:
    return [path.stat().st_size, path.stat().st_mtime_ns]


@dataclasses.dataclass(frozen=True)
class State:
    """Arrays that are kept in a file until the run is complete.

    Attributes:
        path: the file.
        what: for messages, "the state of the interrupted run".
    """

    path: Path
    what: str

    def load(self) -> dict[str, np.ndarray] | None:
        """The arrays; None if none were saved.

        Raises:
            InputError: the file is damaged.
        """
        try:
            # NumPy leaves a damaged file open that it has opened itself.
            with open(self.path, "rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except FileNotFoundError:
            return None
        except Exception as error:  # neither NumPy nor zipfile has a list of what damage makes them raise
            raise self.damaged() from error

    def damaged(self) -> InputError:
        """What is to be raised where the arrays are not what was saved."""
        return InputError(f"--out: {self.what} in {self.path} is damaged; --force starts again")

    def save(self, arrays: Mapping[str, Any]) -> None:
        """Replaces the file. A half-precision type that NumPy's files do not have is not among the arrays."""
        with atomic_path(self.path) as temporary:
            content: dict[str, Any] = dict(arrays)
            np.savez(temporary, **content)

    def remove(self) -> None:
        """Removes the file, if it is there, and what a killed process has left of it."""
        self.path.unlink(missing_ok=True)
        remove_leftovers([self.path])
