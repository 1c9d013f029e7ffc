"""What `--quality` and `--finetune` mean. Apart from the code that does it, so that `--help` needs no backend."""

from __future__ import annotations

from osmn_tf.errors import InputError

# Measured with osmn_match_lite at its own size, 256x448, one seed, on six sequences of DAVIS 2016's training set that
# it was not trained on (dog-agility, hike, mallard-water, motocross-bumps, rollerblade, train), on two busy CPU cores:
# osmn benchmark finetune DAVIS --year 2016 --split dev --steps 0 25 80
# Mean J 83.4 without, then 85.3 (21 s), 85.4 (68 s). Five of the six gain; rollerblade loses a point and a half.
# reconvnet_lite, which does not match, needs more: 77.4 without, then 84.0 (25 steps), 87.7 (80), 89.4 (300).
STEPS = 25
LEARNING_RATE = 1e-4

QUALITIES = {"fast": 0, "good": STEPS, "best": 300}
"""Name -> steps of online fine-tuning."""

SCORES = {"fast": (83.4, 0), "good": (85.3, 21)}
"""Name -> (mean J in percent, seconds that the steps took), as measured above; "best" is not measured yet."""


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
