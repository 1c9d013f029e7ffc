"""The two modulators of OSMN: the visual one gives channel scales, the spatial one additive maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from osmn_tf.backbones import mobilenet, vgg16
from osmn_tf.backbones.mobilenet import BatchNorm
from osmn_tf.layers.preprocessing import FrameNormalization

Tensor = Any


def scale_head(features: Tensor, channels: int, name: str) -> Tensor:
    """Linear 1x1 convolution that starts as the constant 1: [B, 1, 1, C] -> scales [B, channels]."""
    x = layers.Conv2D(channels, 1, kernel_initializer="zeros", bias_initializer="ones", name=name)(features)
    return layers.Reshape((channels,), name=f"{name}_vector")(x)


def vgg16_visual_modulator(
    guide_size: int, normalization: FrameNormalization, scales: int, recurrent_scales: int, head: str, hidden: int
) -> keras.Model:
    """VGG-16 on the visual guide; `head` "fc" is the release's fc6, fc7, "pooled" a global average and one layer.

    Returns:
        A model from the guide, float32 [B, S, S, 3] RGB 0..255, to [B, scales + recurrent_scales].
    """
    guide = keras.Input((guide_size, guide_size, 3), name="visual_guide")
    x = vgg16.features(normalization(guide), "modulator")["conv5_3"]
    if head == "fc":
        x = vgg16.pooling(5, "modulator")(x)
        x = layers.Conv2D(4096, 7, activation="relu", name="modulator_fc6")(x)
        x = layers.Dropout(0.5, name="modulator_dropout6")(x)
        x = layers.Conv2D(4096, 1, activation="relu", name="modulator_fc7")(x)
        x = layers.Dropout(0.5, name="modulator_dropout7")(x)
    else:
        x = layers.GlobalAveragePooling2D(keepdims=True, name="modulator_pool")(x)
        x = layers.Conv2D(hidden, 1, activation="relu", name="modulator_hidden")(x)
    return _with_scale_heads(guide, x, {"modulator_fc8": scales}, recurrent_scales)


def mobilenet_visual_modulator(
    guide_size: int,
    normalization: FrameNormalization,
    scales: Sequence[int],
    recurrent_scales: int,
    hidden: int,
    batch_statistics: bool,
) -> keras.Model:
    """MobileNet-v1 on the visual guide, global average, one hidden layer, a head for every modulated layer.

    Returns:
        A model from the guide, float32 [B, S, S, 3] RGB 0..255, to [B, sum(scales) + recurrent_scales].
    """
    guide = keras.Input((guide_size, guide_size, 3), name="visual_guide")
    x = mobilenet.stem(normalization(guide), "modulator", batch_statistics)
    for index in range(1, len(mobilenet.BLOCKS) + 1):
        x = mobilenet.block(x, index, "modulator", batch_statistics)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="modulator_pool")(x)
    x = layers.Conv2D(hidden, 1, activation="relu", name="modulator_Conv2d_1c_1x1")(x)
    heads = {f"Conv2d_out_{index}": channels for index, channels in enumerate(scales, start=1)}
    return _with_scale_heads(guide, x, heads, recurrent_scales)


def _with_scale_heads(guide: Tensor, features: Tensor, heads: dict[str, int], recurrent_scales: int) -> keras.Model:
    if recurrent_scales:
        # A head of its own, so that an OSMN's heads can be loaded unchanged beside it.
        heads = {**heads, "modulator_recurrent": recurrent_scales}
    vectors = [scale_head(features, channels, name) for name, channels in heads.items()]
    modulation = layers.Concatenate(name="modulation")(vectors) if len(vectors) > 1 else vectors[0]
    return keras.Model(guide, modulation, name="visual_modulator")


def spatial_shift(pooled_guide: Tensor, channels: int, name: str, batch_statistics: bool = True) -> Tensor:
    """The spatial modulator at one resolution: 1x1 convolution without bias, BatchNorm, ReLU (so never negative).

    Args:
        pooled_guide: [N, h, w, 1].

    Returns:
        [N, h, w, channels].
    """
    x = layers.Conv2D(channels, 1, use_bias=False, name=name)(pooled_guide)
    x = BatchNorm(batch_statistics, momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
