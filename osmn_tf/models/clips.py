"""A one-frame network over a clip, for training: unrolled over the frames, each with the state of the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

Tensor = Any


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
