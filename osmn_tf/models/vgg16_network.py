"""The modulated networks on VGG-16, as the release has them."""

from __future__ import annotations

from typing import Any

from keras import layers

from osmn_tf.backbones.vgg16 import VGG16
from osmn_tf.layers.modulation import Modulation
from osmn_tf.models import decoders, modulators
from osmn_tf.models.modulated import FORMS, ModulatedForm
from osmn_tf.models.modulators import spatial_shift
from osmn_tf.models.segmentation_network import RECURRENT_LEVELS, SegmentationNetwork

Tensor = Any

MODULATED_BLOCKS = (3, 4, 5)
SIDES = {2: "seg_conv2_2_16", 3: "seg_conv3_3_16", 4: "seg_conv4_3_16", 5: "seg_conv5_3_16"}


@FORMS.register("vgg16")
class VGG16Form(ModulatedForm):
    """VGG-16 trunk without pool5; conv3_1 to conv5_3 modulated (all with `modulate_early`), any frame size."""

    visual_heads = ("fc", "pooled")
    normalization = "caffe"
    modulates_early = True

    @property
    def first_modulated(self) -> int:
        """The block with which modulation begins."""
        return 1 if self.arguments.modulate_early else MODULATED_BLOCKS[0]

    @property
    def heads(self) -> dict[str, int]:
        return {"modulator_fc8": sum(sum(channels) for channels in self.backbone.blocks[self.first_modulated - 1 :])}

    @property
    def recurrent_blocks(self) -> tuple[int, ...]:
        return self.backbone.channels[-RECURRENT_LEVELS:]

    def visual_features(self, guide: Tensor) -> Tensor:
        """The "fc" head is the release's fc6 and fc7, "pooled" a global average and one layer."""
        x = self.backbone.features(guide, "modulator")[16]
        if self.arguments.visual_head == "pooled":
            return modulators.pooled_features(x, self.arguments.visual_hidden, "modulator_hidden")
        x = self.backbone.pooling(5, "modulator")(x)
        x = layers.Conv2D(VGG16.hidden, 7, activation="relu", name="modulator_fc6")(x)
        x = layers.Dropout(0.5, name="modulator_dropout6")(x)
        x = layers.Conv2D(VGG16.hidden, 1, activation="relu", name="modulator_fc7")(x)
        return layers.Dropout(0.5, name="modulator_dropout7")(x)

    def segmentation_network(self) -> SegmentationNetwork:
        build, backbone, arguments = self.builder(), self.backbone, self.arguments
        x, pooled_guide, offset = self.normalize("seg")(build.frame), build.guide, 0
        maps: dict[int, Tensor] = {}
        for block, channels in enumerate(backbone.blocks, start=1):
            stride = 2 ** (block - 1)
            if block > 1:
                x = backbone.pooling(block - 1, "seg")(x)
                pooled_guide = layers.AveragePooling2D(2, padding="same", name=f"guide_pool{block - 1}")(pooled_guide)
            modulated = block >= self.first_modulated
            if modulated:
                name = f"modulator_sp_conv{block}"
                shift = spatial_shift(pooled_guide, sum(channels), name, arguments.batch_statistics)
            start = 0
            for index, width in enumerate(channels, start=1):
                x = backbone.convolution(block, index, "seg")(x)
                if block == self.first_modulated and index == 1:
                    x = build.hand_over(f"conv{block}_1", x)
                if modulated:
                    # The scales of all blocks follow each other; the shift's channels start again in every block.
                    modulate = Modulation(offset, name=f"seg_conv{block}_{index}_modulation")
                    x = modulate(x, build.modulation, shift[..., start : start + width])
                    offset, start = offset + width, start + width
            level = block - 1 - (len(backbone.blocks) - RECURRENT_LEVELS)
            if level >= 0:
                x = build.recurrent(x, f"conv{block}_lstm", stride, level)
            maps[stride] = x

        if arguments.decoder == "hypercolumn":
            side_of = decoders.side_output
            sides = [side_of(maps[2 ** (block - 1)], arguments.side_channels, name) for block, name in SIDES.items()]
            if not arguments.modulate_early:
                sides[0] = build.hand_over("side2", sides[0])
            return build.network(decoders.hypercolumn_vgg16(sides, build.guide))
        skips = {stride: decoders.refinement_skip(x, stride) for stride, x in maps.items() if stride > 1}
        if not arguments.modulate_early:
            skips[2] = build.hand_over("skip2", skips[2])
        return build.network(decoders.refinement(skips, build.guide, build.modulation))
