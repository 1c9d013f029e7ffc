"""MobileNet-v1 1.0 (Howard et al., 2017), block by block so that it can be modulated."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from osmn_tf.backbones.vgg16 import find_layer

Tensor = Any

# (channels, stride) of the depthwise-separable blocks 1..13; the stem is a 3x3 convolution to 32 channels, stride 2.
BLOCKS: tuple[tuple[int, int], ...] = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


@keras.saving.register_keras_serializable(package="osmn_tf")
class BatchNorm(layers.BatchNormalization):
    """Batch normalisation that can be told to use its stored statistics in training too.

    Args:
        batch_statistics: False normalises with the moving statistics even when training; scale and offset still
            train. Needed where statistics were folded away (mean 0, variance 1), and for small batches.
    """

    def __init__(self, batch_statistics: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_statistics = batch_statistics

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        return super().call(inputs, training=bool(training) and self.batch_statistics, mask=mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "batch_statistics": self.batch_statistics}


def _normalised(x: Tensor, convolution: layers.Layer, batch_statistics: bool) -> Tensor:
    x = convolution(x)
    x = BatchNorm(batch_statistics, momentum=0.997, epsilon=1e-3, name=f"{convolution.name}_bn")(x)
    return layers.ReLU(6.0, name=f"{convolution.name}_relu")(x)


def stem(images: Tensor, prefix: str, batch_statistics: bool) -> Tensor:
    """Normalised [B, H, W, 3] -> [B, H/2, W/2, 32]. H and W even."""
    convolution = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name=f"{prefix}_Conv2d_0")
    return _normalised(images, convolution, batch_statistics)


def block(x: Tensor, index: int, prefix: str, batch_statistics: bool) -> Tensor:
    """Depthwise-separable block `index` (1..13) up to its last ReLU6."""
    channels, stride = BLOCKS[index - 1]
    name = f"{prefix}_Conv2d_{index}"
    depthwise = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise")
    x = _normalised(x, depthwise, batch_statistics)
    return _normalised(x, layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise"), batch_statistics)


def load_imagenet_weights(model: keras.Model, prefix: str, weights: str = "imagenet") -> None:
    """Copies `keras.applications.MobileNet` (alpha 1) into the trunk `{prefix}_Conv2d_*` of `model`.

    These weights expect RGB scaled to [-1, 1] (normalization "signed_unit" of the models).

    Args:
        weights: "imagenet" (downloaded by Keras) or the path of a Keras weight file without the top.
    """
    source = keras.applications.MobileNet(include_top=False, weights=weights, input_shape=(224, 224, 3))
    pairs = [("conv1", "Conv2d_0")]
    for index in range(1, len(BLOCKS) + 1):
        pairs += [(f"conv_dw_{index}", f"Conv2d_{index}_depthwise"), (f"conv_pw_{index}", f"Conv2d_{index}_pointwise")]
    for theirs, ours in pairs:
        find_layer(model, f"{prefix}_{ours}").set_weights(source.get_layer(theirs).get_weights())
        find_layer(model, f"{prefix}_{ours}_bn").set_weights(source.get_layer(f"{theirs}_bn").get_weights())
