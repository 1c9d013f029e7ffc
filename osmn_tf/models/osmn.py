"""OSMN: one-shot video object segmentation by network modulation (Yang et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from osmn_tf.backbones import mobilenet, vgg16
from osmn_tf.guides import VGG_MEAN_RGB
from osmn_tf.layers.preprocessing import FrameNormalization
from osmn_tf.models.modulators import mobilenet_visual_modulator, vgg16_visual_modulator
from osmn_tf.models.network import Network
from osmn_tf.models.registry import register_network
from osmn_tf.models.segmentation_network import (
    MOBILENET_MODULATED,
    MOBILENET_STRIDE,
    Recurrence,
    mobilenet_network,
    vgg16_network,
)

Tensor = Any

NORMALIZATIONS: dict[str, dict[str, Any]] = {
    # RGB to BGR, minus the mean: VGG-16 everywhere.
    "caffe": {"mean": VGG_MEAN_RGB, "scale": 1.0, "to_bgr": True},
    # The same, scaled: the release's MobileNet form.
    "caffe_scaled": {"mean": VGG_MEAN_RGB, "scale": 0.00787, "to_bgr": True},
    # RGB to [-1, 1]: MobileNets of keras.applications.
    "signed_unit": {"mean": (127.5, 127.5, 127.5), "scale": 1 / 127.5, "to_bgr": False},
}
# The small head spares 150 M parameters that a step never uses.
UNTRAINED: Mapping[str, Any] = {"visual_head": "pooled", "visual_hidden": 64}
_VGG16_GUIDE_SIZE = 224  # fc6 is a 7x7 VALID convolution behind five poolings


def _choice(argument: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}: expected one of {', '.join(allowed)}, received {value!r}")


@register_network("OSMN")
class OSMN(Network):
    """OSMN as a functional model, on VGG-16 (165,277,953 parameters) or MobileNet-v1 (12,777,217).

    The defaults are the original release. The whole model is for training on single frames; video runs on its parts:

    * `visual_modulator`: visual guide [N, S, S, 3] -> modulation [N, M]. Once for every object.
    * `frame_encoder`: {"frame"} -> dict of features that depend on no object. Once for every frame.
    * `object_network`: {features..., "spatial_guide", "modulation", state...} -> {"logits", state...}. On a batch of
      objects; the features' batch may be 1, to be shared by all.

    Inputs (a dict):
        frame: uint8 [B, H, W, 3], raw RGB; any H and W.
        visual_guide: float32 [B, guide_size, guide_size, 3], RGB 0..255 (`osmn_tf.guides.visual_guide`).
        spatial_guide: float32 [B, H, W, 1], 0..1 (`osmn_tf.guides.spatial_guide`).

    Output: logits, float32 [B, H, W, 1]; a pixel is the object's where the logit is above 0.

    Args:
        backbone: "vgg16", or "mobilenet" (v1, width 1.0) for both trunks.
        visual_head: "fc" (release; VGG-16 only: fc6 and fc7, 119 M parameters) or "pooled" (global average and one
            hidden layer). Default: the release's form of the backbone.
        visual_hidden: width of the pooled head's hidden layer.
        guide_size: side S of the visual guide in pixels; 224 with the "fc" head.
        decoder: "hypercolumn" (release) or "refinement" (coarse to fine, with learnt convolutions; not in the paper).
        side_channels: channels of each side output of the hypercolumn.
        modulate_early: modulate the first four convolutions too (a release option; VGG-16 only).
        normalization: "caffe", "caffe_scaled" or "signed_unit"; default: the release's for the backbone.
        batch_statistics: False trains with BatchNorm's stored statistics (see `BatchNorm`).
        network_size: (H, W) at which videos are segmented unless the segmenter is told otherwise; the network itself
            takes any size.

    Raises:
        ValueError: an argument is none of its choices, or a combination is impossible.
    """

    task_name = "osmn"
    untrained: ClassVar = {"osmn_vgg16": UNTRAINED}

    def __init__(
        self,
        backbone: str = "vgg16",
        visual_head: str | None = None,
        visual_hidden: int = 2048,
        guide_size: int = _VGG16_GUIDE_SIZE,
        decoder: str = "hypercolumn",
        side_channels: int = 16,
        modulate_early: bool = False,
        normalization: str | None = None,
        batch_statistics: bool = True,
        network_size: tuple[int, int] = (480, 854),
        **kwargs: Any,
    ) -> None:
        recurrence: Recurrence | None = kwargs.pop("_recurrence", None)
        unknown = sorted(set(kwargs) - {"name", "trainable"})
        if unknown:  # Keras would ignore them
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}")
        _choice("backbone", backbone, ("vgg16", "mobilenet"))
        vgg = backbone == "vgg16"
        visual_head = visual_head or ("fc" if vgg else "pooled")
        normalization = normalization or ("caffe" if vgg else "caffe_scaled")
        _choice("visual_head", visual_head, ("fc", "pooled") if vgg else ("pooled",))
        _choice("decoder", decoder, ("hypercolumn", "refinement"))
        _choice("normalization", normalization, tuple(NORMALIZATIONS))
        if visual_head == "fc" and guide_size != _VGG16_GUIDE_SIZE:
            raise ValueError(f"guide_size: the fc head takes {_VGG16_GUIDE_SIZE}, received {guide_size}")
        if len(network_size) != 2 or min(network_size) < 1:
            raise ValueError(f"network_size: expected a positive height and width, received {network_size}")
        if modulate_early and not vgg:
            raise ValueError("modulate_early: only the vgg16 backbone has this option")

        def normalize(name: str) -> FrameNormalization:
            return FrameNormalization(**NORMALIZATIONS[normalization], name=f"{name}_normalization")

        if vgg:
            first_block = 1 if modulate_early else 3
            scales = sum(sum(channels) for channels in vgg16.BLOCKS[first_block - 1 :])
            block_channels = tuple(channels[-1] for channels in vgg16.BLOCKS[-3:])
        else:
            head_channels = [mobilenet.BLOCKS[index - 1][0] for index in MOBILENET_MODULATED]
            scales = sum(head_channels)
            block_channels = tuple(head_channels[1:])
        recurrent_scales = sum(recurrence.hidden_channels(block_channels)) if recurrence else 0
        if vgg:
            modulator = vgg16_visual_modulator(
                guide_size, normalize("modulator"), scales, recurrent_scales, visual_head, visual_hidden
            )
            network = vgg16_network(
                normalize("seg"),
                scales,
                scales + recurrent_scales,
                recurrence,
                decoder,
                side_channels,
                modulate_early,
                batch_statistics,
            )
        else:
            modulator = mobilenet_visual_modulator(
                guide_size, normalize("modulator"), head_channels, recurrent_scales, visual_hidden, batch_statistics
            )
            network = mobilenet_network(
                normalize("seg"), scales + recurrent_scales, recurrence, decoder, side_channels, batch_statistics
            )

        inputs = {
            "frame": keras.Input((None, None, 3), dtype="uint8", name="frame"),
            "visual_guide": keras.Input((guide_size, guide_size, 3), name="visual_guide"),
            "spatial_guide": keras.Input((None, None, 1), name="spatial_guide"),
        }
        state_inputs = {spec.name: keras.Input((None, None, spec.channels), name=spec.name) for spec in network.state}
        outputs = network.object_network(
            {
                **network.frame_encoder({"frame": inputs["frame"]}),
                "spatial_guide": inputs["spatial_guide"],
                "modulation": modulator(inputs["visual_guide"]),
                **state_inputs,
            }
        )
        super().__init__(
            inputs={**inputs, **state_inputs}, outputs=outputs if network.state else outputs["logits"], **kwargs
        )
        self.visual_modulator = modulator
        self.frame_encoder = network.frame_encoder
        self.object_network = network.object_network
        self.state_specs = network.state
        self.backbone = backbone
        self.visual_head = visual_head
        self.visual_hidden = visual_hidden
        self.guide_size = guide_size
        self.decoder = decoder
        self.side_channels = side_channels
        self.modulate_early = modulate_early
        self.normalization = normalization
        self.batch_statistics = batch_statistics
        self.network_size = (int(network_size[0]), int(network_size[1]))

    @property
    def guide_background(self) -> tuple[float, float, float]:
        """RGB colour of a visual guide's background: the mean that the network subtracts."""
        return tuple(NORMALIZATIONS[self.normalization]["mean"])

    def initial_state(self, objects: int, height: int, width: int) -> dict[str, Tensor]:
        """The state before the first frame: zeros; an empty dict for a network without recurrence.

        Args:
            objects: batch size N.
            height, width: of the frames given to the network.
        """
        if self.backbone == "mobilenet":
            height, width = (side + -side % MOBILENET_STRIDE for side in (height, width))
        return {
            spec.name: ops.zeros(
                (objects, -(-height // spec.stride), -(-width // spec.stride), spec.channels), dtype=self.compute_dtype
            )
            for spec in self.state_specs
        }

    def load_backbone_weights(self, weights: str = "imagenet") -> None:
        """Initialises both trunks from a classifier of `keras.applications`; fc6 and fc7 of the "fc" head too.

        Args:
            weights: "imagenet" (Keras downloads it) or the path of a weight file; MobileNet's without the top, and
                with VGG-16's without the top fc6 and fc7 stay as they are.
        """
        loader = vgg16 if self.backbone == "vgg16" else mobilenet
        loader.load_imagenet_weights(self, "seg", weights)
        loader.load_imagenet_weights(self.visual_modulator, "modulator", weights)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": self.backbone,
            "visual_head": self.visual_head,
            "visual_hidden": self.visual_hidden,
            "guide_size": self.guide_size,
            "decoder": self.decoder,
            "side_channels": self.side_channels,
            "modulate_early": self.modulate_early,
            "normalization": self.normalization,
            "batch_statistics": self.batch_statistics,
            "network_size": list(self.network_size),
        }
