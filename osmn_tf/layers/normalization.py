"""Batch normalisation for trunks that are trained a little, or not at all."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

Tensor = Any


@keras.saving.register_keras_serializable(package="osmn_tf")
class BatchNorm(layers.BatchNormalization):
    """Batch normalisation that can be told to use its stored statistics in training too.

    Args:
        batch_statistics: False normalises with the moving statistics even when training; scale and offset still
            train. Needed where statistics were folded away (mean 0, variance 1), and for small batches.
    """

    def __init__(self, batch_statistics: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_statistics = batch_statistics

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        return super().call(inputs, training=bool(training) and self.batch_statistics, mask=mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "batch_statistics": self.batch_statistics}
