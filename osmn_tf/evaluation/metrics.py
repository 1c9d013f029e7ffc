"""The measures of the DAVIS benchmark on arrays: region similarity J, boundary accuracy F and their statistics.

    from osmn_tf import metrics
    j = metrics.jaccard(annotation, prediction)       # masks [H, W], or whole videos [T, H, W]
    f = metrics.boundary_f(annotation, prediction)
    mean, recall, decay = metrics.statistics(j)

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016),
with the behaviour of the official evaluators in every case that the paper leaves open. Needs NumPy and OpenCV only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osmn_tf.errors import InputError
from osmn_tf.evaluation.bitmask import BitWindow

Array = NDArray[Any]

BOUNDARY_TOLERANCE = 0.008
"""Share of the image diagonal within which two boundaries count as the same (DAVIS)."""


class Statistics(NamedTuple):
    """Mean, recall and decay of a measure over the frames of one object (DAVIS)."""

    mean: float
    recall: float
    decay: float


class FrameScores(NamedTuple):
    """Everything that is measured between one annotated and one predicted mask. Areas are in pixels.

    Attributes:
        j, f: region similarity and boundary accuracy, 0..1.
        union: pixels in either mask; `1 - j` is the sum of the three errors below divided by this (0 if it is 0).
        false_close: predicted pixels outside the annotation, but not farther from it than the close radius.
        false_far: predicted pixels farther away than that, or without an annotation in the frame.
        missed: annotated pixels that were not predicted.
    """

    j: float
    f: float
    union: int
    false_close: int
    false_far: int
    missed: int


def boundary_radius(height: int, width: int, tolerance: float = BOUNDARY_TOLERANCE) -> int:
    """Pixels by which two boundaries may differ: ceil(tolerance * diagonal). 480x854: 8; 1080x1920: 18."""
    return math.ceil(tolerance * math.sqrt(height * height + width * width))


def _binary(mask: ArrayLike, argument: str) -> Array:
    array = np.asarray(mask)
    if array.ndim < 2:
        raise InputError(f"{argument}: expected masks of shape [..., height, width], received shape {array.shape}")
    if array.dtype == np.bool_:
        return array
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{argument}: expected a boolean or integer mask (not zero is object), received {array.dtype};"
            " threshold probabilities first"
        )
    return array != 0


def _pairs(annotation: ArrayLike, prediction: ArrayLike, void: ArrayLike | None) -> tuple[Array, Array]:
    """Both masks as booleans of one shape, without the pixels of `void`."""
    truth, guess = _binary(annotation, "annotation"), _binary(prediction, "prediction")
    if truth.shape != guess.shape:
        raise InputError(
            f"prediction: expected the annotation's shape {truth.shape}, received {guess.shape}; nothing is resized"
        )
    if void is not None:
        ignored = _binary(void, "void")
        if ignored.shape != truth.shape:
            raise InputError(f"void: expected the annotation's shape {truth.shape}, received {ignored.shape}")
        truth, guess = truth & ~ignored, guess & ~ignored
    return truth, guess


def _each(truth: Array, guess: Array) -> Iterator[tuple[Array, Array]]:
    height, width = truth.shape[-2:]
    return zip(truth.reshape(-1, height, width), guess.reshape(-1, height, width))


def _shaped(values: list[float], leading: tuple[int, ...]) -> Any:
    return np.array(values, np.float64).reshape(leading) if leading else values[0]


def jaccard(annotation: ArrayLike, prediction: ArrayLike, void: ArrayLike | None = None) -> Any:
    """Region similarity J: intersection over union of the masks.

    Args:
        annotation, prediction: bool or integer masks [..., H, W]; every value but 0 is the object.
        void: optional mask of the same shape; its pixels are left out.

    Returns:
        J in 0..1, a float for one mask [H, W], else float64 of the leading shape. Two empty masks give 1.

    Raises:
        InputError: shapes differ (nothing is resized), or a mask is of floats.
    """
    truth, guess = _pairs(annotation, prediction, void)
    values = []
    for a, b in _each(truth, guess):
        union = np.count_nonzero(a | b)
        values.append(np.count_nonzero(a & b) / union if union else 1.0)
    return _shaped(values, truth.shape[:-2])


def boundary_f(
    annotation: ArrayLike,
    prediction: ArrayLike,
    void: ArrayLike | None = None,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> Any:
    """Boundary accuracy F: harmonic mean of the boundaries' precision and recall.

    A pixel is a boundary pixel if it differs from its eastern, southern or south-eastern neighbour; the image's last
    row looks east only, its last column south only. A boundary pixel is right if the other mask has one within
    ceil(tolerance * diagonal) pixels (Euclidean distance). Void pixels are cleared before boundaries are looked for.

    Args:
        annotation, prediction: bool or integer masks [..., H, W]; every value but 0 is the object.
        void: optional mask of the same shape; its pixels are left out.
        tolerance: share of the image diagonal, 0.008 in DAVIS.

    Returns:
        F in 0..1, a float for one mask [H, W], else float64 of the leading shape. Two masks without a boundary give 1
        (also an empty and a full one: neither has a boundary); only one of them without gives 0.

    Raises:
        InputError: shapes differ (nothing is resized), or a mask is of floats.
    """
    truth, guess = _pairs(annotation, prediction, void)
    radius = boundary_radius(truth.shape[-2], truth.shape[-1], tolerance)
    values = []
    for a, b in _each(truth, guess):
        window = BitWindow.around((a, b), gap=radius)
        if window is None:
            values.append(1.0)
        else:
            values.append(_f_of_bits(window, window.pack(a), window.pack(b), radius))
    return _shaped(values, truth.shape[:-2])


def _f_of_bits(window: BitWindow, truth: int, guess: int, radius: int) -> float:
    truth_boundary, guess_boundary = window.boundary(truth), window.boundary(guess)
    if not truth_boundary or not guess_boundary:
        return 1.0 if truth_boundary == guess_boundary else 0.0
    return f_of_boundaries(
        truth_boundary, window.dilate(truth_boundary, radius), guess_boundary, window.dilate(guess_boundary, radius)
    )


def f_of_boundaries(truth: int, truth_dilated: int, guess: int, guess_dilated: int) -> float:
    """F of two boundaries that are not empty, as the bits of one `BitWindow`."""
    precision = (guess & truth_dilated).bit_count() / guess.bit_count()
    recall = (truth & guess_dilated).bit_count() / truth.bit_count()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def frame_scores(truth: Array, guess: Array, radius: int, close_radius: int) -> FrameScores:
    """J, F and the split of the errors of one frame, from one packing of the masks.

    Args:
        truth, guess: bool [H, W], void already cleared.
        radius: of the boundary measure, in pixels.
        close_radius: false positives within so many pixels of the annotation are "close".
    """
    window = BitWindow.around((truth, guess), gap=max(radius, close_radius))
    if window is None:
        return FrameScores(1.0, 1.0, 0, 0, 0, 0)
    a, b = window.pack(truth), window.pack(guess)
    union = (a | b).bit_count()
    false = b & ~a
    false_close = 0
    if false and a:
        false_close = (false & window.dilate(a, close_radius)).bit_count()
    return FrameScores(
        (a & b).bit_count() / union,
        _f_of_bits(window, a, b, radius),
        union,
        false_close,
        false.bit_count() - false_close,
        (a & ~b).bit_count(),
    )


def statistics(values: ArrayLike) -> Statistics:
    """Mean, recall and decay of the values of one object's frames, in their order.

    Mean: of the values that are not NaN. Recall: share of frames with a value above 0.5, strictly. Decay: mean of the
    first quarter of the frames minus mean of the last (neighbouring quarters share one frame); above 0 means that the
    result gets worse over time.

    Args:
        values: floats [T], one per frame, T at least 1. NaN: not defined in that frame.

    Raises:
        InputError: no values, or not one-dimensional.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not x.size:
        raise InputError(f"values: expected one value per frame [T] with T >= 1, received shape {x.shape}")
    # The 1e-10 rounds halves up; whole 64-bit indices, because the official evaluator's 8 bits wrap after 256 frames.
    edges = (np.round(np.linspace(1, x.size, 5) + 1e-10) - 1).astype(np.int64)
    first, last = x[edges[0] : edges[1] + 1], x[edges[3] : edges[4] + 1]
    return Statistics(_nanmean(x), float(np.mean(x > 0.5)), _nanmean(first) - _nanmean(last))


def _nanmean(x: Array) -> float:
    defined = x[~np.isnan(x)]
    return float(defined.mean()) if defined.size else math.nan
