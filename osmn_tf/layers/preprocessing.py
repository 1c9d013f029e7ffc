"""What happens to a raw frame inside the graph: normalisation and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from osmn_tf.guides import VGG_MEAN_RGB

Tensor = Any

NORMALIZATIONS: dict[str, dict[str, Any]] = {
    # RGB to BGR, minus the mean: VGG-16 everywhere.
    "caffe": {"mean": VGG_MEAN_RGB, "scale": 1.0, "to_bgr": True},
    # The same, scaled: the OSMN release's MobileNet form.
    "caffe_scaled": {"mean": VGG_MEAN_RGB, "scale": 0.00787, "to_bgr": True},
    # The same as "caffe" with the mean that OSVOS's release writes down to more digits.
    "osvos": {"mean": (122.67892, 116.66877, 104.00699), "scale": 1.0, "to_bgr": True},
    # RGB to [-1, 1]: MobileNets of keras.applications.
    "signed_unit": {"mean": (127.5, 127.5, 127.5), "scale": 1 / 127.5, "to_bgr": False},
    # RGB to [-0.99, 1]: EfficientNet-Lite.
    "efficientnet_lite": {"mean": (127.0, 127.0, 127.0), "scale": 1 / 128, "to_bgr": False},
    # RGB in 0..1 minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225): encoders of RVOS's release.
    "torch": {"mean": (123.675, 116.28, 103.53), "scale": (1 / 58.395, 1 / 57.12, 1 / 57.375), "to_bgr": False},
}
"""Arguments of `FrameNormalization` for the networks that are known, by name."""


@keras.saving.register_keras_serializable(package="osmn_tf")
class FrameNormalization(keras.layers.Layer):
    """(frame - mean) * scale, with the channels reversed on request.

    Input: [..., 3], RGB 0..255, any dtype. Output: [..., 3] in the compute dtype. The arithmetic is done in float32,
    because bfloat16 cannot hold the 256 values of a channel.

    Args:
        mean: three values in RGB order, subtracted before the channels are reversed.
        scale: factor after the subtraction, or three of them in RGB order.
        to_bgr: give the channels in BGR order, as networks trained in Caffe expect.
    """

    def __init__(
        self, mean: Sequence[float], scale: float | Sequence[float] = 1.0, to_bgr: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = [float(value) for value in mean]
        self.scale = [float(value) for value in scale] if isinstance(scale, Sequence) else float(scale)
        self.to_bgr = to_bgr

    @classmethod
    def of_kind(cls, kind: str, name: str) -> FrameNormalization:
        """The layer called `name` for one of `NORMALIZATIONS`."""
        return cls(**NORMALIZATIONS[kind], name=name)

    def call(self, frames: Tensor) -> Tensor:
        mean = ops.convert_to_tensor(self.mean, dtype="float32")
        scale = ops.convert_to_tensor(self.scale, dtype="float32")
        output = (ops.cast(frames, "float32") - mean) * scale
        if self.to_bgr:
            output = ops.flip(output, axis=-1)
        return ops.cast(output, self.compute_dtype)

    def compute_output_spec(self, frames: Any) -> keras.KerasTensor:
        return keras.KerasTensor(frames.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "scale": self.scale, "to_bgr": self.to_bgr}


@keras.saving.register_keras_serializable(package="osmn_tf")
class PadToMultiple(keras.layers.Layer):
    """Pads [B, H, W, C] with zeros at the bottom and the right, to sides that are multiples of `multiple`."""

    def __init__(self, multiple: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, inputs: Tensor) -> Tensor:
        _, height, width, _ = ops.shape(inputs)
        bottom, right = -height % self.multiple, -width % self.multiple
        if isinstance(bottom, int) and isinstance(right, int) and not bottom and not right:
            return inputs
        return ops.pad(inputs, ((0, 0), (0, bottom), (0, right), (0, 0)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else height + -height % self.multiple,
            None if width is None else width + -width % self.multiple,
            channels,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "multiple": self.multiple}
