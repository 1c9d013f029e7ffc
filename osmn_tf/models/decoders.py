"""From feature maps to one logit a pixel.

`hypercolumn_*` are the decoders of the releases; `refinement` is this package's own for small models: coarse to fine,
each step merging the next finer map, so that outlines follow the image at half resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from osmn_tf.layers.fusion import SideFusion
from osmn_tf.layers.modulation import ObjectAxis
from osmn_tf.layers.upsampling import BilinearTransposedConv, CentreCropLike, CornerUpsampling, ResizeLike

Tensor = Any

REFINEMENT_CHANNELS = (16, 32, 48, 64, 96)  # at strides 2, 4, 8, 16, 32


def side_output(features: Tensor, channels: int, name: str, kernel_initializer: Any = "glorot_uniform") -> Tensor:
    """Linear 3x3 convolution that reduces a feature map to `channels`."""
    return layers.Conv2D(channels, 3, padding="same", kernel_initializer=kernel_initializer, name=name)(features)


def hypercolumn_vgg16(
    sides: Sequence[Tensor], guide: Tensor, kernel_initializer: Any = "glorot_uniform", head: str = ""
) -> Tensor:
    """Release decoder of the VGG form: one 1x1 over all sides, fixed bilinear upsampling, floor centre crop.

    Args:
        sides: linear side outputs at strides 2, 4, 8, 16; the first is the frame's (batch 1 or N).
        guide: [N, H, W, 1], gives the output size.
        kernel_initializer: of the 1x1.
        head: ending of the layers' names, for a second score from the same sides.
    """
    *scores, bias = SideFusion(kernel_initializer, dtype="float32", name=f"seg_upscore_fuse{head}")(sides)
    channels = sides[0].shape[-1]
    upsampled = []
    for level, score in enumerate(scores, start=2):
        name = f"seg_score_multi{level}_up{head}"
        x = BilinearTransposedConv(2 ** (level - 1), channels, dtype="float32", name=name)(score)
        upsampled.append(CentreCropLike(dtype="float32", name=f"seg_crop{level}{head}")(x, guide))
    return layers.Add(dtype="float32", name=f"seg_hypercolumn{head}")([*upsampled, bias])


def hypercolumn_mobilenet(sides: Sequence[Tensor], head: str = "") -> Tensor:
    """Release decoder of the MobileNet form: one 1x1 over all sides, to half resolution, to full resolution.

    Args:
        sides: linear side outputs at strides 4, 8, 16, 32; the first may be the frame's (batch 1 or N).
        head: as `hypercolumn_vgg16`.
    """
    *scores, bias = SideFusion(dtype="float32", name=f"seg_score{head}")(sides)
    upsampled = [
        CornerUpsampling(2**level, dtype="float32", name=f"seg_side{level}_up{head}")(score)
        for level, score in enumerate(scores, start=1)
    ]
    x = layers.Add(dtype="float32", name=f"seg_hypercolumn{head}")([*upsampled, bias])
    return CornerUpsampling(2, dtype="float32", name=f"seg_score_up{head}")(x)


def refinement_skip(features: Tensor, stride: int) -> Tensor:
    """1x1 convolution with ReLU that brings a feature map to its width in the refinement decoder."""
    channels = REFINEMENT_CHANNELS[stride.bit_length() - 2]
    return layers.Conv2D(channels, 1, activation="relu", name=f"seg_refine{stride}_skip")(features)


def refinement(skips: dict[int, Tensor], guide: Tensor, modulation: Tensor) -> Tensor:
    """Coarse-to-fine decoder.

    Args:
        skips: stride -> `refinement_skip` of the map with that stride; stride 2 may be the frame's (batch 1 or N).
        guide: [N, H, W, 1], gives the output size.
        modulation: [N, M], gives the number of objects.
    """
    return refinement_score(refined(skips, modulation), guide)


def refined(skips: dict[int, Tensor], modulation: Tensor) -> Tensor:
    """The features from which `refinement` scores, at stride 2."""
    coarsest, *finer = sorted(skips, reverse=True)
    x = skips[coarsest]
    for stride in finer:
        skip = skips[stride]
        x = ResizeLike(name=f"seg_refine{stride}_up")(x, skip)
        if stride == 2:
            skip = ObjectAxis(name="seg_refine2_per_object")(skip, modulation)
        x = layers.Concatenate(name=f"seg_refine{stride}_merge")([x, skip])
        channels = REFINEMENT_CHANNELS[stride.bit_length() - 2]
        x = layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"seg_refine{stride}")(x)
    return x


def refinement_score(x: Tensor, guide: Tensor, head: str = "") -> Tensor:
    """The logits of `refinement`; `head` as in `hypercolumn_vgg16`."""
    x = layers.Conv2D(1, 3, padding="same", dtype="float32", name=f"seg_refine_score{head}")(x)
    return ResizeLike(dtype="float32", name=f"seg_refine_score_up{head}")(x, guide)
