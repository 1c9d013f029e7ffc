"""OSVOS: its sizes, a literal graph of the release, the weights that it shares with OSMN, and its files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import (
    NARROW_MOBILENET,
    NARROW_VGG,
    TINY_VGG,
    WHOLE_NETWORK,
    assert_close,
    call,
    needs_tensorflow,
    numpy,
    random_frames,
    randomise,
)

import osmn_tf
from osmn_tf.backbones.registry import find_layer
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.osvos import OSVOS

NARROW = {
    "vgg16": {"block_channels": NARROW_VGG, "side_channels": 4, "normalization": "caffe", "network_size": (64, 96)},
    "mobilenet": {"block_channels": NARROW_MOBILENET, "side_channels": 4, "network_size": (64, 96)},
    "resnet50": {"block_channels": (1, 1, 1, 1), "side_channels": 2, "network_size": (64, 96)},
}
OUTPUTS = ["logits", "side2", "side3", "side4", "side5"]
# Of TensorFlow, for the narrow networks below.
LITERAL_VGG = [22.36913, -172.32205, -5.69931, 38.10753, -18.99483]
LITERAL_MOBILENET = [-1.86226, 4.38811, 0.01619, 0.75567, 0.19229]


def narrow(backbone, seed=0, **arguments):
    return randomise(OSVOS(backbone, **{**NARROW[backbone], **arguments}), seed=seed)


def weights_of(model):
    return {weight.path: numpy(weight) for weight in model.weights}


# What is in it ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def release_size():
    """The whole VGG-16 with random weights. Do not change it."""
    return randomise(OSVOS(), seed=3)


def test_parameters(release_size):
    sizes = [int(np.prod(weight.shape)) for weight in release_size.trainable_weights]
    assert sum(sizes) == 14_917_637
    fixed = {weight.path.split("/")[0]: tuple(weight.shape) for weight in release_size.non_trainable_weights}
    expected = {}
    for level in (2, 3, 4, 5):
        side = 2**level
        expected[f"seg_score_multi{level}_up"] = (side, side, 16, 16)
        expected[f"seg_score_dsn_{level}_up"] = (side, side, 1, 1)
    assert fixed == expected
    assert release_size.network_size == (480, 854)


def test_new_layers_begin_as_in_the_release():
    model = OSVOS(**{**NARROW["vgg16"], "side_channels": 64})
    for name in ("seg_conv5_3_16", "seg_score_dsn_4", "seg_upscore_fuse"):
        layer = find_layer(model, name)
        kernel = numpy(layer.kernel)
        assert kernel.std() == pytest.approx(0.001, rel=0.3)
        assert abs(kernel.mean()) < 4e-4
        assert not numpy(layer.bias).any()
    first, second = (numpy(find_layer(model, f"seg_score_dsn_{level}").kernel) for level in (2, 3))
    assert np.abs(first - second).max() > 0


# The release ------------------------------------------------------------------------------------------------------


def literal_outputs(frame, w):
    """The release's OSVOS, written out with TensorFlow's basic operations."""
    import tensorflow as tf

    from .release import VGG, conv, upsampled

    height, width = frame.shape[1:3]
    x = frame[..., ::-1].astype(np.float32) - np.array([104.00699, 116.66877, 122.67892], np.float32)
    fused, outputs = [], {}
    for block, channels in VGG.items():
        if block > 1:
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        for index in range(1, len(channels) + 1):
            x = tf.nn.relu(conv(x, w, f"seg_conv{block}_{index}"))
        if block >= 2:
            side = conv(x, w, f"seg_conv{block}_{len(channels)}_16")
            fused.append(upsampled(side, 2 ** (block - 1), height, width))
            score = conv(side, w, f"seg_score_dsn_{block}")
            outputs[f"side{block}"] = upsampled(score, 2 ** (block - 1), height, width)
    return {"logits": conv(tf.concat(fused, -1), w, "seg_upscore_fuse"), **outputs}


@needs_tensorflow
@pytest.mark.parametrize("size", [(64, 96), (61, 139)])
def test_equals_a_literal_graph_of_the_release(release_size, size):
    frame = random_frames(1, *size)
    expected = literal_outputs(frame, weights_of(release_size))
    found = release_size({"frame": frame})
    assert list(found) == list(expected) == OUTPUTS
    for name, x in expected.items():
        assert found[name].shape == (1, *size, 1)
        assert np.abs(numpy(found[name]) - x.numpy()).max() < 1e-4 * x.numpy().std(), name


@pytest.mark.backend
@pytest.mark.parametrize(("backbone", "expected"), [("vgg16", LITERAL_VGG), ("mobilenet", LITERAL_MOBILENET)])
def test_every_backend_gives_these_numbers(backbone, expected):
    found = call(narrow(backbone), {"frame": keras.ops.convert_to_tensor(random_frames(1, 61, 75))})
    assert list(found) == OUTPUTS
    np.testing.assert_allclose([numpy(found[name])[0, 40, 30, 0] for name in OUTPUTS], expected, rtol=1e-4, atol=1e-4)


# The light networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "decoder"), [("mobilenet", "hypercolumn"), ("mobilenet", "refinement"), ("resnet50", "hypercolumn")]
)
def test_light_networks_of_any_size(backbone, decoder):
    model = narrow(backbone, decoder=decoder)
    for size in ((64, 96), (61, 75)):
        found = model({"frame": random_frames(2, *size)})
        assert list(found) == (OUTPUTS if decoder == "hypercolumn" else ["logits"])
        for x in found.values():
            assert x.shape == (2, *size, 1)
            assert numpy(x).std() > 0


def test_side_outputs_of_a_light_network():
    """What each level says is its 1x1 of its own side output, upsampled from stride 4, 8, 16 and 32."""
    model = narrow("mobilenet")
    frame = random_frames(1, 64, 96)
    found = model({"frame": frame})
    for level, index in zip((2, 3, 4, 5), (3, 5, 11, 13)):
        side = keras.Model(model.input, find_layer(model, f"seg_conv{index}_16").output)({"frame": frame})
        score = find_layer(model, f"seg_score_dsn_{level}")
        expected = (numpy(side) @ numpy(score.kernel)[0, 0] + numpy(score.bias))[0, :, :, 0]
        assert_close(numpy(found[f"side{level}"])[0, :: 2**level, :: 2**level, 0], expected, WHOLE_NETWORK)


# Shared weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "arguments"),
    [
        ("vgg16", TINY_VGG),
        ("mobilenet", {"guide_size": 32, "visual_hidden": 4, "block_channels": NARROW_MOBILENET}),
    ],
)
def test_osmn_s_segmentation_network_has_all_but_the_side_scores(backbone, arguments):
    osmn = OSMN(backbone, side_channels=4, **arguments)
    osvos = OSVOS(backbone, **NARROW[backbone])
    shapes = {weight.path: tuple(weight.shape) for weight in osmn.weights}
    own = {weight.path: tuple(weight.shape) for weight in osvos.weights}
    assert {path for path in own if path not in shapes} == {path for path in own if path.startswith("seg_score_dsn")}
    assert all(own[path] == shapes[path] for path in own if path in shapes)


@needs_tensorflow
def test_loads_what_keras_has(tmp_path):
    source = randomise(keras.applications.MobileNet(include_top=False, weights=None, input_shape=(224, 224, 3)))
    source.save_weights(tmp_path / "mobilenet.weights.h5")
    model = OSVOS("mobilenet")
    model.load_backbone_weights(str(tmp_path / "mobilenet.weights.h5"))
    found = numpy(find_layer(model, "seg_Conv2d_13_pointwise").kernel)
    np.testing.assert_array_equal(found, numpy(source.get_layer("conv_pw_13").kernel))
    assert model.normalization == "signed_unit"


# Files ------------------------------------------------------------------------------------------------------------


def test_round_trips(tmp_path):
    model = narrow("vgg16")
    model.save_to_preset(tmp_path / "preset")
    model.save(tmp_path / "model.keras")
    frame = {"frame": random_frames(1, 32, 64)}
    expected = model(frame)
    for path in (tmp_path / "preset", tmp_path / "model.keras"):
        copy = osmn_tf.load(path)
        assert type(copy) is OSVOS
        assert copy.get_config() == model.get_config()
        for name, x in copy(frame).items():
            np.testing.assert_array_equal(numpy(x), numpy(expected[name]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": "none"}, "decoder: expected one of hypercolumn, refinement, received 'none'"),
        ({"side_channels": 0}, "side_channels: expected 1 or more, received 0"),
        ({"network_size": (480,)}, "network_size: expected a positive height and width"),
        ({"normalization": "grey"}, "normalization: expected one of .*, received 'grey'"),
        ({"backbone": "alexnet"}, "backbone: expected one of .*mobilenet.*, received 'alexnet'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        OSVOS(**{**NARROW["vgg16"], **arguments})


def test_what_is_no_argument():
    with pytest.raises(TypeError, match="OSVOS has no argument guide_size"):
        OSVOS(guide_size=32)
