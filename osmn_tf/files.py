"""Files that are either complete or absent: every result is written under a temporary name and then renamed."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from osmn_tf.errors import InputError


def natural(name: str) -> list[tuple[int, int, str]]:
    """The key by which names are sorted as people count: frame9 before frame10. Leading zeros break ties."""
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name)]


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


_created: contextvars.ContextVar[list[Path] | None] = contextvars.ContextVar("_created", default=None)


@contextlib.contextmanager
def no_empty_folders() -> Iterator[None]:
    """Within it, what `ensure_directory` has created goes again if an error comes out and nothing is in it.

    Folders are created before what takes long, to find out that they cannot be written; the reason to refuse may come
    later. On any error, Ctrl-C included.
    """
    folders: list[Path] = []
    token = _created.set(folders)
    try:
        yield
    except BaseException:
        for folder in reversed(folders):
            with contextlib.suppress(OSError):  # not empty, or not there any more
                folder.rmdir()
        raise
    finally:
        _created.reset(token)


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
    if (created := _created.get()) is not None:
        place = path.absolute()  # outer folders come first
        created += reversed([folder for folder in (place, *place.parents) if not folder.exists()])
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"{argument}: cannot write to the folder {path} ({error.strerror or error})") from error
    return path


_TEMPORARY = re.compile(r"\.(?P<stem>.*)\.[0-9a-f]{8}\.part(?P<suffix>\.[^.]*)?")


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Removes what every `atomic_path(path)` has left whose process was killed."""
    whole = set(paths)
    for folder in {path.parent for path in whole}:
        for entry in list(folder.iterdir()) if folder.is_dir() else []:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and folder / (match["stem"] + (match["suffix"] or "")) in whole:
                entry.unlink(missing_ok=True)


_BYTES = "surrogateescape"  # how Python keeps what is not UTF-8 in the name of a file


def _line(name: str) -> bytes:
    """The name of a file as a line. It may have line breaks in it, but never a NUL."""
    return name.replace("\n", "\0").encode(errors=_BYTES) + b"\n"


class OwnFolder:
    """A folder that knows which of its files this package has written, so that no other is ever touched.

    A hidden file in it lists them, each before it is written. Hidden files of others do not count.

    Args:
        path: the folder, which need not exist.
    """

    LIST = ".osmn_files"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._names: set[str] = set()
        with contextlib.suppress(OSError):
            # A line is whole where its end is there: the process may have been killed, or the disk full.
            *lines, _ = (self.path / self.LIST).read_bytes().split(b"\n")
            self._names = {line.decode(errors=_BYTES).replace("\0", "\n") for line in lines}

    def foreign(self) -> Path | None:
        """A file in the folder that this package has not written; None if there is none."""
        if self.path.exists() and not self.path.is_dir():
            return self.path
        for path in self.path.rglob("*"):
            if path.is_file() and path.name[0] != "." and path.relative_to(self.path).as_posix() not in self._names:
                return path
        return None

    def is_empty(self) -> bool:
        """Whether nothing that this package has written is in it."""
        return not any((self.path / name).exists() for name in self._names)

    def is_whole(self) -> bool:
        """Whether every file that was written is there still."""
        return all((self.path / name).exists() for name in self._names)

    def claim(self) -> None:
        """Creates the folder, or goes on with it: what a killed process has left half written is removed."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path / name for name in [*self._names, self.LIST])
        write_bytes(self.path / self.LIST, b"".join(map(_line, sorted(self._names))))

    def file(self, name: str) -> Path:
        """Where to write the file `name` ("2/00000.png"): its folder is there, and it is listed."""
        path = self.path / name
        if name not in self._names:
            path.parent.mkdir(exist_ok=True)
            with open(self.path / self.LIST, "ab") as file:
                file.write(_line(name))
            self._names.add(name)
        return path

    def remove(self) -> None:
        """Removes the files that this package has written, and the folders that are empty then."""
        remove_leftovers(self.path / name for name in [*self._names, self.LIST])
        for name in [*self._names, self.LIST]:
            (self.path / name).unlink(missing_ok=True)
        self._names.clear()
        folders = [path for path in self.path.rglob("*") if path.is_dir() and not path.is_symlink()]
        for folder in [*sorted(folders, reverse=True), self.path]:
            with contextlib.suppress(OSError):  # not empty, or not there
                folder.rmdir()
