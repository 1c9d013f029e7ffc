"""What every segmenter does with objects and videos, whatever runs its network. Needs NumPy only."""

from __future__ import annotations

import abc
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Reversible, Sequence
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.masks.files import VOID

if TYPE_CHECKING:
    from osmn_tf.video.source import FrameSource

Masks = np.ndarray | Mapping[int, np.ndarray]

MERGES = ("argmax", "soft")


def object_labels(mask: np.ndarray) -> list[int]:
    """The labels in a mask, ascending, without the background."""
    return [int(label) for label in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)) if label]


def _first_frames(frames: Sequence[np.ndarray] | FrameSource, count: int) -> tuple[Reversible[np.ndarray], int]:
    """The first `count` frames, and how many there are of them."""
    if isinstance(frames, Sequence):
        head = frames[:count]
        return head, len(head)
    selected = frames.select(0, count)
    return selected, selected.count_frames()


class ObjectTracker(abc.ABC):
    """The objects of one video: which there are, when they begin and end, and whole videos made of single steps.

    A subclass brings the network, and keeps what belongs to each object in the order of `labels`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets the video and all its objects."""
        self._frame_size: tuple[int, int] | None = None
        self._labels: list[int] = []
        self._forget()

    @abc.abstractmethod
    def _forget(self) -> None:
        """Drops what is kept of all objects."""

    @abc.abstractmethod
    def _begin(self, frame: np.ndarray, masks: np.ndarray) -> None:
        """Takes up objects behind those there are: uint8 [H, W, 3], uint8 [N, H, W] of 0 and 1."""

    @abc.abstractmethod
    def _keep(self, indices: Sequence[int]) -> None:
        """Drops what is kept of all objects but these (ascending, at least one)."""

    @abc.abstractmethod
    def _advance(self, frame: np.ndarray) -> np.ndarray:
        """Steps all objects (there is at least one): index of the winning object plus 1, or 0, uint8 [H, W]."""

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of the objects being tracked, in the order in which they were added."""
        return tuple(self._labels)

    # Frame by frame ---------------------------------------------------------------------------------------------

    def start(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Begins a video (or begins again): forgets all objects and adds those in `mask`.

        Returns:
            The mask of this frame: the given one.

        Raises:
            InputError: as `add`.
        """
        self.reset()
        return self.add(frame, mask)

    def add(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Adds the objects in `mask`, seen in `frame`; labels that are tracked already start again from this mask.

        Call it for a frame instead of `step`: objects that are not in `mask` are stepped.

        Args:
            frame: uint8 [H, W, 3].
            mask: uint8 [H, W], at least one pixel of 1..254.

        Returns:
            uint8 [H, W]: the given mask on top of the other objects' predictions.

        Raises:
            InputError: wrong dtype, size or labels, or an empty mask.
        """
        frame, mask = self._check_frame(frame), self._check_mask(mask)
        given = object_labels(mask)
        self.remove([label for label in self._labels if label in given])
        result = self.step(frame) if self._labels else np.zeros_like(mask)
        self._begin(frame, np.stack([mask == label for label in given]).astype(np.uint8))
        self._labels += given
        return np.where(mask > 0, mask, result)

    def remove(self, labels: int | Sequence[int]) -> None:
        """Stops tracking objects.

        Raises:
            InputError: a label is not tracked.
        """
        labels = [int(label) for label in np.atleast_1d(np.asarray(labels, dtype=np.int64))]
        unknown = [label for label in labels if label not in self._labels]
        if unknown:
            raise InputError(f"labels: {unknown} are not tracked; tracked are {self._labels}")
        if not labels:
            return
        keep = [index for index, label in enumerate(self._labels) if label not in labels]
        self._labels = [self._labels[index] for index in keep]
        if keep:
            self._keep(keep)
        else:
            self._forget()

    def step(self, frame: np.ndarray) -> np.ndarray:
        """Segments the next frame.

        Args:
            frame: uint8 [H, W, 3], of the size of the first.

        Returns:
            uint8 [H, W], 0 and the labels; all 0 while no object is tracked.

        Raises:
            InputError: the frame has another size or dtype.
        """
        frame = self._check_frame(frame)
        if not self._labels:
            return np.zeros(frame.shape[:2], np.uint8)
        return np.array([0, *self._labels], np.uint8)[self._advance(frame)]

    # Whole videos -----------------------------------------------------------------------------------------------

    def track(self, frames: Iterable[np.ndarray], masks: Masks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Segments a video forward.

        Args:
            frames: uint8 [H, W, 3] each; read once, one at a time.
            masks: the first frame's mask, or {frame index: mask}. An object is tracked from its first mask on and
                starts again where it gets another one. Frames before the first mask get empty masks.

        Yields:
            (frame, mask) for every frame; where a mask was given, it is kept as it is.

        Raises:
            InputError: as `add`, or a mask is given for a frame that the video does not have.
        """
        given = self._given(masks)
        self.reset()
        count = 0
        for index, frame in enumerate(frames):
            count += 1
            yield frame, self.add(frame, given[index]) if index in given else self.step(frame)
        late = [index for index in given if index >= count]
        if late:
            raise InputError(f"masks: a mask is given for frame {late[0]}, but the video has {count} frames")

    def track_both_ways(
        self, frames: Sequence[np.ndarray] | FrameSource, masks: Mapping[int, np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Segments a video forward and backward from masks given anywhere in it.

        Frames after an object's first mask come from the forward pass, those before it from a backward pass, which
        runs first; its masks wait in a temporary file, so memory does not grow.

        Args:
            frames: as in `track`, but iterable more than once and in reverse: a list or an
                `osmn_tf.video.source.FrameSource`.
            masks: {frame index: mask}.

        Yields:
            (frame, mask) for every frame, in time order.

        Raises:
            InputError: as `track`.
        """
        given = self._given(masks)
        first: dict[int, int] = {}
        for index in sorted(given):
            for label in object_labels(given[index]):
                first.setdefault(label, index)
        head, length = _first_frames(frames, max(first.values()) + 1)
        if length <= max(first.values()):
            raise InputError(
                f"masks: a mask is given for frame {max(first.values())}, but the video has {length} frames"
            )
        with tempfile.TemporaryFile() as store:
            spans: dict[int, tuple[int, int]] = {}
            for index, mask in self._backward(head, length, given, first):
                packed = zlib.compress(mask.tobytes(), 1)
                spans[index] = (store.tell(), len(packed))
                store.write(packed)
            for index, (frame, mask) in enumerate(self.track(frames, given)):
                if index in spans:
                    offset, length = spans[index]
                    store.seek(offset)
                    earlier = np.frombuffer(zlib.decompress(store.read(length)), np.uint8).reshape(mask.shape)
                    mask = np.where(mask == 0, earlier, mask)
                yield frame, mask

    def _backward(
        self, frames: Reversible[np.ndarray], length: int, given: dict[int, np.ndarray], first: dict[int, int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(index, mask), from the end to the start, of the objects whose first mask comes later than the frame."""
        self.reset()
        for index, frame in zip(range(length - 1, -1, -1), reversed(frames)):
            starting = [label for label, start in first.items() if start == index]
            if starting:
                annotation = np.where(np.isin(given[index], starting), given[index], 0).astype(np.uint8)
                # From its first mask on, an object is the forward pass's.
                mask = np.where(annotation > 0, 0, self.add(frame, annotation))
            else:
                mask = self.step(frame)
            if mask.any():
                yield index, mask

    # Checks -----------------------------------------------------------------------------------------------------

    def _given(self, masks: Masks) -> dict[int, np.ndarray]:
        given = dict(masks) if isinstance(masks, Mapping) else {0: masks}
        if not given:
            raise InputError("masks: expected at least one mask, received none")
        negative = [index for index in given if index < 0]
        if negative:
            raise InputError(f"masks: frame numbers count from 0, received {negative[0]}")
        return {index: self._check_mask(mask, check_size=False) for index, mask in given.items()}

    def _check_frame(self, frame: np.ndarray) -> np.ndarray:
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise InputError(f"frame: expected uint8 RGB [H, W, 3], received {frame.dtype} {list(frame.shape)}")
        if self._frame_size is None:
            self._frame_size = frame.shape[:2]
        elif frame.shape[:2] != self._frame_size:
            raise InputError(
                f"frame: expected {self._frame_size[1]} x {self._frame_size[0]} pixels as in the first frame, received "
                f"{frame.shape[1]} x {frame.shape[0]}"
            )
        return frame

    def _check_mask(self, mask: np.ndarray, check_size: bool = True) -> np.ndarray:
        mask = np.asarray(mask)
        if mask.dtype == bool:
            mask = mask.astype(np.uint8)
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise InputError(f"mask: expected uint8 [H, W] with labels, received {mask.dtype} {list(mask.shape)}")
        if check_size and mask.shape != self._frame_size:
            height, width = self._frame_size or (0, 0)
            raise InputError(
                f"mask: expected {width} x {height} pixels as the frame has, received {mask.shape[1]} x {mask.shape[0]}"
            )
        mask = np.where(mask == VOID, 0, mask)
        if not mask.any():
            raise InputError("mask: no object in it (all pixels are background or unlabelled)")
        return mask
