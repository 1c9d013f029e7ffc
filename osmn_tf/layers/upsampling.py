"""Fixed bilinear upsampling, in the forms that the networks need.

`BilinearTransposedConv` (the VGG release), `CornerUpsampling` (the MobileNet release: TensorFlow 1 without half-pixel
centres), `AlignedUpsampling` and `AlignedResizeLike` (RVOS: the corner pixels of input and output coincide) and
`ResizeLike` (half-pixel centres; what everybody else means by bilinear).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any
Shape = tuple[int | None, ...]


def bilinear_kernel(size: int, channels: int) -> np.ndarray:
    """Bilinear filter of a transposed convolution, float32 [size, size, channels, channels].

    f = (size + 1) // 2, centre f - 0.5 for an even size (f - 1 for an odd one); (1 - |r - c| / f)(1 - |q - c| / f) on
    the channel diagonal, zero elsewhere.
    """
    factor = (size + 1) // 2
    centre = factor - 1.0 if size % 2 else factor - 0.5
    profile = 1.0 - np.abs(np.arange(size) - centre) / factor
    kernel = np.zeros((size, size, channels, channels), np.float32)
    kernel[:, :, range(channels), range(channels)] = np.outer(profile, profile)[..., None]
    return kernel


@keras.saving.register_keras_serializable(package="osmn_tf")
class BilinearInitializer(keras.initializers.Initializer):
    """`bilinear_kernel` for a kernel of shape [size, size, channels, channels]."""

    def __call__(self, shape: Shape, dtype: Any = None, **kwargs: Any) -> Tensor:
        return ops.convert_to_tensor(bilinear_kernel(int(shape[0] or 0), int(shape[2] or 0)), dtype=dtype)


@keras.saving.register_keras_serializable(package="osmn_tf")
class BilinearTransposedConv(keras.layers.Layer):
    """Transposed convolution with a fixed bilinear kernel of size 2 * stride, VALID, one filter a channel.

    The kernel is a non-trainable weight because the release stores it: a checkpoint's kernel is compared with it.

    Input: [B, H, W, C]. Output: [B, (H - 1) * stride + 2 * stride, (W - 1) * stride + 2 * stride, C].

    Args:
        stride: the factor.
        channels: of the stored kernel; default: the input's. All of them hold the same filter, so that an input may
            have fewer.

    Raises:
        ValueError: the input has more channels than the kernel.
    """

    def __init__(self, stride: int, channels: int | None = None, **kwargs: Any) -> None:
        super().__init__(trainable=False, **{key: value for key, value in kwargs.items() if key != "trainable"})
        self.stride = stride
        self.channels = channels

    def build(self, input_shape: Shape) -> None:
        received = int(input_shape[-1] or 0)
        channels = self.channels or received
        if received > channels:
            raise ValueError(f"{self.name}: expected at most {channels} channels, received {received}")
        self.kernel = self.add_weight(
            name="kernel",
            shape=(2 * self.stride, 2 * self.stride, channels, channels),
            initializer=BilinearInitializer(),
            trainable=False,
        )

    def call(self, inputs: Tensor) -> Tensor:
        channels = inputs.shape[-1]
        kernel = self.kernel[:, :, :channels, :channels]
        return ops.conv_transpose(inputs, kernel, strides=self.stride, padding="valid")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else (height + 1) * self.stride,
            None if width is None else (width + 1) * self.stride,
            channels,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stride": self.stride, "channels": self.channels}


@keras.saving.register_keras_serializable(package="osmn_tf")
class CentreCropLike(keras.layers.Layer):
    """Crops [B, H, W, C] to the height and width of a reference; start floor((out - size) / 2)."""

    def call(self, inputs: Tensor, reference: Tensor) -> Tensor:
        height, width = ops.shape(reference)[1], ops.shape(reference)[2]
        top = (ops.shape(inputs)[1] - height) // 2
        left = (ops.shape(inputs)[2] - width) // 2
        return inputs[:, top : top + height, left : left + width]

    def compute_output_shape(self, inputs_shape: Shape, reference_shape: Shape) -> Shape:
        return (inputs_shape[0], reference_shape[1], reference_shape[2], inputs_shape[3])


@keras.saving.register_keras_serializable(package="osmn_tf")
class TopLeftCropLike(keras.layers.Layer):
    """Crops [B, H, W, C] to the height and width of a reference: undoes `PadToMultiple`."""

    def call(self, inputs: Tensor, reference: Tensor) -> Tensor:
        return inputs[:, : ops.shape(reference)[1], : ops.shape(reference)[2]]

    def compute_output_shape(self, inputs_shape: Shape, reference_shape: Shape) -> Shape:
        return (inputs_shape[0], reference_shape[1], reference_shape[2], inputs_shape[3])


@keras.saving.register_keras_serializable(package="osmn_tf")
class CornerUpsampling(keras.layers.Layer):
    """Bilinear upsampling by a whole factor as TensorFlow 1 did it: output i samples input i / factor.

    The corner pixels coincide at the top left only; beyond the last input pixel the edge is repeated.

    Input: [B, H, W, C]. Output: [B, factor * H, factor * W, C].
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Tensor) -> Tensor:
        output = inputs
        for axis in (1, 2):
            length = ops.shape(inputs)[axis]
            position = ops.arange(length * self.factor, dtype="int32")
            before = position // self.factor
            after = ops.minimum(before + 1, length - 1)
            fraction = ops.cast(position % self.factor, output.dtype) / self.factor
            fraction = ops.reshape(fraction, (-1, 1, 1) if axis == 1 else (-1, 1))
            first = ops.take(output, before, axis=axis)
            output = first + (ops.take(output, after, axis=axis) - first) * fraction
        return output

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else height * self.factor,
            None if width is None else width * self.factor,
            channels,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


def _resized(inputs: Tensor, size: Any, axis: int) -> Tensor:
    """Bilinear resize (half-pixel centres) of [B, H, W, C] along one axis, for sizes that may be unknown."""
    length = ops.shape(inputs)[axis]
    ratio = ops.cast(length, "float32") / ops.cast(size, "float32")
    position = ops.clip((ops.arange(size, dtype="float32") + 0.5) * ratio - 0.5, 0.0, ops.cast(length - 1, "float32"))
    before = ops.cast(ops.floor(position), "int32")
    fraction = ops.cast(position - ops.floor(position), inputs.dtype)
    fraction = ops.reshape(fraction, (-1, 1, 1) if axis == 1 else (-1, 1))
    first, second = (ops.take(inputs, index, axis=axis) for index in (before, ops.minimum(before + 1, length - 1)))
    return first + (second - first) * fraction


@keras.saving.register_keras_serializable(package="osmn_tf")
class ResizeLike(keras.layers.Layer):
    """Bilinear resize (half-pixel centres) of [B, H, W, C] to the height and width of a reference."""

    def call(self, inputs: Tensor, reference: Tensor) -> Tensor:
        height, width = ops.shape(reference)[1], ops.shape(reference)[2]
        sizes = (height, width, *ops.shape(inputs)[1:3])
        if all(isinstance(side, int) for side in sizes):
            return ops.image.resize(inputs, (height, width), interpolation="bilinear", data_format="channels_last")
        # Keras 3.15 cannot resize to or from sides that are unknown when a graph is made.
        return _resized(_resized(inputs, height, axis=1), width, axis=2)

    def compute_output_spec(self, inputs: Any, reference: Any) -> keras.KerasTensor:
        # Given here because `ops.image.resize` cannot be traced with unknown sides.
        shape = (inputs.shape[0], reference.shape[1], reference.shape[2], inputs.shape[3])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)


def _aligned(inputs: Tensor, height: Any, width: Any) -> Tensor:
    """Bilinear resize of [B, H, W, C] whose corner pixels coincide with the input's, for sizes that may be unknown.

    Each axis is a product with the matrix of the hat function: on every backend, and in LiteRT, that takes sides that
    are unknown when the graph is made, and its gradient is a product again, where a gather's is a scatter.
    """
    batch, rows, columns, channels = ops.shape(inputs)
    output = ops.reshape(inputs, (batch, rows, -1))  # [B, H, W * C]
    output = ops.matmul(_hat_matrix(height, rows, inputs.dtype), output)
    output = ops.reshape(output, (-1, columns, channels))  # [B * height, W, C]
    output = ops.matmul(_hat_matrix(width, columns, inputs.dtype), output)
    return ops.reshape(output, (-1, height, width, channels))


def _hat_matrix(size: Any, length: Any, dtype: Any) -> Tensor:
    """[size, length]: what each input pixel gives to each output pixel when first and last ones coincide."""
    if isinstance(size, int) and isinstance(length, int):
        # A constant: to make a graph that computes it is much of the time in which RVOS is compiled.
        position = np.arange(size, dtype=np.float32) * (np.float32(length - 1) / np.float32(max(size - 1, 1)))
        distance = np.abs(position[:, None] - np.arange(length, dtype=np.float32))
        return ops.cast(np.maximum(1.0 - distance, 0.0), dtype)
    steps = ops.cast(ops.maximum(size - 1, 1), "float32")  # one output pixel takes the first input pixel
    position = ops.arange(size, dtype="float32") * (ops.cast(length - 1, "float32") / steps)
    distance = ops.abs(position[:, None] - ops.arange(length, dtype="float32")[None])
    return ops.cast(ops.relu(1.0 - distance), dtype)


@keras.saving.register_keras_serializable(package="osmn_tf")
class AlignedUpsampling(keras.layers.Layer):
    """Bilinear upsampling by a whole factor whose corner pixels coincide with the input's ("align corners").

    Output pixel i of S samples the input at i * (L - 1) / (S - 1).

    Input: [B, H, W, C]. Output: [B, factor * H, factor * W, C].
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Tensor) -> Tensor:
        _, height, width, _ = ops.shape(inputs)
        return _aligned(inputs, height * self.factor, width * self.factor)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else height * self.factor,
            None if width is None else width * self.factor,
            channels,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="osmn_tf")
class AlignedResizeLike(keras.layers.Layer):
    """`AlignedUpsampling` of [B, H, W, C] to the height and width of a reference, larger or smaller."""

    def call(self, inputs: Tensor, reference: Tensor) -> Tensor:
        return _aligned(inputs, *ops.shape(reference)[1:3])

    def compute_output_shape(self, inputs_shape: Shape, reference_shape: Shape) -> Shape:
        return (inputs_shape[0], reference_shape[1], reference_shape[2], inputs_shape[3])
