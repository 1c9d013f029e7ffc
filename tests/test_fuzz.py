"""Some hundred damaged files of every kind a run: nothing but `InputError` comes out.

The damage is drawn from a seed, so that a failure repeats; its message says which file it was.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from osmn_tf.errors import InputError
from osmn_tf.masks.files import read_label_png, read_mask
from osmn_tf.masks.labels import PALETTE
from osmn_tf.masks.png import encode_indexed_png
from osmn_tf.video.images import read_image, stored_size
from osmn_tf.video.source import open_source, write_video

SIZE = (24, 32)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three injuries: bytes changed, cut off, left out, repeated, inserted or overwritten."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 64))
        noise = bytes(rng.randrange(256) for _ in range(length))
        kind = rng.randrange(7)
        if kind == 0:
            data[place : place + length] = noise
        elif kind == 1:
            del data[max(1, place) :]
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = data[place : place + length]
        elif kind == 4:
            data[place:place] = noise
        elif kind == 5:
            data[place : place + length] = rng.choice((b"\0", b"\xff")) * length
        elif place < len(data):
            data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


def survive(name: str, content: bytes, use: Callable[[Path], object], folder: Path, count: int, seed: int = 0) -> int:
    """Uses `count` damaged copies and the whole file; returns how many were refused."""
    path = folder / name
    path.write_bytes(content)
    use(path)
    refused = 0
    for number in range(count):
        path.write_bytes(damaged(content, random.Random(f"{seed} {name} {number}")))
        try:
            use(path)
        except InputError as error:
            if "\n" in str(error):
                raise AssertionError(f"{name}, number {number}, several lines: {error}") from error
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{name}, number {number}: {type(error).__name__}: {error}") from error
    return refused


def scene() -> np.ndarray:
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    return cv2.GaussianBlur(frame, (5, 5), 2)


def labels() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[3:12, 4:14], mask[14:22, 16:30] = 1, 2
    return mask


@pytest.mark.parametrize("kind", ["mp4", "webm", "mkv", "gif"])
def test_videos(kind: str, tmp_path: Path) -> None:
    frames = [np.roll(scene(), index, 1) for index in range(6)]
    if kind == "gif":
        stored = io.BytesIO()
        first, *others = (Image.fromarray(frame) for frame in frames)
        first.save(stored, "GIF", save_all=True, append_images=others)
        content = stored.getvalue()
    else:
        write_video(tmp_path / f"whole.{kind}", frames, 10)
        content = (tmp_path / f"whole.{kind}").read_bytes()

    def use(path: Path) -> None:
        source = open_source(path, every=2)
        source.info  # noqa: B018
        list(source)
        list(reversed(source))

    assert survive(f"clip.{kind}", content, use, tmp_path, 40) > 0


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp", "tif", "ppm"])
def test_frames(kind: str, tmp_path: Path) -> None:
    content = cv2.imencode(f".{kind}", scene())[1].tobytes()

    def use(path: Path) -> None:
        stored_size(path)
        read_image(path, oriented=False)
        list(open_source(path))

    survive(f"frame.{kind}", content, use, tmp_path, 40)


def stored(mode: str, kind: str) -> bytes:
    mask = labels()
    if mode == "P":
        return encode_indexed_png(mask, PALETTE)
    content = io.BytesIO()
    pixels: dict[str, Any] = {
        "L": mask,
        "1": mask > 1,
        "LA": np.dstack([mask, np.full_like(mask, 255)]),
        "RGB": PALETTE[mask],
        "RGBA": np.dstack([PALETTE[mask], np.full_like(mask, 255)]),
        "I;16": mask.astype(np.uint16),
    }
    Image.fromarray(pixels[mode]).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("mode", ["P", "L", "1", "LA", "RGB", "RGBA", "I;16"])
def test_masks(mode: str, tmp_path: Path) -> None:
    def use(path: Path) -> None:
        mask = read_mask(path, size=SIZE, resize=True)
        assert mask.shape == SIZE
        if mode not in ("RGB", "RGBA"):
            read_label_png(path)

    assert survive("mask.png", stored(mode, "PNG"), use, tmp_path, 40) > 20
    if mode in ("L", "RGB"):
        survive("mask.bmp", stored(mode, "BMP"), lambda path: read_mask(path), tmp_path, 40)


def test_state_and_record_of_an_interrupted_run(tmp_path: Path) -> None:
    from osmn_tf.jobs.resume import Record, State

    arrays = {"masks": np.arange(6, dtype=np.uint8), "done": np.array(3)}
    State(tmp_path / "whole.npz", "the state").save(arrays)
    content = (tmp_path / "whole.npz").read_bytes()
    assert survive("state.npz", content, lambda path: State(path, "the state").load(), tmp_path, 100) > 50

    def use(path: Path) -> None:
        record = Record(tmp_path, "clip")
        record.owns(tmp_path / "state.npz")

    record = Record(tmp_path, "clip")
    record.begin("abc", [tmp_path / "state.npz"])
    record.finish(complete=True)
    survive(record.path.name, record.path.read_bytes(), use, tmp_path, 60)


@pytest.mark.parametrize("name", ["osmn_davis", "reconvnet_lite_clips"])
def test_configs(name: str, tmp_path: Path) -> None:
    from importlib.resources import files

    from osmn_tf.training.config import load

    content = files("osmn_tf.configs").joinpath(f"{name}.yaml").read_bytes()
    assert survive(f"{name}.yaml", content, load, tmp_path, 60) > 10


def test_metadata_of_exports(tmp_path: Path) -> None:
    from osmn_tf.runtime.network import FORMAT, find_export, read_metadata

    content = {
        "format": FORMAT, "format_version": 1, "network_size": [64, 96], "objects": 2, "guide_size": 32,
        "guide_background": [0.0, 0.0, 0.0], "modulation_size": 8, "features": {"conv": [8, 12, 4]},
        "state": {"h": [8, 12, 4]}, "quantization": "none",
        "files": {name: {"file": f"{name}.tflite", "sha256": "0"} for name in ("modulator", "encoder", "step")},
    }  # fmt: skip

    def use(path: Path) -> None:
        if find_export(tmp_path) is not None:
            with contextlib.suppress(InputError):  # the whole file too: there are no networks beside it
                read_metadata(tmp_path)

    survive("metadata.json", json.dumps(content).encode(), use, tmp_path, 100)


def test_presets_and_weights(tiny_osmn: Any, tmp_path: Path) -> None:
    from osmn_tf.models.presets import load_weights

    folder = tmp_path / "preset"
    tiny_osmn.save_to_preset(str(folder))
    weights = [weight.numpy() for weight in tiny_osmn.weights[:1]]
    content = (folder / "model.weights.h5").read_bytes()
    try:
        refused = survive("model.weights.h5", content, lambda path: load_weights(tiny_osmn, path), tmp_path, 40)
    finally:
        load_weights(tiny_osmn, folder / "model.weights.h5")
    assert refused > 5
    assert (weights[0] == tiny_osmn.weights[0].numpy()).all()


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_presets_with_damaged_texts(name: str, tiny_osmn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from osmn_tf.models import presets

    folder = tmp_path / "preset"
    tiny_osmn.save_to_preset(str(folder))
    monkeypatch.setattr(presets, "load_weights", lambda *arguments: None)  # above; building the network takes its time
    survive(name, (folder / name).read_bytes(), lambda path: presets.load(folder), folder, 12)
