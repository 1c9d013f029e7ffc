"""The last convolution of a hypercolumn, made so that it can come before the upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="osmn_tf")
class SideFusion(keras.layers.Layer):
    """The 1x1 convolution from all side outputs to one score, applied to each side at its own resolution.

    In the releases it comes last: upsample the sides, concatenate, convolve. A fixed upsampling treats all channels
    alike, so it may as well come after the sum over a side's channels. The scores are the same up to rounding, and one
    channel is upsampled where the releases upsample 16. The bias has to be added last, because a transposed
    convolution does not keep a constant at the borders.

    Input: a list of S side outputs, each [1 or N, h, w, C].

    Output: a list of S scores [1 or N, h, w, 1], one for each side, and the bias, [1, 1, 1, 1]. All of them upsampled
    to one size and added up are the score.

    Args:
        kernel_initializer: of the convolution, [1, 1, S * C, 1].
    """

    def __init__(self, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Sequence[Shape]) -> None:
        channels = sum(int(shape[-1] or 0) for shape in input_shape)
        self.kernel = self.add_weight(name="kernel", shape=(1, 1, channels, 1), initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")

    def call(self, sides: Sequence[Tensor]) -> list[Tensor]:
        scores, start = [], 0
        for side in sides:
            end = start + side.shape[-1]
            scores.append(ops.conv(side, self.kernel[:, :, start:end], padding="valid"))
            start = end
        return [*scores, ops.reshape(self.bias, (1, 1, 1, 1))]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        return [*((*shape[:-1], 1) for shape in input_shape), (1, 1, 1, 1)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
