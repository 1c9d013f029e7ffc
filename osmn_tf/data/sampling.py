"""Sources of labelled clips, and the samples of a training run. NumPy and OpenCV only.

A sample is a function of (seed, epoch, index) and of the files: the same with any number of workers, in any order, and
after every restart. What is in it, the target says (`osmn_tf.data.targets`), but for

    seeds         int32 [2]             for `osmn_tf.augment`
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Sequence

import cv2
import numpy as np

from osmn_tf.data.synthetic import ClipOptions, SyntheticClips
from osmn_tf.data.targets import Fields, LabelledClip, OneObject, RawSample, Target
from osmn_tf.datasets.index import DamagedFileError, ImageDataset, VideoDataset
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.resampling import resize_frame, resize_labels

_TRIES = 20
FITS = ("stretch", "crop")


def crop_to_aspect(
    frame: np.ndarray, mask: np.ndarray, label: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A window of a picture with the proportions of `size` around an object.

    The window holds the object and is at most as large as it takes to hold the picture; where it reaches beyond the
    picture, the border is repeated and unlabelled.

    Args:
        frame: uint8 [H, W, 3].
        mask: uint8 [H, W], labels.
        label: of the object; if it is not there, any window will do.
        size: (h, w), of which only the proportions count.
        rng: how large the window is, and where.

    Returns:
        frame uint8 [h', w', 3] and mask uint8 [h', w'].
    """
    height, width = mask.shape
    aspect = size[1] / size[0]
    left, top, box_width, box_height = cv2.boundingRect((mask == label).astype(np.uint8))
    least = max(box_height, box_width / aspect, height / 4, 1)
    most = max(height, width / aspect, least)
    # Between the largest window inside of the picture and the smallest one around it, as a rule.
    usual = max(min(height, width / aspect), least)
    window = usual + (most - usual) * rng.uniform(0, 1) ** 2 if rng.random() < 0.7 else rng.uniform(least, usual)
    sides = max(round(window), 1), max(round(window * aspect), 1)

    def begin(side: int, length: int, first: int, extent: int) -> int:
        low, high = first + extent - side, first  # so that the object is inside
        if side <= length:
            low, high = max(low, 0), min(high, length - side)
        else:
            low, high = max(low, length - side), min(high, 0)
        return int(rng.integers(low, high + 1)) if low < high else (low + high) // 2

    y, x = begin(sides[0], height, top, box_height), begin(sides[1], width, left, box_width)
    before = max(-y, 0), max(-x, 0)
    after = max(y + sides[0] - height, 0), max(x + sides[1] - width, 0)
    inside = slice(max(y, 0), y + sides[0]), slice(max(x, 0), x + sides[1])
    padding = ((before[0], after[0]), (before[1], after[1]))
    return (
        np.pad(frame[inside], (*padding, (0, 0)), mode="edge"),
        np.pad(mask[inside], padding, constant_values=VOID),
    )


class Source(abc.ABC):
    """A supply of labelled clips of one size and length.

    Args:
        size: height and width of frames and masks.
        length: frames per sample.
        before: labelled frames before them (see `Target.before`).
    """

    exhausted = "no usable clip in {tries} tries; the objects are very small or absent"

    def __init__(self, size: tuple[int, int], length: int, before: int = 1) -> None:
        if length < 1:
            raise InputError(f"length: expected at least one frame, received {length}")
        self.size, self.length, self.before = size, length, before

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of items: what an epoch goes through once."""

    @property
    @abc.abstractmethod
    def data(self) -> VideoDataset | ImageDataset | None:
        """The files that the clips are made of; None if they are drawn."""

    @abc.abstractmethod
    def clip(self, item: int, rng: np.random.Generator) -> LabelledClip:
        """A clip of item `item` with `before` + `length` frames; what is open is drawn from `rng`.

        Raises:
            DamagedFileError: a file that it needs; also when frames of the clip are read later.
        """

    def sample(self, item: int, target: Target, rng: np.random.Generator) -> RawSample:
        """What `target` makes of item `item`, or of another one where that gives nothing.

        Raises:
            InputError: nothing could be made of many items.
            DamagedFileError: too many damaged files, or nothing but damaged ones in as many tries.
        """
        damages: list[DamagedFileError] = []
        for _ in range(_TRIES):
            try:
                found = target.sample(self.clip(item, rng), rng)
            except DamagedFileError as error:
                self._report_damage(error)
                damages.append(error)
                found = None
            if found is not None:
                return found
            item = self._another(item, rng)
        if len(damages) == _TRIES:
            raise DamagedFileError(f"{_TRIES} tries met damaged files alone, the last: {damages[-1]}") from damages[-1]
        raise InputError(self.exhausted.format(tries=_TRIES))

    def _another(self, item: int, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self)))

    def _report_damage(self, error: DamagedFileError) -> None:
        raise error


class VideoSource(Source):
    """Clips of annotated videos.

    Args:
        data: the videos.
        size, length, before: see `Source`.
        max_gap: the step between frames is drawn from 1..max_gap annotated frames.
        reverse: probability that the clip runs backwards.
        motion: additional camera motion (see `osmn_tf.augment.affine_parameters`).

    Raises:
        InputError: no video has length + before annotated frames.
    """

    def __init__(
        self,
        data: VideoDataset,
        size: tuple[int, int],
        length: int = 1,
        *,
        before: int = 1,
        max_gap: int = 1,
        reverse: float = 0.5,
        motion: float = 0.2,
    ) -> None:
        super().__init__(size, length, before)
        if max_gap < 1:
            raise InputError(f"max_gap: expected at least 1, received {max_gap}")
        self._data, self.max_gap, self.reverse, self.motion = data, max_gap, reverse, motion
        self.exhausted = f"{data.name}: {Source.exhausted}"
        self._starts = data.clip_starts(length + before)
        if not self._starts:
            raise InputError(f"{data.name}: no video has {length + before} annotated frames")

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def data(self) -> VideoDataset:
        return self._data

    def clip(self, item: int, rng: np.random.Generator) -> LabelledClip:
        number, start = self._starts[item]
        sequence = self._data.sequences[number]
        steps = self.length + self.before - 1
        gap = 1
        if steps:
            fitting = (len(sequence.annotated) - 1 - start) // steps
            gap = int(rng.integers(1, min(self.max_gap, fitting) + 1))
        positions = [sequence.annotated[start + k * gap] for k in range(steps + 1)]
        if rng.random() < self.reverse:
            positions.reverse()

        def load_mask(index: int) -> np.ndarray:
            mask = sequence.load_mask(index)
            if mask is None:
                raise InputError(f"{sequence.name}: frame {index} has no annotation")
            return resize_labels(mask, self.size)

        def load_frame(index: int) -> np.ndarray:
            return resize_frame(sequence.load_frame(index), self.size)

        return LabelledClip(
            masks=np.stack([load_mask(index) for index in positions]),
            load_frame=lambda k: load_frame(positions[k]),
            motion=self.motion,
            labels=sequence.labels,
            views=sequence.annotated,
            load_view_mask=load_mask,
            load_view_frame=load_frame,
        )

    def _report_damage(self, error: DamagedFileError) -> None:
        self._data.report_damage(error)


class ImageSource(Source):
    """Single images as clips that stand still; the augmentation moves them.

    Args:
        data: the images.
        size, length, before: see `Source`.
        motion: see `osmn_tf.augment.affine_parameters`.
        fit: "stretch", or "crop": pictures keep their proportions (see `crop_to_aspect`).

    Raises:
        InputError: `fit` is none of its choices.
    """

    def __init__(
        self,
        data: ImageDataset,
        size: tuple[int, int],
        length: int = 1,
        *,
        before: int = 1,
        motion: float = 0.5,
        fit: str = "stretch",
    ) -> None:
        super().__init__(size, length, before)
        if fit not in FITS:
            raise InputError(f"fit: expected one of {', '.join(FITS)}, received {fit!r}")
        self._data, self.motion, self.fit = data, motion, fit
        self.exhausted = f"{data.name}: no usable object in {{tries}} images; they are very small or absent"
        # Where the index knows the objects, an epoch goes through all of them, as the release does on COCO.
        self._items: list[tuple[int, int | None]] = [
            (index, label) for index, item in enumerate(data.items) for label in (item.labels or (None,))
        ]

    def __len__(self) -> int:
        return len(self._items)

    @property
    def data(self) -> ImageDataset:
        return self._data

    def clip(self, item: int, rng: np.random.Generator) -> LabelledClip:
        index, label = self._items[item]
        frame, mask = self._data.load(index)
        if self.fit == "crop":
            around = label if label in labels_of(mask) else int(rng.choice(labels_of(mask) or (0,)))
            frame, mask = crop_to_aspect(frame, mask, around, self.size, rng)
        resized = functools.cache(lambda: resize_frame(frame, self.size))
        return LabelledClip(
            masks=np.repeat(resize_labels(mask, self.size)[None], self.length + self.before, axis=0),
            load_frame=lambda k: resized(),
            motion=self.motion,
            wanted=label,
        )


class SyntheticSource(Source):
    """Clips by `SyntheticClips`, always new ones.

    Args:
        images: where objects come from, or None for drawn ones.
        size, length, before: see `Source`.
        samples: how many make an epoch.
        options: see `ClipOptions`.

    Raises:
        InputError: there are no samples, or as `SyntheticClips`.
    """

    exhausted = "object_size: no object in {tries} synthetic clips is large enough for a guide; raise it"

    def __init__(
        self,
        images: ImageDataset | None,
        size: tuple[int, int],
        length: int = 1,
        *,
        before: int = 1,
        samples: int = 1000,
        options: ClipOptions | None = None,
    ) -> None:
        super().__init__(size, length, before)
        if samples < 1:
            raise InputError(f"samples: expected at least 1, received {samples}")
        self._images = images
        self._clips = SyntheticClips(images, size, length + before, options=options)
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    @property
    def data(self) -> ImageDataset | None:
        return self._images

    def clip(self, item: int, rng: np.random.Generator) -> LabelledClip:
        frames, masks = self._clips[int(rng.integers(1 << 31))]
        return LabelledClip(masks=masks, load_frame=frames.__getitem__)

    def _another(self, item: int, rng: np.random.Generator) -> int:
        return item  # every clip is new anyway


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
        target: what is made of the clips; by default samples of `OneObject`.

    Attributes:
        failure: the error that ended the supply, where one did: TensorFlow passes on no more than its text.

    Raises:
        InputError: sources that do not go together, or weights that do not fit.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float] | None = None,
        epoch_size: int | None = None,
        seed: int = 0,
        target: Target | None = None,
    ) -> None:
        if not sources:
            raise InputError("sources: expected at least one")
        if len({(source.size, source.length) for source in sources}) > 1:
            raise InputError("sources: expected the same size and length for all")
        self.target = OneObject() if target is None else target
        if any(source.before != self.target.before for source in sources):
            raise InputError(f"before: {type(self.target).__name__} needs sources with before={self.target.before}")
        if weights is not None and (len(weights) != len(sources) or min(weights) < 0 or sum(weights) <= 0):
            raise InputError(f"weights: expected {len(sources)} shares, not all zero, received {list(weights)}")
        shares = np.array([len(source) for source in sources] if weights is None else weights, np.float64)
        self.sources = tuple(sources)
        self.size, self.length = sources[0].size, sources[0].length
        self.epoch_size = sum(len(source) for source in sources) if epoch_size is None else epoch_size
        if self.epoch_size < 1:
            raise InputError(f"epoch_size: expected at least 1, received {epoch_size}")
        self.seed = seed
        self.failure: InputError | None = None
        self._shares = shares / shares.sum()
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def __len__(self) -> int:
        return self.epoch_size

    @property
    def fields(self) -> Fields:
        """Type and shape of the fields of a sample."""
        return {**self.target.fields(self.size, self.length), "seeds": ("int32", (2,))}

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

    @property
    def damaged(self) -> list[list[str]]:
        """What was said of the damaged files that each source has met so far. Setting it goes on from there after an
        interruption: too many of them end a run, and it must not matter how often it was interrupted before."""
        return [[] if source.data is None else sorted(source.data.damaged) for source in self.sources]

    @damaged.setter
    def damaged(self, messages: Sequence[Sequence[str]]) -> None:
        for source, known in zip(self.sources, messages):
            if source.data is not None:
                source.data.damaged.update(known)

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
        source = self.sources[plan.sources[index]]
        try:
            return {**source.sample(int(plan.items[index]), self.target, rng), "seeds": seeds}
        except InputError as error:
            self.failure = error
            raise

    def batch(self, epoch: int, indices: Sequence[int] | range) -> RawSample:
        """Samples stacked along a new first axis."""
        samples = [self.sample(epoch, index) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
