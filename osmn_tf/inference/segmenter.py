"""Segments one video: which objects there are, when they begin and end, and whole videos made of single steps.

Needs NumPy and OpenCV only; the network is a `Predictor`'s, wherever and whatever it is.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Reversible, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.finding import MOST_OBJECTS, find_objects
from osmn_tf.inference.merging import to_scores
from osmn_tf.inference.predictor import AdaptOptions, PredictorOptions, Progress, find_network, open_predictor
from osmn_tf.masks.labels import VOID, labels_of

if TYPE_CHECKING:
    from osmn_tf.video.source import FrameSource

Masks = np.ndarray | Mapping[int, np.ndarray]


def _first_frames(frames: Sequence[np.ndarray] | FrameSource, count: int) -> tuple[Reversible[np.ndarray], int]:
    """The first `count` frames, and how many there are of them."""
    if isinstance(frames, Sequence):
        head = frames[:count]
        return head, len(head)
    selected = frames.select(0, count)
    return selected, selected.count_frames()


class VideoSegmenter:
    """Tracks any number of objects through a video, from a mask of each, or those that it finds.

        with VideoSegmenter("osmn_match_lite") as segmenter:
            for frame, mask in segmenter.track(frames, first_mask): ...

    or frame by frame with `start`, `step`, `add` and `remove`. Frames are uint8 RGB [H, W, 3] of any size, masks uint8
    [H, W] with 0 as background and the value k as object k (1..254; 255, unlabelled, counts as background). What is
    kept does not grow with the video.

    A segmenter has one video at a time. Any number of them may share a network: what belongs to the video, and weights
    that were fine-tuned to it, are the segmenter's own; what was compiled for the network is shared.

    Args:
        network: an `OSMN`, a `ReConvNet` or another network that has a predictor; a shipped preset's name; the path of
            a preset folder, `.keras` file, LiteRT export or exported SavedModel; "grpc://HOST:PORT/NAME" or
            "http://HOST:PORT/NAME" of a TensorFlow Serving server; or a `Predictor`.
        network_size, merge, exclusive, recover, precision, threads, engine, objects, search_window, scale: see
            `PredictorOptions`. What a network has no choice in is refused: an exported SavedModel and a server do as
            they were exported. With the engine "auto" a preset's LiteRT files run where it has them, until `finetune`
            or `load_adapted` needs Keras.
        keep_scores: make `scores` available after every frame.

    Raises:
        InputError: there is no such network, its files are damaged, or an option is none of its choices.
        MissingDependencyError: what runs the network is not installed.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> frames = osmn.open_source(example_path() / "meadow.mp4", end=2)
        >>> first_mask = osmn.read_mask(example_path() / "first_mask.png")
        >>> with osmn.VideoSegmenter("osmn_match_lite", engine="litert") as segmenter:
        ...     masks = [mask for frame, mask in segmenter.track(frames, first_mask)]
        >>> len(masks), masks[1].shape, masks[1].dtype
        (2, (480, 854), dtype('uint8'))
    """

    def __init__(
        self,
        network: Any,
        network_size: tuple[int, int] | None = None,
        merge: str = "argmax",
        exclusive: bool = True,
        recover: bool = True,
        keep_scores: bool = False,
        precision: str | None = None,
        threads: int | None = None,
        engine: str = "auto",
        objects: int | None = None,
        search_window: bool | None = None,
        scale: float = 1.0,
    ) -> None:
        self._network = network
        self._options = PredictorOptions(
            network_size, merge, exclusive, recover, precision, threads, engine, objects, search_window, scale
        )
        self.predictor = open_predictor(network, self._options)
        self.keep_scores = keep_scores
        self.reset()

    def __enter__(self) -> VideoSegmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives adapted weights and connections back."""
        self.restore_weights()
        self.predictor.close()

    def reset(self) -> None:
        """Forgets the video and all its objects."""
        self._frame_size: tuple[int, int] | None = None
        self._labels: list[int] = []
        self._scores: Callable[[], dict[int, np.ndarray]] | None = None  # of the last frame, with `keep_scores`
        self._searches = False  # for objects to begin with
        self.predictor.frame_number = -1
        self.predictor.forget()

    @property
    def network_size(self) -> tuple[int, int] | None:
        """(H, W) of the frames inside the network; None where a server does not say."""
        return self.predictor.network_size

    @property
    def scores(self) -> dict[int, np.ndarray]:
        """Soft score of every object in the last frame: label -> float32 [H, W] in 0..1, unmerged.

        Where a mask was given, the objects in it have 1 there and 0 elsewhere.

        Raises:
            InputError: the segmenter was made without `keep_scores=True`, no frame was seen yet, or a server keeps
                them.
        """
        if self._scores is None:
            raise InputError("scores: make the segmenter with keep_scores=True and call step(); a server gives none")
        return self._scores()

    @property
    def has_scores(self) -> bool:
        """Whether `scores` are there."""
        return self._scores is not None

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of the objects being tracked, in the order in which they were added."""
        return tuple(self._labels)

    # Frame by frame ---------------------------------------------------------------------------------------------

    def start(self, frame: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Begins a video (or begins again): forgets all objects and adds those in `mask`.

        Args:
            frame: uint8 [H, W, 3].
            mask: as `add` takes it; None: the objects are found, and get the labels 1, 2, ...: by the network, if it is
                one that finds them, else by `osmn_tf.inference.finding.find_objects`. Where there are none, the next
                frames are searched until there are.

        Returns:
            The mask of this frame: the given one, or what was found.

        Raises:
            InputError: as `add`, or what finds objects is not installed.
        """
        self.reset()
        if mask is not None:
            return self.add(frame, mask)
        self._searches = True
        return self.step(frame)

    def add(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Adds the objects in `mask`, seen in `frame`; labels that are tracked already start again from this mask.

        Call it for a frame instead of `step`: objects that are not in `mask` are stepped.

        Args:
            frame: uint8 [H, W, 3].
            mask: uint8 [H, W], at least one pixel of 1..254.

        Returns:
            uint8 [H, W]: the given mask on top of the other objects' predictions.

        Raises:
            InputError: wrong dtype, size or labels, an empty mask, or more objects than there is room for.
        """
        frame, mask = self._check_frame(frame), self._check_mask(mask)
        given = labels_of(mask)
        count, limit = len({*self._labels, *given}), self.predictor.limit
        if limit is not None and count > limit:
            raise InputError(f"objects: there is room for {limit}, received masks of {count}; raise it")
        self._searches = False
        self.remove([label for label in self._labels if label in given])
        self.predictor.frame_number += 1
        others = bool(self._labels)
        result = self._step(frame) if others else np.zeros_like(mask)
        self.predictor.begin(frame, np.stack([mask == label for label in given]).astype(np.uint8))
        self._labels += given
        if self.keep_scores and (self._scores is not None or not others):
            self._scores = self._with_given(self._scores if others else None, mask, given)
        return np.where(mask > 0, mask, result)

    @staticmethod
    def _with_given(
        stepped: Callable[[], dict[int, np.ndarray]] | None, mask: np.ndarray, given: Sequence[int]
    ) -> Callable[[], dict[int, np.ndarray]]:
        """The scores of a frame with a mask: those that were stepped, and behind them those that were given."""
        return lambda: {
            **(stepped() if stepped is not None else {}),
            **{label: (mask == label).astype(np.float32) for label in given},
        }

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
        self._scores = None
        if keep:
            self.predictor.keep(keep)
        else:
            self.predictor.forget()

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
        if self._searches and not self.predictor.zero_shot:
            found = find_objects(frame, self.predictor.limit or MOST_OBJECTS)
            if found.any():
                return self.add(frame, found)
        self.predictor.frame_number += 1
        if self._searches and self.predictor.zero_shot:
            self.predictor.begin(frame, None)
            self._labels = list(range(1, self.predictor.objects + 1))
            self._searches = not self._labels
        return self._step(frame) if self._labels else np.zeros(frame.shape[:2], np.uint8)

    def _step(self, frame: np.ndarray) -> np.ndarray:
        prediction = self.predictor.advance(frame)
        self._scores = None
        if self.keep_scores and prediction.logits is not None:
            labels, logits = tuple(self._labels), prediction.logits
            self._scores = lambda: dict(zip(labels, to_scores(logits())))
        of_winner = np.zeros(256, np.uint8)
        of_winner[1 : len(self._labels) + 1] = self._labels
        return cv2.LUT(prediction.winners, of_winner)

    # Whole videos -----------------------------------------------------------------------------------------------

    def track(
        self, frames: Iterable[np.ndarray], masks: Masks | None = None, ends: Mapping[int, int] | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Segments a video forward.

        Args:
            frames: uint8 [H, W, 3] each; read once, one at a time (with a server one ahead).
            masks: the first frame's mask, or {frame index: mask}. An object is tracked from its first mask on and
                starts again where it gets another one. Frames before the first mask get empty masks. None: the objects
                are found (`start`).
            ends: {label: index of the frame from which on the object is not tracked}, unless it gets a mask there or
                later.

        Yields:
            (frame, mask) for every frame; where a mask was given, it is kept as it is.

        Raises:
            InputError: as `add`, or a mask is given for a frame that the video does not have.
        """
        given = {} if masks is None else self._given(masks)
        self.reset()
        count = 0
        for index, frame in enumerate(self.predictor.read_ahead(frames)):
            count += 1
            self.remove([label for label in self._labels if (ends or {}).get(label) == index])
            if masks is None and index == 0:
                yield frame, self.start(frame)
            else:
                yield frame, self.add(frame, given[index]) if index in given else self.step(frame)
        late = [index for index in given if index >= count]
        if late:
            raise InputError(f"masks: a mask is given for frame {late[0]}, but the video has {count} frames")

    def track_both_ways(
        self,
        frames: Sequence[np.ndarray] | FrameSource,
        masks: Mapping[int, np.ndarray],
        ends: Mapping[int, int] | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Segments a video forward and backward from masks given anywhere in it.

        Frames after an object's first mask come from the forward pass, those before it from a backward pass, which
        runs first; its masks wait in a temporary file, so memory does not grow.

        Args:
            frames: as in `track`, but iterable more than once and in reverse: a list or an
                `osmn_tf.video.source.FrameSource`.
            masks: {frame index: mask}.
            ends: as in `track`.

        Yields:
            (frame, mask) for every frame, in time order.

        Raises:
            InputError: as `track`.
        """
        given = self._given(masks)
        with tempfile.TemporaryFile() as store:
            spans: dict[int, tuple[int, int]] = {}
            for index, mask in self.track_back(frames, given):
                if mask.any():
                    packed = zlib.compress(mask.tobytes(), 1)
                    spans[index] = (store.tell(), len(packed))
                    store.write(packed)
            for index, (frame, mask) in enumerate(self.track(frames, given, ends)):
                if index in spans:
                    offset, length = spans[index]
                    store.seek(offset)
                    earlier = np.frombuffer(zlib.decompress(store.read(length)), np.uint8).reshape(mask.shape)
                    mask = np.where(mask == 0, earlier, mask)
                yield frame, mask

    def track_back(
        self, frames: Sequence[np.ndarray] | FrameSource, masks: Mapping[int, np.ndarray]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The backward pass of `track_both_ways` by itself.

        Args:
            frames, masks: as `track_both_ways`.

        Yields:
            (index, mask), from the last first mask of an object to the start of the video; in the mask are the objects
            whose first mask comes later than the frame.

        Raises:
            InputError: as `track`.
        """
        given = self._given(masks)
        first: dict[int, int] = {}
        for index in sorted(given):
            for label in labels_of(given[index]):
                first.setdefault(label, index)
        head, length = _first_frames(frames, max(first.values()) + 1)
        if length <= max(first.values()):
            raise InputError(
                f"masks: a mask is given for frame {max(first.values())}, but the video has {length} frames"
            )
        self.reset()
        for index, frame in zip(range(length - 1, -1, -1), reversed(head)):
            starting = [label for label, start in first.items() if start == index]
            self.predictor.frame_number = index - 1
            if starting:
                annotation = np.where(np.isin(given[index], starting), given[index], 0).astype(np.uint8)
                # From its first mask on, an object is the forward pass's.
                mask = np.where(annotation > 0, 0, self.add(frame, annotation))
            else:
                mask = self.step(frame)
            yield index, mask

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that belongs to the video, as arrays for `numpy.savez`: `restore` continues from there.

        Raises:
            InputError: no object is tracked.
        """
        if not self._labels or self._frame_size is None:
            raise InputError("snapshot: no object is tracked")
        return {
            "frame_size": np.array(self._frame_size),
            "labels": np.array(self._labels),
            "frame_number": np.array(self.predictor.frame_number),
            **self.predictor.snapshot(),
        }

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Continues from a `snapshot` of a segmenter with the same network and settings.

        Raises:
            InputError: the snapshot is of another network or of other settings.
        """
        if not {"frame_size", "labels", "frame_number"} <= set(snapshot):
            raise InputError("snapshot: expected what a segmenter's snapshot() has given, received something else")
        self.predictor.restore(snapshot)
        if self.predictor.objects != len(snapshot["labels"]):
            self.reset()
            raise InputError("snapshot: its labels are not those of its objects")
        self._frame_size = (int(snapshot["frame_size"][0]), int(snapshot["frame_size"][1]))
        self._labels = [int(label) for label in snapshot["labels"]]
        self.predictor.frame_number = int(snapshot["frame_number"])
        self._scores = None

    # Online fine-tuning -----------------------------------------------------------------------------------------

    def finetune(
        self,
        frames_and_masks: Iterable[tuple[np.ndarray, np.ndarray]],
        steps: int | None = None,
        learning_rate: float | None = None,
        seed: int = 0,
        options: Any = None,
        progress: Progress | None = None,
        seconds: float | None = None,
    ) -> AbstractContextManager[object]:
        """Adapts the network to a video before it is segmented, by training on its annotated frames.

            with segmenter.finetune([(first_frame, first_mask)]):
                for frame, mask in segmenter.track(frames, first_mask): ...

        The adapted weights are this segmenter's; the network itself does not change. The segmenter runs with the
        network's weights again behind the `with` block, or after `restore_weights`. It forgets the video it may have
        begun, since guides and state came from other weights. A second call begins with the network's weights, not with
        those of the first.

        Args:
            frames_and_masks: one or more annotated frames; a label is the same object in all of them.
            steps: iterations; None: `seconds`, or the network's own number (`Predictor.adaptation`).
            learning_rate: of Adam; None: the network's own.
            seed: of the random transformations; the same seed gives the same weights on the same machine.
            options: what is trained and how; for the modulated networks a `FineTuneOptions`, for OSVOS an
                `ObjectTuneOptions`.
            progress: called after every step with (steps done, steps in all, loss); with `seconds` their number is an
                estimate until the end.
            seconds: time for every object, instead of steps. It does not count what happens once: building and
                compiling the training step.

        Returns:
            A context manager that calls `restore_weights` at its end.

        Raises:
            InputError: as `add`, a number is out of its range, or the network cannot be fine-tuned.
        """
        self.reset()
        try:
            pairs = [(self._check_frame(frame), self._check_mask(mask)) for frame, mask in frames_and_masks]
        finally:
            self.reset()
        if not pairs:
            raise InputError("frames_and_masks: expected at least one annotated frame, received none")
        self._take_trainable()
        self.predictor.adapt(pairs, AdaptOptions(steps, learning_rate, seed, options, seconds), progress)
        return self._tuned()

    def adapted_weights(self) -> dict[str, np.ndarray]:
        """The weights that `finetune` has changed, by name, for `load_adapted`.

        Raises:
            InputError: there are none.
        """
        return self.predictor.adapted_weights()

    def load_adapted(self, weights: Mapping[str, np.ndarray], options: Any = None) -> AbstractContextManager[object]:
        """Goes on with the weights of an earlier `finetune`; returns what `finetune` returns.

        Args:
            weights: what `adapted_weights` has given, of any segmenter of the same network.
            options: those of that `finetune`.

        Raises:
            InputError: they are of another network or of other parts of it.
        """
        self.reset()
        self._take_trainable()
        self.predictor.load_adapted(weights, options)
        return self._tuned()

    def _take_trainable(self) -> None:
        """Goes over to Keras where LiteRT files were chosen that a preset has beside its weights."""
        if self.predictor.can_adapt or self.predictor is self._network:
            return
        source = find_network(self._network, self._options, adapts=True)
        if source.engine == "keras":
            self.predictor.close()
            self.predictor = source.open(self._options)

    def _tuned(self) -> AbstractContextManager[object]:
        stack = ExitStack()
        stack.callback(self.restore_weights)
        return stack

    def restore_weights(self) -> None:
        """Ends `finetune`: the segmenter runs with the network's own weights again, and the video is forgotten."""
        if self.predictor.is_adapted:
            self.predictor.release()
            self.reset()

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
