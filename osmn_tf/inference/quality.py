"""What `--quality` and `--finetune` mean. Apart from the code that does it, so that `--help` needs no backend."""

from __future__ import annotations

from osmn_tf.errors import InputError

# Measured at 256x448 with the weights of reconvnet_lite, one seed, on six sequences of DAVIS 2016's training set that
# they were not trained on (dog-agility, hike, mallard-water, motocross-bumps, rollerblade, train): mean J 65.6 without
# fine-tuning, 85.5 after 50 steps and 85.7 after 100. Five gain, motocross-bumps loses (82.7, 80.9, 76.8), and much
# more at 288x512 (81.4, 66.5, 61.2), where the others are not measured. At 2e-5 and 256x448, 50 steps gave less
# (rollerblade 75.6 instead of 78.4, motocross-bumps 79.4 instead of 80.9).
STEPS = 50
LEARNING_RATE = 1e-4

QUALITIES = {"fast": 0, "good": STEPS, "best": 100}
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
