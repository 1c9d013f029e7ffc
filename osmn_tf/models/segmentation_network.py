"""The segmentation network, split where the object comes in.

`frame_encoder` holds the layers before the first modulation: it depends on the frame alone and runs once a frame,
however many objects there are. `object_network` holds the rest and runs on a batch of objects. Both are functional
models; with ConvLSTMs or matching the state is among the inputs and the outputs of `object_network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from osmn_tf.layers.conv_lstm import ModulatedConvLSTM2DCell
from osmn_tf.layers.modulation import Modulation

Tensor = Any

RECURRENT_LEVELS = 3  # ConvLSTMs follow the last three modulated blocks


@dataclass(frozen=True)
class Recurrence:
    """What makes an OSMN a ReConvNet.

    Attributes:
        mode: "residual" adds the modulated hidden state to the block's features, "replace" puts it in their place.
        channels: hidden channels of the three ConvLSTMs where they differ from the block's: a 1x1 convolution leads
            in and another one out. None: as many as the block has (the paper).
    """

    mode: str
    channels: tuple[int, ...] | None

    def hidden_channels(self, block_channels: Sequence[int]) -> tuple[int, ...]:
        """Hidden channels of each ConvLSTM, given its block's channels."""
        return self.channels or tuple(block_channels)


@dataclass(frozen=True)
class StateSpec:
    """One tensor of the state that a video has from frame to frame: [N, ceil(H / stride), ceil(W / stride), channels].

    H and W are the frame's, rounded up to multiples of the network's `size_multiple`.
    """

    name: str
    stride: int
    channels: int


@dataclass(frozen=True)
class SegmentationNetwork:
    """The two halves and what they exchange.

    Attributes:
        size_multiple: frames are padded to sides that are multiples of this.
    """

    frame_encoder: keras.Model
    object_network: keras.Model
    state: tuple[StateSpec, ...]
    size_multiple: int


class NetworkBuilder:
    """Collects the inputs and outputs of both halves while their graph is written down.

    Args:
        scales: how many scales of the modulation belong to convolutions; those of the ConvLSTMs follow.
        block_channels: of the blocks that ConvLSTMs follow.
        recurrence: None for a network without.
        guide_channels: of the spatial guide.

    Attributes:
        frame: uint8 [B, H, W, 3], the input of the frame encoder.
        guide: [N, H, W, guide_channels], the spatial guide.
        modulation: [N, M], all scales.
    """

    def __init__(
        self, scales: int, block_channels: Sequence[int], recurrence: Recurrence | None, guide_channels: int
    ) -> None:
        self.recurrence = recurrence
        self._hidden = recurrence.hidden_channels(block_channels) if recurrence else ()
        self._offset = scales  # of the next ConvLSTM's scales in the modulation
        self.frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
        self.guide = keras.Input((None, None, guide_channels), name="spatial_guide")
        self.modulation = keras.Input((scales + sum(self._hidden),), name="modulation")
        self._encoded: dict[str, Tensor] = {}  # outputs of the frame encoder
        self._received: dict[str, Tensor] = {}  # the same as inputs of the object network
        self._state: list[StateSpec] = []
        self._old_state: dict[str, Tensor] = {}
        self._new_state: dict[str, Tensor] = {}

    def hand_over(self, name: str, x: Tensor) -> Tensor:
        """Ends the frame encoder at `x`, and returns what the object network receives in its place."""
        self._encoded[name] = x
        self._received[name] = keras.Input(x.shape[1:], name=name)
        return self._received[name]

    def old_state(self, name: str, stride: int, channels: int) -> Tensor:
        """The state `name` as the frame before has left it; see `StateSpec`."""
        self._state.append(StateSpec(name, stride, channels))
        self._old_state[name] = keras.Input((None, None, channels), name=name)
        return self._old_state[name]

    def new_state(self, name: str, x: Tensor) -> None:
        """Makes `x` what the next frame gets as its `old_state`."""
        self._new_state[name] = x

    def recurrent(self, x: Tensor, name: str, stride: int, level: int) -> Tensor:
        """The modulated ConvLSTM `name` behind the features `x` of the recurrent level 0, 1 or 2; `x` without one."""
        if self.recurrence is None:
            return x
        channels, hidden = x.shape[-1], self._hidden[level]
        states = [self.old_state(f"{name}_{part}", stride, hidden) for part in ("h", "c")]
        y = x
        if self.recurrence.channels is not None:
            y = layers.Conv2D(hidden, 1, name=f"seg_{name}_in")(y)
        y, (h, c) = ModulatedConvLSTM2DCell(hidden, name=f"seg_{name}")(y, states)
        self.new_state(f"{name}_h", h)
        self.new_state(f"{name}_c", c)
        y = Modulation(self._offset, name=f"seg_{name}_modulation")(y, self.modulation)
        self._offset += hidden
        if self.recurrence.channels is not None:
            y = layers.Conv2D(channels, 1, name=f"seg_{name}_out")(y)
        if self.recurrence.mode == "residual":
            y = layers.Add(name=f"seg_{name}_residual")([x, y])
        return y

    def network(self, logits: Tensor, size_multiple: int = 1) -> SegmentationNetwork:
        """Both halves, once the graph has arrived at its logits, [N, H, W, 1]."""
        inputs = {**self._received, "spatial_guide": self.guide, "modulation": self.modulation, **self._old_state}
        return SegmentationNetwork(
            frame_encoder=keras.Model({"frame": self.frame}, self._encoded, name="frame_encoder"),
            object_network=keras.Model(inputs, {"logits": logits, **self._new_state}, name="object_network"),
            state=tuple(self._state),
            size_multiple=size_multiple,
        )
