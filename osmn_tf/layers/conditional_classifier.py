"""Two classifiers, one inside and one outside the instances of a detector (OSVOS-S, Maninis et al., 2018)."""

from __future__ import annotations

from typing import Any

import keras

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="osmn_tf")
class ConditionalClassifier(keras.layers.Layer):
    """w f1 + (1 - w) f2: each pixel is classified by the head that its weight says.

    The gradient g of the output reaches f1 as w g and f2 as (1 - w) g: each head learns from its own pixels. No
    gradient goes into the weights. (The source does not say whether logits or probabilities are mixed: here they are
    logits, as all losses of this package take them.)

    Call arguments:
        inside: [B, H, W, C], logits of the head for pixels of the instances, f1.
        outside: [B, H, W, C], those of the head for all other pixels, f2.
        weight: [B or 1, H, W, 1], 0..1: 1 inside of the instances, 0 outside, smooth between.

    Returns:
        [B, H, W, C].
    """

    def call(self, inside: Tensor, outside: Tensor, weight: Tensor) -> Tensor:
        weight = keras.ops.stop_gradient(weight)
        return weight * inside + (1.0 - weight) * outside

    def compute_output_shape(self, inside_shape: Shape, outside_shape: Shape, weight_shape: Shape) -> Shape:
        return inside_shape
