"""What `--quality` and `--finetune` mean. Apart from the code that does it, so that `--help` needs no backend."""

from __future__ import annotations

from osmn_tf.errors import InputError

# Measured with reconvnet_lite at its own size, 288x512, one seed, on six sequences of DAVIS 2016's training set that it
# was not trained on (dog-agility, hike, mallard-water, motocross-bumps, rollerblade, train), on two busy CPU cores:
# osmn benchmark finetune DAVIS --split dev --steps 0 25 50 100 200 300
# Mean J 77.4 without, then 84.0 (24 s), 86.8 (48 s), 87.8 (96 s), 88.8 (191 s), 89.4 (289 s). Five of the six gain from
# the first step on; motocross-bumps loses at first (66.8 after 25 steps) and gains from 80 on.
# osmn benchmark finetune DAVIS --split dev --steps 0 80
# On the two cores alone: 87.7 after 80 steps, 56 s. More does not fit into a minute.
STEPS = 80
LEARNING_RATE = 1e-4

QUALITIES = {"fast": 0, "good": STEPS, "best": 300}
"""Name -> steps of online fine-tuning."""

SCORES = {"fast": (77.4, 0), "good": (87.7, 56), "best": (89.4, 289)}
"""Name -> (mean J in percent, seconds that the steps took), as measured above."""


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
