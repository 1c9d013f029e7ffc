"""A matching network unrolled over a clip: how it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from osmn_tf.guides import GUIDE_CHANNELS
from osmn_tf.models.clips import GuidedUnroll, encode_clip, unroll_clip

if TYPE_CHECKING:
    from osmn_tf.models.osmn import OSMN

Tensor = Any


@keras.saving.register_keras_serializable(package="osmn_tf")
class MatchingUnroll(GuidedUnroll):
    """Runs a matching network over a clip; see `OSMN.clip_model` for inputs and output."""

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        model = self.model
        frames = ops.concatenate([inputs["first_frame"][:, None], inputs["frames"]], axis=1)
        encoded = encode_clip(model.frame_encoder, frames, training)
        modulation = model.visual_modulator(inputs["visual_guide"], training=training)
        state = model.begun_state(encoded["key"][:, 0], inputs["first_mask"])
        state["previous_key"] = encoded["key"][:, 1]
        later = {name: x[:, 2:] for name, x in encoded.items()}
        return unroll_clip(model.object_network, later, modulation, state, self.guide(inputs, 1), training)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> keras.KerasTensor:
        batch, length, height, width, _ = inputs["frames"].shape
        return keras.KerasTensor((batch, length - 1, height, width, 1), dtype="float32")


def matching_clip_model(model: OSMN, length: int, height: int | None, width: int | None) -> keras.Model:
    """See `OSMN.clip_model`."""
    channels = GUIDE_CHANNELS[model.guide]
    inputs = {
        "first_frame": keras.Input((height, width, 3), dtype="uint8", name="first_frame"),
        "first_mask": keras.Input((height, width), dtype="uint8", name="first_mask"),
        "frames": keras.Input((length, height, width, 3), dtype="uint8", name="frames"),
        "visual_guide": keras.Input((model.guide_size, model.guide_size, 3), name="visual_guide"),
        "spatial_guides": keras.Input((length, height, width, channels), name="spatial_guides"),
        "own_guide": keras.Input((length,), name="own_guide"),
    }
    return keras.Model(inputs, MatchingUnroll(model, name="clip")(inputs), name=f"{model.name}_clip")
