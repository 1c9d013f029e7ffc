"""`osmn_tf.VideoSegmenter` on an exported network: the same interface and rules, with NumPy around LiteRT."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.tracking import MERGES, ObjectTracker
from osmn_tf.runtime import guides
from osmn_tf.runtime.frames import resize, resize_frame
from osmn_tf.runtime.network import ExportedNetwork, read_metadata


@dataclass
class _Object:
    """What is kept of one object from frame to frame."""

    modulation: np.ndarray  # float32 [M]
    guide_mask: np.ndarray  # uint8 [h, w], what the next spatial guide is made of
    state: dict[str, np.ndarray]


class VideoSegmenter(ObjectTracker):
    """Tracks any number of objects through a video with an exported network.

        segmenter = VideoSegmenter("exported/reconvnet_lite")
        for frame, mask in segmenter.track(frames, first_mask): ...

    Everything is as in `osmn_tf.inference.video_segmenter.VideoSegmenter`, but for what a fixed graph cannot do: it
    runs at the size that it was exported for, and cannot be fine-tuned.

    Args:
        path: the exported folder, or one of the `.tflite` files in it.
        network_size: None, or the (h, w) that the network was exported for.
        merge: "argmax" or "soft".
        exclusive: make an object's next guide only of the pixels where it beats the other objects.
        recover: when an object's prediction is empty, keep its last spatial guide.
        keep_scores: make `scores` available after every step.
        threads: that the network computes with; default: the cores that this process may use, at most four.

    Raises:
        InputError: a file is missing or damaged, or an argument is none of its choices.
        MissingDependencyError: ai-edge-litert is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        network_size: tuple[int, int] | None = None,
        merge: str = "argmax",
        exclusive: bool = True,
        recover: bool = True,
        keep_scores: bool = False,
        threads: int | None = None,
    ) -> None:
        if merge not in MERGES:
            raise InputError(f"merge: expected one of {', '.join(MERGES)}, received {merge!r}")
        self.network_size = read_metadata(path)[1].network_size
        if network_size is not None and tuple(network_size) != self.network_size:
            raise InputError(
                f"network_size: {path} was exported for {self.network_size[0]} x {self.network_size[1]} and runs at no "
                f"other size, received {network_size[0]} x {network_size[1]}"
            )
        self.network = ExportedNetwork(path, threads)
        self.merge = merge
        self.exclusive = exclusive
        self.recover = recover
        self.keep_scores = keep_scores
        super().__init__()

    def _forget(self) -> None:
        self._objects: list[_Object] = []
        self._logits: np.ndarray | None = None  # [N, H, W] of the last step, with `keep_scores`

    def _keep(self, indices: Sequence[int]) -> None:
        self._objects = [self._objects[index] for index in indices]
        self._logits = None

    @property
    def scores(self) -> dict[int, np.ndarray]:
        """Soft score of every object in the last frame that was stepped: label -> float32 [H, W] in 0..1, unmerged.

        Raises:
            InputError: the segmenter was made without `keep_scores=True`, or no step was made yet.
        """
        if self._logits is None:
            raise InputError("scores: make the segmenter with keep_scores=True and call step() first")
        # As tanh it cannot overflow.
        return dict(zip(self._labels, 0.5 * np.tanh(0.5 * self._logits) + 0.5))

    def _begin(self, frame: np.ndarray, masks: np.ndarray) -> None:
        metadata = self.network.metadata
        begun = [
            _Object(
                self.network.modulate(guides.visual_guide(frame, mask, metadata.guide_size, metadata.guide_background)),
                guides.network_mask(mask, self.network_size),
                self.network.initial_state(),
            )
            for mask in masks
        ]
        if metadata.state:
            # The first frame, with the guide of the given mask, starts the recurrent state.
            _, states = self._run(frame, begun)
            for an_object, state in zip(begun, states):
                an_object.state = state
        self._objects += begun
        self._logits = None

    def _advance(self, frame: np.ndarray) -> np.ndarray:
        logits, states = self._run(frame, self._objects)
        won = logits > 0
        if self.exclusive and len(logits) > 1:
            won &= logits >= logits.max(axis=0)
        for an_object, state, own in zip(self._objects, states, won):
            an_object.state = state
            if own.any() or not self.recover:
                an_object.guide_mask = own.astype(np.uint8)
        full = np.stack([resize(plane, frame.shape[:2]) for plane in logits])
        self._logits = full if self.keep_scores else None
        return self._merged(full)

    def _run(self, frame: np.ndarray, objects: Sequence[_Object]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """Logits [N, h, w] and new states."""
        self.network.encode(resize_frame(frame, self.network_size))
        return self.network.step(
            [guides.spatial_guide(an_object.guide_mask) for an_object in objects],
            [an_object.modulation for an_object in objects],
            [an_object.state for an_object in objects],
        )

    def _merged(self, logits: np.ndarray) -> np.ndarray:
        """Index of the winning object plus 1, or 0 for the background: float32 [N, H, W] -> uint8 [H, W]."""
        top = logits.max(axis=0)
        if self.merge == "argmax":
            foreground = top > 0
        else:
            # log(1 - p) = -softplus(logit); the background's probability is the product over all objects.
            log_background = -np.logaddexp(np.float32(0), logits).sum(axis=0)
            foreground = top > log_background - np.log(-np.expm1(np.minimum(log_background, np.float32(-1e-7))))
        if len(logits) == 1:
            return foreground.astype(np.uint8)
        return np.where(foreground, logits.argmax(axis=0) + 1, 0).astype(np.uint8)

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
            "modulation": np.stack([an_object.modulation for an_object in self._objects]),
            "guide_masks": np.stack([an_object.guide_mask for an_object in self._objects]),
            **{
                f"state/{name}": np.stack([an_object.state[name] for an_object in self._objects])
                for name in self.network.metadata.state
            },
        }

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Continues from a `snapshot` of a segmenter with the same network and settings.

        Raises:
            InputError: the snapshot is of another network or network size.
        """
        metadata, count = self.network.metadata, len(snapshot["labels"])
        expected = {
            "modulation": (count, metadata.modulation_size),
            "guide_masks": (count, *self.network_size),
            **{f"state/{name}": (count, *shape) for name, shape in metadata.state.items()},
        }
        if {name: value.shape for name, value in snapshot.items() if name not in ("frame_size", "labels")} != expected:
            raise InputError("snapshot: its state is not of this network and network size")
        self.reset()
        self._frame_size = (int(snapshot["frame_size"][0]), int(snapshot["frame_size"][1]))
        self._labels = [int(label) for label in snapshot["labels"]]
        self._objects = [
            _Object(
                snapshot["modulation"][index].astype(np.float32),
                snapshot["guide_masks"][index].astype(np.uint8),
                {name: snapshot[f"state/{name}"][index].astype(np.float32) for name in metadata.state},
            )
            for index in range(count)
        ]
