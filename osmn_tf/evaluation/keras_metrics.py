"""Metrics for `model.fit`: the mean IoU of thresholded logits, pure Keras on any backend.

model.compile(optimizer, loss, metrics=[MeanIoU()])
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from osmn_tf.masks.labels import VOID

Tensor = Any


@keras.saving.register_keras_serializable(package="osmn_tf")
class MeanIoU(keras.metrics.Metric):
    """Mean over the examples of J, the intersection over union of prediction and label.

    Unlike `keras.metrics.IoU`, which adds up the pixels of the whole data set, every example (one object in one frame)
    counts the same, as in the DAVIS benchmark. An example with neither label nor prediction gives 1.

    `y_true` is [B, ..., H, W, 1] with 0 background, 1 object and 255 unlabelled (left out): frames [B, H, W, 1], or
    clips [B, T, H, W, 1] with a value for every frame. `y_pred` are logits of the same size. `sample_weight` is one
    weight per element of the batch [B], or per frame [B, ...].

    Args:
        threshold: a pixel is object where the logit is above this; 0 is a probability of 0.5.
        name, dtype: as in every Keras metric.
    """

    def __init__(self, threshold: float = 0.0, name: str = "mean_iou", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.threshold = threshold
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds the examples of one batch."""
        batch, height, width = ops.shape(y_pred)[0], ops.shape(y_pred)[-3], ops.shape(y_pred)[-2]
        labels = ops.reshape(ops.cast(y_true, "float32"), (batch, -1, height * width))
        guess = ops.reshape(ops.cast(ops.greater(y_pred, self.threshold), "float32"), (batch, -1, height * width))
        valid = ops.cast(ops.not_equal(labels, VOID), "float32")
        truth = ops.cast(ops.not_equal(labels, 0), "float32") * valid
        guess = guess * valid
        intersection = ops.sum(truth * guess, axis=2)
        union = ops.sum(ops.maximum(truth, guess), axis=2)
        iou = ops.where(union > 0, intersection / ops.maximum(union, 1.0), ops.ones_like(union))  # [B, frames]
        if sample_weight is None:
            weights = ops.ones_like(iou)
        else:
            weights = ops.cast(sample_weight, "float32")
            weights = ops.reshape(weights, (ops.shape(weights)[0] if len(weights.shape) else 1, -1))
            weights = ops.broadcast_to(weights, ops.shape(iou))
        self.total.assign_add(ops.cast(ops.sum(iou * weights), self.total.dtype))
        self.count.assign_add(ops.cast(ops.sum(weights), self.count.dtype))

    def result(self) -> Tensor:
        """The mean so far; 0 before the first example."""
        return ops.divide_no_nan(self.total, self.count)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "threshold": self.threshold}
