"""OSVOS-S: what a detector finds in every frame, for any predictor (Maninis et al., 2018).

The instances that match the given mask are selected once; in later frames, those that go on from them are picked by
what the wrapped predictor says of the frame. Pixels inside of the picked instances are then classified by one head, and
all others by another.

Where the source leaves something open, this is our reading: the heads are as deep as OSVOS's own, they begin as copies
of it, and are trained together with it on the annotated frames alone; the instances that they are trained with are
spoiled at random, as those of later frames may be. A predictor without such heads gets the same, from its own logits:
inside of the instances they are raised by `PRIOR`, outside lowered. Where no instance is picked, the wrapped predictor
decides (the source sets the weight to 0 everywhere, which is the head for the outside).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from osmn_tf.datasets.detections import Detections, Instance
from osmn_tf.errors import InputError
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import AdaptOptions, Prediction, Predictor, Progress
from osmn_tf.inference.semantic_selection import classifier_weight, propagate_selection, select_instances
from osmn_tf.inference.wrapping import WrappingPredictor

Array = np.ndarray

PRIOR = 2.0
"""By how much a detector's instance raises the logits of a predictor without heads of its own for it."""

SIGMA = 5.0
"""Of the filter that softens the border of the instances, in pixels of the frame."""

PICKED, FOUND = (255, 255, 255), (110, 110, 110)


class SemanticPredictor(WrappingPredictor):
    """Runs another predictor together with a detector.

        detections = FunctionDetections(my_detector)  # frame -> instances
        predictor = SemanticPredictor(open_predictor("osvos_lite"), detections)
        for frame, mask in VideoSegmenter(predictor).track(frames, first_mask): ...

    Args:
        base: the predictor that is wrapped, with nothing of a video yet. It may be replaced by one of the same network
            with heads for the detector (`Predictor.for_instances`).
        detections: gives the instances of a frame by its number and its pixels (`osmn_tf.datasets.detections`).
        annotated: number of a frame -> the frame: those that `adapt` will be given, since it is not told their numbers.
            Not needed where there is only the first.
        merge: see `PredictorOptions`.
        sigma: of the filter that softens the border of the instances, in pixels.

    Attributes:
        base: see above.
        picked: of the last frame, for every object the instances that were taken for it.
        found: of the last frame, all instances.

    Raises:
        InputError: `base` gives no scores.
    """

    def __init__(
        self,
        base: Predictor,
        detections: Detections,
        *,
        annotated: Mapping[int, Array] | None = None,
        merge: str = "argmax",
        sigma: float = SIGMA,
    ) -> None:
        if not base.gives_scores:
            raise InputError("--detections: this network keeps its scores, expected one that gives them")
        super().__init__(base)
        self.base = base.for_instances(self._instances_of)
        self._detections, self._sigma, self.merge = detections, sigma, merge
        self._annotated = dict(annotated or {})
        self._current: Array | None = None  # the frame that objects are taken up in
        self.forget()

    def forget(self) -> None:
        self.base.forget()
        self._categories: list[list[int]] = []  # of the instances that were selected for each object
        self.picked: list[list[Instance]] = []
        self.found: Sequence[Instance] = []

    def begin(self, frame: Array, masks: Array | None) -> None:
        if masks is None:
            raise InputError("mask: instances are selected by masks, expected one, received None")
        instances = self._detections(self.frame_number, frame)
        selected = [[instances[i] for i in select_instances(instances, np.asarray(mask) != 0)] for mask in masks]
        self._current = frame
        self.base.begin(frame, masks)
        self._categories += [[instance.category for instance in chosen] for chosen in selected]
        self.found = instances
        self.picked = self.picked[: len(self._categories) - len(selected)] + selected

    def _instances_of(self, frame: Array, mask: Array) -> Array:
        """The union of what is selected for an object in an annotated frame."""
        if frame is self._current:
            number = self.frame_number
        else:
            number = next((k for k, known in self._annotated.items() if np.array_equal(known, frame)), 0)
        instances = self._detections(number, frame)
        chosen = select_instances(instances, mask != 0)
        return np.any([instances[i].mask for i in chosen], axis=0) if chosen else np.zeros(mask.shape, bool)

    def keep(self, indices: Sequence[int]) -> None:
        self.base.keep(indices)
        self._categories = [self._categories[index] for index in indices]
        self.picked = [self.picked[index] for index in indices]

    def advance(self, frame: Array) -> Prediction:
        self.found = self._detections(self.frame_number, frame)
        heads = self.base.conditional_logits(frame)
        if heads is not None:
            first, inside, outside = heads
        else:
            logits = self.base.advance(frame).logits
            if logits is None:
                raise InputError("--detections: this network keeps its scores, expected one that gives them")
            first = logits()
            inside, outside = first + np.float32(PRIOR), first - np.float32(PRIOR)
        self.picked = []
        results = np.array(first)
        for index, categories in enumerate(self._categories):
            chosen = propagate_selection(self.found, first[index] > 0, categories)
            self.picked.append([self.found[i] for i in chosen])
            if chosen:
                size = (int(frame.shape[0]), int(frame.shape[1]))
                weight = classifier_weight([instance.mask for instance in self.picked[-1]], size, self._sigma)
                results[index] = weight * inside[index] + (1 - weight) * outside[index]
        return Prediction(merge_logits(results, self.merge), lambda: results)

    def explain(self, frame: Array) -> Array:
        """The frame with the outlines of what the detector has found in it: white where it was taken for an object,
        grey where it was left."""
        drawn = np.ascontiguousarray(frame).copy()
        taken = {id(instance) for chosen in self.picked for instance in chosen}
        for colour, wanted in ((FOUND, False), (PICKED, True)):
            for instance in self.found:
                if (id(instance) in taken) == wanted:
                    outlines, _ = cv2.findContours(
                        instance.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
                    )
                    cv2.drawContours(drawn, outlines, -1, colour, 2)
        return drawn

    # Interruption, adaptation -----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        counts = [len(categories) for categories in self._categories]
        numbers = [category for categories in self._categories for category in categories]
        return {
            **self.base.snapshot(),
            "semantic/counts": np.array(counts, np.int64),
            "semantic/categories": np.array(numbers, np.int64),
        }

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        if not {"semantic/counts", "semantic/categories"} <= set(snapshot):
            raise InputError("snapshot: it is of a run without detections")
        self.base.restore(snapshot)
        ends = np.cumsum(snapshot["semantic/counts"])
        self._categories = [[int(k) for k in part] for part in np.split(snapshot["semantic/categories"], ends[:-1])]
        self.picked = [[] for _ in self._categories]

    def adapt(
        self, frames_and_masks: Sequence[tuple[Array, Array]], options: AdaptOptions, progress: Progress | None = None
    ) -> None:
        self._current = None
        super().adapt(frames_and_masks, options, progress)
