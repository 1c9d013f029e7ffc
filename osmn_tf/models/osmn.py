"""OSMN: one-shot video object segmentation by network modulation (Yang et al., CVPR 2018)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.layers.preprocessing import NORMALIZATIONS
from osmn_tf.models.matching_clip import matching_clip_model
from osmn_tf.models.modulated import FC_GUIDE_SIZE, MODULATED, Arguments, Parts, assemble
from osmn_tf.models.network import Network
from osmn_tf.models.registry import register_network

Tensor = Any

# The small head spares 150 M parameters that a step never uses.
UNTRAINED: Mapping[str, Any] = {"visual_head": "pooled", "visual_hidden": 64}


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
        spatial_guide: float32 [B, H, W, 1], 0..1 (`osmn_tf.guides.spatial_guide`); [B, H, W, 2] with the previous mask.
        with `matching`, one for every entry of `state_specs` (`initial_state` gives the first ones).

    Output: logits, float32 [B, H, W, 1]; a pixel is the object's where the logit is above 0. With `matching` a dict:
    "logits", and the new state under the names of the inputs.

    Args:
        backbone: "vgg16", or "mobilenet" (v1, width 1.0) for both trunks; with a shared trunk any
            that reaches stride 32.
        visual_head: "fc" (release; VGG-16 only: fc6 and fc7, 119 M parameters) or "pooled" (global average and one
            hidden layer). Default: the release's form of the backbone.
        visual_hidden: width of the pooled head's hidden layer.
        guide_size: side S of the visual guide in pixels; 224 with the "fc" head.
        decoder: "hypercolumn" (release) or "refinement" (coarse to fine, with learnt convolutions; not in the paper).
        side_channels: channels of each side output of the hypercolumn.
        modulate_early: modulate the first four convolutions too (a release option; VGG-16 only).
        normalization: one of `NORMALIZATIONS`; default: the release's for the backbone, and with a shared trunk that of
            the backbone's ImageNet weights.
        batch_statistics: False trains with BatchNorm's stored statistics (see `BatchNorm`).
        network_size: (H, W) at which videos are segmented unless the segmenter is told otherwise; the network itself
            takes any size.
        block_channels: channels of the trunks' blocks, 5 numbers for VGG-16 and 13 for MobileNet; None: as published.
        trunk: "modulated" (the paper) or "shared": the trunk knows no object and runs once a frame, and modulation acts
            on what the decoder merges (a backbone down to stride 32, and the refinement decoder; not in the paper).
        matching: None, or "first+previous": compare every frame with the annotated frame and with the one before, which
            are the network's state (a shared trunk with the previous mask only; not in the paper). With
            "first+recent+previous" also with one of not long ago, beside the annotated one.
        guide: "gaussian" (the paper), or "gaussian+mask": the previous mask itself is a second channel of the spatial
            guide.

    Raises:
        ValueError: an argument is none of its choices, or a combination is impossible.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> narrow = {"block_channels": (2, 3, 4, 4, 5), "side_channels": 2, "visual_hidden": 4}  # not as published
        >>> network = osmn.OSMN(backbone="vgg16", visual_head="pooled", guide_size=32, **narrow)
        >>> frame = np.zeros((1, 64, 96, 3), np.uint8)
        >>> guides = {"visual_guide": np.zeros((1, 32, 32, 3)), "spatial_guide": np.zeros((1, 64, 96, 1))}
        >>> tuple(network({"frame": frame, **guides}).shape)
        (1, 64, 96, 1)
    """

    task_name = "osmn"
    untrained: ClassVar = {"osmn_vgg16": UNTRAINED}

    def __init__(
        self,
        backbone: str = "vgg16",
        visual_head: str | None = None,
        visual_hidden: int = 2048,
        guide_size: int = FC_GUIDE_SIZE,
        decoder: str = "hypercolumn",
        side_channels: int = 16,
        modulate_early: bool = False,
        normalization: str | None = None,
        batch_statistics: bool = True,
        network_size: tuple[int, int] = (480, 854),
        block_channels: Sequence[int] | None = None,
        trunk: str = MODULATED,
        matching: str | None = None,
        guide: str = "gaussian",
        **kwargs: Any,
    ) -> None:
        unknown = sorted(set(kwargs) - {"name", "trainable"})
        if unknown:  # Keras would ignore them
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}")
        arguments = Arguments.of(
            backbone=backbone,
            visual_head=visual_head,
            visual_hidden=visual_hidden,
            guide_size=guide_size,
            decoder=decoder,
            side_channels=side_channels,
            modulate_early=modulate_early,
            normalization=normalization,
            batch_statistics=batch_statistics,
            network_size=network_size,
            block_channels=block_channels,
            trunk=trunk,
            matching=matching,
            guide=guide,
        )
        parts = self.assemble(arguments)
        network = parts.segmentation
        super().__init__(
            inputs=parts.inputs, outputs=parts.outputs if network.state else parts.outputs["logits"], **kwargs
        )
        self.visual_modulator = parts.visual_modulator
        self.frame_encoder = network.frame_encoder
        self.object_network = network.object_network
        self.state_specs = network.state
        self.size_multiple = network.size_multiple
        for field in dataclasses.fields(arguments):
            setattr(self, field.name, getattr(arguments, field.name))

    def assemble(self, arguments: Arguments) -> Parts:
        """Builds what the network consists of; a network that adds to it does so here."""
        return assemble(arguments)

    @property
    def guide_background(self) -> tuple[float, float, float]:
        """RGB colour of a visual guide's background: the mean that the network subtracts."""
        return tuple(NORMALIZATIONS[self.normalization]["mean"])

    def initial_state(self, objects: int, height: int, width: int) -> dict[str, Tensor]:
        """The state before the first frame: zeros; an empty dict for a network without recurrence or matching.

        Args:
            objects: batch size N.
            height, width: of the frames given to the network.
        """
        height, width = (side + -side % self.size_multiple for side in (height, width))
        return {
            spec.name: ops.zeros(
                (objects, -(-height // spec.stride), -(-width // spec.stride), spec.channels), dtype=self.compute_dtype
            )
            for spec in self.state_specs
        }

    def begun_state(self, key: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The state behind an annotated frame, for a network with `matching`: what a step on that frame gives
        that finds the object where it is.

        Args:
            key: [1 or N, h, w, K], the "key" among the features of that frame.
            masks: [N, H, W], any dtype; non-zero is the object.
        """
        count, height, width = ops.shape(masks)[0], ops.shape(masks)[1], ops.shape(masks)[2]
        occupied = ops.cast(ops.not_equal(masks, 0), self.compute_dtype)[..., None]
        padding = ((0, 0), (0, -height % self.size_multiple), (0, -width % self.size_multiple), (0, 0))
        stride = next(spec.stride for spec in self.state_specs if spec.name == "first_mask")
        coverage = ops.average_pool(
            ops.pad(occupied, padding), stride, stride, padding="valid", data_format="channels_last"
        )
        key = ops.broadcast_to(key, (count, *ops.shape(key)[1:]))
        begun = {"first_key": key, "first_mask": coverage, "previous_key": key, "recent_key": key}
        begun |= {"recent_mask": coverage, "recent_age": ops.ones_like(coverage), "previous_score": coverage}
        return {spec.name: begun[spec.name] for spec in self.state_specs}

    def clip_model(self, length: int, height: int | None = None, width: int | None = None) -> keras.Model:
        """A network with `matching` unrolled over a clip, sharing this model's weights: for training.

        Inputs (a dict):
            first_frame: uint8 [B, H, W, 3], the annotated frame; it need not be near the clip.
            first_mask: uint8 [B, H, W], its mask; non-zero is the object.
            frames: uint8 [B, length, H, W, 3]. The first of them is only the frame before the second.
            visual_guide: float32 [B, S, S, 3].
            spatial_guides: float32 [B, length, H, W, 2], of each frame: made of the mask of the frame before.
            own_guide: float32 [B, length]; 1 where the guide of a frame is made from the network's own prediction of
                the frame before (no gradient flows through it) instead. Its first two columns are ignored.

        Output: logits, float32 [B, length - 1, H, W, 1], of all frames but the first. Streaming the same guides frame
        by frame gives the same numbers.

        Args:
            length: number of frames, at least 2.
            height, width: of the frames.

        Raises:
            ValueError: the network has no state, or the clip is too short.
        """
        if not self.matching:
            raise ValueError("clip_model: a network without state is trained on single frames")
        if length < 2:
            raise ValueError(f"length: expected at least 2 frames, received {length}")
        return matching_clip_model(self, length, height, width)

    def load_backbone_weights(self, weights: str = "imagenet") -> None:
        """Initialises both trunks from an image classifier; fc6 and fc7 of the "fc" head too.

        See `Backbone.load_imagenet_weights`.

        Args:
            weights: "imagenet" or the path of a weight file; MobileNet's without the top, and
                with VGG-16's without the top fc6 and fc7 stay as they are.
        """
        backbone = BACKBONES.get(self.backbone)(self.block_channels)
        backbone.load_imagenet_weights(self, "seg", weights)
        backbone.load_imagenet_weights(self.visual_modulator, "modulator", weights)

    def get_config(self) -> dict[str, Any]:
        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(Arguments)}
        sequences = {name: list(value) for name, value in arguments.items() if isinstance(value, tuple)}
        return {"name": self.name, "trainable": self.trainable, **arguments, **sequences}
