"""The modulated networks on MobileNet-v1, as the release's small form has them."""

from __future__ import annotations

from typing import Any, ClassVar

from osmn_tf.layers.modulation import Modulation
from osmn_tf.layers.pooling import BlockAverage
from osmn_tf.layers.preprocessing import PadToMultiple
from osmn_tf.layers.upsampling import TopLeftCropLike
from osmn_tf.models import decoders, modulators
from osmn_tf.models.modulated import FORMS, ModulatedForm
from osmn_tf.models.segmentation_network import SegmentationNetwork

Tensor = Any

MODULATED = (3, 5, 11, 13)  # pointwise layers, at strides 4, 8, 16, 32
SIZE_MULTIPLE = 32


@FORMS.register("mobilenet")
class MobileNetForm(ModulatedForm):
    """MobileNet-v1 trunk; pointwise layers 3, 5, 11, 13 modulated after ReLU6.

    The release takes sides that are multiples of 32 only; other sizes are padded inside, at the bottom and the right,
    with the mean colour and an empty guide, and the logits are cropped back.

    Attributes:
        modulated: the pointwise layers that are, counted from 1, one at each of the strides 4, 8, 16 and 32.
    """

    visual_heads = ("pooled",)
    normalization = "caffe_scaled"
    modulated: ClassVar[tuple[int, ...]] = MODULATED

    @property
    def heads(self) -> dict[str, int]:
        channels = [self.backbone.channels[index - 1] for index in self.modulated]
        return {f"Conv2d_out_{number}": width for number, width in enumerate(channels, start=1)}

    @property
    def recurrent_blocks(self) -> tuple[int, ...]:
        return tuple(self.backbone.channels[index - 1] for index in self.modulated[1:])

    def segmentation_network(self) -> SegmentationNetwork:
        build, backbone, arguments = self.builder(), self.backbone, self.arguments
        padded_guide = PadToMultiple(SIZE_MULTIPLE, name="guide_pad")(build.guide)
        pooled_guide = BlockAverage(2, name="guide_pool1")(padded_guide)
        x = PadToMultiple(SIZE_MULTIPLE, name="frame_pad")(self.normalize("seg")(build.frame))
        x = backbone.stem(x, "seg")
        offset, stride = 0, 2
        maps: dict[int, Tensor] = {}
        for index, (channels, step) in enumerate(zip(backbone.channels, backbone.strides), start=1):
            x = backbone.block(x, index, "seg")
            if step == 2:
                stride *= 2
                pooled_guide = BlockAverage(2, name=f"guide_pool{stride}")(pooled_guide)
            if index == 1:
                maps[stride] = x
            if index in self.modulated:
                level = self.modulated.index(index)
                if level == 0:
                    x = build.hand_over(f"Conv2d_{index}", x)
                name = f"modulator_sp_conv{index}"
                shift = modulators.spatial_shift(pooled_guide, channels, name, arguments.batch_statistics)
                x = Modulation(offset, name=f"seg_Conv2d_{index}_modulation")(x, build.modulation, shift)
                offset += channels
                if level >= 1:
                    x = build.recurrent(x, f"Conv2d_{index}_lstm", stride, level - 1)
                maps[stride] = x

        if arguments.decoder == "hypercolumn":
            sides = [
                decoders.side_output(maps[2 ** (level + 2)], arguments.side_channels, f"seg_conv{index}_16")
                for level, index in enumerate(self.modulated)
            ]
            logits = decoders.hypercolumn_mobilenet(sides)
        else:
            skips = {stride: decoders.refinement_skip(x, stride) for stride, x in maps.items()}
            skips[2] = build.hand_over("skip2", skips[2])
            logits = decoders.refinement(skips, padded_guide, build.modulation)
        logits = TopLeftCropLike(dtype="float32", name="seg_unpad")(logits, build.guide)
        return build.network(logits, SIZE_MULTIPLE)
