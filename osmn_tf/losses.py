"""Segmentation losses on logits, as functions; `osmn_tf.training.optimization.SegmentationLoss` is their weighted sum
for `model.compile`. All return one value per example, so that neither the batch size nor the number of
replicas changes what a sample contributes.

Labels are [B, ..., 1] (or [B, ...]) with 0 background, 1 object, 255 unlabelled: unlabelled pixels count for nothing.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

VOID = 255


def _flatten(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, logits and validity as float32 [B, P]."""
    batch = ops.shape(y_pred)[0]
    labels = ops.reshape(ops.cast(y_true, "float32"), (batch, -1))
    logits = ops.reshape(ops.cast(y_pred, "float32"), (batch, -1))
    valid = ops.cast(ops.not_equal(labels, VOID), "float32")
    return labels * valid, logits, valid


def class_balanced_cross_entropy(y_true: Tensor, y_pred: Tensor, per_pixel: bool = False) -> Tensor:
    """Cross-entropy with both classes weighted by the other one's share (OSVOS, OSMN).

    Nneg/N * sum(bce over positives) + Npos/N * sum(bce over negatives), with the counts taken per example. An example
    without positives (or without negatives) gives 0.

    Args:
        y_true: [B, ...], 0, 1 or 255 (unlabelled).
        y_pred: logits of the same size.
        per_pixel: divide by N, the number of labelled pixels. The release sums; a sum over P pixels with learning
            rate r and Adam's scale invariance behaves like the mean with the same r, but with plain SGD, or beside
            a weight decay, the mean needs r * P.

    Returns:
        float32 [B].
    """
    labels, logits, valid = _flatten(y_true, y_pred)
    positives = ops.sum(labels, axis=1)
    total = ops.sum(valid, axis=1)
    negatives = total - positives
    entropy = valid * (ops.relu(logits) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits))))
    positive_part = ops.sum(entropy * labels, axis=1)
    negative_part = ops.sum(entropy * (1.0 - labels), axis=1)
    safe_total = ops.maximum(total, 1.0)
    loss = (negatives * positive_part + positives * negative_part) / safe_total
    return loss / safe_total if per_pixel else loss


def binary_cross_entropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels, without balancing; float32 [B]."""
    labels, logits, valid = _flatten(y_true, y_pred)
    entropy = ops.relu(logits) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits)))
    return ops.sum(valid * entropy, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1.0)


def lovasz_hinge(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Lovasz hinge: the convex surrogate of 1 - IoU on hinge errors (Berman et al., CVPR 2018).

    Without positives the loss is the largest hinge error alone.

    Args:
        y_true: [B, ...], 0, 1 or 255 (unlabelled).
        y_pred: logits of the same size.

    Returns:
        float32 [B].
    """
    labels, logits, valid = _flatten(y_true, y_pred)
    errors = 1.0 - logits * (2.0 * labels - 1.0)
    # Unlabelled pixels sort behind every error that counts, and the hinge cuts them off.
    errors = ops.where(valid > 0, errors, ops.full_like(errors, -1e30))
    order = ops.stop_gradient(ops.argsort(-errors, axis=1))
    sorted_errors = ops.take_along_axis(errors, order, axis=1)
    sorted_labels = ops.take_along_axis(labels, order, axis=1)
    positives = ops.sum(labels, axis=1, keepdims=True)
    intersection = positives - ops.cumsum(sorted_labels, axis=1)
    union = positives + ops.cumsum(1.0 - sorted_labels, axis=1)
    jaccard = 1.0 - intersection / union
    weights = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=1)
    return ops.sum(ops.relu(sorted_errors) * ops.stop_gradient(weights), axis=1)


def soft_iou(y_true: Tensor, y_pred: Tensor, epsilon: float = 1e-6) -> Tensor:
    """1 - sum(p * y) / (sum(p) + sum(y) - sum(p * y) + epsilon), p = sigmoid(logit) (RVOS).

    Args:
        y_true: [B, ...], 0, 1 or 255 (unlabelled).
        y_pred: logits of the same size.
        epsilon: keeps the quotient defined. An example without positives gives a loss near 1 whatever is predicted.

    Returns:
        float32 [B].
    """
    labels, logits, valid = _flatten(y_true, y_pred)
    probabilities = ops.sigmoid(logits) * valid
    intersection = ops.sum(probabilities * labels, axis=1)
    union = ops.sum(probabilities + labels, axis=1) - intersection
    return 1.0 - intersection / (union + epsilon)
