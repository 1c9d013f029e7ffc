"""VGG-16's convolutions (Simonyan and Zisserman, 2015), layer by layer so that they can be modulated."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

Tensor = Any

# Channels of each block's convolutions.
BLOCKS: tuple[tuple[int, ...], ...] = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


def convolution(block: int, index: int, prefix: str) -> layers.Conv2D:
    """The layer `{prefix}_conv{block}_{index}` (both from 1), 3x3 with ReLU."""
    return layers.Conv2D(
        BLOCKS[block - 1][index - 1], 3, padding="same", activation="relu", name=f"{prefix}_conv{block}_{index}"
    )


def pooling(block: int, prefix: str) -> layers.MaxPooling2D:
    """2x2 max pooling behind a block; SAME, so that odd sides round up."""
    return layers.MaxPooling2D(2, padding="same", name=f"{prefix}_pool{block}")


def features(images: Tensor, prefix: str) -> dict[str, Tensor]:
    """All five blocks without modulation: normalised BGR [B, H, W, 3] -> {"conv1_1": ..., ..., "conv5_3": ...}."""
    outputs: dict[str, Tensor] = {}
    x = images
    for block, channels in enumerate(BLOCKS, start=1):
        if block > 1:
            x = pooling(block - 1, prefix)(x)
        for index in range(1, len(channels) + 1):
            x = convolution(block, index, prefix)(x)
            outputs[f"conv{block}_{index}"] = x
    return outputs


def load_imagenet_weights(model: keras.Model, prefix: str, weights: str = "imagenet") -> None:
    """Copies `keras.applications.VGG16` convolutions into the layers `{prefix}_conv*` of `model`.

    Both expect BGR minus the mean (the means differ by less than half a grey level), so nothing is reordered.

    Args:
        weights: "imagenet" (downloaded by Keras) or the path of a Keras `.h5` weight file without the top.
    """
    source = keras.applications.VGG16(include_top=False, weights=weights)
    for block, channels in enumerate(BLOCKS, start=1):
        for index in range(1, len(channels) + 1):
            layer = find_layer(model, f"{prefix}_conv{block}_{index}")
            layer.set_weights(source.get_layer(f"block{block}_conv{index}").get_weights())


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer called `name` anywhere inside nested functional models.

    Raises:
        ValueError: there is none.
    """
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if layer.name == name:
            return layer
    raise ValueError(f"{model.name} has no layer named {name!r}")
