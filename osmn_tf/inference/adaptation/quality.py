"""What `--quality` and `--finetune` mean. Apart from the code that does it, so that `--help` needs no backend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from osmn_tf.errors import InputError

# At which size networks that match see the frames with `good`. Presets may have LiteRT files for it, too.
LARGER = 1.36

STEPS = 12
LEARNING_RATE = 3e-4
# How far networks that match go from their own weights to the trained ones.
INTERPOLATION = 0.5
# Of networks that do not match, whose trunk is trained too.
UNMATCHED_LEARNING_RATE = 1e-4

# For OSVOS, an object.
OBJECT_STEPS = 100
OBJECT_LEARNING_RATE = 2e-4
# On a trunk without BatchNorm, VGG-16, which a higher one destroys.
PLAIN_OBJECT_LEARNING_RATE = 5e-6


@dataclasses.dataclass(frozen=True)
class Quality:
    """What one of the names stands for.

    Attributes:
        steps: of online fine-tuning.
        score: what it gives and takes, measured.
        scale: of the size at which the network sees frames (`osmn_tf.inference.predictor.PredictorOptions`).
        steps_unmatched: in place of both, of networks that do not match, since these lose in larger frames; None: they
            refuse.
    """

    steps: int
    score: str
    scale: float = 1.0
    steps_unmatched: int | None = None


# Measured with osmn_match_lite on six sequences of DAVIS 2016's training set that it was not trained on
# (dog-agility, hike, mallard-water, motocross-bumps, rollerblade, train), two CPU cores, one seed:
# osmn benchmark finetune DAVIS --year 2016 --split dev --steps 0 12, for the last with --scale 1.5; the second
# osmn evaluate DAVIS --preset osmn_match_lite --engine litert --quality good --year 2016 --split dev --out scores.
# More steps are not better: docs/experiments.md.
QUALITIES = {
    "fast": Quality(0, "J 88.1"),
    "good": Quality(0, f"J 89.9, at {LARGER:g} times the size too (three times as long)", LARGER, STEPS),
    "best": Quality(STEPS, f"J 90.6, at 1.5 times the size too (3.3 times as long), after 24 s of {STEPS} steps", 1.5),
}


def quality_of(name: str | None, matches: Callable[[], bool]) -> Quality | None:
    """What a name stands for with a network.

    Args:
        name: one of `QUALITIES`, or None.
        matches: says whether the network matches; called where that makes a difference.
    """
    if name is None:
        return None
    quality = QUALITIES[name]
    if quality.steps_unmatched is None or matches():
        return quality
    return dataclasses.replace(quality, steps=quality.steps_unmatched, scale=1.0)


def finetune_steps(quality: Quality | None, steps: int | None, seconds: float | None = None) -> int | None:
    """Steps of `--finetune`, or of `--quality` where it is not given; None where neither is: as the network does it.

    Args:
        seconds: the value of `--time`.

    Raises:
        InputError: two of the three are given, or a number is out of its range.
    """
    if sum(value is not None for value in (quality, steps, seconds)) > 1:
        raise InputError("--finetune: the steps are also set by --quality and by --time; give one of the three")
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise InputError(f"--time: expected seconds above 0, received {seconds}")
    if steps is not None and steps < 0:
        raise InputError(f"--finetune: expected 0 steps or more, received {steps}")
    return steps if quality is None else quality.steps


def quality_scale(quality: Quality | None) -> float:
    """Scale of the network's size that `--quality` stands for."""
    return 1.0 if quality is None else quality.scale


def check_rate(rate: float | None) -> float | None:
    """The value of `--finetune-rate`; None: as the network does it.

    Raises:
        InputError: it is not positive.
    """
    if rate is not None and not rate > 0:
        raise InputError(f"--finetune-rate: expected a positive number such as 1e-5, received {rate}")
    return rate
