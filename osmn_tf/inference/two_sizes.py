"""A network that sees every frame at two sizes: larger for fine masks, and at its own so as not to lose the object.

In larger frames a network that matches sees more of what is small, and more that looks alike: it is lost more often
than at the size that it was trained near. Where the two do not find the same thing, the network's own size is
believed, and the larger one goes on from there (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import GuidedPredictor, Prediction
from osmn_tf.inference.wrapping import WrappingPredictor

Array = np.ndarray

AGREEMENT = 0.8
"""IoU of an object's two masks above which the larger size is believed (docs/experiments.md)."""

_OWN_SIZE = "own_size/"  # begins the names of a snapshot's arrays of the network's own size


class TwoSizesPredictor(WrappingPredictor):
    """Runs a network in larger frames, and at its own size beside it.

    It is adapted in larger frames alone: what it has learned there does worse at its own size.

    Args:
        base: runs it in larger frames.
        own_size: runs it at its own size; with the same options otherwise.
        merge: how objects' logits are merged, `PredictorOptions.merge`.
    """

    base: GuidedPredictor

    def __init__(self, base: GuidedPredictor, own_size: GuidedPredictor, merge: str) -> None:
        super().__init__(base)
        self.own_size, self.merge = own_size, merge

    def begin(self, frame: Array, masks: Array | None) -> None:
        self.base.begin(frame, masks)
        self.own_size.begin(frame, masks)

    def keep(self, indices: Sequence[int]) -> None:
        self.base.keep(indices)
        self.own_size.keep(indices)

    def advance(self, frame: Array) -> Prediction:
        large, own = self.base.advance(frame), self.own_size.advance(frame)
        doubted = [
            index
            for index in range(self.objects)
            if _iou(large.winners == index + 1, own.winners == index + 1) <= AGREEMENT
        ]
        if not doubted or large.logits is None or own.logits is None:
            return large
        logits, others = np.array(large.logits()), own.logits()
        for index in doubted:
            logits[index] = others[index]
            if (mask := own.winners == index + 1).any():
                self.base.correct(index, mask)
        return Prediction(merge_logits(logits, self.merge), lambda: logits)

    def forget(self) -> None:
        self.base.forget()
        self.own_size.forget()

    def probe(self, frame: Array, masks: Array) -> Array:
        self.own_size.forget()
        return self.base.probe(frame, masks)

    def snapshot(self) -> dict[str, Array]:
        own = self.own_size.snapshot()
        return {**self.base.snapshot(), **{_OWN_SIZE + name: value for name, value in own.items()}}

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        own = {name.removeprefix(_OWN_SIZE): x for name, x in snapshot.items() if name.startswith(_OWN_SIZE)}
        before = self.own_size.snapshot() if self.objects else None
        self.own_size.restore(own)
        try:
            self.base.restore(snapshot)
        except InputError:
            self.own_size.forget()
            if before is not None:
                self.own_size.restore(before)
            raise

    def close(self) -> None:
        self.base.close()
        self.own_size.close()


def _iou(one: Array, other: Array) -> float:
    """IoU of two bool masks; 1 of two empty ones."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
