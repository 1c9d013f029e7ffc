"""A one-frame network over a clip, for training: unrolled over the frames, each with the state of the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from osmn_tf.guides import SpatialGuide

Tensor = Any


class Unroll(keras.layers.Layer):
    """A layer that runs a whole network several times, and shares its weights."""

    def __init__(self, model: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def build(self, input_shape: Any) -> None:
        pass  # the model is built already

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**{**config, "model": keras.saving.deserialize_keras_object(config["model"])})


class GuidedUnroll(Unroll):
    """An `Unroll` of a network with spatial guides."""

    def __init__(self, model: Any, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.spatial_guide = SpatialGuide(model.guide)

    def guide(self, inputs: Mapping[str, Tensor], first: int = 0) -> Callable[[int, Tensor | None], Tensor]:
        """As `unroll_clip` takes it, of the frames from number `first` on: given, or where `own_guide` is 1 its own."""

        def guide(t: int, before: Tensor | None) -> Tensor:
            given = inputs["spatial_guides"][:, first + t]
            if before is None:
                return given
            own = self.spatial_guide(before[..., 0] > 0)
            return ops.where(inputs["own_guide"][:, first + t, None, None, None] > 0.5, own, given)

        return guide


def encode_clip(frame_encoder: keras.Model, frames: Tensor, training: bool | None) -> dict[str, Tensor]:
    """What depends on no object and no state, of all frames at once: uint8 [B, T, H, W, 3] -> [B, T, ...] by name."""
    batch, length, height, width, _ = ops.shape(frames)
    encoded = frame_encoder({"frame": ops.reshape(frames, (batch * length, height, width, 3))}, training=training)
    return {name: ops.reshape(x, (batch, length, *ops.shape(x)[1:])) for name, x in encoded.items()}


def unroll_clip(
    object_network: keras.Model,
    features: Mapping[str, Tensor],
    modulation: Tensor,
    state: Mapping[str, Tensor],
    guide: Callable[[int, Tensor | None], Tensor],
    training: bool | None,
) -> Tensor:
    """Logits float32 [B, T, H, W, 1] of every frame.

    Args:
        object_network: see `OSMN`.
        features: of the frame encoder, [B, T, ...] each.
        modulation: [B, M].
        state: before the first frame.
        guide: gives a frame's spatial guide, from its number and the logits [B, H, W, 1] of the frame before (None at
            the first).
        training: as Keras takes it.
    """
    logits: list[Tensor] = []
    for t in range(next(iter(features.values())).shape[1]):
        outputs = object_network(
            {
                **{name: x[:, t] for name, x in features.items()},
                "spatial_guide": guide(t, logits[-1] if logits else None),
                "modulation": modulation,
                **state,
            },
            training=training,
        )
        logits.append(outputs.pop("logits"))
        state = outputs
    return ops.stack(logits, axis=1)
