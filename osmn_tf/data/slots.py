"""Batches of the networks that take all objects of a clip at once, in numbered slots (RVOS).

A batch is (inputs, labels) for `model.fit`:

    inputs: frames uint8 [B, T, H, W, 3]
            previous_masks float32 [B, T, K, H, W, 1], own_mask float32 [B, T, K]: see `RVOS.clip_model`; where masks
            may be given
            first_masks uint8 [B, K, H, W], given float32 [B]: see `osmn_tf.training.assignment.SlotAssignment`; where
            objects may have to be found without masks
    labels: uint8 [B, T, K, H, W, 1]: 0, 1, or 255 (unlabelled)
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
from osmn_tf.data.targets import RawSample
from osmn_tf.masks.labels import VOID

Tensor = Any

_FIND, _OWN = 110, 111  # streams of random numbers, beside those of `augment`


@dataclasses.dataclass(frozen=True)
class SlotBatches(Batches):
    """Batches of samples of all objects (`osmn_tf.data.targets.AllObjects` with `before=0`).

    With masks given, an object's mask of the frame in which it first appears is its previous mask there, and frames
    before it are unlabelled in its slot, as are empty slots. Without, an object that is not in the first frame is
    unlabelled, and an empty slot is labelled as background.

    Attributes:
        slots: K.
        augment: transformations of the frames and masks.
        find: probability that a clip comes without given masks; its previous masks are the network's own then, and
            nothing in the first frame.
        masks: whether the network takes masks; without them nothing is ever given.
        own_mask: probability that an object's previous mask is the network's own prediction: a number, or a function of
            the batch's number since the beginning of the training (a curriculum).
    """

    slots: int
    augment: AugmentOptions = dataclasses.field(default_factory=AugmentOptions)
    find: float = 0.0
    masks: bool = True
    own_mask: float | Callable[[int], float] = 0.0

    def values(self, number: int) -> RawSample:
        own = self.own_mask(number) if callable(self.own_mask) else self.own_mask
        return {"own_mask": np.array(own, np.float32)}

    def prepare(self, raw: Mapping[str, Tensor]) -> Batch:
        seeds = ops.cast(raw["seeds"], "int32")
        frames, masks = augment.augment_clips(raw["frames"], raw["masks"], seeds, self.augment, raw["motion"])
        length, slots = frames.shape[1], self.slots
        numbers = ops.reshape(ops.arange(1, slots + 1, dtype="int32"), (1, 1, slots, 1, 1))
        values = ops.cast(masks, "int32")[:, :, None]
        inside = ops.equal(values, numbers)  # [B, T, K, H, W]
        void = ops.logical_and(ops.equal(values, VOID), ops.ones_like(inside))

        present = ops.cast(ops.any(inside, axis=(3, 4)), "int32")  # [B, T, K]
        known = ops.cumsum(present, axis=1) > 0  # in this frame or before
        used = ops.cast(ops.any(known, axis=1, keepdims=True), "bool")
        first = ops.any(inside[:, :1], axis=(3, 4))  # [B, 1, K]
        given = ops.ones_like(seeds[:, 0]) > 0
        if not self.masks:
            given = ops.logical_not(given)
        elif self.find:
            given = augment.uniform(seeds, 1, _FIND)[:, 0] >= self.find
        with_mask = given[:, None, None]
        labelled = ops.where(with_mask, known, ops.logical_or(first, ops.logical_not(used)))  # [B, T, K]
        unlabelled = ops.logical_or(void, ops.logical_not(labelled)[..., None, None])
        labels = ops.where(unlabelled, VOID, ops.cast(inside, "int32"))
        labels = ops.cast(labels, "uint8")[..., None]

        inputs: dict[str, Tensor] = {"frames": ops.cast(ops.round(frames), "uint8")}
        if self.masks:
            # The mask of the frame before; where an object begins, that of the frame itself.
            known_before = ops.concatenate([ops.zeros_like(known[:, :1]), known[:, :-1]], axis=1)
            before = ops.concatenate([inside[:, :1], inside[:, :-1]], axis=1)
            previous = ops.where(known_before[..., None, None], before, inside)
            previous = ops.logical_and(previous, with_mask[..., None, None])
            inputs["previous_masks"] = ops.cast(previous, "float32")[..., None]
            drawn = ops.reshape(augment.uniform(seeds, length * slots, _OWN), (-1, length, slots))
            own = ops.logical_and(known_before, drawn < ops.cast(raw["own_mask"], "float32")[:, None, None])
            inputs["own_mask"] = ops.cast(ops.where(with_mask, own, ops.ones_like(own)), "float32")
        if self.find or not self.masks:
            inputs["first_masks"] = labels[:, 0, ..., 0]
            inputs["given"] = ops.cast(given, "float32")
        return inputs, labels
