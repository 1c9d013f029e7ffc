"""`osmn_tf.inference.merging` of tensors, for compiled steps and exported graphs."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def merge_tensors(logits: Tensor, merge: str, ranks: Tensor | None = None) -> Tensor:
    """`osmn_tf.inference.merging.merge_logits` of tensors: float32 [N, H, W] -> uint8 [H, W]."""
    if logits.shape[0] == 1:
        # Nobody to be compared with, whichever way: to look for the best of one takes 2 to 4 ms of a frame.
        return ops.cast(logits[0] > 0, "uint8")
    if merge == "painted":
        order = ops.arange(logits.shape[0], dtype="float32") if ranks is None else ranks
        layers = ops.where(logits > 0, order[:, None, None], -1.0)
        best, foreground = ops.argmax(layers, axis=0), ops.any(logits > 0, axis=0)
    else:
        best = ops.argmax(logits, axis=0)
        top = ops.max(logits, axis=0)
        if merge == "argmax":
            foreground = top > 0
        else:
            # log(1 - p) = -softplus(logit); the background's probability is the product over all objects.
            log_background = -ops.sum(ops.softplus(logits), axis=0)
            background_logit = log_background - ops.log(-ops.expm1(ops.minimum(log_background, -1e-7)))
            foreground = top > background_logit
    return ops.where(foreground, ops.cast(best, "uint8") + 1, ops.zeros_like(ops.cast(best, "uint8")))
