"""Batches of the guided networks (OSMN, ReConvNet): augmentation, and the visual and spatial guides.

A batch is (inputs, labels) for `model.fit`:

    clips    inputs: frames uint8 [B, T, H, W, 3], visual_guide float32 [B, S, S, 3],
                     spatial_guides float32 [B, T, H, W, 1], own_guide float32 [B, T]
             labels: uint8 [B, T, H, W, 1]: 0, 1, or 255 (unlabelled)
    matching inputs: those of clips and first_frame uint8 [B, H, W, 3], first_mask uint8 [B, H, W]
             labels: uint8 [B, T - 1, H, W, 1], of all frames but the first
    frames   (clips of length 1 for a network without state)
             inputs: frame uint8 [B, H, W, 3], visual_guide float32 [B, S, S, 3], spatial_guide float32 [B, H, W, 1]
             labels: uint8 [B, H, W, 1]

Spatial guides have a second channel where the network takes the previous mask too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from osmn_tf import augment
from osmn_tf.augment import AugmentOptions
from osmn_tf.data.pipeline import Batch, Batches
from osmn_tf.data.sampling import Samples
from osmn_tf.data.targets import RawSample
from osmn_tf.errors import InputError
from osmn_tf.guides import GUIDE_CHANNELS, GUIDE_MARGIN, VGG_MEAN_RGB, full_guide, spatial_guide, visual_guide

Tensor = Any

_DROPOUT, _OWN, _PROMPTED = 100, 101, 102  # streams of random numbers, beside those of `augment`
_PROMPT_AREA = 0.005  # of the picture: a smaller object is not prompted for


@dataclasses.dataclass(frozen=True)
class GuidedBatches(Batches):
    """Batches of samples of one object (`osmn_tf.data.targets.OneObject`).

    Attributes:
        clips: batches of clips; False: of frames (length 1).
        guide_size: side of the visual guide in pixels.
        guide_background: RGB colour around the object in the visual guide (the mean that the network subtracts).
        augment: transformations of the frames and masks.
        guide_jitter: the OSMN release's jitter of both guides; False: as at test time.
        guide_colour: strength of the visual guide's own change of colour, relative to that of the frames.
        guide_dropout: probability that a frame gets an empty spatial guide (an object that was lost), whether it would
            have been made from the annotation or from the network's own prediction.
        guide: kind of the spatial guides (`osmn_tf.guides.full_guide`).
        mask_errors: with a guide that has the previous mask, how often it is spoiled as a prediction can be wrong (see
            `osmn_tf.augment.spoil_masks`).
        matching: batches for a network that matches with an annotated frame: the one that the visual guide is cut from.
        prompts: with `matching`, how often a sample is one picture all along, and what is given of its object is a box
            or clicks (`osmn_tf.augment.prompt_masks`) instead of masks.
        own_guide: probability that a frame's spatial guide is made from the network's own prediction: a number, or a
            function of the batch's number since the beginning of the training (a curriculum). Only in clips.
    """

    clips: bool = True
    guide_size: int = 224
    guide_background: tuple[float, float, float] = VGG_MEAN_RGB
    augment: AugmentOptions = dataclasses.field(default_factory=AugmentOptions)
    guide_jitter: bool = True
    guide_colour: float = 0.4
    guide_dropout: float = 0.0
    guide: str = "gaussian"
    mask_errors: float = 0.8
    matching: bool = False
    prompts: float = 0.0
    own_guide: float | Callable[[int], float] = 0.0

    def check(self, samples: Samples) -> None:
        if not self.clips and samples.length != 1:
            raise InputError(f"clips: batches of frames need samples of length 1, received length {samples.length}")

    def values(self, number: int) -> RawSample:
        own = self.own_guide(number) if callable(self.own_guide) else self.own_guide
        return {"own_guide": np.array(own, np.float32)}

    def prepare(self, raw: Mapping[str, Tensor]) -> Batch:
        seeds = ops.cast(raw["seeds"], "int32")
        frames, masks = augment.augment_clips(raw["frames"], raw["masks"], seeds, self.augment, raw["motion"])
        count, length = ops.shape(masks)[0], frames.shape[1]
        height, width = masks.shape[2], masks.shape[3]
        prompted, prompts = self._prompts(masks, seeds)
        if prompted is not None:
            frames = ops.where(_as(prompted, frames), frames[:, :1], frames)
            still = ops.concatenate([masks[:, :1], ops.repeat(masks[:, 1:2], length, axis=1)], axis=1)
            masks = ops.where(_as(prompted, masks), still, masks)

        known = ops.cast(ops.equal(masks[:, :-1], 1), "uint8")
        previous = ops.reshape(known, (-1, height, width))
        if self.guide != "gaussian":
            if self.mask_errors:
                previous = augment.spoil_masks(previous, _frame_seeds(seeds, length), self.mask_errors)
            if prompted is not None:
                previous = ops.where(
                    _as(ops.repeat(prompted, length), previous), ops.repeat(prompts, length, axis=0), previous
                )
            guides = full_guide(previous, self.guide)
        elif self.guide_jitter:
            shift, scale = augment.spatial_guide_jitter(seeds, length)
            guides = spatial_guide(previous, ops.reshape(shift, (-1, 2)), ops.reshape(scale, (-1, 2)))
        else:
            guides = spatial_guide(previous)
        guides = ops.reshape(guides, (count, length, height, width, GUIDE_CHANNELS[self.guide]))
        own = ops.cast(augment.uniform(seeds, length, _OWN) < ops.cast(raw["own_guide"], "float32")[:, None], "float32")
        if self.guide_dropout:
            kept = ops.cast(augment.uniform(seeds, length, _DROPOUT) >= self.guide_dropout, "float32")
            guides = guides * kept[:, :, None, None, None]
            own = own * kept  # its own prediction would take the place of the empty guide

        guide_frames = ops.cast(raw["guide_frame"], "float32")
        if self.augment.colours:
            guide_frames = augment.jitter_guide_colour(guide_frames, seeds, self.augment, self.guide_colour)
        guide_masks = ops.cast(raw["guide_mask"], "uint8")
        if prompted is not None:
            guide_frames = ops.where(_as(prompted, guide_frames), ops.cast(frames[:, 0], "float32"), guide_frames)
            guide_masks = ops.where(_as(prompted, guide_masks), prompts, guide_masks)
        margins = augment.visual_guide_margins(seeds) if self.guide_jitter else ops.full((count, 4), GUIDE_MARGIN)
        appearance = visual_guide(guide_frames, guide_masks, self.guide_size, self.guide_background, margins)
        if self.guide_jitter:
            appearance = augment.jitter_visual_guide(appearance, seeds, background=self.guide_background)

        frames = ops.cast(ops.round(frames), "uint8")
        labels = masks[:, 1:, ..., None]
        if not self.clips:
            return {"frame": frames[:, 0], "visual_guide": appearance, "spatial_guide": guides[:, 0]}, labels[:, 0]
        inputs = {"frames": frames, "visual_guide": appearance, "spatial_guides": guides, "own_guide": own}
        if self.matching:
            inputs["first_frame"] = ops.cast(ops.round(guide_frames), "uint8")
            inputs["first_mask"] = guide_masks
            labels = labels[:, 1:]
        return inputs, labels

    def _prompts(self, masks: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Which samples are prompted for, bool [N], and with what, uint8 [N, H, W]; (None, None) where none is."""
        if not self.prompts:
            return None, None
        object_ = ops.equal(masks[:, 1], 1)
        seen = ops.mean(ops.cast(object_, "float32"), axis=(1, 2)) >= _PROMPT_AREA
        chosen = augment.uniform(seeds, 1, _PROMPTED)[:, 0] < self.prompts
        return ops.logical_and(chosen, seen), augment.prompt_masks(object_, seeds)


def _as(chosen: Tensor, x: Tensor) -> Tensor:
    """[N] as [N, 1, ...], to choose among the samples of `x`."""
    return ops.reshape(chosen, (-1,) + (1,) * (len(x.shape) - 1))


def _frame_seeds(seeds: Tensor, length: int) -> Tensor:
    """A pair of seeds for every frame of every clip: int32 [N, 2] -> [N * length, 2]."""
    number = ops.reshape(ops.arange(length, dtype="int32"), (1, length, 1))
    apart = number * ops.convert_to_tensor([[[7919, 104729]]], dtype="int32")
    return ops.reshape(seeds[:, None] + apart, (-1, 2))
