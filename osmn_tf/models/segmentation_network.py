"""The segmentation network, split where the object comes in.

`frame_encoder` holds the layers before the first modulation: it depends on the frame alone and runs once a frame,
however many objects there are. `object_network` holds the rest and runs on a batch of objects. Both are functional
models; with ConvLSTMs the state is among the inputs and the outputs of `object_network`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from osmn_tf.backbones import mobilenet, vgg16
from osmn_tf.layers.conv_lstm import ModulatedConvLSTM2DCell
from osmn_tf.layers.modulation import Modulation
from osmn_tf.layers.preprocessing import FrameNormalization, PadToMultiple
from osmn_tf.layers.upsampling import TopLeftCropLike
from osmn_tf.models import decoders
from osmn_tf.models.modulators import spatial_shift

Tensor = Any

VGG16_MODULATED_BLOCKS = (3, 4, 5)
VGG16_SIDES = {2: "seg_conv2_2_16", 3: "seg_conv3_3_16", 4: "seg_conv4_3_16", 5: "seg_conv5_3_16"}
MOBILENET_MODULATED = (3, 5, 11, 13)  # pointwise layers, at strides 4, 8, 16, 32
MOBILENET_STRIDE = 32
RECURRENT_LEVELS = 3  # ConvLSTMs follow the last three blocks


@dataclass(frozen=True)
class Recurrence:
    """What makes an OSMN a ReConvNet.

    Attributes:
        mode: "residual" adds the modulated hidden state to the block's features, "replace" puts it in their place.
        channels: hidden channels of the three ConvLSTMs where they differ from the block's: a 1x1 convolution leads
            in and another one out. None: as many as the block has (the paper).
    """

    mode: str
    channels: tuple[int, int, int] | None

    def hidden_channels(self, block_channels: tuple[int, ...]) -> tuple[int, ...]:
        """Hidden channels of each ConvLSTM, given its block's channels."""
        return self.channels or block_channels


@dataclass(frozen=True)
class StateSpec:
    """One tensor of the recurrent state: [N, ceil(H / stride), ceil(W / stride), channels].

    On MobileNet H and W are those of the padded frame, multiples of 32.
    """

    name: str
    stride: int
    channels: int


@dataclass(frozen=True)
class SegmentationNetwork:
    """The two halves and what they exchange."""

    frame_encoder: keras.Model
    object_network: keras.Model
    state: tuple[StateSpec, ...]


class _StateBuilder:
    """Collects the state inputs and outputs while the object network's graph is written down."""

    def __init__(self, recurrence: Recurrence | None, offset: int) -> None:
        self.recurrence = recurrence
        self.offset = offset  # of the next ConvLSTM's scales in the modulation
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.specs: list[StateSpec] = []

    def __call__(self, x: Tensor, modulation: Tensor, name: str, stride: int, hidden: int) -> Tensor:
        if self.recurrence is None:
            return x
        channels = x.shape[-1]
        states = []
        for part in ("h", "c"):
            spec = StateSpec(f"{name}_{part}", stride, hidden)
            self.specs.append(spec)
            self.inputs[spec.name] = keras.Input((None, None, hidden), name=spec.name)
            states.append(self.inputs[spec.name])
        y = x
        if self.recurrence.channels is not None:
            y = layers.Conv2D(hidden, 1, name=f"seg_{name}_in")(y)
        y, (h, c) = ModulatedConvLSTM2DCell(hidden, name=f"seg_{name}")(y, states)
        self.outputs[f"{name}_h"], self.outputs[f"{name}_c"] = h, c
        y = Modulation(self.offset, name=f"seg_{name}_modulation")(y, modulation)
        self.offset += hidden
        if self.recurrence.channels is not None:
            y = layers.Conv2D(channels, 1, name=f"seg_{name}_out")(y)
        if self.recurrence.mode == "residual":
            y = layers.Add(name=f"seg_{name}_residual")([x, y])
        return y


def vgg16_network(
    normalization: FrameNormalization,
    scales: int,
    modulation_size: int,
    recurrence: Recurrence | None,
    decoder: str,
    side_channels: int,
    modulate_early: bool,
    batch_statistics: bool,
) -> SegmentationNetwork:
    """VGG-16 trunk without pool5; conv3_1 to conv5_3 modulated (all with `modulate_early`), any frame size.

    Args:
        scales: how many of the `modulation_size` scales belong to convolutions.
    """
    frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
    guide = keras.Input((None, None, 1), name="spatial_guide")
    modulation = keras.Input((modulation_size,), name="modulation")
    recurrent = _StateBuilder(recurrence, offset=scales)
    shared: dict[str, Tensor] = {}  # outputs of the frame encoder
    received: dict[str, Tensor] = {}  # the same as inputs of the object network

    def hand_over(name: str, x: Tensor) -> Tensor:
        shared[name] = x
        received[name] = keras.Input(x.shape[1:], name=name)
        return received[name]

    first_modulated = 1 if modulate_early else VGG16_MODULATED_BLOCKS[0]
    x, pooled_guide, offset = normalization(frame), guide, 0
    maps: dict[int, Tensor] = {}
    for block, channels in enumerate(vgg16.BLOCKS, start=1):
        if block > 1:
            x = vgg16.pooling(block - 1, "seg")(x)
            pooled_guide = layers.AveragePooling2D(2, padding="same", name=f"guide_pool{block - 1}")(pooled_guide)
        modulated = block >= first_modulated
        if modulated:
            shift = spatial_shift(pooled_guide, sum(channels), f"modulator_sp_conv{block}", batch_statistics)
        start = 0
        for index, width in enumerate(channels, start=1):
            x = vgg16.convolution(block, index, "seg")(x)
            if block == first_modulated and index == 1:
                x = hand_over(f"conv{block}_1", x)
            if modulated:
                # The scales of all blocks follow each other; the shift's channels start again in every block.
                modulate = Modulation(offset, name=f"seg_conv{block}_{index}_modulation")
                x = modulate(x, modulation, shift[..., start : start + width])
                offset, start = offset + width, start + width
        level = block - (len(vgg16.BLOCKS) - RECURRENT_LEVELS)
        if level >= 1:
            hidden = recurrence.hidden_channels(tuple(c[-1] for c in vgg16.BLOCKS[-3:])) if recurrence else (0, 0, 0)
            x = recurrent(x, modulation, f"conv{block}_lstm", 2 ** (block - 1), hidden[level - 1])
        maps[block] = x

    if decoder == "hypercolumn":
        sides = [decoders.side_output(maps[block], side_channels, name) for block, name in VGG16_SIDES.items()]
        if not modulate_early:
            sides[0] = hand_over("side2", sides[0])
        logits = decoders.hypercolumn_vgg16(sides, guide)
    else:
        skips = {2 ** (block - 1): decoders.refinement_skip(maps[block], 2 ** (block - 1)) for block in VGG16_SIDES}
        if not modulate_early:
            skips[2] = hand_over("skip2", skips[2])
        logits = decoders.refinement(skips, guide, modulation)
    return _network(frame, shared, received, guide, modulation, recurrent, logits)


def mobilenet_network(
    normalization: FrameNormalization,
    modulation_size: int,
    recurrence: Recurrence | None,
    decoder: str,
    side_channels: int,
    batch_statistics: bool,
) -> SegmentationNetwork:
    """MobileNet-v1 trunk; pointwise layers 3, 5, 11, 13 modulated after ReLU6.

    The release takes sides that are multiples of 32 only; other sizes are padded inside, at the bottom and the right,
    with the mean colour and an empty guide, and the logits are cropped back.
    """
    frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
    guide = keras.Input((None, None, 1), name="spatial_guide")
    modulation = keras.Input((modulation_size,), name="modulation")
    scales = sum(mobilenet.BLOCKS[index - 1][0] for index in MOBILENET_MODULATED)
    recurrent = _StateBuilder(recurrence, offset=scales)
    shared: dict[str, Tensor] = {}
    received: dict[str, Tensor] = {}

    def hand_over(name: str, x: Tensor) -> Tensor:
        shared[name] = x
        received[name] = keras.Input(x.shape[1:], name=name)
        return received[name]

    padded_guide = PadToMultiple(MOBILENET_STRIDE, name="guide_pad")(guide)
    pooled_guide = layers.AveragePooling2D(2, padding="valid", name="guide_pool1")(padded_guide)
    x = PadToMultiple(MOBILENET_STRIDE, name="frame_pad")(normalization(frame))
    x = mobilenet.stem(x, "seg", batch_statistics)
    offset, stride = 0, 2
    maps: dict[int, Tensor] = {}
    for index, (channels, block_stride) in enumerate(mobilenet.BLOCKS, start=1):
        x = mobilenet.block(x, index, "seg", batch_statistics)
        if block_stride == 2:
            stride *= 2
            pooled_guide = layers.AveragePooling2D(2, padding="valid", name=f"guide_pool{stride}")(pooled_guide)
        if index == 1:
            maps[stride] = x
        if index in MOBILENET_MODULATED:
            level = MOBILENET_MODULATED.index(index)
            if level == 0:
                x = hand_over(f"Conv2d_{index}", x)
            shift = spatial_shift(pooled_guide, channels, f"modulator_sp_conv{index}", batch_statistics)
            x = Modulation(offset, name=f"seg_Conv2d_{index}_modulation")(x, modulation, shift)
            offset += channels
            if level >= 1:
                widths = tuple(mobilenet.BLOCKS[i - 1][0] for i in MOBILENET_MODULATED[1:])
                hidden = recurrence.hidden_channels(widths) if recurrence else (0, 0, 0)
                x = recurrent(x, modulation, f"Conv2d_{index}_lstm", stride, hidden[level - 1])
            maps[stride] = x

    if decoder == "hypercolumn":
        sides = [
            decoders.side_output(maps[2 ** (level + 2)], side_channels, f"seg_conv{index}_16")
            for level, index in enumerate(MOBILENET_MODULATED)
        ]
        logits = decoders.hypercolumn_mobilenet(sides)
    else:
        skips = {stride: decoders.refinement_skip(x, stride) for stride, x in maps.items()}
        skips[2] = hand_over("skip2", skips[2])
        logits = decoders.refinement(skips, padded_guide, modulation)
    logits = TopLeftCropLike(dtype="float32", name="seg_unpad")(logits, guide)
    return _network(frame, shared, received, guide, modulation, recurrent, logits)


def _network(
    frame: Tensor,
    shared: dict[str, Tensor],
    received: dict[str, Tensor],
    guide: Tensor,
    modulation: Tensor,
    recurrent: _StateBuilder,
    logits: Tensor,
) -> SegmentationNetwork:
    return SegmentationNetwork(
        frame_encoder=keras.Model({"frame": frame}, shared, name="frame_encoder"),
        object_network=keras.Model(
            {**received, "spatial_guide": guide, "modulation": modulation, **recurrent.inputs},
            {"logits": logits, **recurrent.outputs},
            name="object_network",
        ),
        state=tuple(recurrent.specs),
    )
