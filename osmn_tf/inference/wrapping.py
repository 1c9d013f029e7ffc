"""Predictors that run another one and change what comes out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from osmn_tf.inference.predictor import AdaptOptions, Prediction, Predictor, Progress

Array = np.ndarray


class WrappingPredictor(Predictor):
    """Hands on to another predictor whatever a subclass does not do itself.

    Attributes:
        base: the predictor that is wrapped, on whatever engine.
    """

    def __init__(self, base: Predictor) -> None:
        self.base, self.limit = base, base.limit
        self.can_adapt, self.adapts_itself, self.adaptation = base.can_adapt, base.adapts_itself, base.adaptation

    @property
    def network_size(self) -> tuple[int, int] | None:
        return self.base.network_size

    @property
    def objects(self) -> int:
        return self.base.objects

    def begin(self, frame: Array, masks: Array | None) -> None:
        self.base.begin(frame, masks)

    def keep(self, indices: Sequence[int]) -> None:
        self.base.keep(indices)

    def advance(self, frame: Array) -> Prediction:
        return self.base.advance(frame)

    def forget(self) -> None:
        self.base.forget()

    def probe(self, frame: Array, masks: Array) -> Array:
        return self.base.probe(frame, masks)

    def snapshot(self) -> dict[str, Array]:
        return self.base.snapshot()

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        self.base.restore(snapshot)

    def read_ahead(self, frames: Iterable[Array]) -> Iterable[Array]:
        return self.base.read_ahead(frames)

    def close(self) -> None:
        self.base.close()

    @property
    def is_adapted(self) -> bool:  # type: ignore[override]
        return self.base.is_adapted

    def adapt(
        self, frames_and_masks: Sequence[tuple[Array, Array]], options: AdaptOptions, progress: Progress | None = None
    ) -> None:
        self.base.adapt(frames_and_masks, options, progress)

    def adapted_weights(self) -> dict[str, Array]:
        return self.base.adapted_weights()

    def load_adapted(self, weights: Mapping[str, Array], details: Any = None) -> None:
        self.base.load_adapted(weights, details)

    def release(self) -> None:
        self.base.release()
