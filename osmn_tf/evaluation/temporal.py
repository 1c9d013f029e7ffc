"""Temporal stability T: how much of a contour's shape changes from one frame to the next.

Perazzi et al. (CVPR 2016), section 4: the contours of two successive predictions are matched point by point by dynamic
time warping over their shape contexts (Belongie et al., 2002); T is the mean cost of the matched pairs, 0 for a contour
that moves without changing its shape. The polygons are traced by OpenCV here and by other code in the benchmark, so
small differences to published values are to be expected.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SPACING = 3.0
"""Pixels: tolerance of the polygons, and the largest distance of neighbouring contour points."""
_ANGULAR_BINS = 12
_RADIAL_BINS = 5  # up to 1/8, 1/4, 1/2, 1 and 2 mean distances
_BINS = _ANGULAR_BINS * _RADIAL_BINS
# Rows of the cost matrix that are filled together, so that the work stays in the processor's cache.
_COST_ROWS = 64


class Contour(NamedTuple):
    """The sampled contour of a mask and what is around each of its points.

    Attributes:
        points: float64 [N, 2], x and y in pixels from the contour's upper left corner, in their order along it.
        contexts: float32 [N, 60], shape contexts, each with sum 1 (or 0, if all other points are too far away).
    """

    points: Array
    contexts: Array


def contour_of(mask: Array) -> Contour | None:
    """The contour with the most polygon vertices of a mask (bool or uint8 [H, W]); None if there is none of at least
    three points, as in an empty mask."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    polygons = [cv2.approxPolyDP(outline, SPACING, closed=True)[:, 0].astype(np.float64) for outline in outlines]
    if not polygons:
        return None
    polygon = max(polygons, key=len)
    # From its own corner, so that the same shape elsewhere gives the same numbers to the last bit.
    points = _densify(polygon - polygon.min(axis=0))
    if len(points) < 3:
        return None
    return Contour(points, _shape_contexts(points))


def _densify(polygon: Array) -> Array:
    """Points along the closed polygon: its vertices, and every edge longer than `SPACING` in equal parts."""
    points = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0)):
        parts = max(math.ceil(float(np.hypot(*(end - start))) / SPACING), 1)
        points.append(start + (end - start) * (np.arange(parts) / parts)[:, None])
    return np.concatenate(points)


def _shape_contexts(points: Array) -> Array:
    """For every point the histogram of where the others are: 12 directions by 5 distances relative to the mean."""
    count = len(points)
    x, y = points.astype(np.float32).T
    dx, dy = x[None, :] - x[:, None], y[None, :] - y[:, None]
    distance = np.sqrt(dx * dx + dy * dy)
    distance *= count * (count - 1) / distance.sum(dtype=np.float64)
    # The edges 1/8, 1/4, 1/2, 1 and 2 are powers of two: the exponent of the number says between which it lies.
    radial = np.clip(np.frexp(distance)[1] + 3, 0, _RADIAL_BINS)
    turns = np.arctan2(dy, dx) * (_ANGULAR_BINS / (2 * np.pi))
    turns[turns < 0] += _ANGULAR_BINS
    # A tiny negative angle plus a full turn may round up to a full turn.
    bins = radial * _ANGULAR_BINS + np.minimum(turns.astype(np.int32), _ANGULAR_BINS - 1)
    bins[radial == _RADIAL_BINS] = _BINS  # twice the mean distance and beyond
    np.fill_diagonal(bins, _BINS)
    bins += np.arange(count, dtype=bins.dtype)[:, None] * (_BINS + 1)
    histograms = np.bincount(bins.ravel(), minlength=count * (_BINS + 1)).reshape(count, _BINS + 1)[:, :_BINS]
    return (histograms / np.maximum(histograms.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def _stretch(values: Array) -> slice | None:
    """From the first to the last value that is not 0; None if there is none."""
    filled = np.flatnonzero(values)
    return slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else None


def _costs(first: Array, second: Array) -> Array:
    """0.5 * sum((g - h)^2 / (g + h)) of every pair of histograms: float32 [N1, N2], 0..1."""
    # For histograms of sum 1 this is 1 - 2 * sum(g h / (g + h)), and g h / (g + h) = 1 / (1 / g + 1 / h), where an
    # empty bin gives 1 / infinity = 0.
    with np.errstate(divide="ignore"):
        g, h = 1 / first, 1 / second
    common = np.zeros((len(first), len(second)), np.float32)
    # What lies in one direction of a point lies there for its neighbours on the contour too: a bin is filled for a
    # stretch of the points, and only the block between the two contours' stretches has to be visited.
    columns = [_stretch(second[:, b]) for b in range(_BINS)]
    for top in range(0, len(first), _COST_ROWS):
        for b in range(_BINS):
            rows = _stretch(first[top : top + _COST_ROWS, b])
            if rows is not None and columns[b] is not None:
                rows = slice(top + rows.start, top + rows.stop)
                pair = g[rows, b, None] + h[None, columns[b], b]
                common[rows, columns[b]] += np.reciprocal(pair, out=pair)
    masses = (first.sum(axis=1)[:, None] + second.sum(axis=1)[None, :]) / 2
    return np.maximum(masses - 2 * common, 0)


def _cheapest_path(costs: Array) -> tuple[Array, Array]:
    """The cheapest path from the first to the last cell, one step down, right or both: its rows and its columns."""
    rows, columns = costs.shape
    walked = np.cumsum(costs, axis=1, dtype=np.float64)
    total = np.empty((rows, columns))
    total[0] = walked[0]
    entry = np.empty(columns)
    for i in range(1, rows):
        above = total[i - 1]
        # Enter the row at k, from above or from the upper left, then walk right to j: entry[k] + cost[k] + ... +
        # cost[j], at its best over k <= j.
        entry[0] = above[0]
        np.minimum(above[1:], above[:-1], out=entry[1:])
        entry[1:] -= walked[i, :-1]
        np.minimum.accumulate(entry, out=total[i])
        total[i] += walked[i]
    i, j = rows - 1, columns - 1
    path = [(i, j)]
    while i or j:
        if not i:
            j -= 1
        elif not j:
            i -= 1
        else:
            both, down, right = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            if both <= down and both <= right:
                i, j = i - 1, j - 1
            elif down <= right:
                i -= 1
            else:
                j -= 1
        path.append((i, j))
    steps = np.array(path[::-1])
    return steps[:, 0], steps[:, 1]


def _cheapest_of_each(points: Array, costs: Array) -> Array:
    """Indices of the pairs that are the cheapest of their point."""
    order = np.lexsort((costs, points))
    first = np.ones(len(order), bool)
    first[1:] = points[order][1:] != points[order][:-1]
    return np.sort(order[first])


def matching_cost(first: Contour, second: Contour) -> float:
    """T between two contours: mean cost of their one-to-one matched points, 0 (same shape) to 1."""
    costs = _costs(first.contexts, second.contexts)
    i, j = _cheapest_path(costs)
    # Contours are closed: start again just behind the pair that fits best.
    best = np.argmin(costs[i, j])
    costs = np.roll(costs, (-i[best] - 1, -j[best] - 1), axis=(0, 1))
    i, j = _cheapest_path(costs)
    for side in (0, 1):
        keep = _cheapest_of_each((i, j)[side], costs[i, j])
        i, j = i[keep], j[keep]
    return float(costs[i, j].mean(dtype=np.float64))


def stability_between(first: Contour | None, second: Contour | None) -> float:
    """T between the contours of two successive masks; NaN where one is missing."""
    return math.nan if first is None or second is None else matching_cost(first, second)
