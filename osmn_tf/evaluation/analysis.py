"""What the numbers per frame say about a method: over time, by attribute, by kind of error, and where it fails worst.

The error split and the per-attribute scores follow Maninis et al. (2018) and Perazzi et al. (2016).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmn_tf.evaluation.benchmark import Evaluation, MethodScores, ObjectScores
from osmn_tf.evaluation.facts import attribute_names, sequence_attributes

Array = NDArray[Any]

TIME_POINTS = 51


@dataclasses.dataclass(frozen=True)
class TimeCourse:
    """A measure over normalised time: mean and quartiles over the objects, float64 [TIME_POINTS] each."""

    time: Array
    mean: Array
    lower: Array
    upper: Array


@dataclasses.dataclass(frozen=True)
class AttributeScore:
    """Mean J and F over the sequences with an attribute, and the gain of those without it (NaN if there are none)."""

    attribute: str
    name: str
    sequences: int
    j: float
    f: float
    j_gain: float
    f_gain: float


@dataclasses.dataclass(frozen=True)
class SequenceScore:
    """Means over the frames and objects of one sequence; the errors are shares of the union and add up to 1 - j."""

    sequence: str
    objects: int
    frames: int
    j: float
    f: float
    false_close: float
    false_far: float
    missed: float


def over_time(method: MethodScores, measure: str = "j") -> TimeCourse:
    """`measure` ("j" or "f") of all objects, each stretched from its first scored frame (0) to its last (1)."""
    time = np.linspace(0, 1, TIME_POINTS)
    courses = []
    for scores in method.objects:
        values = getattr(scores, measure)
        own_time = np.linspace(0, 1, len(values)) if len(values) > 1 else np.zeros(1)
        courses.append(np.interp(time, own_time, values))
    lower, upper = np.percentile(courses, [25, 75], axis=0)
    return TimeCourse(time, np.mean(courses, axis=0), lower, upper)


def by_sequence(method: MethodScores) -> list[SequenceScore]:
    """One row per sequence, in the data set's order."""
    groups: dict[str, list[ObjectScores]] = {}
    for scores in method.objects:
        groups.setdefault(scores.sequence, []).append(scores)
    return [
        SequenceScore(
            name,
            len(group),
            max(len(scores.frames) for scores in group),
            *(
                float(np.mean([getattr(scores, measure).mean() for scores in group]))
                for measure in ("j", "f", "false_close", "false_far", "missed")
            ),
        )
        for name, group in groups.items()
    ]


def by_attribute(method: MethodScores) -> list[AttributeScore]:
    """Scores of the attributes that occur, the hardest (lowest J) first; [] if no sequence is of DAVIS 2016."""
    rows = [(sequence_attributes(row.sequence), row) for row in by_sequence(method)]
    known = [(attributes, row) for attributes, row in rows if attributes is not None]
    scores = []
    for attribute, name in attribute_names().items():
        having = [row for attributes, row in known if attribute in attributes]
        others = [row for attributes, row in known if attribute not in attributes]
        if having:
            j, f = (float(np.mean([getattr(row, m) for row in having])) for m in ("j", "f"))
            j_gain, f_gain = (
                float(np.mean([getattr(row, m) for row in others])) - mean if others else float("nan")
                for m, mean in (("j", j), ("f", f))
            )
            scores.append(AttributeScore(attribute, name, len(having), j, f, j_gain, f_gain))
    return sorted(scores, key=lambda score: score.j)


def worst_frames(method: MethodScores, count: int = 6) -> list[tuple[ObjectScores, int]]:
    """The `count` objects with the worst single frame ((J + F) / 2), the worst first, and the index of that frame.

    One frame per sequence, as neighbouring frames fail alike.
    """
    worst: dict[str, tuple[float, ObjectScores, int]] = {}
    for scores in method.objects:
        values = (scores.j + scores.f) / 2
        index = int(np.argmin(values))
        if scores.sequence not in worst or values[index] < worst[scores.sequence][0]:
            worst[scores.sequence] = (float(values[index]), scores, index)
    ranked = sorted(worst.values(), key=lambda entry: entry[0])
    return [(scores, index) for _, scores, index in ranked[:count]]


def sequence_order(evaluation: Evaluation) -> list[str]:
    """The sequences from the hardest to the easiest: by the methods' mean of (J + F) / 2."""
    totals: dict[str, float] = {}
    for method in evaluation.methods:
        for row in by_sequence(method):
            totals[row.sequence] = totals.get(row.sequence, 0.0) + row.j + row.f
    return sorted(totals, key=lambda name: totals[name])
