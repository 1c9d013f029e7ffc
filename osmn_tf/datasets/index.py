"""What every data set looks like to the rest of the package: items that know their files and load on request.

A `VideoDataset` has sequences (frames and label masks), an `ImageDataset` has single images with a label mask. Both
are indexes: they hold paths, not pixels, and are checked when they are made. Frames are uint8 RGB [H, W, 3]; masks are
uint8 [H, W] with 0 = background, k = object k (1..254) and 255 = unlabelled (`VOID`).

A damaged file is found only when it is decoded. `ImageDataset.load` then takes the next readable item in the order of
the data set instead, and who meets one in a video takes another clip; either way the file is counted, once however
often it is wanted. The substitute depends on the files alone, not on what was loaded before: the same index gives the
same sample in every process and after every restart.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.masks.files import read_label_png
from osmn_tf.masks.labels import VOID
from osmn_tf.video.images import read_image


class DamagedFileError(InputError):
    """A file of a data set exists, but cannot be decoded or contradicts its neighbours (for example in size).

    The message is the same every time that the file is met: it is what damaged files are told apart by.
    """


class DamagedFileWarning(UserWarning):
    """A damaged item was skipped. The message names the file and counts the damaged items so far."""


def decode_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an image file as uint8 RGB [H, W, 3], as stored: an EXIF rotation is not applied, as annotations are
    relative to the stored pixels.

    Raises:
        DamagedFileError: the file is missing, empty, truncated or no image.
    """
    try:
        return read_image(path, oriented=False)
    except InputError as error:
        raise DamagedFileError(str(error)) from error


def decode_mask(path: str | os.PathLike[str], *, binary: bool = False) -> np.ndarray:
    """Reads a label PNG as uint8 [H, W]: palette indices or grey values as stored.

    Args:
        path: the PNG.
        binary: every value above 0 becomes object 1 (DAVIS 2016 stores 0/255, DAVIS 2017 several objects).

    Raises:
        DamagedFileError: the file is missing, damaged, or holds colours instead of labels.
    """
    try:
        mask = read_label_png(path)
    except InputError as error:
        raise DamagedFileError(str(error)) from error
    return (mask > 0).astype(np.uint8) if binary else mask


def check_size(image: np.ndarray, mask: np.ndarray, path: object) -> None:
    """Raises `DamagedFileError` unless `mask` [H, W] has the height and width of `image` [H, W, 3]."""
    if image.shape[:2] != mask.shape:
        (height, width), (image_height, image_width) = mask.shape, image.shape[:2]
        raise DamagedFileError(f"{path}: mask of {width}x{height}, but its image has {image_width}x{image_height}")


@dataclasses.dataclass(frozen=True)
class ImageItem:
    """One image with its label mask.

    Attributes:
        name: unique within the data set.
        image_path: the image file.
        read_mask: gives the label mask, uint8 [H, W].
        labels: the objects' labels where the index knows them (COCO), else None (to be seen in the mask).
    """

    name: str
    image_path: Path
    read_mask: Callable[[], np.ndarray] = dataclasses.field(repr=False, compare=False)
    labels: tuple[int, ...] | None = None

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads (image uint8 RGB [H, W, 3], mask uint8 [H, W]).

        Raises:
            DamagedFileError: one of them is damaged, or their sizes differ.
        """
        image, mask = decode_image(self.image_path), self.read_mask()
        check_size(image, mask, self.name)
        return image, mask


@dataclasses.dataclass(frozen=True)
class VideoSequence:
    """The frames of a video with label masks for all or some of them.

    Attributes:
        name: unique within the data set.
        frame_paths: image files in temporal order.
        mask_paths: one per frame; None where a frame has no annotation.
        first_frames: object label -> index of the frame where the object is given to the tracker.
        binary: the mask files are read as one object (see `decode_mask`).
    """

    name: str
    frame_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]
    first_frames: dict[int, int]
    binary: bool = False

    def __len__(self) -> int:
        return len(self.frame_paths)

    @property
    def labels(self) -> tuple[int, ...]:
        """The objects' labels, ascending."""
        return tuple(sorted(self.first_frames))

    @functools.cached_property
    def annotated(self) -> tuple[int, ...]:
        """Indices of the frames that have a mask, ascending."""
        return tuple(i for i, path in enumerate(self.mask_paths) if path is not None)

    def load_frame(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 RGB [H, W, 3]. Raises `DamagedFileError`."""
        return decode_image(self.frame_paths[index])

    def load_mask(self, index: int) -> np.ndarray | None:
        """Mask of frame `index` as uint8 [H, W], or None where there is no annotation. Raises `DamagedFileError`.

        In data sets where objects enter later, the mask holds each object from its own first frame on.
        """
        path = self.mask_paths[index]
        return None if path is None else decode_mask(path, binary=self.binary)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(frame uint8 RGB [H, W, 3], mask uint8 [H, W]) of frame `index`; all `VOID` where nothing is annotated.

        Raises:
            DamagedFileError: one of them is damaged, or their sizes differ.
        """
        frame, mask = self.load_frame(index), self.load_mask(index)
        if mask is None:
            return frame, np.full(frame.shape[:2], VOID, np.uint8)
        check_size(frame, mask, self.mask_paths[index])
        return frame, mask


class _SkipCounter:
    """Warns once per damaged file and gives up when there are too many of them for an accident."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total = name, total
        self.messages: set[str] = set()

    def report(self, error: DamagedFileError) -> None:
        """Counts and warns, once per file; raises `DamagedFileError` when over 5% (and over three) are damaged.

        Then for any of them, again and again: several threads read, and each of them has to hear of it.
        """
        known = str(error) in self.messages
        self.messages.add(str(error))
        limit = max(3, self._total // 20)
        if len(self.messages) > limit:
            raise DamagedFileError(
                f"{self._name}: more than {limit} of {self._total} items are damaged, the last: {error}"
            ) from error
        if known:
            return
        warnings.warn(
            f"{self._name}: skipped damaged item {len(self.messages)} of {self._total}: {error}",
            DamagedFileWarning,
            stacklevel=4,
        )


class ImageDataset:
    """Images with label masks.

    Args:
        name: how messages call it, usually the kind and the folder.
        items: what it holds, in a fixed order.

    Raises:
        InputError: there are no items.
    """

    def __init__(self, name: str, items: Sequence[ImageItem]) -> None:
        if not items:
            raise InputError(f"{name}: expected at least one annotated image, found none")
        self.name = name
        self.items = tuple(items)
        self._skips = _SkipCounter(name, len(self.items))
        self._unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.items)

    def __add__(self, other: ImageDataset) -> ImageDataset:
        return ImageDataset(f"{self.name} + {other.name}", self.items + other.items)

    @property
    def damaged(self) -> set[str]:
        """What was said of the files that turned out to be damaged so far; what is added counts as met."""
        return self._skips.messages

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(image uint8 RGB [H, W, 3], mask uint8 [H, W]) of item `index`, or of the next readable item.

        Warns with `DamagedFileWarning` for every damaged item.

        Raises:
            DamagedFileError: more than 5% of the items (and more than three) are damaged.
            IndexError: `index` is not in 0..len-1.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if candidate in self._unreadable:
                continue
            try:
                return self.items[candidate].load()
            except DamagedFileError as error:
                self._unreadable.add(candidate)
                self._skips.report(error)
        raise DamagedFileError(f"{self.name}: none of {len(self)} items can be read")


class VideoDataset:
    """Videos with label masks.

    Args:
        name: how messages call it, usually the kind and the folder.
        sequences: what it holds, in a fixed order.

    Raises:
        InputError: there are no sequences.
    """

    def __init__(self, name: str, sequences: Sequence[VideoSequence]) -> None:
        if not sequences:
            raise InputError(f"{name}: expected at least one annotated video, found none")
        self.name = name
        self.sequences = tuple(sequences)
        self._skips = _SkipCounter(name, sum(len(sequence) for sequence in self.sequences))

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, name: str) -> VideoSequence:
        """The sequence called `name`; raises `InputError` that lists the names."""
        for sequence in self.sequences:
            if sequence.name == name:
                return sequence
        names = ", ".join(sequence.name for sequence in self.sequences)
        raise InputError(f"{self.name}: no sequence '{name}'; it has {names}")

    @property
    def damaged(self) -> set[str]:
        """What was said of the files that turned out to be damaged so far; what is added counts as met."""
        return self._skips.messages

    def report_damage(self, error: DamagedFileError) -> None:
        """Counts and warns about damage that a caller of `VideoSequence.load` met and dodged, once per file.

        Raises:
            DamagedFileError: too many damaged files (see `ImageDataset.load`).
        """
        self._skips.report(error)

    def clip_starts(self, length: int = 1) -> list[tuple[int, int]]:
        """All (sequence index, index in `VideoSequence.annotated`) where a clip of `length` annotated frames starts."""
        return [
            (number, first)
            for number, sequence in enumerate(self.sequences)
            for first in range(max(len(sequence.annotated) - length + 1, 0))
        ]


def find_overlap(data: VideoDataset | ImageDataset, videos: VideoDataset) -> list[str]:
    """What of `data` is in `videos` too: sequences of the same name, and whatever has an image file in common.

    Folders are compared behind their links. A copy of a sequence counts by its name, wherever it lies.

    Returns:
        Names of sequences or images of `data`, in its order.
    """

    @functools.cache
    def place(folder: Path) -> str:
        return os.path.realpath(folder)

    names = {sequence.name for sequence in videos.sequences}
    files = {(place(path.parent), path.name) for sequence in videos.sequences for path in sequence.frame_paths}

    def shared(path: Path) -> bool:
        return (place(path.parent), path.name) in files

    if isinstance(data, VideoDataset):
        return [
            sequence.name
            for sequence in data.sequences
            if sequence.name in names or any(shared(path) for path in sequence.frame_paths)
        ]
    return [item.name for item in data.items if shared(item.image_path)]


def require_folder(path: Path, argument: str, expected: str) -> Path:
    """Returns `path`, or raises `InputError` "`argument`: expected `expected` ..." when it is no folder."""
    if not path.is_dir():
        raise InputError(f"{argument}: expected {expected} at {path}, but there is no such folder")
    return path
