"""Segments one video: holds the network and everything that belongs to the video (objects, guides, state)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from osmn_tf.errors import InputError
from osmn_tf.guides import spatial_guide, visual_guide
from osmn_tf.inference.adaptation.quality import LEARNING_RATE, STEPS
from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.folding import FoldedNetwork
from osmn_tf.inference.tracking import MERGES, ObjectTracker

if TYPE_CHECKING:
    from osmn_tf.inference.adaptation.online import FineTuneOptions, OnlineFineTuner, Progress
    from osmn_tf.models.osmn import OSMN

Tensor = Any


def _resize(images: Tensor, size: tuple[int, int], interpolation: str = "bilinear", antialias: bool = False) -> Tensor:
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    return ops.image.resize(images, size, interpolation=interpolation, antialias=antialias, data_format="channels_last")


class VideoSegmenter(ObjectTracker):
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
        self._frame_encoder = FoldedNetwork(model.frame_encoder)
        self._object_network = FoldedNetwork(model.object_network)
        models = [model.visual_modulator, model.frame_encoder, model.object_network]
        self._compiled_modulate = compile_function(self._modulate, models)
        self._compiled_step = compile_function(self._step, models)
        self._tuner: OnlineFineTuner | None = None  # made when it is needed: it compiles a training step
        super().__init__()

    def _forget(self) -> None:
        self._modulation: Tensor = None  # [N, M]
        self._guide_masks: Tensor = None  # uint8 [N, h, w], what the next spatial guides are made of
        self._state: dict[str, Tensor] = {}
        self._logits: Tensor = None  # [N, H, W] of the last step, with `keep_scores`

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
        features = self._frame_encoder({"frame": ops.cast(ops.round(small), "uint8")})
        outputs = self._object_network(
            {**features, "spatial_guide": spatial_guide(guide_masks), "modulation": modulation, **state}
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

    # What the tracker asks for ----------------------------------------------------------------------------------

    def _begin(self, frame: np.ndarray, masks: np.ndarray) -> None:
        modulation, guide_masks = self._compiled_modulate(frame, masks)
        state = self.model.initial_state(len(masks), *self.network_size)
        if state:
            # The first frame, with the guide of the given mask, starts the recurrent state.
            _, _, state, _ = self._compiled_step(frame, guide_masks, modulation, state)
        if self._labels:
            modulation = ops.concatenate([self._modulation, modulation])
            guide_masks = ops.concatenate([self._guide_masks, guide_masks])
            state = {name: ops.concatenate([self._state[name], state[name]]) for name in state}
        self._modulation, self._guide_masks, self._state = modulation, guide_masks, state
        self._logits = None

    def _keep(self, indices: Sequence[int]) -> None:
        self._modulation = ops.take(self._modulation, indices, axis=0)
        self._guide_masks = ops.take(self._guide_masks, indices, axis=0)
        self._state = {name: ops.take(value, indices, axis=0) for name, value in self._state.items()}
        self._logits = None

    def _advance(self, frame: np.ndarray) -> np.ndarray:
        winners, self._guide_masks, self._state, logits = self._compiled_step(
            frame, self._guide_masks, self._modulation, self._state
        )
        self._logits = logits if self.keep_scores else None
        return ops.convert_to_numpy(winners)

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
        from osmn_tf.inference.adaptation.online import FineTuneOptions, OnlineFineTuner

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
