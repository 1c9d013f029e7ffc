"""A form of the modulated networks in which the trunk knows no object.

In the paper modulation acts inside the trunk, which therefore runs once for every object. Here the trunk stays
unmodulated in `frame_encoder`, together with everything else that needs no object, and modulation acts on the maps that
the decoder merges: y = relu(scale * map + shift), scale from the visual modulator, shift from the spatial guide, from
the decoder's coarser level and from matching. Not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from osmn_tf.layers.matching import FirstFrameMemory, Matching, RecentFrameMemory
from osmn_tf.layers.modulation import Modulation, ObjectAxis
from osmn_tf.layers.pooling import BlockAverage
from osmn_tf.layers.preprocessing import PadToMultiple
from osmn_tf.layers.upsampling import ResizeLike, TopLeftCropLike
from osmn_tf.models.modulated import TRUNKS, Arguments, ModulatedForm
from osmn_tf.models.segmentation_network import NetworkBuilder, Recurrence, SegmentationNetwork

Tensor = Any

DECODER_CHANNELS = {4: 32, 8: 64, 16: 128}  # by stride
KEY_CHANNELS = 128
KEY_STRIDE = 16
SIZE_MULTIPLE = 32


def _pyramid(guide: Tensor, strides: Sequence[int]) -> dict[int, Tensor]:
    """The guide at each of ascending strides, each made of the one before."""
    maps, before = {}, 1
    for stride in strides:
        guide = BlockAverage(stride // before, name=f"guide_pool{stride}")(guide)
        maps[stride], before = guide, stride
    return maps


@TRUNKS.register("shared")
class SharedForm(ModulatedForm):
    """The trunk once a frame; a decoder from stride 16 to stride 4 for every object.

    With matching, the first frame's key and mask and the previous frame's key are the state: a step whose state has no
    first mask takes its own frame, and the mask in its guide, for the first. With "first+recent+previous" key and mask
    of a frame of not long ago (`RecentFrameMemory`) join those of the first, so that what has changed since is known.

    Raises:
        ValueError: there are ConvLSTMs, or the backbone ends before stride 32.
    """

    visual_heads = ("pooled",)
    normalization = None

    def __init__(self, arguments: Arguments, recurrence: Recurrence | None) -> None:
        if recurrence is not None:
            raise ValueError("trunk: 'shared' has no ConvLSTMs, use an OSMN")
        super().__init__(arguments, recurrence)

    @property
    def heads(self) -> dict[str, int]:
        return {f"Conv2d_out_{number}": width for number, width in enumerate(DECODER_CHANNELS.values(), start=1)}

    @property
    def recurrent_blocks(self) -> tuple[int, ...]:
        return ()

    def segmentation_network(self) -> SegmentationNetwork:
        build, matching = self.builder(), self.arguments.matching is not None
        shared = {name: build.hand_over(name, x) for name, x in self._frame_features(build.frame).items()}
        padded = PadToMultiple(SIZE_MULTIPLE, name="guide_pad")(build.guide)
        guides = _pyramid(padded, sorted(DECODER_CHANNELS))
        cues = [guides[KEY_STRIDE]]
        if matching:
            cues += self._match(build, shared["key"], guides[KEY_STRIDE][..., 1:])

        offset = sum(DECODER_CHANNELS.values())
        x: Tensor = None
        for stride in sorted(DECODER_CHANNELS, reverse=True):
            channels = DECODER_CHANNELS[stride]
            name = f"seg_decode{stride}"
            known = guides[stride]
            if x is None and len(cues) > 1:
                known = layers.Concatenate(name=f"{name}_cues")(cues)
            shift = layers.Conv2D(channels, 3, padding="same", name=f"modulator_sp_{stride}")(known)
            if x is not None:
                # The convolution comes first, where there are fewer pixels.
                x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_coarser")(x)
                shift = layers.Add(name=f"{name}_shift")([shift, ResizeLike(name=f"{name}_up")(x, shift)])
            offset -= channels
            x = Modulation(offset, name=f"{name}_modulation")(shared[f"map{stride}"], build.modulation, shift)
            x = layers.ReLU(name=f"{name}_relu")(x)
            x = layers.Conv2D(channels, 3, padding="same", activation="relu", name=name)(x)
            if stride == KEY_STRIDE:
                y = layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"{name}_again")(x)
                x = layers.Add(name=f"{name}_residual")([x, y])
        logits = layers.Conv2D(1, 3, padding="same", dtype="float32", name="seg_score")(x)
        if self.remembers:
            pool = KEY_STRIDE // min(DECODER_CHANNELS)
            build.new_state("previous_score", layers.MaxPooling2D(pool, name="seg_score_pool")(logits))
        logits = ResizeLike(dtype="float32", name="seg_score_up")(logits, padded)
        logits = TopLeftCropLike(dtype="float32", name="seg_unpad")(logits, build.guide)
        return build.network(logits, SIZE_MULTIPLE)

    @property
    def remembers(self) -> bool:
        """Whether there is a memory of a recent frame."""
        return self.arguments.matching == "first+recent+previous"

    def _match(self, build: NetworkBuilder, key: Tensor, mask: Tensor) -> list[Tensor]:
        """Compares the frame's key with those of earlier frames, and carries these on."""
        channels = {"first_key": KEY_CHANNELS, "first_mask": 1, "previous_key": KEY_CHANNELS}
        if self.remembers:
            channels |= {"recent_key": KEY_CHANNELS, "recent_mask": 1, "recent_age": 1, "previous_score": 1}
        old = {name: build.old_state(name, KEY_STRIDE, count) for name, count in channels.items()}
        first = FirstFrameMemory(name="seg_first_frame")([old["first_key"], old["first_mask"], key, mask])
        new = dict(zip(("first_key", "first_mask"), first, strict=True))
        earlier = list(first)
        if self.remembers:
            kept = [old[name] for name in ("recent_key", "recent_mask", "recent_age")]
            *recent, age = RecentFrameMemory(name="seg_recent_frame")(
                [*kept, old["previous_key"], old["previous_score"], mask, *first]
            )
            new |= {"recent_key": recent[0], "recent_mask": recent[1], "recent_age": age}
            earlier += recent
        new["previous_key"] = ObjectAxis(name="seg_key_per_object")(key, build.modulation)
        for name, x in new.items():
            build.new_state(name, x)
        return [
            Matching(name="seg_match_first")([key, *earlier]),
            Matching(local=True, name="seg_match_previous")([key, old["previous_key"], mask]),
        ]

    def _frame_features(self, frame: Tensor) -> dict[str, Tensor]:
        """What is known of a frame whatever the object: "map4", "map8", "map16" for the decoder, and "key"."""
        x = PadToMultiple(SIZE_MULTIPLE, name="frame_pad")(self.normalize("seg")(frame))
        trunk = self.backbone.features(x, "seg")
        if not {*DECODER_CHANNELS, 32} <= trunk.keys():
            raise ValueError(f"trunk: 'shared' needs maps down to stride 32, {self.arguments.backbone} ends before")
        context = layers.Conv2D(DECODER_CHANNELS[16], 1, activation="relu", name="seg_context")(trunk[32])
        context = ResizeLike(name="seg_context_up")(context, trunk[16])
        merged = {**trunk, 16: layers.Concatenate(name="seg_context_merge")([trunk[16], context])}
        features = {
            f"map{stride}": layers.Conv2D(channels, 1, activation="relu", name=f"seg_map{stride}")(merged[stride])
            for stride, channels in DECODER_CHANNELS.items()
        }
        if self.arguments.matching is not None:
            fine = layers.AveragePooling2D(2, name="seg_key_pool")(trunk[8])
            parts = [
                layers.UnitNormalization(name=f"seg_key_unit{stride}")(part)
                for stride, part in ((8, fine), (16, trunk[16]), (32, context))
            ]
            joined = layers.Concatenate(name="seg_key_merge")(parts)
            # The bias takes away what all cells have in common.
            key = layers.Conv2D(KEY_CHANNELS, 1, name="seg_key")(joined)
            features["key"] = layers.UnitNormalization(name="seg_key_unit")(key)
        return features
