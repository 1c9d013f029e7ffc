"""Batches of single frames without guides: what is annotated against the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras import ops

from osmn_tf import augment
from osmn_tf.data.pipeline import Batch, Batches
from osmn_tf.data.sampling import Samples
from osmn_tf.errors import InputError

Tensor = Any


@dataclasses.dataclass(frozen=True)
class FrameBatches(Batches):
    """Batches of the samples of `osmn_tf.data.targets.Foreground`, of length 1.

    Inputs: "frame" (a dict), uint8 [B, H, W, 3]. Labels: for each of `outputs` the same mask, uint8 [B, H, W, 1] with
    0, 1 and 255 (unlabelled).

    Attributes:
        augment: transformations of the frames and masks.
        outputs: names of the network's outputs that have a loss.
    """

    augment: augment.AugmentOptions = dataclasses.field(default_factory=augment.AugmentOptions)
    outputs: tuple[str, ...] = ("logits",)

    def check(self, samples: Samples) -> None:
        if samples.length != 1:
            raise InputError(f"data.length: expected single frames, received clips of {samples.length}")

    def prepare(self, raw: Mapping[str, Tensor]) -> Batch:
        seeds = ops.cast(raw["seeds"], "int32")
        frames, masks = augment.augment_clips(raw["frames"], raw["masks"], seeds, self.augment, raw["motion"])
        labels = masks[:, 0, ..., None]
        return {"frame": ops.cast(ops.round(frames[:, 0]), "uint8")}, {name: labels for name in self.outputs}
