"""Which object a pixel belongs to, from the logits of all of them: in NumPy, for predictors without a graph for it."""

from __future__ import annotations

import numpy as np

MERGES = ("argmax", "soft")


def merge_logits(logits: np.ndarray, merge: str) -> np.ndarray:
    """Index of the winning object plus 1, or 0 for the background.

    Args:
        logits: float32 [N, H, W].
        merge: see `osmn_tf.inference.predictor.PredictorOptions`.

    Returns:
        uint8 [H, W].
    """
    top = logits.max(axis=0)
    if merge == "argmax":
        foreground = top > 0
    else:
        # log(1 - p) = -softplus(logit); the background's probability is the product over all objects.
        log_background = -np.logaddexp(np.float32(0), logits).sum(axis=0)
        foreground = top > log_background - np.log(-np.expm1(np.minimum(log_background, np.float32(-1e-7))))
    if len(logits) == 1:
        return foreground.astype(np.uint8)
    return np.where(foreground, logits.argmax(axis=0) + 1, 0).astype(np.uint8)


def to_scores(logits: np.ndarray) -> np.ndarray:
    """Logits as probabilities, float32 of the same shape in 0..1."""
    return 0.5 * np.tanh(0.5 * logits) + 0.5  # as tanh it cannot overflow
