"""Conditional modulation of feature maps (OSMN, section 3.1): y = scale * x + shift."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="osmn_tf")
class Modulation(keras.layers.Layer):
    """Scales each channel by the visual modulator and adds the spatial modulator's map.

    Batches broadcast: features of one frame ([1, H, W, C]) and scales of N objects give [N, H, W, C].

    Call arguments:
        features: [B, H, W, C].
        modulation: [N, M], all scales that the visual modulator gives; this layer uses `[offset : offset + C]`.
        shift: optional [N, H, W, C], added after scaling.

    Args:
        offset: where this layer's scales begin among the M.
    """

    def __init__(self, offset: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = offset

    def call(self, features: Tensor, modulation: Tensor, shift: Tensor | None = None) -> Tensor:
        channels = features.shape[-1]
        scale = modulation[:, None, None, self.offset : self.offset + channels]
        output = features * scale
        return output if shift is None else output + shift

    def compute_output_shape(
        self,
        features_shape: tuple[int | None, ...],
        modulation_shape: tuple[int | None, ...],
        shift_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        if modulation_shape[-1] is not None and modulation_shape[-1] < self.offset + (features_shape[-1] or 0):
            raise ValueError(
                f"{self.name}: modulation has {modulation_shape[-1]} scales, expected at least "
                f"{self.offset + (features_shape[-1] or 0)} (offset {self.offset} + {features_shape[-1]} channels)"
            )
        return (modulation_shape[0], *features_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "offset": self.offset}


@keras.saving.register_keras_serializable(package="osmn_tf")
class ObjectAxis(keras.layers.Layer):
    """Repeats a frame's features for every object: ([1 or N, H, W, C], [N, ...]) -> [N, H, W, C]."""

    def call(self, features: Tensor, per_object: Tensor) -> Tensor:
        shape = ops.shape(features)
        return ops.broadcast_to(features, (ops.shape(per_object)[0], *shape[1:]))

    def compute_output_shape(
        self, features_shape: tuple[int | None, ...], per_object_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (per_object_shape[0], *features_shape[1:])
