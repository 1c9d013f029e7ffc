"""Segments one video: holds the network and everything that belongs to the video (objects, guides, state)."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Reversible, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from osmn_tf.errors import InputError
from osmn_tf.guides import spatial_guide, visual_guide
from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.masks import VOID
from osmn_tf.inference.quality import LEARNING_RATE, STEPS

if TYPE_CHECKING:
    from osmn_tf.inference.online import FineTuneOptions, OnlineFineTuner, Progress
    from osmn_tf.inference.video_io import FrameSource
    from osmn_tf.models.osmn import OSMN

Tensor = Any
Masks = np.ndarray | Mapping[int, np.ndarray]

MERGES = ("argmax", "soft")


def _resize(images: Tensor, size: tuple[int, int], interpolation: str = "bilinear", antialias: bool = False) -> Tensor:
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    return ops.image.resize(images, size, interpolation=interpolation, antialias=antialias, data_format="channels_last")


def _first_frames(frames: Sequence[np.ndarray] | FrameSource, count: int) -> tuple[Reversible[np.ndarray], int]:
    """The first `count` frames, and how many there are of them."""
    if isinstance(frames, Sequence):
        head = frames[:count]
        return head, len(head)
    selected = frames.select(0, count)
    return selected, selected.count_frames()


def object_labels(mask: np.ndarray) -> list[int]:
    """The labels in a mask, ascending, without the background."""
    return [int(label) for label in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)) if label]


class VideoSegmenter:
    """Tracks any number of objects through a video, from a mask of each.

        segmenter = VideoSegmenter(model)
        for frame, mask in segmenter.track(frames, first_mask): ...

    or frame by frame with `start`, `step`, `add` and `remove`. Frames are uint8 RGB [H, W, 3] of any size, masks uint8
    [H, W] with 0 as background and the value k as object k (1..254; 255, unlabelled, counts as background). What is
    kept does not grow with the video.

    Every object has its own modulation (computed once) and recurrent state; its spatial guide comes from its
    prediction of the frame before. The layers before the first modulation run once a frame for all objects, and a
    whole step (resize, guides, network, merge) is one compiled call.

    Args:
        model: an `OSMN` or `ReConvNet`.
        network_size: (H, W) to which frames are resized for the network; default: the model's `network_size`.
        merge: "argmax" (the highest score above 0.5 wins, ties go to the background; the release) or "soft" (soft
            aggregation: odds against a background of prod(1 - p)).
        exclusive: make an object's next spatial guide only of the pixels where it beats the other objects, so that two
            objects do not drift onto one. False: of all pixels above 0.5, whoever wins them (the release). With a
            single object there is no difference.
        recover: when an object's prediction is empty, keep its last spatial guide instead of an empty one, so that it
            can be found again near where it was lost. The release has no recovery.
        keep_scores: make `scores` available after every step.

    Raises:
        InputError: an argument is none of its choices.
    """

    def __init__(
        self,
        model: OSMN,
        network_size: tuple[int, int] | None = None,
        merge: str = "argmax",
        exclusive: bool = True,
        recover: bool = True,
        keep_scores: bool = False,
    ) -> None:
        if merge not in MERGES:
            raise InputError(f"merge: expected one of {', '.join(MERGES)}, received {merge!r}")
        height, width = network_size or model.network_size
        if height < 32 or width < 32:
            raise InputError(f"network_size: expected at least 32 x 32 pixels, received {height} x {width}")
        self.model = model
        self.network_size = (int(height), int(width))
        self.merge = merge
        self.exclusive = exclusive
        self.recover = recover
        self.keep_scores = keep_scores
        models = [model.visual_modulator, model.frame_encoder, model.object_network]
        self._compiled_modulate = compile_function(self._modulate, models)
        self._compiled_step = compile_function(self._step, models)
        self._tuner: OnlineFineTuner | None = None  # made when it is needed: it compiles a training step
        self.reset()

    def reset(self) -> None:
        """Forgets the video and all its objects."""
        self._frame_size: tuple[int, int] | None = None
        self._labels: list[int] = []
        self._modulation: Tensor = None  # [N, M]
        self._guide_masks: Tensor = None  # uint8 [N, h, w], what the next spatial guides are made of
        self._state: dict[str, Tensor] = {}
        self._logits: Tensor = None  # [N, H, W] of the last step, with `keep_scores`

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of the objects being tracked, in the order in which they were added."""
        return tuple(self._labels)

    @property
    def scores(self) -> dict[int, np.ndarray]:
        """Soft score of every object in the last frame that was stepped: label -> float32 [H, W] in 0..1, unmerged.

        Raises:
            InputError: the segmenter was made without `keep_scores=True`, or no step was made yet.
        """
        if self._logits is None:
            raise InputError("scores: make the segmenter with keep_scores=True and call step() first")
        scores = ops.convert_to_numpy(ops.sigmoid(self._logits))
        return dict(zip(self._labels, scores))

    # The two compiled functions ---------------------------------------------------------------------------------

    def _modulate(self, frame: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Modulation [N, M] and network-size masks uint8 [N, h, w] of objects given as uint8 [N, H, W]."""
        guides = visual_guide(frame[None], masks, self.model.guide_size, self.model.guide_background)
        modulation = self.model.visual_modulator(guides, training=False)
        full = ops.cast(masks, "float32")[..., None]
        small = _resize(full, self.network_size, "nearest")
        # An object between the sampled pixels would be lost before it is begun.
        touched = ops.cast(_resize(full, self.network_size, antialias=True) > 0, "float32")
        small = ops.where(ops.any(small > 0, axis=(1, 2, 3), keepdims=True), small, touched)
        return modulation, ops.cast(small[..., 0], "uint8")

    def _step(
        self, frame: Tensor, guide_masks: Tensor, modulation: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """One frame for all objects: (index map uint8 [H, W], next guide masks, new state, logits [N, H, W])."""
        size = (int(frame.shape[0]), int(frame.shape[1]))
        small = _resize(ops.cast(frame, "float32")[None], self.network_size)
        features = self.model.frame_encoder({"frame": ops.cast(ops.round(small), "uint8")}, training=False)
        outputs = self.model.object_network(
            {**features, "spatial_guide": spatial_guide(guide_masks), "modulation": modulation, **state},
            training=False,
        )
        logits = outputs.pop("logits")
        won = logits[..., 0] > 0
        if self.exclusive:
            won = ops.logical_and(won, logits[..., 0] >= ops.max(logits[..., 0], axis=0, keepdims=True))
        own = ops.cast(won, "uint8")
        if self.recover:
            found = ops.any(own > 0, axis=(1, 2), keepdims=True)
            own = ops.where(found, own, guide_masks)
        full = _resize(logits, size)[..., 0]
        return self._merged(full), own, outputs, full

    def _merged(self, logits: Tensor) -> Tensor:
        """Index of the winning object plus 1, or 0 for the background: float32 [N, H, W] -> uint8 [H, W]."""
        best = ops.argmax(logits, axis=0)
        top = ops.max(logits, axis=0)
        if self.merge == "argmax":
            foreground = top > 0
        else:
            # log(1 - p) = -softplus(logit); the background's probability is the product over all objects.
            log_background = -ops.sum(ops.softplus(logits), axis=0)
            background_logit = log_background - ops.log(-ops.expm1(ops.minimum(log_background, -1e-7)))
            foreground = top > background_logit
        return ops.where(foreground, ops.cast(best, "uint8") + 1, ops.zeros_like(ops.cast(best, "uint8")))

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
        others = [label for label in self._labels if label not in given]
        self.remove([label for label in self._labels if label in given])
        result = self.step(frame) if others else np.zeros_like(mask)

        stacked = np.stack([mask == label for label in given]).astype(np.uint8)
        modulation, guide_masks = self._compiled_modulate(frame, stacked)
        state = self.model.initial_state(len(given), *self.network_size)
        if state:
            # The first frame, with the guide of the given mask, starts the recurrent state.
            _, _, state, _ = self._compiled_step(frame, guide_masks, modulation, state)
        if others:
            modulation = ops.concatenate([self._modulation, modulation])
            guide_masks = ops.concatenate([self._guide_masks, guide_masks])
            state = {name: ops.concatenate([self._state[name], state[name]]) for name in state}
        self._labels = others + given
        self._modulation, self._guide_masks, self._state = modulation, guide_masks, state
        self._logits = None
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
        self._logits = None
        if keep:
            self._modulation = ops.take(self._modulation, keep, axis=0)
            self._guide_masks = ops.take(self._guide_masks, keep, axis=0)
            self._state = {name: ops.take(value, keep, axis=0) for name, value in self._state.items()}

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
        winners, self._guide_masks, self._state, logits = self._compiled_step(
            frame, self._guide_masks, self._modulation, self._state
        )
        self._logits = logits if self.keep_scores else None
        lookup = np.array([0, *self._labels], np.uint8)
        return lookup[ops.convert_to_numpy(winners)]

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that belongs to the video, as arrays for `numpy.savez`: `restore` continues from there.

        Raises:
            InputError: no object is tracked.
        """
        if not self._labels or self._frame_size is None:
            raise InputError("snapshot: no object is tracked")

        def exact(value: Tensor) -> np.ndarray:
            # float32 holds every half-precision value; NumPy's files have no bfloat16.
            return ops.convert_to_numpy(ops.cast(value, "float32"))

        return {
            "frame_size": np.array(self._frame_size),
            "labels": np.array(self._labels),
            "modulation": exact(self._modulation),
            "guide_masks": ops.convert_to_numpy(self._guide_masks),
            **{f"state/{name}": exact(value) for name, value in self._state.items()},
        }

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Continues from a `snapshot` of a segmenter with the same model and settings.

        Raises:
            InputError: the snapshot is of another network or network size.
        """
        expected = self.model.initial_state(len(snapshot["labels"]), *self.network_size)
        received = {name.removeprefix("state/"): value for name, value in snapshot.items() if "state/" in name}
        shapes = {name: tuple(value.shape) for name, value in received.items()}
        same_size = snapshot["guide_masks"].shape[1:] == self.network_size
        if not same_size or shapes != {name: tuple(value.shape) for name, value in expected.items()}:
            raise InputError("snapshot: its state is not of this network and network size")
        self.reset()
        self._frame_size = (int(snapshot["frame_size"][0]), int(snapshot["frame_size"][1]))
        self._labels = [int(label) for label in snapshot["labels"]]
        self._modulation = ops.convert_to_tensor(snapshot["modulation"])
        self._guide_masks = ops.convert_to_tensor(snapshot["guide_masks"])
        self._state = {
            name: ops.cast(ops.convert_to_tensor(value), expected[name].dtype) for name, value in received.items()
        }

    # Online fine-tuning -----------------------------------------------------------------------------------------

    def finetune(
        self,
        frames_and_masks: Iterable[tuple[np.ndarray, np.ndarray]],
        steps: int = STEPS,
        learning_rate: float = LEARNING_RATE,
        seed: int = 0,
        options: FineTuneOptions | None = None,
        progress: Progress | None = None,
    ) -> AbstractContextManager[object]:
        """Adapts the model to a video before it is segmented, by training on its annotated frames.

            with segmenter.finetune([(first_frame, first_mask)]):
                for frame, mask in segmenter.track(frames, first_mask): ...

        The model has its own weights again behind the `with` block, or after `restore_weights`. The segmenter forgets
        the video it may have begun, since guides and state came from other weights. A second call begins with the
        model's own weights, not with those of the first.

        Args:
            frames_and_masks: one or more annotated frames; a label is the same object in all of them.
            steps: iterations.
            learning_rate: of Adam.
            seed: of the random transformations; the same seed gives the same weights on the same machine.
            options: what is trained and how (see `FineTuneOptions`).
            progress: called after every step with (steps done, steps in all, loss).

        Returns:
            A context manager that calls `restore_weights` at its end.

        Raises:
            InputError: as `add`, or a number is out of its range.
        """
        self.reset()
        try:
            pairs = [(self._check_frame(frame), self._check_mask(mask)) for frame, mask in frames_and_masks]
        finally:
            self.reset()
        if not pairs:
            raise InputError("frames_and_masks: expected at least one annotated frame, received none")
        self.tuner(options).fit(pairs, steps, learning_rate, seed, progress)
        stack = ExitStack()
        stack.callback(self.restore_weights)
        return stack

    def tuner(self, options: FineTuneOptions | None = None) -> OnlineFineTuner:
        """What `finetune` works with; kept from video to video, because it compiles a training step.

        Args:
            options: of the fine-tuning; others than before replace the tuner.
        """
        from osmn_tf.inference.online import FineTuneOptions, OnlineFineTuner

        options = options or FineTuneOptions()
        if self._tuner is None or self._tuner.options != options:
            if self._tuner is not None:
                self._tuner.restore()
            self._tuner = OnlineFineTuner(self.model, self.network_size, options)
        return self._tuner

    def restore_weights(self) -> None:
        """Ends `finetune`: the model has its own weights again, and the video is forgotten."""
        if self._tuner is not None and self._tuner.is_tuned:
            self._tuner.restore()
            self.reset()

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
                `osmn_tf.inference.video_io.FrameSource`.
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
