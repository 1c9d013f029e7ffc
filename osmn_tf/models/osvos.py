"""OSVOS: one network for one object, learned from its first frame (Caelles et al., CVPR 2017); the heads of OSVOS-S."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.layers.preprocessing import NORMALIZATIONS, FrameNormalization, PadToMultiple
from osmn_tf.layers.upsampling import BilinearTransposedConv, CentreCropLike, CornerUpsampling, TopLeftCropLike
from osmn_tf.models import decoders
from osmn_tf.models.mobilenet_network import MODULATED, SIZE_MULTIPLE
from osmn_tf.models.modulated import DECODERS, check_choice
from osmn_tf.models.network import Network
from osmn_tf.models.registry import register_network
from osmn_tf.models.vgg16_network import SIDES

Tensor = Any

CONDITIONAL = ("inside", "outside")  # outputs of the conditional heads
LEVELS = (2, 3, 4, 5)  # of the side outputs, fine to coarse
# Names that OSMN shares, so that its weights fit.
_LIGHT_SIDES = {"mobilenet": {level: f"seg_conv{index}_16" for level, index in zip(LEVELS, MODULATED)}}


@register_network("OSVOS")
class OSVOS(Network):
    """OSVOS as a functional model: OSMN's segmentation network without modulation, every frame on its own.

    The network knows one object, by its weights: a parent, trained on many videos, is trained on with the frames in
    which the object is given. Layers that OSMN has too have the same names, so that weights fit both ways.

    Input: "frame" (a dict), uint8 [B, H, W, 3], raw RGB; any H and W.

    Outputs (a dict): "logits", float32 [B, H, W, 1], and with the hypercolumn decoder "side2" to "side5", the scores
    of the side outputs alone, of the same size: they get losses of their own when a parent is trained. A pixel is the
    object's where the logit is above 0 (the paper cuts the probability at 162 / 255). With `conditional` also "inside"
    and "outside", logits of the same size (OSVOS-S; see `osmn_tf.layers.conditional_classifier`).

    Args:
        backbone: "vgg16" (the release; 14,917,637 parameters that are trained), or "mobilenet" or another one that
            reaches stride 32.
        decoder: "hypercolumn" (the release), or "refinement" (coarse to fine, with learnt convolutions; for small
            networks, not in the paper).
        side_channels: channels of each side output of the hypercolumn.
        block_channels: channels of the trunk's blocks; None: as published.
        normalization: one of `NORMALIZATIONS`; default: the release's on VGG-16, else that of the backbone's ImageNet
            weights.
        batch_statistics: False trains with BatchNorm's stored statistics (see `BatchNorm`).
        network_size: (H, W) at which videos are segmented unless told otherwise; the network itself takes any size.
        conditional: two more heads on the same features, as deep as the first one, for the pixels inside and outside of
            a detector's instances (Maninis et al., 2018, do not say how deep theirs are).

    Raises:
        ValueError: an argument is none of its choices, or a number is out of its range.
        InputError: there is no such backbone.
    """

    task_name = "osvos_parent"

    def __init__(
        self,
        backbone: str = "vgg16",
        decoder: str = "hypercolumn",
        side_channels: int = 16,
        block_channels: Sequence[int] | None = None,
        normalization: str | None = None,
        batch_statistics: bool = True,
        network_size: tuple[int, int] = (480, 854),
        conditional: bool = False,
        **kwargs: Any,
    ) -> None:
        check_choice("decoder", decoder, DECODERS)
        if side_channels < 1:
            raise ValueError(f"side_channels: expected 1 or more, received {side_channels}")
        if len(network_size) != 2 or min(network_size) < 1:
            raise ValueError(f"network_size: expected a positive height and width, received {network_size}")
        trunk = BACKBONES.get(backbone)(block_channels, batch_statistics)
        release = backbone == "vgg16"
        normalization = normalization or ("osvos" if release else trunk.imagenet_normalization)
        check_choice("normalization", normalization, tuple(NORMALIZATIONS))

        frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
        x = FrameNormalization.of_kind(normalization, "seg_normalization")(frame)
        if not release:
            x = PadToMultiple(SIZE_MULTIPLE, name="frame_pad")(x)
        maps = trunk.features(x, "seg")
        missing = [] if release else [stride for stride in (2, 4, 8, 16, 32) if stride not in maps]
        if missing:
            raise ValueError(f"backbone: expected feature maps at strides 2 to 32, {backbone!r} has none at {missing}")
        heads = {"logits": ""} | ({name: f"_{name}" for name in CONDITIONAL} if conditional else {})
        if decoder == "refinement":
            skips = {stride: decoders.refinement_skip(maps[stride], stride) for stride in maps if stride > 1}
            refined = decoders.refined(skips, x)
            outputs = {name: decoders.refinement_score(refined, x, head) for name, head in heads.items()}
        elif release:
            outputs = _release_outputs(maps, frame, side_channels, heads)
        else:
            outputs = _light_outputs(maps, side_channels, _LIGHT_SIDES.get(backbone, {}), heads)
        if not release:
            outputs = {
                name: TopLeftCropLike(dtype="float32", name=f"seg_unpad_{name}")(x, frame)
                for name, x in outputs.items()
            }
        super().__init__({"frame": frame}, outputs, **kwargs)
        self.backbone = backbone
        self.decoder = decoder
        self.side_channels = side_channels
        self.block_channels = None if block_channels is None else [int(number) for number in block_channels]
        self.normalization = normalization
        self.batch_statistics = batch_statistics
        self.network_size = (int(network_size[0]), int(network_size[1]))
        self.conditional = conditional

    def initial_state(self, objects: int, height: int, width: int) -> dict[str, Tensor]:
        """What goes on from frame to frame: nothing."""
        return {}

    def with_conditional_heads(self) -> OSVOS:
        """A copy of this network with the heads "inside" and "outside", which begin as copies of the first one: for
        any weight, the conditional classifier gives what the network gives."""
        copy = OSVOS(**{**self.get_config(), "conditional": True, "name": f"{self.name}_conditional"})
        own = {weight.path: weight for weight in self.weights}
        for weight in copy.weights:
            path = weight.path
            for name in CONDITIONAL:
                path = path.replace(f"_{name}/", "/")
            # JAX would share the buffer.
            weight.assign(ops.copy(own[weight.path] if weight.path in own else own[path]))
        return copy

    def load_backbone_weights(self, weights: str = "imagenet") -> None:
        """Initialises the trunk from an image classifier (see `Backbone.load_imagenet_weights`).

        Args:
            weights: "imagenet" or the path of a weight file; MobileNet's without the top.
        """
        trunk = BACKBONES.get(self.backbone)(self.block_channels, self.batch_statistics)
        trunk.load_imagenet_weights(self, "seg", weights)


def _release_outputs(
    maps: Mapping[int, Tensor], frame: Tensor, side_channels: int, heads: Mapping[str, str]
) -> dict[str, Tensor]:
    """VGG-16: side outputs at strides 2 to 16, fixed bilinear kernels, floor centre crop."""
    sides = {
        level: decoders.side_output(maps[2 ** (level - 1)], side_channels, SIDES[level], _small()) for level in LEVELS
    }
    fused = list(sides.values())
    outputs = {name: decoders.hypercolumn_vgg16(fused, frame, _small(), head) for name, head in heads.items()}
    for level, side in sides.items():
        x = _side_score(side, level, _small())
        x = BilinearTransposedConv(2 ** (level - 1), dtype="float32", name=f"seg_score_dsn_{level}_up")(x)
        outputs[f"side{level}"] = CentreCropLike(dtype="float32", name=f"seg_score_dsn_{level}_crop")(x, frame)
    return outputs


def _light_outputs(
    maps: Mapping[int, Tensor], side_channels: int, names: Mapping[int, str], heads: Mapping[str, str]
) -> dict[str, Tensor]:
    """Side outputs at strides 4 to 32, as OSMN's small form has them."""
    sides = {
        level: decoders.side_output(maps[2**level], side_channels, names.get(level, f"seg_side{level}"))
        for level in LEVELS
    }
    outputs = {name: decoders.hypercolumn_mobilenet(list(sides.values()), head) for name, head in heads.items()}
    for level, side in sides.items():
        upsampling = CornerUpsampling(2**level, dtype="float32", name=f"seg_score_dsn_{level}_up")
        outputs[f"side{level}"] = upsampling(_side_score(side, level))
    return outputs


def _side_score(side: Tensor, level: int, kernel_initializer: Any = "glorot_uniform") -> Tensor:
    """One logit from a side output alone ("score-dsn" in the release)."""
    name = f"seg_score_dsn_{level}"
    return layers.Conv2D(1, 1, kernel_initializer=kernel_initializer, dtype="float32", name=name)(side)


def _small() -> keras.initializers.Initializer:
    """How the release initialises new layers; a new one for each, as one alone gives the same numbers every time."""
    return keras.initializers.RandomNormal(stddev=0.001)
