"""Raw training samples: which frames, which object, which guide frame. NumPy and OpenCV only.

A sample is a function of (seed, epoch, index) and of the files: the same with any number of workers, in any order, and
after every restart.

A raw sample is a dict:

    frames        uint8 [T, H, W, 3]    RGB
    masks         uint8 [T + 1, H, W]   0, 1 (the object) or 255; the first is the mask before the first frame
    guide_frame   uint8 [H, W, 3]       where the visual guide is cut out
    guide_mask    uint8 [H, W]          0 or 1
    seeds         int32 [2]             for `osmn_tf.augment`
    motion        float32 []            see `osmn_tf.augment.affine_parameters`
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Sequence

import cv2
import numpy as np

from osmn_tf.data.synthetic import ClipOptions, SyntheticClips
from osmn_tf.datasets.index import DamagedFileError, ImageDataset, VideoDataset, VideoSequence
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import VOID, labels_of

RawSample = dict[str, np.ndarray]

_MIN_AREA = 0.003  # of the picture, for a guide (OSMN release)
_MIN_FILL = 0.2  # of its box, for a guide (OSMN release)
_TRIES = 20


def good_guide(mask: np.ndarray) -> bool:
    """Whether the object (1 in a mask [H, W]) covers over 0.3% of the picture and over 20% of its box, as in OSMN."""
    pixels = (mask == 1).astype(np.uint8)
    _, _, width, height = cv2.boundingRect(pixels)
    area = cv2.countNonZero(pixels)
    return area > _MIN_AREA * mask.size and area > _MIN_FILL * width * height


def _select(mask: np.ndarray, label: int) -> np.ndarray:
    """One object: 0, 1, or `VOID` where nothing is labelled."""
    selected = (mask == label).astype(np.uint8)
    selected[mask == VOID] = VOID
    return selected


class Source(abc.ABC):
    """A supply of raw samples of one size and clip length, but for `seeds`.

    Args:
        size: height and width to which frames and masks are stretched.
        length: frames per sample.
    """

    def __init__(self, size: tuple[int, int], length: int) -> None:
        if length < 1:
            raise InputError(f"length: expected at least one frame, received {length}")
        self.size, self.length = size, length

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of items: what an epoch goes through once."""

    @abc.abstractmethod
    def sample(self, item: int, rng: np.random.Generator) -> RawSample:
        """A sample of item `item`; what is open is drawn from `rng`."""

    def _resize_frame(self, frame: np.ndarray) -> np.ndarray:
        height, width = self.size
        if frame.shape[:2] == self.size:
            return frame
        smaller = height < frame.shape[0]
        return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

    def _resize_mask(self, mask: np.ndarray) -> np.ndarray:
        if mask.shape == self.size:
            return mask
        return cv2.resize(mask, self.size[::-1], interpolation=cv2.INTER_NEAREST)


class VideoSource(Source):
    """Clips of annotated videos: a random object, guided by a random frame that shows it well.

    Args:
        data: the videos.
        size, length: see `Source`.
        max_gap: the step between frames is drawn from 1..max_gap annotated frames.
        reverse: probability that the clip runs backwards.
        motion: additional camera motion (see `osmn_tf.augment.affine_parameters`).

    Raises:
        InputError: no video has length + 1 annotated frames.
    """

    def __init__(
        self,
        data: VideoDataset,
        size: tuple[int, int],
        length: int = 1,
        *,
        max_gap: int = 1,
        reverse: float = 0.5,
        motion: float = 0.2,
    ) -> None:
        super().__init__(size, length)
        if max_gap < 1:
            raise InputError(f"max_gap: expected at least 1, received {max_gap}")
        self.data, self.max_gap, self.reverse, self.motion = data, max_gap, reverse, motion
        self._starts = data.clip_starts(length + 1)
        if not self._starts:
            raise InputError(f"{data.name}: no video has {length + 1} annotated frames")

    def __len__(self) -> int:
        return len(self._starts)

    def sample(self, item: int, rng: np.random.Generator) -> RawSample:
        for _ in range(_TRIES):
            sequence, start = self._starts[item]
            try:
                found = self._clip(self.data.sequences[sequence], start, rng)
            except DamagedFileError as error:
                self.data.report_damage((sequence, start), error)
                found = None
            if found is not None:
                return found
            item = int(rng.integers(len(self)))
        raise InputError(f"{self.data.name}: no usable clip in {_TRIES} tries; the objects are very small or absent")

    def _clip(self, sequence: VideoSequence, start: int, rng: np.random.Generator) -> RawSample | None:
        """None if no frame of the sequence shows an object of the clip well enough for a guide."""
        fitting = (len(sequence.annotated) - 1 - start) // self.length
        gap = int(rng.integers(1, min(self.max_gap, fitting) + 1))
        positions = [sequence.annotated[start + k * gap] for k in range(self.length + 1)]
        if rng.random() < self.reverse:
            positions.reverse()
        masks = np.stack([self._mask(sequence, i) for i in positions])
        # An object that the tracker could know: present before the clip, or at least somewhere in it.
        candidates = labels_of(masks[0]) or labels_of(masks) or sequence.labels
        label = int(rng.choice(candidates))
        guide = self._guide(sequence, label, rng)
        if guide is None:
            return None
        return {
            "frames": np.stack([self._resize_frame(sequence.load_frame(i)) for i in positions[1:]]),
            "masks": _select(masks, label),
            "guide_frame": guide[0],
            "guide_mask": guide[1],
            "motion": np.array(self.motion, np.float32),
        }

    def _mask(self, sequence: VideoSequence, index: int) -> np.ndarray:
        mask = sequence.load_mask(index)
        if mask is None:
            raise InputError(f"{sequence.name}: frame {index} has no annotation")
        return self._resize_mask(mask)

    def _guide(
        self, sequence: VideoSequence, label: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        for index in rng.permutation(sequence.annotated)[:_TRIES]:
            mask = (self._mask(sequence, int(index)) == label).astype(np.uint8)
            if good_guide(mask):
                return self._resize_frame(sequence.load_frame(int(index))), mask
        return None


class ImageSource(Source):
    """Single images as clips that stand still; the augmentation moves them.

    Args:
        data: the images.
        size, length: see `Source`.
        motion: see `osmn_tf.augment.affine_parameters`.
    """

    def __init__(self, data: ImageDataset, size: tuple[int, int], length: int = 1, *, motion: float = 0.5) -> None:
        super().__init__(size, length)
        self.data, self.motion = data, motion
        # Where the index knows the objects, an epoch goes through all of them, as the release does on COCO.
        self._items: list[tuple[int, int | None]] = [
            (index, label) for index, item in enumerate(data.items) for label in (item.labels or (None,))
        ]

    def __len__(self) -> int:
        return len(self._items)

    def sample(self, item: int, rng: np.random.Generator) -> RawSample:
        for _ in range(_TRIES):
            index, label = self._items[item]
            frame, mask = self.data.load(index)
            mask = self._resize_mask(mask)
            labels = [k for k in labels_of(mask) if good_guide(mask == k)]
            if labels:
                if label not in labels:
                    label = int(rng.choice(labels))
                frame, mask = self._resize_frame(frame), _select(mask, label)
                return {
                    "frames": np.repeat(frame[None], self.length, axis=0),
                    "masks": np.repeat(mask[None], self.length + 1, axis=0),
                    "guide_frame": frame,
                    "guide_mask": (mask == 1).astype(np.uint8),
                    "motion": np.array(self.motion, np.float32),
                }
            item = int(rng.integers(len(self)))
        raise InputError(f"{self.data.name}: no usable object in {_TRIES} images; they are very small or absent")


class SyntheticSource(Source):
    """Clips by `SyntheticClips`, always new ones; the frame before the clip is the guide.

    Args:
        images: where objects come from, or None for drawn ones.
        size, length: see `Source`.
        samples: how many make an epoch.
        options: see `ClipOptions`.
    """

    def __init__(
        self,
        images: ImageDataset | None,
        size: tuple[int, int],
        length: int = 1,
        *,
        samples: int = 1000,
        options: ClipOptions | None = None,
    ) -> None:
        super().__init__(size, length)
        self._clips = SyntheticClips(images, size, length + 1, options=options)
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def sample(self, item: int, rng: np.random.Generator) -> RawSample:
        for _ in range(_TRIES):
            frames, masks = self._clips[int(rng.integers(1 << 31))]
            labels = [k for k in labels_of(masks[0]) if good_guide(masks[0] == k)]
            if labels:
                masks = _select(masks, int(rng.choice(labels)))
                return {
                    "frames": frames[1:],
                    "masks": masks,
                    "guide_frame": frames[0],
                    "guide_mask": masks[0],
                    "motion": np.array(0.0, np.float32),
                }
        raise InputError(f"object_size: no object in {_TRIES} synthetic clips is large enough for a guide; raise it")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which source and which of its items every sample of an epoch takes."""

    sources: np.ndarray
    items: np.ndarray


class Samples:
    """The samples of a training run, by epoch and index.

    Args:
        sources: where they come from, all with the same size and length.
        weights: share of each source in an epoch; by default in proportion to their lengths.
        epoch_size: samples per epoch; by default one pass over all items.
        seed: another seed gives other samples.

    Raises:
        InputError: sources that do not go together, or weights that do not fit.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float] | None = None,
        epoch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        if not sources:
            raise InputError("sources: expected at least one")
        if len({(source.size, source.length) for source in sources}) > 1:
            raise InputError("sources: expected the same size and length for all")
        if weights is not None and (len(weights) != len(sources) or min(weights) < 0 or sum(weights) <= 0):
            raise InputError(f"weights: expected {len(sources)} shares, not all zero, received {list(weights)}")
        shares = np.array([len(source) for source in sources] if weights is None else weights, np.float64)
        self.sources = tuple(sources)
        self.size, self.length = sources[0].size, sources[0].length
        self.epoch_size = sum(len(source) for source in sources) if epoch_size is None else epoch_size
        if self.epoch_size < 1:
            raise InputError(f"epoch_size: expected at least 1, received {epoch_size}")
        self.seed = seed
        self._shares = shares / shares.sum()
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def __len__(self) -> int:
        return self.epoch_size

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_plan"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def _make_plan(self, epoch: int) -> _Plan:
        rng = np.random.default_rng([self.seed, epoch, 1])
        exact = self._shares * self.epoch_size
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: self.epoch_size - counts.sum()]] += 1
        owners = np.repeat(np.arange(len(self.sources)), counts)
        items = np.empty(self.epoch_size, np.int64)
        for number, source in enumerate(self.sources):
            rounds = -(-counts[number] // len(source))
            order = np.concatenate([rng.permutation(len(source)) for _ in range(rounds)] or [np.empty(0, int)])
            items[owners == number] = order[: counts[number]]
        shuffle = rng.permutation(self.epoch_size)
        return _Plan(owners[shuffle], items[shuffle])

    def sample(self, epoch: int, index: int) -> RawSample:
        """Sample `index` (0..epoch_size-1) of an epoch.

        Raises:
            InputError: the data cannot give one; DamagedFileError when too much of it is damaged.
        """
        if not 0 <= index < self.epoch_size:
            raise InputError(f"index: expected 0..{self.epoch_size - 1}, received {index}")
        plan = self._plan(epoch)
        rng = np.random.default_rng([self.seed, epoch, index, 2])
        seeds = rng.integers(-(1 << 31), 1 << 31, 2).astype(np.int32)
        return {**self.sources[plan.sources[index]].sample(int(plan.items[index]), rng), "seeds": seeds}

    def batch(self, epoch: int, indices: Sequence[int] | range) -> RawSample:
        """Samples stacked along a new first axis."""
        samples = [self.sample(epoch, index) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
