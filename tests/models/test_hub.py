"""Presets from web servers and hubs: what is fetched, what is kept, and every way in which it can be wrong."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import randomise
from tiny_network import TinyNet

import osmn_tf
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.models import hub
from osmn_tf.models.network import Network
from osmn_tf.models.presets import find_preset
from tests.models.hub_server import Server, serving

needs_hugging_face = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None,
    reason="huggingface_hub is not installed: pip install 'osmn-tf[hub]'",
)
needs_kaggle = pytest.mark.skipif(
    importlib.util.find_spec("kagglehub") is None, reason="kagglehub is not installed: pip install 'osmn-tf[hub]'"
)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path / "cache"))
    hub._from_hugging_face.cache_clear()
    hub._from_kaggle.cache_clear()
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def network() -> TinyNet:
    """A network that is built in no time: what is loaded does not matter here."""
    return randomise(TinyNet(network_size=(64, 96)))


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory, network) -> Path:
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    network.save_to_preset(folder, {"licence": "CC0"})
    (folder / "litert").mkdir()
    (folder / "litert/metadata.json").write_text("{}")
    (folder / "notes.txt").write_text("not of the preset")
    return folder


def offer(server: Server, preset: Path, tmp_path: Path, name: str = "/tiny.zip") -> str:
    """Puts the preset on the server and returns its address, with the checksum."""
    digest = osmn_tf.pack_preset(preset, tmp_path / "tiny.zip")
    server.files[name] = (tmp_path / "tiny.zip").read_bytes()
    return f"{server.url}{name}#sha256={digest}"


def zipped(entries: dict[str, bytes | zipfile.ZipInfo]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in entries.items():
            archive.writestr(*((name, value) if isinstance(value, bytes) else (value, b"")))
    return content.getvalue()


def address_of(server: Server, content: bytes) -> str:
    server.files["/bad.zip"] = content
    return f"{server.url}/bad.zip#sha256={hashlib.sha256(content).hexdigest()}"


# Archives ---------------------------------------------------------------------------------------------------------


def test_an_archive_is_loaded_once_and_kept_without_the_server(server, preset, tmp_path, cache, network) -> None:
    address = offer(server, preset, tmp_path)
    loaded = osmn_tf.load(address)
    assert type(loaded) is TinyNet
    for ours, theirs in zip(loaded.weights, network.weights):
        np.testing.assert_array_equal(ours, theirs)
    folder = find_preset(address)
    assert folder.parent == cache
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        ".osmn_archive.json", "config.json", "litert/metadata.json", "metadata.json", "model.weights.h5"
    ]  # fmt: skip
    assert server.requests == ["GET /tiny.zip"]
    server.files.clear()
    assert TinyNet.from_preset(address).network_size == network.network_size
    assert server.requests == ["GET /tiny.zip"]
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_another_checksum_is_another_archive(server, preset, tmp_path) -> None:
    address = offer(server, preset, tmp_path)
    first = find_preset(address)
    content = zipped(
        {f"tiny-main/{name}": (preset / name).read_bytes() for name in ("config.json", "model.weights.h5")}
    )
    server.files["/tiny.zip"] = content
    wrong = "0" * 64
    with pytest.raises(
        InputError, match=f"expected the SHA-256 {wrong}, received {hashlib.sha256(content).hexdigest()}"
    ):
        find_preset(f"{server.url}/tiny.zip#sha256={wrong}")
    assert (first / "metadata.json").is_file()  # what is kept stays
    folder = find_preset(f"{server.url}/tiny.zip#sha256={hashlib.sha256(content).hexdigest()}")
    assert folder == first
    assert not (folder / "metadata.json").exists()
    assert osmn_tf.load(folder).network_size == (64, 96)


def test_the_command_segments_with_it(server, preset, tmp_path, capsys) -> None:
    from osmn_tf.cli.main import main
    from osmn_tf.masks.files import write_mask
    from osmn_tf.video.writer import write_video

    frames = [np.full((64, 96, 3), 20 * index, np.uint8) for index in range(3)]
    write_video(tmp_path / "clip.mp4", frames, 10)
    write_mask(tmp_path / "mask.png", np.pad(np.ones((20, 30), np.uint8), ((10, 34), (10, 56))))
    words = [
        "segment",
        str(tmp_path / "clip.mp4"),
        "--mask",
        str(tmp_path / "mask.png"),
        "--out",
        str(tmp_path / "out"),
    ]
    address = offer(server, preset, tmp_path)
    assert main([*words, "--preset", address, "--engine", "keras", "--no-overlay", "--no-sheet", "--quiet"]) == 0
    assert len(list((tmp_path / "out/clip").glob("*.png"))) == 3
    assert main([*words, "--preset", f"{server.url}/none.zip#sha256={'0' * 64}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "404" in error


def link(name: str, kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    return entry


GOOD = {"config.json": b"{}", "model.weights.h5": b"x"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({**GOOD, "../evil.txt": b"x"}, r"'\.\./evil\.txt' leads out of it"),
        ({**GOOD, "litert/../../evil.txt": b"x"}, "leads out of it"),
        ({**GOOD, "/etc/evil.txt": b"x"}, "leads out of it"),
        ({**GOOD, "litert\\..\\..\\evil.txt": b"x"}, "leads out of it"),
        ({**GOOD, "C:evil.txt": b"x"}, "leads out of it"),
        ({**GOOD, "litert/a": link("litert/a", stat.S_IFLNK)}, "is a link or no file"),
        ({**GOOD, "litert/b": link("litert/b", stat.S_IFIFO)}, "is a link or no file"),
        ({**GOOD, "./config.json": b"{}"}, "is there twice"),
        ({"a/config.json": b"{}", "b/config.json": b"{}"}, r"expected one config\.json in it, received 2"),
        ({"readme.txt": b"x"}, r"expected one config\.json in it, received 0"),
        ({"config.json": b"{}"}, "so it is no preset"),
        ({f"{number}": b"" for number in range(1001)}, "at most 1000 entries"),
    ],
)
def test_unsafe_archives(entries, message: str, server, tmp_path: Path, cache: Path) -> None:
    content = zipped(entries)
    with pytest.raises(InputError, match=message) as caught:
        find_preset(address_of(server, content))
    assert "\n" not in str(caught.value)
    assert not list(cache.iterdir())
    assert not list(tmp_path.rglob("evil*"))


def test_archives_that_unpack_to_too_much(server, cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_MOST_BYTES", 100_000)
    bomb = zipped({**GOOD, "model.weights.h5": b"\0" * 10_000_000})
    assert len(bomb) < 100_000
    with pytest.raises(InputError, match="it unpacks to more than"):
        find_preset(address_of(server, bomb))
    with pytest.raises(InputError, match="is larger than"):
        find_preset(address_of(server, os.urandom(200_000)))
    assert not list(cache.iterdir())


def test_damaged_archives(server, preset, tmp_path, cache) -> None:
    address = offer(server, preset, tmp_path)
    content = bytearray(server.files["/tiny.zip"])
    content[len(content) // 2] ^= 0xFF
    for damaged in (bytes(content), content[: len(content) // 2], b"<html>not found</html>", b""):
        with pytest.raises(InputError, match=r"no \.zip file, or a damaged or encrypted one"):
            find_preset(address_of(server, bytes(damaged)))
    assert not list(cache.iterdir())
    assert find_preset(address).is_dir()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "the server says 404 Not Found"),
        ((500, {}, b""), "the server says 500"),
        ("silence", "cannot be fetched"),
        ("slow", "cannot be fetched .*timed out"),
        ((200, {"Content_Length": "100000", "Connection": "close"}, b"x" * 10), "breaks off|cannot be fetched"),
    ],
)
def test_servers_that_do_not_give_it(answer, message: str, server, cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_TIMEOUT", 0.5)
    if answer is not None:
        server.files["/a.zip"] = answer
    with pytest.raises(InputError, match=message) as caught:
        find_preset(f"{server.url}/a.zip#sha256={'0' * 64}")
    assert "\n" not in str(caught.value)
    assert not list(cache.iterdir())


def test_nobody_answers() -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(InputError, match=r"is not kept in .* and cannot be fetched \(Connection refused\)") as caught:
        osmn_tf.load(f"{url}/a.zip#sha256={'0' * 64}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://example.invalid/a.zip", "over an open line"),
        ("https://example.invalid/a.zip#sha256=12", "64 hexadecimal digits"),
        ("https://example.invalid/a.zip#md5=12", "64 hexadecimal digits"),
        ("hf://dogs", "expected hf://owner/name"),
        ("hf://a/../../b", "expected hf://owner/name"),
        ("kaggle://a/b", "expected kaggle://owner/model/framework/variation"),
    ],
)
def test_addresses_that_are_none(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_preset(address)


def test_addresses_of_servers_are_no_presets() -> None:
    for address in ("grpc://host:8500/name", "http://host:8501/name", "https://host/name", "name", "a.zip"):
        assert not hub.is_remote(address)
    for address in ("hf://a/b", "kaggle://a/b/c/d", "https://host/a.zip", "https://host/a.zip#sha256=1"):
        assert hub.is_remote(address)


def test_packing(preset, tmp_path) -> None:
    first = osmn_tf.pack_preset(preset, tmp_path / "a.zip")
    assert first == osmn_tf.pack_preset(preset, tmp_path / "b.zip")
    assert first == hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert "notes.txt" not in archive.namelist()
    with pytest.raises(InputError, match=r"ends in \.zip"):
        osmn_tf.pack_preset(preset, tmp_path / "a.tar")
    with pytest.raises(InputError, match="expected a preset folder"):
        osmn_tf.pack_preset(tmp_path, tmp_path / "c.zip")
    with pytest.raises(InputError, match="cannot be written"):
        osmn_tf.pack_preset(preset, tmp_path / "no/c.zip")


def test_from_preset_is_of_the_class(preset) -> None:
    assert type(TinyNet.from_preset(preset)) is type(Network.from_preset(preset)) is TinyNet
    with pytest.raises(InputError, match="is a TinyNet, expected a ReConvNet"):
        osmn_tf.ReConvNet.from_preset(preset)


@pytest.mark.usefixtures("bfloat16")
def test_from_preset_takes_a_precision(preset) -> None:
    assert TinyNet.from_preset(preset, precision="mixed_bfloat16").compute_dtype == "bfloat16"


# Hugging Face -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hugging_face(server, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The package of Hugging Face asks this server, and keeps what it fetches below the test's folder."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    return server


@needs_hugging_face
def test_upload_and_load_from_hugging_face(hugging_face: Server, preset: Path, network) -> None:
    osmn_tf.upload_preset("hf://me/tiny", preset)
    files = hugging_face.repositories["me/tiny"]
    assert sorted(files) == ["config.json", "litert/metadata.json", "metadata.json", "model.weights.h5"]
    assert files["config.json"] == (preset / "config.json").read_bytes()
    for ours, theirs in zip(osmn_tf.load("hf://me/tiny").weights, network.weights):
        np.testing.assert_array_equal(ours, theirs)
    # The hub is gone: what it has given is there.
    hugging_face.repositories.clear()
    hugging_face.shutdown()
    hugging_face.server_close()
    hub._from_hugging_face.cache_clear()
    assert osmn_tf.load("hf://me/tiny").network_size == network.network_size


@needs_hugging_face
def test_hugging_face_has_no_such_preset(hugging_face: Server) -> None:
    with pytest.raises(InputError, match="hf://me/none is not kept here and cannot be fetched") as caught:
        osmn_tf.load("hf://me/none")
    assert "\n" not in str(caught.value)
    hugging_face.repositories["me/other"] = {"README.md": b"no preset"}
    with pytest.raises(InputError, match="so it is no preset"):
        osmn_tf.load("hf://me/other")


@needs_hugging_face
def test_hugging_face_without_a_network(tmp_path: Path, preset: Path) -> None:
    """A hub's folder on this machine, as `HF_HOME` names it, in a process that is told to stay offline."""
    repository = tmp_path / "home/hub/models--me--tiny"
    commit = "1" * 40
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    for name in ("config.json", "model.weights.h5", "metadata.json"):
        (snapshot / name).write_bytes((preset / name).read_bytes())
    code = "import sys, osmn_tf\nfrom osmn_tf.models.presets import find_preset\n"
    code += "try: print(find_preset(sys.argv[1]))\nexcept osmn_tf.InputError as error: print('error:', error)"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    for name, expected in (
        ("hf://me/tiny", str(snapshot)),
        ("hf://me/none", "error: preset: hf://me/none is not kept"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, name], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.startswith(expected), done.stdout + done.stderr
        assert done.stdout.count("\n") == 1


# Kaggle -----------------------------------------------------------------------------------------------------------


@needs_kaggle
def test_kaggle_from_its_own_folder(tmp_path: Path, preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kagglehub keeps, with its mark of completeness, is loaded; what it does not keep cannot be without it."""
    import shutil

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", "http://127.0.0.1:9")
    kept = tmp_path / "kaggle/models/me/tiny/keras/small"
    shutil.copytree(preset, kept / "3")
    (kept / "3.complete").touch()
    assert find_preset("kaggle://me/tiny/keras/small/3") == kept / "3"
    monkeypatch.setattr(hub._kaggle(), "model_download", _refused)
    with pytest.raises(
        InputError, match=r"kaggle://me/none/keras/small/1 is not kept here .*ConnectionError: no route"
    ):
        find_preset("kaggle://me/none/keras/small/1")


def _refused(handle: str) -> str:
    raise ConnectionError("no route\nto the host")


@needs_kaggle
def test_upload_to_kaggle(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(hub._kaggle(), "model_upload", lambda handle, folder: calls.append((handle, folder)))
    osmn_tf.upload_preset("kaggle://me/tiny/keras/small", preset)
    assert calls == [("me/tiny/keras/small", str(preset))]
    for wrong in ("kaggle://me/tiny", "ftp://me/tiny"):
        with pytest.raises(InputError, match="preset: expected"):
            osmn_tf.upload_preset(wrong, preset)


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    for address in ("hf://me/tiny", "kaggle://me/tiny/keras/small"):
        with pytest.raises(MissingDependencyError, match=r"osmn-tf\[hub\]"):
            find_preset(address)


def test_record_of_the_archive(server, preset, tmp_path) -> None:
    address = offer(server, preset, tmp_path)
    record = json.loads((find_preset(address) / ".osmn_archive.json").read_text())
    assert record == {"url": address.partition("#")[0], "sha256": address.partition("=")[2]}
