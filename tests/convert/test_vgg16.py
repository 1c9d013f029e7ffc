"""The VGG-16 form of the release in its full size, and what initialises it: TF-Slim, keras.applications, OSVOS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from support import EPSILON, WHOLE_NETWORK, assert_close, random_frames, zero_lstms

from convert import release
from osmn_tf.backbones.vgg16 import shift_mean
from osmn_tf.cli.main import main
from osmn_tf.convert import tf1_checkpoint
from osmn_tf.convert.forms import FORMS
from osmn_tf.models.presets import load, read_metadata
from osmn_tf.models.reconvnet import ReConvNet

TERMS = 3 * 3 * 3 + 1  # of one value of the first layer
SIZES = [(480, 854), (64, 112), (61, 107)]  # the release's; with sides that pooling halves evenly, and with odd ones
CLASSIFIER_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)


def layer(model, name: str) -> keras.layers.Layer:
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def first_convolution(model, prefix: str, rgb: np.ndarray) -> np.ndarray:
    """What the first convolution gives for raw RGB, with this package's own preprocessing."""
    normalised = layer(model, f"{prefix}_normalization")(tf.constant(rgb))
    return layer(model, f"{prefix}_conv1_1")(normalised).numpy()


# The first layer of each source, without a network ------------------------------------------------------------------


def test_shifted_mean_gives_the_sources_values_inside():
    values = release.random_values({"weights": (3, 3, 3, 8), "biases": (8,)}, seed=3)
    rgb = random_frames(1, 12, 15, seed=4)
    kernel, bias = values["weights"], values["biases"]
    expected = tf.nn.conv2d(release.normalise(rgb, mean_bgr=CLASSIFIER_MEAN_BGR), kernel, 1, "VALID") + bias
    shifted = shift_mean(kernel, bias, CLASSIFIER_MEAN_BGR)
    received = tf.nn.conv2d(release.normalise(rgb), kernel, 1, "VALID") + shifted
    assert_close(received, expected, 3 * TERMS)  # the sums reach three times what is left of them
    assert np.abs(shifted - bias).max() > 0.01


@pytest.mark.parametrize(
    ("key", "channels", "mean_rgb", "stored_mean"),
    [
        ("slim_vgg16", "rgb", (123.68, 116.779, 103.939), None),
        ("slim_vgg16", "rgb", (120.0, 110.0, 100.0), (120.0, 110.0, 100.0)),
        ("osvos_as_osmn", "bgr", (122.67892, 116.66877, 104.00699), None),
    ],
)
def test_channels_and_mean_of_each_source(key, channels, mean_rgb, stored_mean):
    """The adapted layer on our input equals the source's layer on the source's input."""
    form = FORMS.get(key)()
    values = release.random_values({f"{form.first_layer}/weights": (3, 3, 3, 8), f"{form.first_layer}/biases": (8,)})
    if stored_mean is not None:
        values["vgg_16/mean_rgb"] = np.array(stored_mean, np.float32)

    class Stored:
        shapes = values
        read = staticmethod(values.get)

    adapted = tf1_checkpoint._adapted_first_layer(Stored(), form)
    rgb = random_frames(1, 9, 11, seed=6)
    image = rgb.astype(np.float32) - np.array(mean_rgb, np.float32)
    image = image if channels == "rgb" else image[..., ::-1]
    kernel, bias = values[f"{form.first_layer}/weights"], values[f"{form.first_layer}/biases"]
    expected = tf.nn.conv2d(image, kernel, 1, "VALID") + bias
    kernel, bias = adapted[f"{form.first_layer}/weights"], adapted[f"{form.first_layer}/biases"]
    received = tf.nn.conv2d(release.normalise(rgb), kernel, 1, "VALID") + bias
    assert_close(received, expected, TERMS)
    assert np.std(expected) > 10


# The release ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    prefix = tmp_path_factory.mktemp("vgg") / "osmn.ckpt"
    return release.write_checkpoint(prefix, release.random_values(release.vgg_shapes(), seed=7), step=50000)


# Peak memory from /proc: ru_maxrss keeps the size of the process that started this one.
MEASURED = """
import sys
from osmn_tf.cli.main import main
code = main(sys.argv[1:])
print("peak kB", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


@dataclass(frozen=True)
class Import:
    """An import in a process of its own: preset, printed text, and what the process needed."""

    preset: Path
    output: str
    peak_memory: int  # bytes


@pytest.fixture(scope="module")
def imported(checkpoint, tmp_path_factory) -> Import:
    folder = tmp_path_factory.mktemp("presets")
    command = [sys.executable, "-c", MEASURED, "import-tf1", checkpoint, "--out", str(folder / "vgg")]
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, _ = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    text = (folder / "output.txt").read_text()
    text, _, peak = text.rpartition("peak kB ")
    return Import(folder / "vgg", text, int(peak) * 1024)


@pytest.fixture(scope="module")
def model(imported):
    return load(imported.preset)


@pytest.fixture(scope="module")
def gammas(checkpoint, model):
    guide = random_frames(1, 224, 224, seed=1)
    (expected,) = release.run_graph(
        checkpoint,
        release.vgg_shapes(),
        lambda v, guide: [release.vgg_modulator(v, guide)],
        {"guide": release.normalise(guide)},
    )
    return expected, model.visual_modulator(tf.constant(guide, tf.float32), training=False).numpy()


@pytest.mark.slow
class TestRelease:
    def test_all_variables_are_used_or_checked(self, imported):
        assert "OSMN on VGG-16, step 50000, 165,277,953 parameters" in imported.output
        assert imported.output.count(" -> ") == 87 - 4
        assert imported.output.count("fixed bilinear kernel, value checked") == 4
        assert read_metadata(imported.preset)["parameters"] == 165_277_953

    def test_memory_stays_below_four_times_the_checkpoint(self, imported, checkpoint):
        """The network, Keras's copy of it while it saves, the largest tensor on its way, and TensorFlow itself."""
        assert imported.peak_memory < 4 * Path(f"{checkpoint}.data-00000-of-00001").stat().st_size

    def test_gammas_equal_the_original_graphs(self, gammas):
        expected, received = gammas
        assert expected.shape == (1, 1, 1, 3840)
        assert 0.05 < expected.std() < 2
        assert_close(received, expected[:, 0, 0], WHOLE_NETWORK)

    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_logits_equal_the_original_graphs(self, checkpoint, model, gammas, height, width):
        frame = random_frames(1, height, width, seed=2)
        guide = np.random.default_rng(3).uniform(0, 1, (1, height, width, 1)).astype(np.float32)
        (expected,) = release.run_graph(
            checkpoint,
            release.vgg_shapes(),
            lambda v, **inputs: [release.vgg_segmentation(v, **inputs)],
            {"image": release.normalise(frame), "guide": guide, "gammas": gammas[0]},
        )
        features = model.frame_encoder({"frame": tf.constant(frame)}, training=False)
        inputs = {**features, "spatial_guide": tf.constant(guide), "modulation": tf.constant(gammas[1])}
        received = model.object_network(inputs, training=False)["logits"].numpy()
        assert expected.shape == received.shape == (1, height, width, 1)
        assert_close(received, expected, WHOLE_NETWORK)

    def test_an_export_is_the_release_again(self, model, checkpoint, tmp_path):
        tf1_checkpoint.export_checkpoint(model, tmp_path / "osmn.ckpt", step=50000)
        before, after = tf.train.load_checkpoint(checkpoint), tf.train.load_checkpoint(str(tmp_path / "osmn.ckpt"))
        assert after.get_variable_to_shape_map() == before.get_variable_to_shape_map()
        for name in after.get_variable_to_shape_map():
            np.testing.assert_array_equal(after.get_tensor(name), before.get_tensor(name))

    def test_reconvnet_starts_as_the_osmn(self, model):
        reconvnet = ReConvNet.from_osmn(model, recurrence="residual", recurrent_channels=(4, 4, 4))
        zero_lstms(reconvnet)
        inputs = {
            "frame": tf.constant(random_frames(1, 65, 97, seed=4)),
            "visual_guide": tf.constant(random_frames(1, 224, 224, seed=5), tf.float32),
            "spatial_guide": tf.constant(np.random.default_rng(6).uniform(0, 1, (1, 65, 97, 1)), tf.float32),
        }
        expected = model(inputs, training=False).numpy()
        received = reconvnet({**inputs, **reconvnet.initial_state(1, 65, 97)}, training=False)["logits"].numpy()
        assert expected.std() > 0
        np.testing.assert_array_equal(received, expected)


@pytest.mark.slow
def test_early_modulation_equals_the_original_graph(tmp_path):
    shapes = release.vgg_shapes(early=True)
    checkpoint = release.write_checkpoint(tmp_path / "osmn.ckpt", release.random_values(shapes, seed=8))
    assert tf1_checkpoint.inspect(checkpoint).key == "osmn_vgg16_early"
    model = tf1_checkpoint._build(tf1_checkpoint.inspect(checkpoint), None)
    frame, guide_frame = random_frames(1, 100, 150, seed=2), random_frames(1, 224, 224, seed=1)
    guide = np.random.default_rng(3).uniform(0, 1, (1, 100, 150, 1)).astype(np.float32)

    def graph(v, image, guide, visual_guide):
        gammas = release.vgg_modulator(v, visual_guide)
        return [gammas, release.vgg_segmentation(v, image, guide, gammas, early=True)]

    feeds = {"image": release.normalise(frame), "guide": guide, "visual_guide": release.normalise(guide_frame)}
    gammas, expected = release.run_graph(checkpoint, shapes, graph, feeds)
    assert gammas.shape == (1, 1, 1, 4224)
    inputs = {
        "frame": tf.constant(frame),
        "visual_guide": tf.constant(guide_frame, tf.float32),
        "spatial_guide": tf.constant(guide),
    }
    received = model(inputs, training=False).numpy()
    assert_close(received, expected, WHOLE_NETWORK)


# What initialises it -------------------------------------------------------------------------------------------------


def keras_names(slim_name: str) -> str:
    """vgg_16/conv1/conv1_2/weights -> block1_conv2/kernel; fc6 -> fc1, fc7 -> fc2, fc8 -> predictions."""
    *_, name, part = slim_name.split("/")
    part = "kernel" if part == "weights" else "bias"
    dense = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    return f"{dense.get(name) or f'block{name[4]}_conv{name[6]}'}/{part}"


@pytest.fixture(scope="module")
def slim_values() -> dict[str, np.ndarray]:
    return release.random_values(release.slim_vgg16_shapes(), seed=9)


@pytest.fixture(scope="module")
def from_slim(slim_values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slim")
    options = {"write_version": tf.compat.v1.train.SaverDef.V1}  # one file, as the published vgg_16.ckpt is
    path = release.write_checkpoint(folder / "vgg_16.ckpt", slim_values, **options)
    assert [file.name for file in folder.iterdir() if file.name != "checkpoint"] == ["vgg_16.ckpt"]
    assert main(["import-tf1", path, "--out", str(folder / "preset")]) == 0
    return folder / "preset"


@pytest.fixture(scope="module")
def from_keras(slim_values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    path = folder / "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    with h5py.File(path, "w") as file:  # the layout in which keras.applications publishes its weights
        layers: dict[str, dict[str, np.ndarray]] = {}
        for name, value in slim_values.items():
            if name != "vgg_16/mean_rgb":
                theirs, part = keras_names(name).split("/")
                if name.endswith("conv1_1/weights"):
                    value = value[:, :, ::-1]  # BGR
                elif theirs in ("fc1", "fc2", "predictions") and part == "kernel":
                    value = value.reshape(-1, value.shape[-1])
                layers.setdefault(theirs, {})[part] = value
        source = keras.applications.VGG16(weights=None, include_top=False)  # the dense layers take seconds to draw
        names = [*(layer.name for layer in source.layers), "flatten", "fc1", "fc2", "predictions"]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group, parts = file.create_group(name), layers.get(name, {})
            group.attrs["weight_names"] = [f"{name}/{part}:0".encode() for part in parts]
            for part, value in parts.items():
                group[f"{name}/{part}:0"] = value
    assert main(["import-tf1", str(path), "--out", str(folder / "preset"), "--quiet"]) == 0
    return folder / "preset"


@pytest.fixture(scope="class")
def slim(from_slim):
    return load(from_slim)


@pytest.mark.slow
class TestClassifiers:
    """One set of values as TF-Slim stores it and as Keras stores it: the same network comes out of both."""

    def test_both_give_the_same_network(self, slim, from_keras, slim_values):
        keras_model = load(from_keras)
        compared = 0
        for weight, other in zip(slim.weights, keras_model.weights):
            assert weight.path == other.path
            name = weight.path.split("/")[0].split("_", 1)[-1]
            if name in ("fc6", "fc7") or (name.startswith("conv") and len(name) == 7 and "_sp_" not in weight.path):
                # TF-Slim stores its mean colour in float32, which moves the first layer's bias by a few 1e-6.
                assert np.max(np.abs(weight.numpy() - other.numpy())) <= 1e-5, weight.path
                compared += 1
        assert compared == 2 * (13 + 13 + 2)
        np.testing.assert_array_equal(layer(slim, "modulator_fc6").kernel, slim_values["vgg_16/fc6/weights"])
        np.testing.assert_array_equal(layer(slim, "seg_conv4_2").kernel, slim_values["vgg_16/conv4/conv4_2/weights"])
        np.testing.assert_array_equal(
            layer(slim, "modulator_conv4_2").kernel, slim_values["vgg_16/conv4/conv4_2/weights"]
        )

        rgb = random_frames(1, 30, 40, seed=2)
        image = rgb.astype(np.float32) - slim_values["vgg_16/mean_rgb"]
        first = "vgg_16/conv1/conv1_1"
        expected = tf.nn.conv2d(image, slim_values[f"{first}/weights"], 1, "SAME") + slim_values[f"{first}/biases"]
        expected = tf.nn.relu(expected).numpy()
        for prefix, part in (("seg", slim), ("modulator", slim.visual_modulator)):
            received = first_convolution(part, prefix, rgb)
            assert_close(received[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], TERMS)
            # On the border the padding is another mean colour, less than a grey level away.
            np.testing.assert_allclose(received, expected, rtol=0, atol=2)

    def test_the_new_modulators_change_nothing_yet(self, slim):
        guide = tf.constant(random_frames(1, 224, 224, seed=3), tf.float32)
        np.testing.assert_array_equal(slim.visual_modulator(guide, training=False), np.ones((1, 3840)))

    def test_metadata_says_that_it_is_a_beginning(self, from_slim, from_keras):
        for folder, key in ((from_slim, "slim_vgg16"), (from_keras, "keras_vgg16")):
            metadata = read_metadata(folder)
            assert metadata["format"] == key
            assert metadata["initialisation_only"] is True
            assert metadata["step"] is None
            record = json.loads((folder / "import.json").read_text())
            assert len(record["used"]) == 2 * (13 + 2)
            assert "the classifier's own last layer" in record["skipped"].values()


@pytest.mark.slow
def test_osvos_parent_gives_its_fused_output(tmp_path, slim_values):
    """Scales are 1, and an empty spatial guide adds nothing: what is left is OSVOS."""
    values = release.random_values(release.osvos_shapes(), seed=10)
    checkpoint = release.write_checkpoint(tmp_path / "OSVOS_parent.ckpt", values, step=50000, adam="osvos/conv1/")
    classifier = release.write_checkpoint(tmp_path / "vgg_16.ckpt", slim_values)
    folder = tmp_path / "preset"
    arguments = ["import-tf1", checkpoint, "--out", str(folder), "--modulator-weights", classifier]
    assert main([*arguments, "--network", "OSMN"]) == 0
    record = json.loads((folder / "import.json").read_text())
    assert len(record["used"]) == 26 + 8 + 2
    assert record["skipped"]["osvos/score-dsn_3/weights"].startswith("score of a single side")
    assert record["skipped"]["osvos/score-dsn_3-up/weights"] == "fixed bilinear kernel, value checked"
    assert record["skipped"]["osvos/conv1/conv1_1/weights/Adam"] == "Adam slot of the optimiser"
    assert read_metadata(folder)["modulator_weights"] == "vgg_16.ckpt"

    model = load(folder)
    np.testing.assert_array_equal(layer(model, "modulator_fc7").kernel, slim_values["vgg_16/fc7/weights"])
    np.testing.assert_array_equal(layer(model, "seg_conv3_2").kernel, values["osvos/conv3/conv3_2/weights"])
    # Away from the border, where the padding has another mean colour: the receptive field ends within.
    frame = random_frames(1, 320, 320, seed=2)
    mean = np.array([104.00699, 116.66877, 122.67892], np.float32)
    (expected,) = release.run_graph(
        checkpoint,
        release.osvos_shapes(),
        lambda v, image: [release.osvos_segmentation(v, image)],
        {"image": release.normalise(frame, mean_bgr=mean)},
    )
    inputs = {
        "frame": tf.constant(frame),
        "visual_guide": tf.zeros((1, 224, 224, 3)),
        "spatial_guide": tf.zeros((1, 320, 320, 1)),
    }
    difference = np.abs(model(inputs, training=False).numpy() - expected)
    assert difference[:, 150:170, 150:170].max() < WHOLE_NETWORK * EPSILON * np.abs(expected).max()
    assert difference.max() < 0.05 * expected.std()
