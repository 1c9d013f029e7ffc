"""Boundary snapping: masks follow the contours of the frame (OSVOS; Caelles et al., CVPR 2017, section 3.3).

The frame falls into superpixels, which are those of an ultrametric contour map at a low strength; a superpixel becomes
what most of its pixels are. Parts of an object that are too thin for superpixels are lost so, and come back where their
outlines are contours.

The paper states neither the strength nor the tolerance; here they are `SnapOptions`. For one object its rule (keep
superpixels that overlap the mask by more than half) is the vote taken here; with several objects the most frequent one
wins, or the background.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from osmn_tf.errors import InputError, import_extra
from osmn_tf.inference.contours import Contours
from osmn_tf.inference.predictor import Prediction, Predictor
from osmn_tf.inference.wrapping import WrappingPredictor

Array = np.ndarray

MARGIN = 32
"""Pixels around the objects that superpixels are made of: farther away there is nothing to decide."""

_LEVELS = 128
"""Steps of strength that a watershed tells apart. Noise would make a region of every few pixels."""


@dataclasses.dataclass(frozen=True)
class SnapOptions:
    """How masks are snapped.

    Attributes:
        strength: of the contour map, 0..1: superpixels with a weaker boundary between them are one. None: the contour
            source's own.
        tolerance: pixels between the outline of a thin part and the contour that it is on.
        agreement: share of a thin part's outline that has to be on contours, 0..1.
        reach: pixels by which a thin part stands out of what is left of its object, more than that; what lies flat
            along it is what snapping is there to remove.

    Raises:
        InputError: a number is out of its range.
    """

    strength: float | None = None
    tolerance: float = 2.0
    agreement: float = 0.75
    reach: float = 6.0

    def __post_init__(self) -> None:
        for name in ("strength", "agreement"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name}: expected 0 to 1, received {value}")
        for name in ("tolerance", "reach"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected 0 or more, received {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """The regions of a contour map, and in which order they become one: its ultrametric contour map.

    The boundary between two regions is as strong as its mean; the weakest boundary of all goes first, and what the
    joined region has in common with a third one is one boundary then. So what is at a boundary of strength s in the
    ultrametric contour map is apart below s and one from s on.

    Attributes:
        regions: int32 [H, W], from 0 on: the basins of a watershed.
        merges: (strength, region, region that becomes part of it), by strength.
    """

    regions: Array
    merges: Sequence[tuple[float, int, int]]

    def superpixels(self, strength: float) -> Array:
        """What is left apart by boundaries stronger than `strength`.

        Returns:
            int32 [H, W], from 0 on; every superpixel is connected.
        """
        becomes = np.arange(int(self.regions.max()) + 1, dtype=np.int32)
        # From the last merge on: what a region becomes part of has found its end already.
        for height, kept, gone in reversed(self.merges):
            if height <= strength:
                becomes[gone] = becomes[kept]
        _, numbers = np.unique(becomes, return_inverse=True)
        return numbers.astype(np.int32)[self.regions]


def contour_hierarchy(contours: Array, limit: float = 1.0) -> Hierarchy:
    """The hierarchy of regions of a contour map.

    Args:
        contours: float32 [H, W] in 0..1.
        limit: the strength up to which regions are merged.

    Raises:
        InputError: not two dimensions.
        MissingDependencyError: scikit-image is not installed.

    Example:
        >>> import numpy as np
        >>> contours = np.zeros((1, 8), np.float32)
        >>> contours[0, [2, 5]] = 0.25, 0.75  # three regions; the first two are one at 0.25
        >>> hierarchy = contour_hierarchy(contours)
        >>> [len(np.unique(hierarchy.superpixels(strength))) for strength in (0.0, 0.5, 0.75)]
        [3, 2, 1]
    """
    if contours.ndim != 2:
        raise InputError(f"contours: expected [H, W], received {list(contours.shape)}")
    levels = np.rint(np.clip(contours, 0, 1) * _LEVELS).astype(np.int32)
    # Where there is no contour at all, there are no minima either.
    regions = np.maximum(_watershed()(levels).astype(np.int32) - 1, 0)
    return Hierarchy(regions, _merges(_boundaries(regions, contours), limit))


def check_snapping() -> None:
    """Looks for what snapping needs.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    _watershed()


def _watershed() -> Callable[[Array], Array]:
    return import_extra("skimage.segmentation", "scikit-image", "snapping", "--snap").watershed


def _boundaries(regions: Array, contours: Array) -> list[dict[int, tuple[float, int]]]:
    """For every region, its neighbours: the sum of the strengths between them, and of how many pairs of pixels."""
    count = int(regions.max()) + 1
    keys, values = [], []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        first, second = regions[one], regions[other]
        apart = first != second
        low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
        keys.append(low.astype(np.int64) * count + high)
        values.append(np.maximum(contours[one], contours[other])[apart])
    pairs, where = np.unique(np.concatenate(keys), return_inverse=True)
    totals = np.bincount(where, np.concatenate(values), len(pairs)).tolist()
    lengths = np.bincount(where, minlength=len(pairs)).tolist()
    neighbours: list[dict[int, tuple[float, int]]] = [{} for _ in range(count)]
    for pair, total, length in zip(pairs.tolist(), totals, lengths):
        low, high = divmod(pair, count)
        neighbours[low][high] = neighbours[high][low] = (total, length)
    return neighbours


def _merges(neighbours: list[dict[int, tuple[float, int]]], limit: float) -> list[tuple[float, int, int]]:
    """Joins the two regions with the weakest boundary until there is none up to `limit`; see `Hierarchy.merges`.

    The mean of two means lies between them: no merge is weaker than the one before, as an ultrametric wants it.
    """
    queue = [
        (total / length, low, high)
        for low, others in enumerate(neighbours)
        for high, (total, length) in others.items()
        if low < high and total / length <= limit
    ]
    heapq.heapify(queue)
    merges: list[tuple[float, int, int]] = []
    while queue:
        height, one, other = heapq.heappop(queue)
        boundary = neighbours[one].get(other)
        if boundary is None or boundary[0] / boundary[1] != height:
            continue  # one of them is part of another region, or their boundary has grown, by now
        kept, gone = (one, other) if len(neighbours[one]) >= len(neighbours[other]) else (other, one)
        merges.append((height, kept, gone))
        del neighbours[kept][gone], neighbours[gone][kept]
        for third, (total, length) in neighbours[gone].items():
            del neighbours[third][gone]
            known = neighbours[kept].get(third)
            if known is not None:
                total, length = total + known[0], length + known[1]
            neighbours[kept][third] = neighbours[third][kept] = (total, length)
            if total / length <= limit:
                heapq.heappush(queue, (total / length, min(kept, third), max(kept, third)))
        neighbours[gone] = {}
    return merges


def snap_mask(mask: Array, contours: Array, options: SnapOptions) -> Array:
    """A mask that follows contours.

    Args:
        mask: uint8 [H, W], 0 and labels of objects.
        contours: float32 [H, W] in 0..1, of the frame (`osmn_tf.inference.contours`).
        options: with a `strength`.

    Returns:
        uint8 [H, W] of the same labels. An object that no superpixel would be left of stays as it is.

    Raises:
        InputError: the sizes differ, or there is no strength.
        MissingDependencyError: scikit-image is not installed.

    Example:
        >>> import numpy as np
        >>> contours = np.zeros((20, 40), np.float32)
        >>> contours[:, 20] = 1
        >>> mask = np.zeros((20, 40), np.uint8)
        >>> mask[:, :17] = 1  # three pixels short of the contour
        >>> snapped = snap_mask(mask, contours, SnapOptions(0.5))
        >>> snapped[0, [16, 17, 19, 21]].tolist()
        [1, 1, 1, 0]
    """
    if mask.shape != contours.shape:
        raise InputError(f"contours: expected the mask's size {list(mask.shape)}, received {list(contours.shape)}")
    if options.strength is None:
        raise InputError("strength: expected 0 to 1, received None")
    result = mask.copy()
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return result
    top, left = max(rows[0] - MARGIN, 0), max(columns[0] - MARGIN, 0)
    window = np.s_[top : rows[-1] + 1 + MARGIN, left : columns[-1] + 1 + MARGIN]
    result[window] = _snapped(mask[window], contours[window], options, options.strength)
    return result


def _snapped(mask: Array, contours: Array, options: SnapOptions, strength: float) -> Array:
    hierarchy = contour_hierarchy(contours, strength)
    voted = _majority(mask, hierarchy.superpixels(strength))
    edges = _ridges(contours) & (contours > strength)
    away = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, 5)
    result = voted.copy()
    for label in np.unique(mask[mask > 0]):
        own, kept = mask == label, voted == label
        lost = own & ~kept
        back = lost if not kept.any() else _thin_parts(own, kept, lost, away, options)
        result[back] = label
    return result


def _majority(mask: Array, superpixels: Array) -> Array:
    """Every superpixel as most of its pixels are; the background, then the lower label, wins a draw."""
    labels, indices = np.unique(mask, return_inverse=True)
    count = int(superpixels.max()) + 1
    both = np.bincount(indices.ravel() * count + superpixels.ravel(), minlength=len(labels) * count)
    chosen: Array = labels[both.reshape(len(labels), count).argmax(axis=0)]
    return chosen[superpixels]


def _ridges(contours: Array) -> Array:
    """The pixels that are the strongest ones across a contour, in a row or in a column."""
    found = np.zeros(contours.shape, bool)
    for axis in (0, 1):
        padded = np.pad(contours, [(1, 1) if axis == k else (0, 0) for k in (0, 1)], mode="edge")
        before, after = np.split(padded, [-2], axis)[0], np.split(padded, [2], axis)[1]
        found |= (contours >= np.maximum(before, after)) & (contours > np.minimum(before, after))
    return found


def _thin_parts(own: Array, kept: Array, lost: Array, away: Array, options: SnapOptions) -> Array:
    """The components of what an object has lost that stand out of it and have outlines on contours.

    Args:
        own: bool [H, W], the object before.
        kept: bool [H, W], what superpixels have made of it.
        lost: bool [H, W], what it has lost by that.
        away: float32 [H, W], pixels from the nearest contour.
    """
    count, numbers = cv2.connectedComponents(lost.astype(np.uint8), connectivity=8)
    components = np.asarray(numbers, np.int64)
    if count < 2:
        return np.zeros(own.shape, bool)
    inside = cv2.erode(own.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
    outline = lost & ~inside
    sizes = np.bincount(components[outline], minlength=count)
    near = np.bincount(components[outline & (away <= options.tolerance)], minlength=count)
    reach = np.zeros(count, np.float32)
    np.maximum.at(reach, components.ravel(), cv2.distanceTransform((~kept).astype(np.uint8), cv2.DIST_L2, 5).ravel())
    good = (sizes > 0) & (near >= options.agreement * sizes) & (reach > options.reach)
    good[0] = False
    return good[components]


class SnappingPredictor(WrappingPredictor):
    """Runs another predictor, and snaps its masks. What goes on from frame to frame inside of it does so unsnapped.

        predictor = SnappingPredictor(open_predictor("osmn_match_lite"), GradientContours())
        for frame, mask in VideoSegmenter(predictor).track(frames, first_mask): ...

    Scores stay the network's.

    Args:
        base: the predictor that is wrapped, on whatever engine.
        contours: gives the contours of a frame.
        options: see `SnapOptions`.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """

    def __init__(self, base: Predictor, contours: Contours, options: SnapOptions = SnapOptions()) -> None:
        check_snapping()
        super().__init__(base)
        self.contours = contours
        self.gives_scores, self.zero_shot, self.takes_masks = base.gives_scores, base.zero_shot, base.takes_masks
        strength = contours.strength if options.strength is None else options.strength
        self.options = dataclasses.replace(options, strength=strength)

    @property
    def frame_number(self) -> int:
        return self.base.frame_number

    @frame_number.setter
    def frame_number(self, number: int) -> None:
        self.base.frame_number = number

    def advance(self, frame: Array) -> Prediction:
        prediction = self.base.advance(frame)
        if not prediction.winners.any():
            return prediction
        return dataclasses.replace(
            prediction, winners=snap_mask(prediction.winners, self.contours(frame), self.options)
        )

    def learnt_networks(self) -> list[Any]:
        return self.base.learnt_networks()
