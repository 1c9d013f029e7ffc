"""VGG-16's convolutions (Simonyan and Zisserman, 2015), layer by layer so that they can be modulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers

from osmn_tf.backbones.registry import BACKBONES, Backbone, all_layers, find_layer, keras_classifier
from osmn_tf.guides import VGG_MEAN_RGB

Tensor = Any

# What the VGG-16 classifiers of Keras and TF-Slim subtract (0..255).
CLASSIFIER_MEAN_BGR = (103.939, 116.779, 123.68)


@BACKBONES.register("vgg16")
class VGG16(Backbone):
    """Five blocks of 3x3 convolutions with ReLU, 2x2 max pooling between them.

    Attributes:
        depths: convolutions of each block.
        hidden: channels of the classifier's hidden layers fc6 and fc7.
    """

    published_channels = (64, 128, 256, 512, 512)
    imagenet_normalization = "caffe"
    depths = (2, 2, 3, 3, 3)
    hidden = 4096

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Channels of each block's convolutions."""
        return tuple((channels,) * depth for channels, depth in zip(self.channels, self.depths))

    def convolutions(self) -> Iterator[tuple[int, int, int, int]]:
        """Block, index in it (both from 1), input and output channels of each convolution."""
        width = 3
        for block, channels in enumerate(self.blocks, start=1):
            for index, filters in enumerate(channels, start=1):
                yield block, index, width, filters
                width = filters

    def convolution(self, block: int, index: int, prefix: str) -> layers.Conv2D:
        """The layer `{prefix}_conv{block}_{index}` (both from 1), 3x3 with ReLU."""
        channels = self.blocks[block - 1][index - 1]
        return layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"{prefix}_conv{block}_{index}")

    def pooling(self, block: int, prefix: str) -> layers.MaxPooling2D:
        """2x2 max pooling behind a block; SAME, so that odd sides round up."""
        return layers.MaxPooling2D(2, padding="same", name=f"{prefix}_pool{block}")

    def features(self, images: Tensor, prefix: str) -> dict[int, Tensor]:
        maps: dict[int, Tensor] = {}
        x = images
        for block, depth in enumerate(self.depths, start=1):
            if block > 1:
                x = self.pooling(block - 1, prefix)(x)
            for index in range(1, depth + 1):
                x = self.convolution(block, index, prefix)(x)
            maps[2 ** (block - 1)] = x
        return maps

    def load_imagenet_weights(self, model: keras.Model, prefix: str, weights: str = "imagenet") -> None:
        """See `Backbone`; `keras.applications.VGG16`, and where `model` has them, fc6 and fc7.

        Both take BGR minus the mean colour, but not the same mean: the first layer's bias makes up for it. With a file
        without the classifier's top, fc6 and fc7 stay as they are.
        """
        self.load_classifier({prefix: model}, weights)

    def load_classifier(self, parts: Mapping[str, keras.Model], weights: str = "imagenet") -> None:
        """`load_imagenet_weights` into several trunks (prefix -> model), with the classifier read once."""
        heads = {prefix: any(layer.name == f"{prefix}_fc6" for layer in all_layers(parts[prefix])) for prefix in parts}
        include_top = any(heads.values()) if weights == "imagenet" else _holds_top(weights)
        source = keras_classifier(keras.applications.VGG16, weights, include_top=include_top)
        for prefix, model in parts.items():
            for block, index, _, _ in self.convolutions():
                kernel, bias = source.get_layer(f"block{block}_conv{index}").get_weights()
                if (block, index) == (1, 1):
                    bias = shift_mean(kernel, bias, CLASSIFIER_MEAN_BGR)
                find_layer(model, f"{prefix}_conv{block}_{index}").set_weights([kernel, bias])
            if heads[prefix] and include_top:
                for theirs, ours in (("fc1", "fc6"), ("fc2", "fc7")):
                    layer = find_layer(model, f"{prefix}_{ours}")
                    kernel, bias = source.get_layer(theirs).get_weights()
                    # A dense layer on the flattened 7x7x512 map is a 7x7 convolution: both count rows, columns,
                    # channels.
                    layer.set_weights([kernel.reshape(layer.kernel.shape), bias])


def _holds_top(path: str) -> bool:
    """Whether a Keras weight file has the classifier's dense layers."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if getattr(item, "shape", None) == (7 * 7 * 512, VGG16.hidden):
            found.append(name)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return bool(found)


def shift_mean(kernel: np.ndarray, bias: np.ndarray, mean_bgr: Sequence[float]) -> np.ndarray:
    """The bias with which a first layer trained on (BGR - mean_bgr) gives the same on (BGR - this package's mean).

    Exact where the kernel lies inside the image. On the image's border it sees zeros, that is this package's mean
    colour instead of the other one.

    Args:
        kernel: [k, k, 3, F], BGR.
        bias: [F].
        mean_bgr: mean colour of the source, 0..255.
    """
    difference = np.array(VGG_MEAN_RGB[::-1], np.float64) - np.array(mean_bgr, np.float64)
    return (bias + np.einsum("hwcf,c->f", kernel.astype(np.float64), difference)).astype(np.float32)
