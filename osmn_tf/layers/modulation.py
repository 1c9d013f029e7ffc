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

    Raises:
        ValueError: `offset` is negative, or there are fewer than offset + C scales.
    """

    def __init__(self, offset: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if offset < 0:
            raise ValueError(f"offset: expected 0 or more, received {offset}")
        self.offset = offset

    def call(self, features: Tensor, modulation: Tensor, shift: Tensor | None = None) -> Tensor:
        channels = features.shape[-1]
        self._check(features.shape, modulation.shape)
        scale = modulation[:, None, None, self.offset : self.offset + channels]
        output = features * scale
        return output if shift is None else output + shift

    def compute_output_shape(
        self,
        features_shape: tuple[int | None, ...],
        modulation_shape: tuple[int | None, ...],
        shift_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        self._check(features_shape, modulation_shape)
        return (modulation_shape[0], *features_shape[1:])

    def _check(self, features_shape: Any, modulation_shape: Any) -> None:
        # A slice that is cut off to one scale would broadcast.
        channels, scales = features_shape[-1], modulation_shape[-1]
        if scales is not None and scales < self.offset + channels:
            raise ValueError(
                f"{self.name}: modulation has {scales} scales, expected at least {self.offset + channels} "
                f"(offset {self.offset} + {channels} channels)"
            )

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
