"""Which prediction belongs to which object, for networks that find the objects by themselves."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from osmn_tf.errors import import_extra
from osmn_tf.masks.labels import VOID

Tensor = Any


def best_assignment(scores: np.ndarray) -> np.ndarray:
    """The prediction of every object, none twice, with the largest sum of scores (Hungarian algorithm, SciPy).

    Args:
        scores: float32 [B, K, K], of object j and prediction k.

    Returns:
        int32 [B, K].

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    scipy = import_extra("scipy.optimize", "scipy", "evaluation", "matching predictions to objects")
    found = [scipy.linear_sum_assignment(each, maximize=True)[1] for each in np.asarray(scores)]
    return np.stack(found).astype(np.int32)


def assign(scores: Tensor) -> Tensor:
    """`best_assignment` of tensors, eager or in a compiled training step: float32 [B, K, K] -> int32 [B, K]."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        found = tf.numpy_function(best_assignment, [scores], tf.int32, stateful=False)
        return tf.ensure_shape(found, scores.shape[:2])
    if backend == "jax":
        import jax

        return jax.pure_callback(best_assignment, jax.ShapeDtypeStruct(scores.shape[:2], "int32"), scores)
    return ops.convert_to_tensor(best_assignment(ops.convert_to_numpy(ops.stop_gradient(scores))))


def pairwise_soft_iou(labels: Tensor, logits: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Soft IoU of every object with every prediction (`osmn_tf.losses.soft_iou` is one less that of a pair).

    Args:
        labels: uint8 [B, K, P], 0, 1 or 255 (unlabelled).
        logits: [B, K, P].
        epsilon: keeps the quotient defined.

    Returns:
        float32 [B, K objects, K predictions].
    """
    labels = ops.cast(labels, "float32")
    valid = ops.cast(ops.not_equal(labels, VOID), "float32")
    truth, guess = labels * valid, ops.sigmoid(ops.cast(logits, "float32"))
    intersection = ops.einsum("bjp,bkp->bjk", truth, guess)
    union = ops.sum(truth, axis=2)[:, :, None] + ops.einsum("bjp,bkp->bjk", valid, guess) - intersection
    return intersection / (union + epsilon)


@keras.saving.register_keras_serializable(package="osmn_tf")
class SlotAssignment(keras.layers.Layer):
    """Puts predictions in the order of the objects that they are of.

    Decided on the first frame of a clip by the largest sum of soft IoU, and kept for its other frames (RVOS). What is
    left over goes to the slots without an object. No gradient flows through the decision.

    Call arguments:
        logits: float32 [B, T, K, H, W, 1].
        first_masks: uint8 [B, K, H, W], labels of the first frame: 0, 1 or 255.
        given: float32 [B]; 1 where predictions are in the right order already, since their masks were given.

    Returns:
        logits of the same shape, in the order of `first_masks`.
    """

    def call(self, logits: Tensor, first_masks: Tensor, given: Tensor) -> Tensor:
        batch, slots = ops.shape(logits)[0], logits.shape[2]
        first = ops.stop_gradient(logits[:, 0])
        scores = pairwise_soft_iou(ops.reshape(first_masks, (batch, slots, -1)), ops.reshape(first, (batch, slots, -1)))
        order = ops.where(given[:, None] > 0.5, ops.arange(slots, dtype="int32")[None], assign(scores))
        # As a product with a permutation matrix: the gradient of gathering is not deterministic on a GPU.
        permutation = ops.cast(ops.equal(order[:, :, None], ops.arange(slots, dtype="int32")), logits.dtype)
        flat = ops.reshape(logits, (batch, logits.shape[1], slots, -1))
        return ops.reshape(ops.matmul(permutation[:, None], flat), ops.shape(logits))

    def compute_output_spec(self, logits: Any, first_masks: Any, given: Any) -> Any:
        return keras.KerasTensor(logits.shape, dtype=logits.dtype)
