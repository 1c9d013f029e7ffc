"""Presets from elsewhere: Hugging Face ("hf://owner/name"), Kaggle ("kaggle://owner/model/framework/variation") and
archives on any web server ("https://.../name.zip").

What was fetched once is kept, and is there without a network. Only the files of a preset are taken; none of them holds
code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import json
import os
import re
import shutil
import stat
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from osmn_tf.errors import InputError, import_extra
from osmn_tf.files import atomic_path, ensure_directory, file_digest, write_text

CACHE_VARIABLE = "OSMN_CACHE"
"""Environment variable with the folder of fetched archives; default: `osmn_tf` in the user's cache folder."""

_FILES = ("config.json", "model.weights.h5", "metadata.json", "README.md", "litert")  # of a preset; the last a folder
_MOST_BYTES = 4 << 30  # of an archive, and of what is in it
_MOST_ENTRIES = 1000
_TIMEOUT = 30.0  # seconds without a byte
_RECORD = ".osmn_archive.json"


def is_remote(name: str | os.PathLike[str]) -> bool:
    """Whether a preset is named by where it is to be fetched from. (Other addresses are those of servers.)"""
    scheme, separator, rest = str(name).partition("://")
    path = rest.partition("#")[0].partition("?")[0]
    return bool(separator) and (scheme in ("hf", "kaggle") or (scheme in ("http", "https") and path.endswith(".zip")))


def fetch(address: str) -> Path:
    """The folder of a preset that is elsewhere.

    Args:
        address: "hf://owner/name" or "hf://owner/name@revision" (extra `[hub]`; a private one with the token that
            `hf auth login` keeps); "kaggle://owner/model/framework/variation" or ".../version" (extra `[hub]`);
            "https://.../name.zip", best with "#sha256=" and its checksum behind, which http:// must have.

    Raises:
        InputError: it cannot be reached and is not kept, is not what it should be, or its files are not safe. One line.
        MissingDependencyError: the package that asks this hub is not installed.
    """
    scheme = address.partition("://")[0]
    if scheme == "hf":
        return _from_hugging_face(address)
    return _from_kaggle(address) if scheme == "kaggle" else _from_archive(address)


def upload_preset(address: str, folder: str | os.PathLike[str], private: bool = False) -> None:
    """Publishes a preset folder, as `save_to_preset` writes it, on a hub.

    Args:
        address: "hf://owner/name" or "kaggle://owner/model/framework/variation" (extra `[hub]`). The hub's own tools
            keep the token (`hf auth login`, `kagglehub.login()`).
        folder: the preset; LiteRT files and the model card in it are published too.
        private: create it so that nobody else sees it (Hugging Face; Kaggle's models are private at first).

    Raises:
        InputError: the folder is no preset, or the hub refuses it.
        MissingDependencyError: the package that asks this hub is not installed.

    Example:
        >>> import osmn_tf as osmn
        >>> try:
        ...     osmn.upload_preset("hf://me/dogs", "no_such_folder")
        ... except osmn.InputError as error:
        ...     print(error)
        preset: no_such_folder has no config.json and model.weights.h5, expected a preset folder
    """
    folder = _check_preset(Path(folder))
    scheme, _, rest = address.partition("://")
    if scheme == "hf":
        hub = _hugging_face()
        repository, revision = _repository(address)
        with _failures(address, "cannot be uploaded"):
            api = hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                folder_path=str(folder),
                revision=revision,
                allow_patterns=_patterns(),
                commit_message="Upload preset",
            )
    elif scheme == "kaggle":
        if len(rest.split("/")) != 4:
            raise InputError(f"preset: expected kaggle://owner/model/framework/variation, received {address!r}")
        with _failures(address, "cannot be uploaded"):
            _kaggle().model_upload(rest, str(folder))
    else:
        raise InputError(f"preset: expected hf:// or kaggle://, received {address!r}; pack_preset makes a .zip")


def pack_preset(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> str:
    """Packs a preset folder as an archive that any web server can offer.

    Args:
        folder: the preset.
        path: the file to be written, ending in .zip.

    Returns:
        Its SHA-256, for "https://.../name.zip#sha256=...". The same preset gives the same one.

    Raises:
        InputError: the folder is no preset, or the file cannot be written.

    Example:
        >>> import osmn_tf as osmn
        >>> digest = osmn.pack_preset(osmn.list_presets()["osmn_match_lite"], "osmn_match_lite.zip")
        >>> len(digest)
        64
    """
    folder, path = _check_preset(Path(folder)), Path(path)
    if path.suffix != ".zip":
        raise InputError(f"path: expected a file name that ends in .zip, received {path}")
    try:
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(folder.rglob("*")):
                name = file.relative_to(folder).as_posix()
                if file.is_file() and _belongs(PurePosixPath(name)):
                    archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return file_digest(path)


def _check_preset(folder: Path) -> Path:
    if not all((folder / name).is_file() for name in _FILES[:2]):
        raise InputError(f"preset: {folder} has no config.json and model.weights.h5, expected a preset folder")
    return folder


def _belongs(name: PurePosixPath) -> bool:
    """Whether a file of this name is one of a preset."""
    if len(name.parts) == 1:
        return name.name in _FILES[:-1]
    return len(name.parts) == 2 and name.parts[0] == _FILES[-1]


def _patterns() -> list[str]:
    return [*_FILES[:-1], f"{_FILES[-1]}/*"]


# Hubs -------------------------------------------------------------------------------------------------------------


def _hugging_face() -> Any:
    return import_extra("huggingface_hub", "huggingface_hub", "hub", "a preset on Hugging Face")


def _kaggle() -> Any:
    return import_extra("kagglehub", "kagglehub", "hub", "a preset on Kaggle")


def _repository(address: str) -> tuple[str, str | None]:
    """("owner/name", revision) of hf://owner/name@revision."""
    name, _, revision = address.partition("://")[2].partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"preset: expected hf://owner/name, received {address!r}")
    return name, revision or None


@functools.cache  # a hub is asked once a process
def _from_hugging_face(address: str) -> Path:
    repository, revision = _repository(address)
    hub = _hugging_face()
    with _failures(address, "is not kept here and cannot be fetched"):
        found = hub.snapshot_download(repository, revision=revision, allow_patterns=_patterns(), library_name="osmn_tf")
    return _check_fetched(Path(found), address)


@functools.cache
def _from_kaggle(address: str) -> Path:
    handle = address.partition("://")[2]
    if len(handle.split("/")) not in (4, 5):
        raise InputError(f"preset: expected kaggle://owner/model/framework/variation, received {address!r}")
    hub = _kaggle()
    with _failures(address, "is not kept here and cannot be fetched"):
        found = hub.model_download(handle)
    return _check_fetched(Path(found), address)


def _check_fetched(folder: Path, address: str) -> Path:
    if not all((folder / name).is_file() for name in _FILES[:2]):
        raise InputError(f"preset: {address} has no config.json and model.weights.h5, so it is no preset")
    return folder


@contextlib.contextmanager
def _failures(address: str, what: str) -> Iterator[None]:
    """Makes one line of whatever a hub's package raises: it has no list of it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
        raise InputError(f"preset: {address} {what} ({reason[:300]})") from error


# Archives ---------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where fetched archives are kept."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "osmn_tf"


def _from_archive(address: str) -> Path:
    url, _, fragment = address.partition("#")
    digest = None
    if fragment:
        key, _, digest = fragment.partition("=")
        if key != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise InputError(f"preset: expected '#sha256=' and 64 hexadecimal digits, received {address!r}")
        digest = digest.lower()
    if url.startswith("http://") and digest is None:
        raise InputError(f"preset: {url} comes over an open line: add '#sha256=' and its checksum, or take https://")
    folder = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:32]
    kept = _kept(folder)
    if kept is not None and digest in (None, kept):
        return folder
    ensure_directory(folder.parent, CACHE_VARIABLE)
    # Beside its place, so that it gets there whole; another process may do the same.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching") as temporary:
        archive, made = Path(temporary) / "archive.zip", Path(temporary) / "preset"
        _download(url, archive, open_line=digest is not None)
        received = file_digest(archive)
        if digest is not None and received != digest:
            raise InputError(f"preset: {url}: expected the SHA-256 {digest}, received {received}")
        _unpack(archive, made, url)
        _check_fetched(made, url)
        write_text(made / _RECORD, json.dumps({"url": url, "sha256": received}) + "\n")
        if kept is not None:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(made, folder)
        except OSError as error:
            if _kept(folder) != received:
                raise InputError(f"{CACHE_VARIABLE}: cannot write {folder} ({error.strerror or error})") from error
    return folder


def _kept(folder: Path) -> str | None:
    """The checksum of the archive that a folder was made of; None if it is not there."""
    try:
        return str(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _download(url: str, target: Path, open_line: bool) -> None:
    """Fetches a file; `open_line`: also where the server leads on from https:// to http://."""
    request = urllib.request.Request(url, headers={"User-Agent": "osmn_tf"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, open(target, "wb") as file:
            if not open_line and not answer.url.startswith("https://"):
                raise InputError(f"preset: {url} leads to {answer.url}, over an open line: add '#sha256=...'")
            expected = int(answer.headers.get("Content-Length") or -1)
            while block := answer.read(1 << 20):
                file.write(block)
                if file.tell() > _MOST_BYTES:
                    raise InputError(f"preset: {url} is larger than {_MOST_BYTES >> 30} GiB")
            if 0 <= expected != file.tell():
                raise InputError(f"preset: {url} breaks off after {file.tell()} of {expected} bytes")
    except InputError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise InputError(f"preset: {url}: the server says {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        raise InputError(f"preset: {url} is not kept in {cache_folder()} and cannot be fetched ({text})") from error


def _unpack(archive: Path, target: Path, url: str) -> None:
    """Unpacks the files of a preset.

    Raises:
        InputError: it is no archive or a damaged one, has links or paths that lead out of it, or is too large.
    """

    def refuse(reason: str) -> InputError:
        return InputError(f"preset: {url}: {reason}; nothing of it was kept")

    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise refuse(f"expected at most {_MOST_ENTRIES} entries, received {len(entries)}")
            names = _safe_names(entries, refuse)
            # The preset may be in a folder of the archive, as archives of repositories have it.
            configs = [name for name in names.values() if name.name == _FILES[0] and len(name.parts) <= 2]
            if len(configs) != 1:
                raise refuse(f"expected one config.json in it, received {len(configs)}")
            root, left = configs[0].parent, _MOST_BYTES
            for entry in entries:
                name = names[entry.filename]
                if entry.is_dir() or not name.is_relative_to(root) or not _belongs(name.relative_to(root)):
                    continue
                place = target.joinpath(*name.relative_to(root).parts)
                place.parent.mkdir(parents=True, exist_ok=True)
                with file.open(entry) as source, open(place, "xb") as copy:
                    while block := source.read(1 << 20):
                        left -= len(block)
                        if left < 0:
                            raise refuse(f"it unpacks to more than {_MOST_BYTES >> 30} GiB")
                        copy.write(block)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise refuse(f"no .zip file, or a damaged or encrypted one ({error})") from error


def _safe_names(entries: list[zipfile.ZipInfo], refuse: Callable[[str], InputError]) -> dict[str, PurePosixPath]:
    """Entry -> its path, of an archive that has nothing but plain files and folders, each once, below its root."""
    names: dict[str, PurePosixPath] = {}
    for entry in entries:
        raw, name = entry.filename, PurePosixPath(entry.filename)
        mode = entry.external_attr >> 16
        if "\\" in raw or ":" in raw or "\0" in entry.orig_filename or name.is_absolute() or ".." in name.parts:
            raise refuse(f"the path {raw!r} leads out of it")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refuse(f"{raw!r} is a link or no file")
        if name in names.values():
            raise refuse(f"{raw!r} is there twice")
        names[raw] = name
    return names
