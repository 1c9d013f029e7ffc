"""What an evaluation costs: reading the masks, J and F, and T, on the annotations of a data set."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmn_tf.benchmarks.timing import in_turns
from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard_and_boundary_f
from osmn_tf.evaluation.protocols import PROTOCOLS, Sequence, find_sequences
from osmn_tf.evaluation.temporal import contour_of, stability_between
from osmn_tf.masks.files import read_label_png
from osmn_tf.masks.labels import VOID

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds of processor time for all frames of one sequence."""

    sequence: str
    frames: int
    reading: float
    j_and_f: float
    stability: float


def measure(
    root: str | os.PathLike[str],
    *,
    year: int = 2016,
    split: str = "val",
    sequences: Iterable[str] | None = None,
    repeat: int = 3,
) -> list[Costs]:
    """Times every part on the annotations of a DAVIS folder, each compared with that of the frame before.

    Args:
        root, year, split, sequences: the data set (`protocols.find_sequences`).
        repeat: runs, of which the fastest counts.

    Returns:
        One row per sequence, and their sum, "all".

    Raises:
        InputError: the data set is incomplete, or `repeat` is below 1.
    """
    if repeat < 1:
        raise InputError(f"--repeat: expected at least 1, received {repeat}")
    found = find_sequences(root, PROTOCOLS[f"davis-{year}"], split=split, sequences=sequences)
    rows = [_measure_sequence(sequence, repeat) for sequence in found]
    sums = (sum(getattr(row, field.name) for row in rows) for field in dataclasses.fields(Costs)[1:])
    return [*rows, Costs("all", *sums)]


def _measure_sequence(sequence: Sequence, repeat: int) -> Costs:
    masks: list[Array] = []

    def read() -> None:
        masks[:] = [_mask(sequence, frame) for frame in sequence.frames]

    def overlap() -> None:
        for pair in itertools.pairwise(masks):
            jaccard_and_boundary_f(*pair)

    def stability() -> None:
        for pair in itertools.pairwise(map(contour_of, masks)):
            stability_between(*pair)

    read()
    times = in_turns({"reading": read, "j_and_f": overlap, "stability": stability}, repeat, warm_up=0)
    return Costs(sequence.name, len(sequence.frames), *(min(timing.cpu_seconds) for timing in times.values()))


def _mask(sequence: Sequence, frame: str) -> Array:
    mask = read_label_png(sequence.annotations / f"{frame}.png")
    return np.asarray(mask != 0 if sequence.binary else (mask != 0) & (mask != VOID))
