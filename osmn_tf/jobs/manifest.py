"""What a run over many videos leaves in its folder: a record of every video, and who is at work on which one.

Several machines may work in one folder that they share. Nobody needs a server, locks that outlive their owner, or
clocks that agree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import platform
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from osmn_tf.errors import InputError
from osmn_tf.files import file_digest
from osmn_tf.version import __version__

RESULTS = "results.jsonl"
CLAIMS = ".osmn_claims"
HEARTBEAT = 10.0  # seconds between two signs of life of a claim's owner
STALE = 90.0  # seconds without one after which a claim is nobody's; attributes may be a minute old on a network

_BEGINNING = b'{"name": '  # of every line

Record = dict[str, Any]
"""What became of one video, as JSON has values; see `osmn_tf.jobs.many.process_one`."""


# What results depend on --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What the results of a video depend on. The names of the files are not in it: they differ between machines.

    Attributes:
        facts: digest of the settings and of the package's version.
        stamp: digest of the sizes and times of the files that are read: cheap, and changed by a copy.
        files: these files.
    """

    facts: str
    stamp: str
    files: tuple[Path, ...]

    @classmethod
    def of(cls, facts: Any, files: Iterable[Path]) -> Fingerprint:
        """Folders among the files stand for what is directly in them.

        Raises:
            OSError: a file is not there.
        """
        entries = list(_entries(files))
        stats = [[status.st_size, status.st_mtime_ns] for _, status in entries]
        return cls(_digest([__version__, facts]), _digest(stats), tuple(path for path, _ in entries))

    @functools.cached_property
    def content(self) -> str:
        """Digest of what is in the files, all of which are read for it."""
        return _digest([file_digest(path) for path in self.files])


def _entries(files: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for path in files:
        if not path.is_dir():
            yield path, path.stat()
            continue
        with os.scandir(path) as folder:
            for entry in sorted(folder, key=lambda entry: entry.name):
                if entry.name[0] != "." and entry.is_file():
                    yield Path(entry.path), entry.stat()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


# The records ------------------------------------------------------------------------------------------------------


class Manifest:
    """The records of all videos, a line each, to which lines are only ever added: of several, the last counts.

    Args:
        out: the folder of the results. It need not exist.

    Raises:
        InputError: there is a file of this name that is something else, or it cannot be read.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        self.path = self.out / RESULTS
        self._records: dict[str, Record] = {}
        self._read = 0
        try:
            with open(self.path, "rb") as file:
                if not _BEGINNING.startswith(beginning := file.read(len(_BEGINNING))) and beginning != _BEGINNING:
                    raise InputError(f"--out: {self.path} is in the way: osmn segment has not written it")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InputError(f"--out: cannot read {self.path} ({error.strerror or error})") from error
        self.refresh()

    def refresh(self) -> None:
        """Reads what was added since, also by other machines."""
        try:
            size = self.path.stat().st_size
            if size <= self._read:
                return
            with open(self.path, "rb") as file:
                file.seek(self._read)
                added = file.read(size - self._read)
        except FileNotFoundError:
            return
        # A line that has no end yet, or that a killed process has left without one, is no record.
        whole = added[: added.rfind(b"\n") + 1]
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("name"), str) and "status" in record:
                    self._records[record["name"]] = record
        self._read += len(whole)

    def get(self, name: str) -> Record | None:
        """The last record of a video."""
        return self._records.get(name)

    def is_done(self, name: str, fingerprint: Fingerprint) -> bool:
        """Whether the results of a video are there, of these settings and this content."""
        record = self._records.get(name)
        if record is None or record["status"] != "done" or record.get("facts") != fingerprint.facts:
            return False
        if not all((self.out / path).exists() for path in record.get("results", {}).values()):
            return False
        return record.get("stamp") == fingerprint.stamp or record.get("content") == fingerprint.content

    def add(self, record: Record) -> None:
        """Adds a line, whole, whoever else is adding one.

        Raises:
            InputError: it cannot be written.
        """
        try:
            with open(self.path, "a+b") as file, _locked(file):
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":  # somebody was killed here
                        file.write(b"\n")
                # What is not UTF-8 in the name of a file is \udce9 in both Python and JSON.
                file.write(json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
        except OSError as error:
            raise InputError(f"--out: cannot write {self.path} ({error.strerror or error})") from error
        self._records[record["name"]] = record


@contextlib.contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    """Keeps other processes from adding at the same time, where the file system can."""
    try:
        import fcntl
    except ImportError:  # not on Windows: one run at a time in a folder there
        yield
        return
    with contextlib.suppress(OSError):
        fcntl.lockf(file, fcntl.LOCK_EX)
    try:
        yield
        file.flush()
    finally:
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN)


# Claims -----------------------------------------------------------------------------------------------------------


class Claim:
    """A video that this process is at work on, and that no other takes up meanwhile.

        claim = Claim.take(folder, "bear")
        if claim is not None:
            with claim: ...

    It is a file that only one process can create. Its owner touches it every few seconds; one that is not touched any
    more, or whose owner was on this machine and is gone, is followed by the next one in number, which again only one
    process can create.
    """

    def __init__(self, folder: Path, name: str, number: int) -> None:
        self._folder, self._name, self.number = folder, name, number
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="osmn-claim", daemon=True)

    @classmethod
    def take(cls, folder: str | os.PathLike[str], name: str) -> Claim | None:
        """The claim; None while another process has it.

        Args:
            folder: where claims are; made where it is not there.
            name: of the video.

        Raises:
            OSError: nothing can be written there.
        """
        folder = Path(folder)
        last: int | None = None
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            if last is None:
                last = max(cls._numbers(folder, name), default=-1)
            if last >= 0:
                held = _is_held(_path(folder, name, last))
                if held:
                    return None
                if held is None:  # given back meanwhile: the numbers begin anew
                    last = None
                    continue
            claim = cls(folder, name, last + 1)
            try:
                with open(claim.path, "x", encoding="utf-8") as file:
                    json.dump({"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}, file)
            except FileExistsError:
                last += 1
                continue
            except FileNotFoundError:  # another process was the last in the folder, and has removed it
                continue
            # Another may have begun at the first number while this one went on from the last.
            others = [number for number in cls._numbers(folder, name) if number != claim.number]
            if any(other > claim.number or _is_held(_path(folder, name, other)) for other in others):
                claim.path.unlink(missing_ok=True)
                return None
            return claim

    @staticmethod
    def _numbers(folder: Path, name: str) -> list[int]:
        return [int(path.suffix[1:]) for path in folder.glob(f"{_key(name)}.*") if path.suffix[1:].isdecimal()]

    @property
    def path(self) -> Path:
        """The file."""
        return _path(self._folder, self._name, self.number)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        # The last one goes last: while it is there, nobody begins.
        for number in sorted(self._numbers(self._folder, self._name)):
            if number <= self.number:
                _path(self._folder, self._name, number).unlink(missing_ok=True)

    def _live(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _key(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:24]


def _path(folder: Path, name: str, number: int) -> Path:
    return folder / f"{_key(name)}.{number}"


@functools.cache
def _host() -> str:
    """This machine, or this container on it: where a process number means one process."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _started(pid: int) -> str | None:
    """When a process was started, so that another of the same number is told from it; None where the system hides it.

    Raises:
        ProcessLookupError: there is none.
    """
    if not os.path.isdir("/proc/self"):
        os.kill(pid, 0)
        return None
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *fields = file.read().rpartition(") ")[2].split()
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    if state in "ZX":
        raise ProcessLookupError(pid)
    return fields[18]


def _is_held(path: Path) -> bool | None:
    """Whether the owner of a claim is alive, as far as can be known; None where the claim is not there any more."""
    try:
        with open(path, encoding="utf-8") as file:
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    owner: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError):  # not written yet, or not whole
        owner = json.loads(text)
    if owner.get("host") == _host():
        try:
            return _started(int(owner["pid"])) == owner.get("started")
        except (ProcessLookupError, KeyError, ValueError):
            return False
        except PermissionError:
            return True
    return _now(path.parent) - touched < STALE


def _now(folder: Path) -> float:
    """The time by the clock that stamps the files in a folder, which may be another machine's."""
    probe = folder / f"clock.{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
