"""Averages over blocks of pixels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="osmn_tf")
class BlockAverage(keras.layers.Layer):
    """Means over blocks of `size` x `size` pixels: the values of `AveragePooling2D(size)`.

    As sums of whole rows, and then of neighbours in them, which are a product with zeros and ones. TensorFlow's pooling
    on a CPU takes several times as long for the one or two channels of a spatial guide, and LiteRT twice as long for
    sums along a short axis.

    Input: [B, H, W, C]; H and W are multiples of `size`. Output: [B, H / size, W / size, C].
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs: Tensor) -> Tensor:
        _, height, width, channels = ops.shape(inputs)
        x = ops.sum(ops.reshape(inputs, (-1, self.size, width * channels)), axis=1)
        neighbours = np.tile(np.eye(channels), (self.size, 1)) / self.size**2
        x = ops.matmul(ops.reshape(x, (-1, self.size * channels)), ops.cast(neighbours, x.dtype))
        return ops.reshape(x, (-1, height // self.size, width // self.size, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        sides = (None if side is None else side // self.size for side in (height, width))
        return (batch, *sides, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}
