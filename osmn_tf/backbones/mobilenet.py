"""MobileNet-v1 1.0 (Howard et al., 2017), block by block so that it can be modulated."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from osmn_tf.backbones.registry import BACKBONES, Backbone, find_layer, keras_classifier
from osmn_tf.layers.normalization import BatchNorm

Tensor = Any


@BACKBONES.register("mobilenet")
class MobileNet(Backbone):
    """A 3x3 convolution to 32 channels with stride 2, and 13 depthwise-separable blocks.

    Attributes:
        strides: of each block.
    """

    published_channels = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    imagenet_normalization = "signed_unit"
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

    def stem(self, images: Tensor, prefix: str) -> Tensor:
        """Normalised [B, H, W, 3] -> [B, H/2, W/2, 32]. H and W even."""
        convolution = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name=f"{prefix}_Conv2d_0")
        return self._normalised(images, convolution)

    def block(self, x: Tensor, index: int, prefix: str) -> Tensor:
        """Depthwise-separable block `index` (1..13) up to its last ReLU6."""
        channels, stride = self.channels[index - 1], self.strides[index - 1]
        name = f"{prefix}_Conv2d_{index}"
        depthwise = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise")
        x = self._normalised(x, depthwise)
        return self._normalised(x, layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise"))

    def _normalised(self, x: Tensor, convolution: layers.Layer) -> Tensor:
        x = convolution(x)
        x = BatchNorm(self.batch_statistics, momentum=0.997, epsilon=1e-3, name=f"{convolution.name}_bn")(x)
        return layers.ReLU(6.0, name=f"{convolution.name}_relu")(x)

    def features(self, images: Tensor, prefix: str) -> dict[int, Tensor]:
        x, stride = self.stem(images, prefix), 2
        maps: dict[int, Tensor] = {}
        for index, step in enumerate(self.strides, start=1):
            x = self.block(x, index, prefix)
            stride *= step
            maps[stride] = x
        return maps

    def load_imagenet_weights(self, model: keras.Model, prefix: str, weights: str = "imagenet") -> None:
        """See `Backbone`; `keras.applications.MobileNet` (alpha 1), a file without the classifier's top."""
        source = keras_classifier(keras.applications.MobileNet, weights, include_top=False, input_shape=(224, 224, 3))
        pairs = [("conv1", "Conv2d_0")]
        for index in range(1, len(self.channels) + 1):
            pairs.append((f"conv_dw_{index}", f"Conv2d_{index}_depthwise"))
            pairs.append((f"conv_pw_{index}", f"Conv2d_{index}_pointwise"))
        for theirs, ours in pairs:
            find_layer(model, f"{prefix}_{ours}").set_weights(source.get_layer(theirs).get_weights())
            find_layer(model, f"{prefix}_{ours}_bn").set_weights(source.get_layer(f"{theirs}_bn").get_weights())
