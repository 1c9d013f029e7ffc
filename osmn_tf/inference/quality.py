"""What `--quality` and `--finetune` mean. Apart from the code that does it, so that `--help` needs no backend."""

from __future__ import annotations

from osmn_tf.errors import InputError

STEPS = 100
LEARNING_RATE = 1e-4

QUALITIES = {"fast": 0, "good": STEPS, "best": 300}
"""Name -> steps of online fine-tuning."""


def finetune_steps(quality: str | None, steps: int | None) -> int:
    """Steps of `--finetune`, or of `--quality` where it is not given.

    Raises:
        InputError: both are given, or the number is negative.
    """
    if steps is None:
        return QUALITIES[quality or "fast"]
    if quality is not None:
        raise InputError("--finetune: the number of steps is also set by --quality; give one of them")
    if steps < 0:
        raise InputError(f"--finetune: expected 0 steps or more, received {steps}")
    return steps


def check_rate(rate: float) -> float:
    """The value of `--finetune-rate`.

    Raises:
        InputError: it is not positive.
    """
    if not rate > 0:
        raise InputError(f"--finetune-rate: expected a positive number such as 1e-5, received {rate}")
    return rate
