"""The measures of the DAVIS benchmark on arrays: region similarity J, boundary accuracy F, temporal stability T, and
their statistics. As functions, and as objects with `update`, `compute` and `reset` that are fed frame by frame.

    >>> import numpy as np
    >>> from osmn_tf import metrics
    >>> annotation = np.zeros((4, 48, 64), bool)  # a video [T, H, W], or one mask [H, W]
    >>> annotation[:, 10:30, 10:30] = True
    >>> prediction = np.roll(annotation, 5, axis=2)
    >>> j = metrics.jaccard(annotation, prediction)
    >>> f = metrics.boundary_f(annotation, prediction)
    >>> mean, recall, decay = metrics.statistics(j)
    >>> round(float(mean), 2), float(recall), float(decay)
    (0.6, 1.0, 0.0)

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016),
with the behaviour of the official evaluators in every case that the paper leaves open. Needs NumPy and OpenCV only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osmn_tf.errors import InputError
from osmn_tf.evaluation import temporal
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
        packed = BitWindow.around((a, b), gap=radius)
        if packed is None:
            values.append(1.0)
        else:
            window, bits = packed
            values.append(_f_of_bits(window, bits[0], bits[1], radius))
    return _shaped(values, truth.shape[:-2])


def jaccard_and_boundary_f(
    annotation: ArrayLike,
    prediction: ArrayLike,
    void: ArrayLike | None = None,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> tuple[Any, Any]:
    """J and F together, faster than one after the other; see `jaccard` and `boundary_f`."""
    truth, guess = _pairs(annotation, prediction, void)
    radius = boundary_radius(truth.shape[-2], truth.shape[-1], tolerance)
    js, fs = [], []
    for a, b in _each(truth, guess):
        scores = frame_scores(a, b, radius)
        js.append(scores.j)
        fs.append(scores.f)
    return _shaped(js, truth.shape[:-2]), _shaped(fs, truth.shape[:-2])


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


def frame_scores(truth: Array, guess: Array, radius: int, close_radius: int | None = None) -> FrameScores:
    """J, F and the split of the errors of one frame, from one packing of the masks.

    Args:
        truth, guess: bool [H, W], void already cleared.
        radius: of the boundary measure, in pixels.
        close_radius: false positives within so many pixels of the annotation are "close"; None: none is.
    """
    packed = BitWindow.around((truth, guess), gap=max(radius, close_radius or 0))
    if packed is None:
        return FrameScores(1.0, 1.0, 0, 0, 0, 0)
    window, (a, b) = packed
    common, truth_area, guess_area = (a & b).bit_count(), a.bit_count(), b.bit_count()
    union = truth_area + guess_area - common
    false_close = 0
    if close_radius is not None and truth_area and guess_area > common:
        false_close = (b & ~a & window.dilate(a, close_radius)).bit_count()
    return FrameScores(
        common / union,
        _f_of_bits(window, a, b, radius),
        union,
        false_close,
        guess_area - common - false_close,
        truth_area - common,
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
    return Statistics(defined_mean(x), float(np.mean(x > 0.5)), defined_mean(first) - defined_mean(last))


def defined_mean(values: ArrayLike) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    x = np.asarray(values, np.float64)
    defined = x[~np.isnan(x)]
    return float(defined.mean()) if defined.size else math.nan


def temporal_stability(predictions: ArrayLike) -> Array:
    """Temporal stability T between every mask of a video and the next: 0 where only the place changes, not the shape.

    Defined by the predictions alone. A video's T is the mean over the pairs that are not NaN. See
    `osmn_tf.evaluation.temporal` for the definition.

    Args:
        predictions: bool or integer masks [T, H, W] of one object, T at least 2.

    Returns:
        float64 [T - 1], 0..1; NaN where one of the two masks is empty or smaller than a contour of three points.

    Raises:
        InputError: not a video, or masks of floats.
    """
    masks = _binary(predictions, "predictions")
    if masks.ndim != 3 or len(masks) < 2:
        raise InputError(f"predictions: expected masks [T, H, W] of two frames or more, received shape {masks.shape}")
    pairs = itertools.pairwise(map(temporal.contour_of, masks))
    return np.array([temporal.stability_between(*pair) for pair in pairs], np.float64)


class Jaccard:
    """J of one object, frame by frame.

    metric = Jaccard()
    for annotation, prediction in frames:
        metric.update(annotation, prediction)
    mean, recall, decay = metric.compute()
    """

    def __init__(self) -> None:
        self.values: list[float] = []

    def reset(self) -> None:
        """Forgets all frames."""
        self.values = []

    def update(self, annotation: ArrayLike, prediction: ArrayLike, void: ArrayLike | None = None) -> None:
        """Adds one frame [H, W] or several [T, H, W]; see `jaccard`."""
        self.values.extend(np.ravel(jaccard(annotation, prediction, void)).tolist())

    def compute(self) -> Statistics:
        """Mean, recall and decay over the frames so far. Raises `InputError` if there are none."""
        return statistics(self.values)


class BoundaryF(Jaccard):
    """F of one object, frame by frame; used like `Jaccard`.

    Args:
        tolerance: share of the image diagonal, 0.008 in DAVIS.
    """

    def __init__(self, tolerance: float = BOUNDARY_TOLERANCE) -> None:
        super().__init__()
        self.tolerance = tolerance

    def update(self, annotation: ArrayLike, prediction: ArrayLike, void: ArrayLike | None = None) -> None:
        """Adds one frame [H, W] or several [T, H, W]; see `boundary_f`."""
        self.values.extend(np.ravel(boundary_f(annotation, prediction, void, self.tolerance)).tolist())


class TemporalStability:
    """T of one object, frame by frame: `update(prediction)`, then `compute()`. Keeps one contour, not the masks."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets all frames."""
        self.values: list[float] = []
        self._last: temporal.Contour | None = None
        self._started = False

    def update(self, prediction: ArrayLike) -> None:
        """Adds the next frame's mask, bool or integer [H, W]."""
        mask = _binary(prediction, "prediction")
        if mask.ndim != 2:
            raise InputError(f"prediction: expected one mask [H, W], received shape {mask.shape}")
        contour = temporal.contour_of(mask)
        if self._started:
            self.values.append(temporal.stability_between(self._last, contour))
        self._last, self._started = contour, True

    def compute(self) -> float:
        """Mean over the pairs of frames for which T is defined, else NaN."""
        return defined_mean(self.values)


class VideoScores(NamedTuple):
    """J and F of the objects of a video: per object, and as the mean over the objects (DAVIS's overall numbers)."""

    j: Statistics
    f: Statistics
    j_and_f: float
    objects: dict[int, tuple[Statistics, Statistics]]


class VideoMetric:
    """J and F of all objects of one video from its label masks, frame by frame.

        metric = VideoMetric(objects=2)
        for annotation, prediction in frames:      # uint8 [H, W], value k = object k
            metric.update(annotation, prediction)
        metric.compute().j_and_f

    Args:
        objects: their number n (labels 1..n), or the labels themselves.
    """

    def __init__(self, objects: int | Iterable[int]) -> None:
        self.labels = tuple(range(1, objects + 1)) if isinstance(objects, int) else tuple(objects)
        if not self.labels:
            raise InputError(f"objects: expected at least one, received {objects}")
        self.reset()

    def reset(self) -> None:
        """Forgets all frames."""
        self._j: list[list[float]] = []
        self._f: list[list[float]] = []

    def update(self, annotation: ArrayLike, prediction: ArrayLike, void: ArrayLike | None = None) -> None:
        """Adds one frame: label masks of integers [H, W], and optionally a mask of pixels to leave out."""
        truth, guess = np.asarray(annotation), np.asarray(prediction)
        pairs = [_pairs(truth == label, guess == label, void) for label in self.labels]
        if truth.ndim != 2:
            raise InputError(f"annotation: expected one mask [H, W], received shape {truth.shape}")
        radius = boundary_radius(truth.shape[0], truth.shape[1])
        scores = [frame_scores(a, b, radius) for a, b in pairs]
        self._j.append([score.j for score in scores])
        self._f.append([score.f for score in scores])

    def compute(self) -> VideoScores:
        """The scores over the frames so far. Raises `InputError` if there are none."""
        if not self._j:
            raise InputError("compute: expected at least one update before, received none")
        per_object = [(statistics(j), statistics(f)) for j, f in zip(np.transpose(self._j), np.transpose(self._f))]
        j, f = (Statistics(*np.mean([pair[side] for pair in per_object], axis=0).tolist()) for side in (0, 1))
        return VideoScores(j, f, (j.mean + f.mean) / 2, dict(zip(self.labels, per_object)))
