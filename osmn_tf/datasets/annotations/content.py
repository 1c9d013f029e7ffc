"""What annotations say of one video, whichever tool's file they are in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from osmn_tf.errors import InputError, name_some
from osmn_tf.masks.labels import labels_of
from osmn_tf.masks.prompts import Box

CLASS_NAME = "object"
"""What objects are called that have no name of their own."""

MOST_PIXELS = 1 << 28
"""Of a frame that is read."""


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The masks of a video.

    Attributes:
        size: (height, width).
        masks: index of a frame -> uint8 label mask [H, W], of annotated frames only.
        frame_names: index -> name of a frame without suffix; by default the number of the video's frame, '00042'.
        names: label -> what the object is; `CLASS_NAME` by default.
        length: how many frames there are from `first` on, annotated or not.
        first: number of the video's frame that index 0 is: what was annotated may begin behind its first frame.
        hidden: label -> indexes of the frames in which it is said that the object is not seen (CVAT's 'outside').
        boxes: index of a frame -> label -> box of an object that has no mask there (CVAT's rectangles).

    Raises:
        InputError: a mask is of another size, or a frame is before the video.
    """

    size: tuple[int, int]
    masks: Mapping[int, np.ndarray]
    frame_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    length: int = 0
    first: int = 0
    hidden: Mapping[int, Sequence[range]] = dataclasses.field(default_factory=dict)
    boxes: Mapping[int, Mapping[int, Box]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, mask in self.masks.items():
            if mask.dtype != np.uint8 or mask.shape != tuple(self.size):
                raise InputError(
                    f"frame {index}: expected a mask uint8 {list(self.size)}, received {mask.dtype} {list(mask.shape)}"
                )
        if min(self.masks, default=0) < 0:
            raise InputError(f"masks: frames count from 0, received {min(self.masks)}")
        object.__setattr__(self, "length", max(self.length, max(self.masks, default=-1) + 1))

    @property
    def labels(self) -> tuple[int, ...]:
        """Of all objects, ascending."""
        return tuple(sorted({label for mask in self.masks.values() for label in labels_of(mask)}))

    def frame_name(self, index: int) -> str:
        return self.frame_names.get(index, f"{index + self.first:05d}")

    def name(self, label: int) -> str:
        return self.names.get(label, CLASS_NAME)

    @property
    def classes(self) -> list[str]:
        """The names of the objects, each once, in the order of the labels."""
        return list(dict.fromkeys(self.name(label) for label in self.labels)) or [CLASS_NAME]

    def numbers(self, names: Sequence[str] | None = None) -> dict[int, int]:
        """Index -> number of the frame of a video that it is, of the frames in which there is an object.

        The frames of a folder are known by their names, where the file has names. Those of a video are known by the
        numbers in their names where all are numbers, as '00042', or 'frame_000042', which is CVAT's name for a frame
        of a video; else by their places in the file.

        Args:
            names: of the folder's images without suffix, in their order; None: it is a video.

        Raises:
            InputError: the folder has no image of such a name.
        """
        masks = {index for index, mask in self.masks.items() if labels_of(mask)}
        seen = sorted(masks | {index for index, boxes in self.boxes.items() if boxes})
        numbers = {index: index + self.first for index in seen}
        if all(index in self.frame_names for index in seen):
            places = {name: place for place, name in enumerate(names or ())}
            found = {index: self.frame_names[index] for index in seen}
            unknown = [name for name in found.values() if name not in places]
            pattern = r"frame_(\d+)" if names else r"(?:frame_)?(\d+)"
            matches = {index: re.fullmatch(pattern, name) for index, name in found.items()}
            if not unknown:
                numbers = {index: places[name] for index, name in found.items()}
            elif all(matches.values()) and not any(re.fullmatch(pattern, name) for name in places):
                numbers = {index: int(match[1]) for index, match in matches.items() if match}
            elif names:
                raise InputError(f"of another video: it has no {name_some(unknown)} among its {len(places)} images")
        return numbers


def indices_of(stems: list[str]) -> list[int]:
    """Of frames by their names: the numbers themselves, or their order where they are none."""
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    return numbers if len(numbers) == len(stems) == len(set(numbers)) else list(range(len(stems)))
