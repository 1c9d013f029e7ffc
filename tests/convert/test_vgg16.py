"""The VGG-16 form of the release, and what initialises it: TF-Slim, keras.applications, OSVOS.

To write and read half a gigabyte takes seconds each time. One release has its full size; the others have few channels,
which no name, order or operation depends on.
"""

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
from osmn_tf.backbones.vgg16 import VGG16, shift_mean
from osmn_tf.cli.main import main
from osmn_tf.convert import tf1_checkpoint
from osmn_tf.convert.forms import FORMS
from osmn_tf.convert.vgg16_forms import VGG16_CONFIG
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.presets import load, read_metadata
from osmn_tf.models.reconvnet import ReConvNet

TERMS = 3 * 3 * 3 + 1  # of one value of the first layer
SIZES = [(480, 854), (64, 112), (61, 107)]  # the release's; with sides that pooling halves evenly, and with odd ones
NARROW = (8, 8, 12, 16, 16)
NARROW_HIDDEN = 24
CLASSIFIER_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)


@pytest.fixture(scope="class")
def narrow_head():
    """Few channels for fc6 and fc7, which have four fifths of all parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "VGG_HIDDEN", NARROW_HIDDEN)
        patch.setattr(VGG16, "hidden", NARROW_HIDDEN)
        # That of keras.applications, which reads its files, too.
        dense = keras.layers.Dense
        patch.setattr("keras.src.layers.Dense", lambda n, **named: dense(NARROW_HIDDEN if n == 4096 else n, **named))
        yield


@pytest.fixture(scope="class")
def narrow(narrow_head):
    """Few channels everywhere, in the original's graphs and in the package."""
    with pytest.MonkeyPatch.context() as patch:
        depths = {block: len(channels) for block, channels in release.VGG.items()}
        patch.setattr(release, "VGG", {block: (NARROW[block - 1],) * depth for block, depth in depths.items()})
        patch.setattr(VGG16, "published_channels", NARROW)
        yield


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


def original(checkpoint: str, early: bool, *sizes: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The original's scales for `guide()` and its logits for `inputs(*size)`, from one graph."""
    feeds = {"visual_guide": release.normalise(guide())}
    for k, size in enumerate(sizes):
        frame, spatial_guide = inputs(*size)
        feeds |= {f"image{k}": release.normalise(frame), f"guide{k}": spatial_guide}

    def graph(v, visual_guide, **placed):
        gammas = release.vgg_modulator(v, visual_guide)
        return [gammas] + [
            release.vgg_segmentation(v, placed[f"image{k}"], placed[f"guide{k}"], gammas, early)
            for k in range(len(sizes))
        ]

    gammas, *logits = release.run_graph(checkpoint, release.vgg_shapes(early), graph, feeds)
    return gammas, logits


def guide() -> np.ndarray:
    return random_frames(1, 224, 224, seed=1)


def inputs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame and a spatial guide."""
    spatial_guide = np.random.default_rng(3).uniform(0, 1, (1, height, width, 1)).astype(np.float32)
    return random_frames(1, height, width, seed=2), spatial_guide


def check_outputs(model: OSMN, gammas: np.ndarray, logits: list[np.ndarray]) -> None:
    """The network gives what `original` has given."""
    modulation = model.visual_modulator(tf.constant(guide(), tf.float32), training=False)
    assert_close(modulation, gammas[:, 0, 0], WHOLE_NETWORK)
    for expected in logits:
        frame, spatial_guide = inputs(*expected.shape[1:3])
        features = model.frame_encoder({"frame": tf.constant(frame)}, training=False)
        given = {**features, "spatial_guide": tf.constant(spatial_guide), "modulation": modulation}
        received = model.object_network(given, training=False)["logits"].numpy()
        assert expected.shape == received.shape
        assert expected.std() > 0
        assert_close(received, expected, WHOLE_NETWORK)


@pytest.fixture(scope="class")
def whole_checkpoint(tmp_path_factory) -> str:
    prefix = tmp_path_factory.mktemp("vgg") / "osmn.ckpt"
    return release.write_checkpoint(prefix, release.random_values(release.vgg_shapes(), seed=7), step=50000)


@pytest.fixture(scope="class")
def imported(whole_checkpoint, tmp_path_factory) -> Import:
    folder = tmp_path_factory.mktemp("presets")
    command = [sys.executable, "-c", MEASURED, "import-tf1", whole_checkpoint, "--out", str(folder / "vgg")]
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, _ = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    text = (folder / "output.txt").read_text()
    text, _, peak = text.rpartition("peak kB ")
    return Import(folder / "vgg", text, int(peak) * 1024)


@pytest.mark.slow
class TestRelease:
    """In its full size, by the command."""

    def test_all_variables_are_used_or_checked(self, imported):
        assert "OSMN on VGG-16, step 50000, 165,277,953 parameters" in imported.output
        assert imported.output.count(" -> ") == 87 - 4
        assert imported.output.count("fixed bilinear kernel, value checked") == 4
        assert read_metadata(imported.preset)["parameters"] == 165_277_953

    def test_memory_stays_below_four_times_the_checkpoint(self, imported, whole_checkpoint):
        """The network, Keras's copy of it while it saves, the largest tensor on its way, and TensorFlow itself."""
        assert imported.peak_memory < 4 * Path(f"{whole_checkpoint}.data-00000-of-00001").stat().st_size

    def test_outputs_equal_the_original_graphs(self, whole_checkpoint, imported):
        gammas, logits = original(whole_checkpoint, False, (64, 112))
        assert gammas.shape == (1, 1, 1, 3840)
        assert 0.05 < gammas.std() < 2
        check_outputs(load(imported.preset), gammas, logits)


@pytest.fixture(scope="class", params=[False, True], ids=["as published", "early layers modulated too"])
def early(request, narrow) -> bool:
    return request.param


@pytest.fixture(scope="class")
def checkpoint(early, tmp_path_factory) -> str:
    values = release.random_values(release.vgg_shapes(early), seed=8)
    return release.write_checkpoint(tmp_path_factory.mktemp("vgg") / "osmn.ckpt", values, step=50000)


@pytest.fixture(scope="class")
def model(checkpoint) -> OSMN:
    return tf1_checkpoint._build(tf1_checkpoint.inspect(checkpoint), None)


@pytest.mark.usefixtures("narrow")
class TestForms:
    """Both forms with few channels, at sizes that pooling halves in every way."""

    def test_outputs_equal_the_original_graphs(self, checkpoint, early, model):
        assert tf1_checkpoint.inspect(checkpoint).key == ("osmn_vgg16_early" if early else "osmn_vgg16")
        gammas, logits = original(checkpoint, early, *SIZES)
        assert gammas.shape == (1, 1, 1, sum(sum(release.VGG[block]) for block in range(1 if early else 3, 6)))
        check_outputs(model, gammas, logits)

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


# What initialises it -------------------------------------------------------------------------------------------------


def check_classifier(model: OSMN, values: dict[str, np.ndarray], head: bool = True) -> None:
    """Both trunks hold what TF-Slim calls `values`, and the visual modulator fc6 and fc7."""
    for name, value in values.items():
        *_, ours, part = name.split("/")
        if part == "mean_rgb" or ours in ("conv1_1", "fc8") or (ours.startswith("fc") and not head):
            continue
        for prefix in ("modulator",) if ours.startswith("fc") else ("seg", "modulator"):
            received = layer(model, f"{prefix}_{ours}")
            np.testing.assert_array_equal(received.kernel if part == "weights" else received.bias, value)

    rgb = random_frames(1, 30, 40, seed=2)
    image = rgb.astype(np.float32) - values["vgg_16/mean_rgb"]
    first = "vgg_16/conv1/conv1_1"
    expected = tf.nn.conv2d(image, values[f"{first}/weights"], 1, "SAME") + values[f"{first}/biases"]
    expected = tf.nn.relu(expected).numpy()
    for prefix, part in (("seg", model), ("modulator", model.visual_modulator)):
        received = first_convolution(part, prefix, rgb)
        assert_close(received[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], TERMS)
        # On the border the padding is another mean colour, less than a grey level away.
        np.testing.assert_allclose(received, expected, rtol=0, atol=2)


@pytest.fixture(scope="class")
def slim_values(narrow) -> dict[str, np.ndarray]:
    return release.random_values(release.slim_vgg16_shapes(), seed=9)


@pytest.fixture(scope="class")
def classifier(slim_values, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("slim")
    options = {"write_version": tf.compat.v1.train.SaverDef.V1}  # one file, as the published vgg_16.ckpt is
    path = release.write_checkpoint(folder / "vgg_16.ckpt", slim_values, **options)
    assert [file.name for file in folder.iterdir() if file.name != "checkpoint"] == ["vgg_16.ckpt"]
    return path


@pytest.fixture(scope="class")
def slim_preset(classifier, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slim") / "preset"
    assert main(["import-tf1", classifier, "--out", str(folder)]) == 0
    return folder


@pytest.mark.usefixtures("narrow")
class TestSlim:
    """TF-Slim's classifier alone, and with OSVOS's parent, which lacks a visual modulator."""

    def test_it_goes_into_both_trunks(self, slim_preset, slim_values):
        model = load(slim_preset)
        check_classifier(model, slim_values)
        # The new modulators change nothing yet.
        guide = tf.constant(random_frames(1, 224, 224, seed=3), tf.float32)
        scales = sum(sum(release.VGG[block]) for block in (3, 4, 5))
        np.testing.assert_array_equal(model.visual_modulator(guide, training=False), np.ones((1, scales)))

    def test_metadata_says_that_it_is_a_beginning(self, slim_preset):
        metadata = read_metadata(slim_preset)
        assert metadata["format"] == "slim_vgg16"
        assert metadata["initialisation_only"] is True
        assert metadata["step"] is None
        record = json.loads((slim_preset / "import.json").read_text())
        assert len(record["used"]) == 2 * (13 + 2)
        assert "the classifier's own last layer" in record["skipped"].values()

    def test_osvos_parent_gives_its_fused_output(self, tmp_path, classifier, slim_values):
        """Scales are 1, and an empty spatial guide adds nothing: what is left is OSVOS."""
        values = release.random_values(release.osvos_shapes(), seed=10)
        checkpoint = release.write_checkpoint(tmp_path / "OSVOS_parent.ckpt", values, step=50000, adam="osvos/conv1/")
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


def write_keras_file(path: Path, values: dict[str, np.ndarray], top: bool) -> Path:
    """`values` of TF-Slim's classifier in the layout in which keras.applications publishes its weights."""
    dense = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"} if top else {}
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, value in values.items():
        *_, theirs, part = name.split("/")
        if theirs == "conv1_1" and part == "weights":
            value = value[:, :, ::-1]  # BGR
        elif theirs in dense and part == "weights":
            value = value.reshape(-1, value.shape[-1])
        if theirs in dense or theirs.startswith("conv"):
            theirs = dense.get(theirs) or f"block{theirs[4]}_conv{theirs[6]}"
            layers.setdefault(theirs, {})["kernel" if part == "weights" else "bias"] = value
    source = keras.applications.VGG16(weights=None, include_top=False)
    names = [layer.name for layer in source.layers] + (["flatten", *dense.values()] if top else [])
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group, parts = file.create_group(name), layers.get(name, {})
            group.attrs["weight_names"] = [f"{name}/{part}:0".encode() for part in parts]
            for part, value in parts.items():
                group[f"{name}/{part}:0"] = value
    return path


@pytest.mark.usefixtures("narrow_head")
def test_a_keras_classifier_goes_into_both_trunks_and_the_head(tmp_path):
    values = release.random_values(release.slim_vgg16_shapes(), seed=9)
    path = write_keras_file(tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels.h5", values, top=True)
    inspection = tf1_checkpoint.inspect(path)
    assert (inspection.key, inspection.complete, inspection.step) == ("keras_vgg16", False, None)
    assert len(inspection.used) == 2 * (13 + 2)
    assert set(inspection.skipped.values()) == {"the classifier's own last layer"}
    with tf.variable_creator_scope(tf1_checkpoint._unfilled):
        model = OSMN(**VGG16_CONFIG)
    tf1_checkpoint.initialise_vgg16(model, path)
    check_classifier(model, values)


@pytest.mark.usefixtures("narrow_head")
class TestKerasWithoutTop:
    def test_the_command_fills_the_trunks(self, tmp_path):
        values = release.random_values(release.slim_vgg16_shapes(), seed=9)
        path = write_keras_file(tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", values, top=False)
        assert main(["import-tf1", str(path), "--out", str(tmp_path / "preset"), "--quiet"]) == 0
        check_classifier(load(tmp_path / "preset"), values, head=False)
        metadata = read_metadata(tmp_path / "preset")
        assert metadata["format"] == "keras_vgg16"
        assert metadata["initialisation_only"] is True
        assert metadata["step"] is None
        record = json.loads((tmp_path / "preset" / "import.json").read_text())
        assert (len(record["used"]), record["skipped"]) == (2 * 13, {})
