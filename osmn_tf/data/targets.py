"""What is made of a labelled clip: samples of one object, of all objects in slots, or of the foreground as a whole.

Data sources (`osmn_tf.data.sampling`) give clips with all objects, under the data set's own numbers, and with what the
annotators left open. A target chooses what a network learns from them. NumPy and OpenCV only.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.masks.labels import VOID, labels_of

RawSample = dict[str, np.ndarray]
Fields = dict[str, tuple[str, tuple[int, ...]]]

_MIN_AREA = 0.003  # of the picture, for a guide (OSMN release)
_MIN_FILL = 0.2  # of its box, for a guide (OSMN release)
_TRIES = 20


def good_guide(mask: np.ndarray) -> bool:
    """Whether the object (1 in a mask [H, W]) covers over 0.3% of the picture and over 20% of its box, as in OSMN."""
    pixels = (mask == 1).astype(np.uint8)
    _, _, width, height = cv2.boundingRect(pixels)
    area = cv2.countNonZero(pixels)
    return area > _MIN_AREA * mask.size and area > _MIN_FILL * width * height


def select(mask: np.ndarray, label: int) -> np.ndarray:
    """One object of a label mask: 0, 1, or `VOID` where nothing is labelled."""
    selected = (mask == label).astype(np.uint8)
    selected[mask == VOID] = VOID
    return selected


@dataclasses.dataclass(frozen=True)
class LabelledClip:
    """Successive frames with all of their objects, at the size of the samples. Frames are read when they are asked for.

    Attributes:
        masks: uint8 [L, H, W]: 0 background, 1..254 objects, 255 unlabelled; a number is the same object in all frames.
        load_frame: gives frame k of the clip, uint8 RGB [H, W, 3].
        motion: camera motion that the augmentation adds (see `osmn_tf.augment.affine_parameters`).
        labels: objects of the video, where the source knows them; they need not be seen in this clip.
        wanted: the object that an epoch has come to, in sources that are gone through object by object.
        views: numbers of further annotated frames of the video; empty for a clip that is all there is.
        load_view_mask: gives the mask of a view, uint8 [H, W].
        load_view_frame: gives the picture of a view, uint8 RGB [H, W, 3].
    """

    masks: np.ndarray
    load_frame: Callable[[int], np.ndarray]
    motion: float = 0.0
    labels: tuple[int, ...] = ()
    wanted: int | None = None
    views: Sequence[int] = ()
    load_view_mask: Callable[[int], np.ndarray] | None = None
    load_view_frame: Callable[[int], np.ndarray] | None = None

    def frames(self, first: int) -> np.ndarray:
        """The frames from number `first` on, uint8 [L - first, H, W, 3]."""
        return np.stack([self.load_frame(k) for k in range(first, len(self.masks))])


class Target(abc.ABC):
    """Makes raw samples out of labelled clips: dicts of arrays, all of the same shapes.

    Attributes:
        before: labelled frames that a clip must have before the sample's first frame: those of the mask that a tracker
            has when it begins.
    """

    before: int = 1

    @abc.abstractmethod
    def fields(self, size: tuple[int, int], length: int) -> Fields:
        """Type and shape of a sample's fields, for samples of `length` frames of `size` = (H, W)."""

    @abc.abstractmethod
    def sample(self, clip: LabelledClip, rng: np.random.Generator) -> RawSample | None:
        """A sample of `clip`, which has `before` + length frames; None if the clip has none to give.

        What is open is drawn from `rng`.
        """


class OneObject(Target):
    """An object of the clip, and a frame that shows it well, from which the visual guide is cut. A sample is

        frames        uint8 [T, H, W, 3]    RGB
        masks         uint8 [T + 1, H, W]   0, 1 (the object) or 255; the first is the mask before the first frame
        guide_frame   uint8 [H, W, 3]       where the visual guide is cut out
        guide_mask    uint8 [H, W]          0 or 1
        motion        float32 []            see `osmn_tf.augment.affine_parameters`

    In a video the object is one that a tracker could know, and the guide a random frame of the whole video; in a clip
    that stands alone the guide is its first frame.
    """

    def fields(self, size: tuple[int, int], length: int) -> Fields:
        height, width = size
        return {
            "frames": ("uint8", (length, height, width, 3)),
            "masks": ("uint8", (length + 1, height, width)),
            "guide_frame": ("uint8", (height, width, 3)),
            "guide_mask": ("uint8", (height, width)),
            "motion": ("float32", ()),
        }

    def sample(self, clip: LabelledClip, rng: np.random.Generator) -> RawSample | None:
        first = clip.masks[0]
        if clip.views:
            # An object that the tracker could know: present before the clip, or at least somewhere in it.
            label = int(rng.choice(labels_of(first) or labels_of(clip.masks) or clip.labels))
            guide = self._find_view(clip, label, rng)
            if guide is None:
                return None
        else:
            labels = [k for k in labels_of(first) if good_guide(first == k)]
            if not labels:
                return None
            label = clip.wanted if clip.wanted in labels else int(rng.choice(labels))
            guide = clip.load_frame(0), (first == label).astype(np.uint8)
        return {
            "frames": clip.frames(1),
            "masks": select(clip.masks, label),
            "guide_frame": guide[0],
            "guide_mask": guide[1],
            "motion": np.array(clip.motion, np.float32),
        }

    def _find_view(
        self, clip: LabelledClip, label: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if clip.load_view_mask is None or clip.load_view_frame is None:
            return None
        for view in rng.permutation(clip.views)[:_TRIES]:
            mask = (clip.load_view_mask(int(view)) == label).astype(np.uint8)
            if good_guide(mask):
                return clip.load_view_frame(int(view)), mask
        return None


class AllObjects(Target):
    """All objects of the clip at once, in numbered slots. A sample is

        frames   uint8 [T, H, W, 3]    RGB
        masks    uint8 [before + T, H, W]   0, the slot of the object, 1..slots, or 255
        labels   uint8 [slots]         the data set's number of the object in each slot; 0 where a slot is empty
        motion   float32 []            see `osmn_tf.augment.affine_parameters`

    Objects are in the order of their numbers, those that are there from the start before those that come later. If
    there are more than slots, those from the start are taken first, and a random choice among equals; the others are
    background.

    Args:
        slots: how many objects there is room for, 1..254.
        before: masks before the first frame; 0 for a network whose objects are given in the first frame itself.
    """

    def __init__(self, slots: int = 10, before: int = 1) -> None:
        if not 1 <= slots < VOID:
            raise InputError(f"slots: expected 1..{VOID - 1}, received {slots}")
        self.slots, self.before = slots, before

    def fields(self, size: tuple[int, int], length: int) -> Fields:
        height, width = size
        return {
            "frames": ("uint8", (length, height, width, 3)),
            "masks": ("uint8", (self.before + length, height, width)),
            "labels": ("uint8", (self.slots,)),
            "motion": ("float32", ()),
        }

    def sample(self, clip: LabelledClip, rng: np.random.Generator) -> RawSample | None:
        early = labels_of(clip.masks[0])
        late = tuple(label for label in labels_of(clip.masks) if label not in early)
        chosen = self._choose(early, self.slots, rng)
        chosen += self._choose(late, self.slots - len(chosen), rng)
        if not chosen:
            return None
        slot_of = np.zeros(256, np.uint8)
        slot_of[VOID] = VOID
        slot_of[chosen] = np.arange(1, len(chosen) + 1)
        return {
            "frames": clip.frames(self.before),
            "masks": slot_of[clip.masks],
            "labels": np.array(chosen + [0] * (self.slots - len(chosen)), np.uint8),
            "motion": np.array(clip.motion, np.float32),
        }

    @staticmethod
    def _choose(labels: tuple[int, ...], room: int, rng: np.random.Generator) -> list[int]:
        if len(labels) <= room:
            return list(labels)
        return sorted(int(label) for label in rng.choice(labels, room, replace=False))


class Foreground(Target):
    """Whatever is annotated against the rest, frame by frame, without guides. A sample is

        frames   uint8 [T, H, W, 3]    RGB
        masks    uint8 [T, H, W]       0, 1 (any object) or 255
        motion   float32 []            see `osmn_tf.augment.affine_parameters`

    A clip without any object gives no sample.
    """

    before = 0

    def fields(self, size: tuple[int, int], length: int) -> Fields:
        height, width = size
        return {
            "frames": ("uint8", (length, height, width, 3)),
            "masks": ("uint8", (length, height, width)),
            "motion": ("float32", ()),
        }

    def sample(self, clip: LabelledClip, rng: np.random.Generator) -> RawSample | None:
        if not labels_of(clip.masks):
            return None
        masks = (clip.masks != 0).astype(np.uint8)
        masks[clip.masks == VOID] = VOID
        return {"frames": clip.frames(0), "masks": masks, "motion": np.array(clip.motion, np.float32)}
