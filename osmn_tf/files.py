"""Files that are either complete or absent: every result is written under a temporary name and then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from osmn_tf.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path` (same suffix) and renames it to `path` on success.

    On any error, Ctrl-C included, the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Writes `content` to `path` atomically as UTF-8."""
    write_bytes(path, content.encode())


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ensure_directory(path: str | os.PathLike[str], argument: str) -> Path:
    """Creates the folder `path` and checks that files can be written there.

    Args:
        path: the folder.
        argument: how the user named it (`--out`), for the error message.

    Raises:
        InputError: it is a file, or it cannot be created or written to.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{argument}: expected a folder, but {path} is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with atomic_path(path / "probe") as temporary:
            temporary.touch()
        (path / "probe").unlink()
    except OSError as error:
        raise InputError(f"{argument}: cannot write to the folder {path} ({error.strerror or error})") from error
    return path
