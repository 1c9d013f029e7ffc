"""Trunks from weight files of keras.applications, made here so that nothing is downloaded."""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from support import NARROW_MOBILENET, NARROW_VGG, TINY_MOBILENET, needs_tensorflow, numpy, random_frames

from osmn_tf.backbones.registry import BACKBONES, find_layer, keras_classifier
from osmn_tf.layers.normalization import BatchNorm
from osmn_tf.models.osmn import OSMN


def _randomised(application):
    rng = np.random.default_rng(0)
    for weight in application.weights:
        noise = rng.standard_normal(tuple(weight.shape), np.float32)
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(np.clip(1 + 0.2 * noise, 0.5, 2))
        elif len(weight.shape) == 1:
            weight.assign(0.1 * noise)
        else:
            fan_in = np.prod(weight.shape[:2]) * (1 if "dw" in weight.path else weight.shape[2])
            weight.assign(noise * np.sqrt(2 / fan_in))
    return application


def test_mobilenet_trunks_equal_keras_applications(tmp_path):
    theirs = _randomised(keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 96, 3)))
    theirs.save_weights(tmp_path / "mobilenet.weights.h5")
    ours = OSMN(**TINY_MOBILENET, normalization="signed_unit")
    before = {weight.path: numpy(weight) for weight in ours.weights}
    ours.load_backbone_weights(str(tmp_path / "mobilenet.weights.h5"))
    frame = random_frames(1, 64, 96)
    expected = theirs(frame / np.float32(127.5) - 1)
    # Neutral modulation: scales are 1 already, the shifts' BatchNorm gives 0 for an empty guide.
    features = ours.frame_encoder({"frame": frame})
    inputs = {
        **features,
        "spatial_guide": np.zeros((1, 64, 96, 1), np.float32),
        "modulation": np.ones((1, 1920), np.float32),
    }
    network = ours.object_network
    last = network.get_layer("seg_Conv2d_13_modulation").output
    # keras.applications pads the first convolution of a stride of 2 at the far side, as SAME does for even sides.
    found = keras.Model(network.inputs, last)(
        [keras.ops.convert_to_tensor(inputs[tensor.name]) for tensor in network.inputs]
    )
    np.testing.assert_allclose(numpy(found), numpy(expected), atol=1e-4 * numpy(expected).std())
    guide = random_frames(1, 32, 32).astype(np.float32)
    trunk = keras.Model(
        ours.visual_modulator.input, ours.visual_modulator.get_layer("modulator_Conv2d_13_pointwise_relu").output
    )
    other = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    other.set_weights(theirs.get_weights())
    expected = numpy(other(guide / np.float32(127.5) - 1))
    np.testing.assert_allclose(numpy(trunk(guide)), expected, atol=1e-4 * expected.std())
    changed = {w.path for w in ours.weights if np.any(numpy(w) != before[w.path])}
    assert changed == {
        path for path in before if path.startswith(("seg_Conv2d_", "modulator_Conv2d_")) and "1x1" not in path
    }
    # The older format of the published files gives the same.
    with h5py.File(tmp_path / "mobilenet.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    loaded = {weight.path: numpy(weight) for weight in ours.weights}
    for weight in ours.weights:
        weight.assign(before[weight.path])
    ours.load_backbone_weights(str(tmp_path / "mobilenet.h5"))
    for weight in ours.weights:
        np.testing.assert_array_equal(numpy(weight), loaded[weight.path])


def test_vgg_trunks_equal_keras_applications(tmp_path):
    theirs = _randomised(keras.applications.VGG16(include_top=False, weights=None))
    path = tmp_path / "vgg.weights.h5"
    theirs.save_weights(path)
    ours = OSMN(visual_head="pooled", visual_hidden=4, guide_size=32)
    ours.load_backbone_weights(str(path))
    for prefix, model in (("seg", ours), ("modulator", ours.visual_modulator)):
        for block, count in enumerate((2, 2, 3, 3, 3), start=1):
            for index in range(1, count + 1):
                kernel, bias = find_layer(model, f"{prefix}_conv{block}_{index}").get_weights()
                wanted = theirs.get_layer(f"block{block}_conv{index}").get_weights()
                np.testing.assert_array_equal(kernel, wanted[0])
                if (block, index) != (1, 1):
                    np.testing.assert_array_equal(bias, wanted[1])
    # They subtract a mean of their own, which the first bias makes up for, but for the zeros around the image.
    frame = random_frames(1, 24, 30)
    first = keras.Model(theirs.input, theirs.get_layer("block1_conv1").output)
    expected = numpy(first(frame[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)))
    encoder = ours.frame_encoder
    found = numpy(keras.Model(encoder.input, encoder.get_layer("seg_conv1_1").output)({"frame": frame}))
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-4 * expected.std())


def test_find_layer_names_what_is_missing(tiny_osmn):
    with pytest.raises(ValueError, match="has no layer named 'nowhere'"):
        find_layer(tiny_osmn, "nowhere")


@pytest.mark.backend
def test_batch_norm_with_stored_statistics_in_training():
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 2)).astype(np.float32)
    usual, stored = BatchNorm(), BatchNorm(batch_statistics=False)
    np.testing.assert_allclose(numpy(usual(x, training=True)).mean((0, 1, 2)), [0, 0], atol=1e-4)
    np.testing.assert_allclose(numpy(stored(x, training=True)), numpy(stored(x, training=False)))
    np.testing.assert_allclose(numpy(stored(x, training=True)), x / np.sqrt(1.001), rtol=1e-5)
    copy = BatchNorm.from_config(stored.get_config())
    assert copy.batch_statistics is False


@needs_tensorflow
def test_pools_round_odd_sides_up():
    from osmn_tf.backbones.vgg16 import VGG16

    assert numpy(VGG16().pooling(1, "x")(np.zeros((1, 7, 9, 1), np.float32))).shape == (1, 4, 5, 1)


def test_backbones_give_their_features_by_stride():
    channels = {"vgg16": {1: 2, 2: 3, 4: 4, 8: 5, 16: 6}, "mobilenet": {2: 2, 4: 4, 8: 5, 16: 6, 32: 7}}
    narrow = {"vgg16": NARROW_VGG, "mobilenet": NARROW_MOBILENET}
    assert set(channels) <= set(BACKBONES.names())
    for name, expected in channels.items():
        images = keras.Input((64, 96, 3))
        maps = BACKBONES.get(name)(narrow[name]).features(images, "x")
        assert {stride: tuple(x.shape) for stride, x in maps.items()} == {
            stride: (None, 64 // stride, 96 // stride, width) for stride, width in expected.items()
        }


def test_a_failed_download_is_a_line_that_says_what_to_do(tmp_path):
    address = "https://nowhere.invalid/weights.h5"

    def fetches(weights, include_top):
        assert (weights, include_top) == ("imagenet", False)
        keras.utils.get_file("weights.h5", address, cache_dir=tmp_path)

    with pytest.raises(OSError, match=rf"^URL fetch failure on {address}: .*; fetch this file elsewhere and give its "):
        keras_classifier(fetches, "imagenet", include_top=False)
    with pytest.raises(ValueError, match="weights"):  # Keras's own errors stay what they are
        keras_classifier(keras.applications.MobileNet, str(tmp_path / "nothing.h5"), include_top=False)
