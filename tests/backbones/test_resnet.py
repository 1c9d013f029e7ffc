"""ResNets against `keras.applications`, with narrow stages where the numbers do not matter."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import numpy, randomise

from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.layers.preprocessing import FrameNormalization


def trunk(name, channels=None):
    """A model from uint8 frames to all features."""
    frame = keras.Input((None, None, 3), dtype="uint8")
    backbone = BACKBONES.get(name)(channels)
    normalize = FrameNormalization.of_kind(backbone.imagenet_normalization, "normalization")
    return backbone, keras.Model(frame, backbone.features(normalize(frame), "seg"))


def test_depths_strides_and_channels():
    _, model = trunk("resnet101", (1, 2, 3, 4))
    names = {layer.name for layer in model.layers}
    for stage, depth in ((2, 3), (3, 4), (4, 23), (5, 3)):
        assert f"seg_conv{stage}_block{depth}_out" in names
        assert f"seg_conv{stage}_block{depth + 1}_out" not in names
    height, width = 61, 75
    found = model(np.zeros((1, height, width, 3), np.uint8))
    assert {stride: tuple(x.shape[1:]) for stride, x in found.items()} == {
        stride: (-(-height // stride), -(-width // stride), channels)
        for stride, channels in ((2, 1), (4, 4), (8, 8), (16, 12), (32, 16))
    }


@pytest.mark.slow
def test_loads_what_keras_has(tmp_path):
    source = randomise(keras.applications.ResNet50(include_top=False, weights=None), seed=5)
    source.save_weights(tmp_path / "resnet.weights.h5")
    backbone, model = trunk("resnet50")
    backbone.load_imagenet_weights(model, "seg", str(tmp_path / "resnet.weights.h5"))
    assert model.count_params() == source.count_params() == 23_587_712

    frame = np.random.default_rng(0).integers(0, 256, (1, 45, 67, 3)).astype(np.uint8)
    inputs = keras.applications.resnet.preprocess_input(frame.astype(np.float32))
    names = {4: "conv2_block3_out", 8: "conv3_block4_out", 16: "conv4_block6_out", 32: "conv5_block3_out"}
    expected = keras.Model(source.input, {s: source.get_layer(name).output for s, name in names.items()})(inputs)
    found = model(frame)
    for stride, x in expected.items():
        # Behind the first convolution's border nothing tells the means apart; this network's receptive field is wide.
        difference = np.abs(numpy(found[stride]) - numpy(x)).mean()
        assert difference < 0.01 * numpy(x).std()
