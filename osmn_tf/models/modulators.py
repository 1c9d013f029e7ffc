"""The two modulators of OSMN: the visual one gives channel scales, the spatial one additive maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from osmn_tf.layers.normalization import BatchNorm

Tensor = Any


def scale_head(features: Tensor, channels: int, name: str) -> Tensor:
    """Linear 1x1 convolution that starts as the constant 1: [B, 1, 1, C] -> scales [B, channels]."""
    x = layers.Conv2D(channels, 1, kernel_initializer="zeros", bias_initializer="ones", name=name)(features)
    return layers.Reshape((channels,), name=f"{name}_vector")(x)


def pooled_features(x: Tensor, hidden: int, name: str) -> Tensor:
    """Global average and one hidden layer called `name`: [B, h, w, C] -> [B, 1, 1, hidden]."""
    x = layers.GlobalAveragePooling2D(keepdims=True, name="modulator_pool")(x)
    return layers.Conv2D(hidden, 1, activation="relu", name=name)(x)


def visual_modulator(guide: Tensor, features: Tensor, heads: Mapping[str, int]) -> keras.Model:
    """The visual modulator, given what it makes of a guide: a head for each group of scales.

    Args:
        guide: the input, float32 [B, S, S, 3], RGB 0..255.
        features: [B, 1, 1, C].
        heads: layer name -> number of scales.

    Returns:
        A model from the guide to [B, scales of all heads].
    """
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
