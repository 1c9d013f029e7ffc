"""ReConvNet: OSMN with modulated ConvLSTMs between its blocks (Lattari et al., 2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from osmn_tf.guides import GUIDE_CHANNELS
from osmn_tf.layers.conv_lstm import ModulatedConvLSTM2DCell
from osmn_tf.models.clips import GuidedUnroll, encode_clip, unroll_clip
from osmn_tf.models.modulated import Arguments, Parts, assemble, check_choice
from osmn_tf.models.osmn import OSMN, UNTRAINED
from osmn_tf.models.presets import load
from osmn_tf.models.registry import register_network
from osmn_tf.models.segmentation_network import Recurrence

Tensor = Any


@register_network("ReConvNet")
class ReConvNet(OSMN):
    """OSMN plus a modulated ConvLSTM after each of the last three modulated blocks.

    All of OSMN's layers keep their names, so an OSMN's weights initialise it (`from_osmn`). The state is explicit: six
    tensors (h and c of three ConvLSTMs), zero before the first frame, inputs and outputs of the one-frame network.

    Inputs (a dict): those of `OSMN`, and one [B, ceil(H / s), ceil(W / s), F] for every entry of `state_specs`
    (`initial_state` gives the first ones; on MobileNet H and W are rounded up to multiples of 32 before).

    Outputs (a dict): "logits", float32 [B, H, W, 1], and the new state under the names of the inputs.

    Args:
        recurrence: "residual" (block features + modulated hidden state: an OSMN initialisation survives the first
            step) or "replace" (modulated hidden state alone, the paper's literal reading).
        recurrent_channels: hidden channels of the three ConvLSTMs; None: as many as the block has (the paper).
            Smaller ones are led in and out by 1x1 convolutions (not in the paper; for small models).
        **kwargs: the arguments of `OSMN`.

    Example:
        >>> import osmn_tf as osmn
        >>> narrow = {"block_channels": (2, 3, 4, 4, 5), "side_channels": 2, "visual_hidden": 4}  # not as published
        >>> network = osmn.ReConvNet(backbone="vgg16", visual_head="pooled", guide_size=32, **narrow)
        >>> sorted(network.initial_state(objects=2, height=64, width=96))[:2]
        ['conv3_lstm_c', 'conv3_lstm_h']
    """

    task_name = "reconvnet"
    untrained: ClassVar = {"reconvnet_vgg16": UNTRAINED}

    def __init__(
        self, recurrence: str = "residual", recurrent_channels: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        check_choice("recurrence", recurrence, ("residual", "replace"))
        if recurrent_channels is not None:
            if len(recurrent_channels) != 3 or min(recurrent_channels) < 1:
                raise ValueError(f"recurrent_channels: expected three positive numbers, received {recurrent_channels}")
            recurrent_channels = [int(number) for number in recurrent_channels]
        self.recurrence = recurrence
        self.recurrent_channels = recurrent_channels
        super().__init__(**kwargs)

    def assemble(self, arguments: Arguments) -> Parts:
        channels = None if self.recurrent_channels is None else tuple(self.recurrent_channels)
        return assemble(arguments, Recurrence(self.recurrence, channels))

    @classmethod
    def from_osmn(cls, osmn: OSMN | str | os.PathLike[str], **kwargs: Any) -> ReConvNet:
        """A ReConvNet whose OSMN part equals `osmn`; the ConvLSTMs and their scales are new.

        With `recurrence="residual"` and ConvLSTMs that give zero, its first step gives the OSMN's output.

        Args:
            osmn: the source, as a model or as the name or path of a preset; its configuration is taken over.
            **kwargs: `recurrence`, `recurrent_channels` and anything to override.

        Raises:
            InputError: there is no such preset, or it is damaged.
            ValueError: an override makes a network into which the OSMN's weights do not fit.
        """
        source = load(osmn) if isinstance(osmn, (str, os.PathLike)) else osmn
        config = source.get_config()
        del config["name"]
        model = cls(**{**config, **kwargs})
        targets = {weight.path: weight for weight in model.weights}
        for weight in source.weights:
            if weight.path not in targets:
                raise ValueError(f"{weight.path} of the OSMN has no counterpart in this ReConvNet")
            # JAX would share the buffer, and training frees the buffers that it began with.
            targets[weight.path].assign(ops.copy(weight))
        return model

    def weaken_memory(self, recurrent_scale: float = 0.5, forget_shift: float = 1.0) -> None:
        """Makes the ConvLSTMs forget sooner, by changing their weights.

        A network that was trained on clips of a few frames carries its state through hundreds of frames in use, where
        small errors add up. (Not in the papers.)

        Args:
            recurrent_scale: factor on the recurrent kernels: how much of the hidden state h is seen. 0 to 1.
            forget_shift: what is taken from the forget gates' biases: how soon the carry c fades. 0 or more.

        Raises:
            ValueError: a number is out of its range.
        """
        if not 0 <= recurrent_scale <= 1 or forget_shift < 0:
            raise ValueError(
                "recurrent_scale, forget_shift: expected 0 to 1 and 0 or more, received "
                f"{recurrent_scale} and {forget_shift}"
            )
        for layer in self.object_network.layers:
            if isinstance(layer, ModulatedConvLSTM2DCell):
                layer.recurrent_kernel.assign(layer.recurrent_kernel * recurrent_scale)
                if layer.bias is not None:
                    forget = np.repeat([0.0, 1.0, 0.0, 0.0], layer.filters)  # the gates are i, f, c, o
                    layer.bias.assign(layer.bias - ops.cast(forget * forget_shift, layer.bias.dtype))

    def clip_model(self, length: int, height: int | None = None, width: int | None = None) -> keras.Model:
        """The network unrolled over a clip, sharing this model's weights: for training and for whole-clip inference.

        Inputs (a dict):
            frames: uint8 [B, length, H, W, 3].
            visual_guide: float32 [B, S, S, 3].
            spatial_guides: float32 [B, length, H, W, 1 (2 with the mask)], the guides from the annotation.
            own_guide: float32 [B, length]; 1 where the guide of a frame is made from the network's own prediction of
                the frame before (no gradient flows through it) instead. Its first column is ignored.

        Output: logits, float32 [B, length, H, W, 1]. Streaming the same guides frame by frame gives the same numbers.

        Args:
            length: number of frames.
            height, width: of the frames; None leaves them open.
        """
        inputs = {
            "frames": keras.Input((length, height, width, 3), dtype="uint8", name="frames"),
            "visual_guide": keras.Input((self.guide_size, self.guide_size, 3), name="visual_guide"),
            "spatial_guides": keras.Input((length, height, width, GUIDE_CHANNELS[self.guide]), name="spatial_guides"),
            "own_guide": keras.Input((length,), name="own_guide"),
        }
        logits = ClipUnroll(self, name="clip")(inputs)
        return keras.Model(inputs, logits, name=f"{self.name}_clip")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "recurrence": self.recurrence,
            "recurrent_channels": self.recurrent_channels,
        }


@keras.saving.register_keras_serializable(package="osmn_tf")
class ClipUnroll(GuidedUnroll):
    """Runs a one-frame model over a clip; see `ReConvNet.clip_model` for inputs and output."""

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        model, frames = self.model, inputs["frames"]
        batch, _, height, width, _ = ops.shape(frames)
        encoded = encode_clip(model.frame_encoder, frames, training)
        modulation = model.visual_modulator(inputs["visual_guide"], training=training)
        state = model.initial_state(batch, height, width)
        return unroll_clip(model.object_network, encoded, modulation, state, self.guide(inputs), training)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs["frames"].shape[:4], 1), dtype="float32")
