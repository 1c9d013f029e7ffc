"""Which object a pixel belongs to, from the logits of all of them: in NumPy, for predictors without a graph for it."""

from __future__ import annotations

import numpy as np

MERGES = ("argmax", "soft", "painted")


def merge_logits(logits: np.ndarray, merge: str, ranks: np.ndarray | None = None) -> np.ndarray:
    """Index of the winning object plus 1, or 0 for the background.

    Args:
        logits: float32 [N, H, W].
        merge: see `osmn_tf.inference.predictor.PredictorOptions`.
        ranks: float32 [N], 0 or more, for "painted"; None: 0, 1, 2, ...

    Returns:
        uint8 [H, W].
    """
    if merge == "painted":
        order = np.arange(len(logits), dtype=np.float32) if ranks is None else ranks
        layers = np.where(logits > 0, order[:, None, None], np.float32(-1))
        return np.where((logits > 0).any(axis=0), layers.argmax(axis=0) + 1, 0).astype(np.uint8)
    top = logits[0] if len(logits) == 1 else logits.max(axis=0)
    if merge == "argmax":
        foreground = top > 0
    else:
        # log(1 - p) = -softplus(logit); the background's probability is the product over all objects.
        log_background = -np.logaddexp(np.float32(0), logits).sum(axis=0)
        foreground = top > log_background - np.log(-np.expm1(np.minimum(log_background, np.float32(-1e-7))))
    if len(logits) == 1:
        return foreground.view(np.uint8)
    return np.where(foreground, logits.argmax(axis=0) + 1, 0).astype(np.uint8)


def to_scores(logits: np.ndarray) -> np.ndarray:
    """Logits as probabilities, float32 of the same shape in 0..1."""
    return 0.5 * np.tanh(0.5 * logits) + 0.5  # as tanh it cannot overflow
