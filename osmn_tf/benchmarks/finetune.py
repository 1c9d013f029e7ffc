"""What online fine-tuning is worth: J after different numbers of steps and at different learning rates."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from osmn_tf.benchmarks.videos import ScoredVideo
from osmn_tf.errors import InputError
from osmn_tf.evaluation.protocols import PROTOCOLS, Protocol, Sequence, find_sequences

if TYPE_CHECKING:
    from osmn_tf.inference.adaptation.online import FineTuneOptions
    from osmn_tf.inference.segmenter import VideoSegmenter

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """One sequence after some steps at one learning rate.

    Attributes:
        j: mean J over objects and scored frames.
        seconds: of the steps; with the compilation where it was needed.
        tracking_seconds: of segmenting the sequence.
    """

    sequence: str
    learning_rate: float
    steps: int
    j: float
    seconds: float
    tracking_seconds: float


def measure_curves(
    segmenter: VideoSegmenter,
    root: str | os.PathLike[str],
    *,
    year: int = 2016,
    split: str = "val",
    sequences: Iterable[str] | None = None,
    steps: Iterable[int] = (0, 25, 50, 100, 200, 300),
    learning_rates: Iterable[float] = (1e-4,),
    options: FineTuneOptions | None = None,
    seed: int = 0,
) -> Iterator[CurvePoint]:
    """Fine-tunes on the first frame of every sequence, anew for each of the given numbers of steps, and segments it.

    Args:
        segmenter: with the network to be measured.
        root, year, split, sequences: the data set (`protocols.find_sequences`).
        steps: numbers of steps; 0 is the network as it is.
        learning_rates: each gives a curve.
        options: see `VideoSegmenter.finetune`.
        seed: of the fine-tuning.

    Yields:
        The points, a curve at a time.

    Raises:
        InputError: the data set is incomplete, or a number is out of its range.
    """
    points = sorted(set(steps))
    if not points or points[0] < 0:
        raise InputError(f"--steps: expected numbers of 0 or more, received {points or 'none'}")
    rates = list(learning_rates)
    protocol = PROTOCOLS[f"davis-{year}"]
    for sequence in find_sequences(root, protocol, split=split, sequences=sequences):
        video = _Video(segmenter, sequence, protocol)
        before = video.score() if points[0] == 0 else None
        for rate in rates:
            if before is not None:
                yield CurvePoint(sequence.name, rate, 0, before[0], 0.0, before[1])
            for count in points:
                if count:
                    began = time.perf_counter()
                    with segmenter.finetune(video.annotated, count, rate, seed, options):
                        seconds = time.perf_counter() - began
                        j, tracking_seconds = video.score()
                    yield CurvePoint(sequence.name, rate, count, j, seconds, tracking_seconds)


class _Video:
    """A sequence with its frames in memory."""

    def __init__(self, segmenter: VideoSegmenter, sequence: Sequence, protocol: Protocol) -> None:
        self._segmenter = segmenter
        self._scored = ScoredVideo(sequence, protocol)
        self._frames = list(self._scored)
        self.annotated = [(self._frames[index], mask) for index, mask in sorted(self._scored.given.items())]

    def score(self) -> tuple[float, float]:
        """(mean J, seconds) of segmenting it with the weights that the network has now."""
        began = time.perf_counter()
        masks = [mask for _, mask in self._segmenter.track(self._frames, self._scored.given)]
        seconds = time.perf_counter() - began
        return self._scored.score(masks), seconds


def format_table(points: Iterable[CurvePoint]) -> str:
    """A table of J in percent, a row per learning rate and sequence and a column per number of steps."""
    points = list(points)
    names = list(dict.fromkeys(point.sequence for point in points))
    steps = sorted({point.steps for point in points})
    width = max(len("seconds, mean"), *map(len, names))
    lines = []
    for rate in dict.fromkeys(point.learning_rate for point in points):
        by_key = {(point.sequence, point.steps): point for point in points if point.learning_rate == rate}
        lines.append(f"learning rate {rate:g}")
        lines.append(f"{'steps':<{width}}" + "".join(f"{count:8d}" for count in steps))
        for name in names:
            lines.append(f"{name:<{width}}" + "".join(f"{100 * by_key[name, count].j:8.1f}" for count in steps))
        for title, factor, value in (("mean", 100, "j"), ("seconds, mean", 1, "seconds")):
            means = [sum(getattr(by_key[name, count], value) for name in names) / len(names) for count in steps]
            lines.append(f"{title:<{width}}" + "".join(f"{factor * mean:8.1f}" for mean in means))
    return "\n".join(lines)
