"""The MobileNet form of the release: same outputs as a TensorFlow 1 graph of it, a preset, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from support import WHOLE_NETWORK, assert_close, random_frames, zero_lstms

from convert import release
from osmn_tf.cli.main import main
from osmn_tf.convert import tf1_checkpoint
from osmn_tf.models.presets import load
from osmn_tf.models.reconvnet import ReConvNet

SCALE = 0.00787
SIZES = [(64, 96), (480, 864)]  # small, and that of the preset


@pytest.fixture(scope="module")
def preset(lite_checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("presets") / "lite"
    assert main(["import-tf1", lite_checkpoint, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(preset):
    return load(preset)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    prefix = tmp_path_factory.mktemp("exported") / "back" / "osmn.ckpt"
    tf1_checkpoint.export_checkpoint(model, prefix, step=1200)
    return prefix


def test_the_checkpoint_has_the_releases_size():
    shapes = release.lite_shapes()
    assert len(shapes) == 310
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 12_777_217


def test_outputs_equal_the_original_graphs(exported, model):
    """The original's graph restores an export, which has the checkpoint's values bit for bit (see below)."""
    visual_guide = random_frames(1, 224, 224, seed=1)
    frames = [random_frames(1, *size, seed=2) for size in SIZES]
    guides = [np.random.default_rng(3).uniform(0, 1, (1, *size, 1)).astype(np.float32) for size in SIZES]
    feeds = {"visual_guide": release.normalise(visual_guide, SCALE)}
    for k in range(len(SIZES)):
        feeds |= {f"image{k}": release.normalise(frames[k], SCALE), f"guide{k}": guides[k]}

    def graph(v, visual_guide, **placed):
        gammas = release.lite_modulator(v, visual_guide)
        return [gammas] + [
            release.lite_segmentation(v, placed[f"image{k}"], placed[f"guide{k}"], gammas) for k in range(len(SIZES))
        ]

    gammas, *logits = release.run_graph(str(exported), release.lite_shapes(), graph, feeds)
    assert gammas.shape == (1, 1, 1, 1920)
    assert gammas.std() > 0.05
    modulation = model.visual_modulator(tf.constant(visual_guide, tf.float32), training=False)
    assert_close(modulation, gammas[:, 0, 0], WHOLE_NETWORK)
    for size, frame, guide, expected in zip(SIZES, frames, guides, logits, strict=True):
        features = model.frame_encoder({"frame": tf.constant(frame)}, training=False)
        inputs = {**features, "spatial_guide": tf.constant(guide), "modulation": modulation}
        received = model.object_network(inputs, training=False)["logits"].numpy()
        assert expected.shape == received.shape == (1, *size, 1)
        assert_close(received, expected, WHOLE_NETWORK)


def test_every_weight_is_the_checkpoints(model, lite_values):
    """By name, not through the code under test: what the layers of one block hold."""
    layers = {layer.name: layer for layer in model._flatten_layers()}
    stored = {
        "kernel": "osmn/seg/Conv2d_7_depthwise/depthwise_weights",
        "gamma": "osmn/seg/Conv2d_7_depthwise/BatchNorm/gamma",
        "beta": "osmn/seg/Conv2d_7_depthwise/BatchNorm/beta",
        "moving_mean": "osmn/seg/Conv2d_7_depthwise/BatchNorm/moving_mean",
        "moving_variance": "osmn/seg/Conv2d_7_depthwise/BatchNorm/moving_variance",
    }
    for layer in ("seg_Conv2d_7_depthwise", "seg_Conv2d_7_depthwise_bn"):
        for weight in layers[layer].weights:
            np.testing.assert_array_equal(weight.numpy(), lite_values[stored[weight.name]])


def test_metadata_and_record_say_where_the_preset_comes_from(preset, lite_checkpoint):
    metadata = json.loads((preset / "metadata.json").read_text())
    assert metadata["source"] == "osmn.ckpt-1200"
    assert metadata["format"] == "osmn_lite"
    assert metadata["step"] == 1200
    assert metadata["parameters"] == 12_777_217
    assert "initialisation_only" not in metadata
    assert set(metadata["checksum"]) == {"osmn.ckpt-1200.index", "osmn.ckpt-1200.data-00000-of-00001"}
    assert all(len(digest) == 64 for digest in metadata["checksum"].values())

    record = json.loads((preset / "import.json").read_text())
    assert len(record["used"]) == 310
    assert record["used"]["osmn/Conv2d_out_2/biases"] == ["Conv2d_out_2/bias"]
    # Two slots for each of the trunk's 135 variables, Adam's two powers, the step.
    assert len(record["skipped"]) == 2 * 135 + 3
    assert record["skipped"]["osmn/seg/Conv2d_0/weights/Adam_1"] == "Adam slot of the optimiser"
    assert record["skipped"]["beta2_power"] == "Adam's running power"
    assert record["skipped"]["global_step"] == "step counter"


def test_check_says_what_it_is_and_writes_nothing(lite_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import-tf1", "--check", lite_checkpoint]) == 0
    output = capsys.readouterr().out
    assert "OSMN lite (MobileNet-v1), step 1200, 12,777,217 parameters" in output
    assert "310 tensors used, 273 skipped" in output
    assert "used     osmn/seg/Conv2d_0/weights -> seg_Conv2d_0/kernel" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001", ""])
def test_any_of_its_files_names_the_checkpoint(lite_checkpoint, ending):
    assert tf1_checkpoint.inspect(lite_checkpoint + ending).key == "osmn_lite"


def test_the_folder_names_its_latest_checkpoint(lite_checkpoint):
    assert tf1_checkpoint.inspect(Path(lite_checkpoint).parent).step == 1200


def test_an_export_is_the_release_again(exported, lite_values):
    """What the original code would restore: every value, bit for bit, under the release's names."""
    assert sorted(path.name for path in exported.parent.iterdir()) == [
        "osmn.ckpt.data-00000-of-00001",
        "osmn.ckpt.index",
    ]
    reader = tf.train.load_checkpoint(str(exported))
    assert set(reader.get_variable_to_shape_map()) == {*lite_values, "global_step"}
    assert reader.get_tensor("global_step") == 1200
    for name, value in lite_values.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)


def test_reconvnet_from_the_preset_starts_as_the_osmn(preset, model):
    reconvnet = ReConvNet.from_osmn(str(preset), recurrence="residual", recurrent_channels=(8, 12, 16))
    zero_lstms(reconvnet)
    inputs = {
        "frame": tf.constant(random_frames(1, 64, 96, seed=4)),
        "visual_guide": tf.constant(random_frames(1, 224, 224, seed=5), tf.float32),
        "spatial_guide": tf.constant(np.random.default_rng(6).uniform(0, 1, (1, 64, 96, 1)), tf.float32),
    }
    expected = model(inputs, training=False).numpy()
    received = reconvnet({**inputs, **reconvnet.initial_state(1, 64, 96)}, training=False)["logits"].numpy()
    assert expected.std() > 0
    np.testing.assert_array_equal(received, expected)
    # The scales of the new parts are exactly 1.
    modulation = reconvnet.visual_modulator(inputs["visual_guide"], training=False).numpy()
    np.testing.assert_array_equal(modulation[:, 1920:], 1)
    assert modulation.shape == (1, 1920 + 8 + 12 + 16)
