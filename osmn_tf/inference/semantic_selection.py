"""Which instances of a detector are the object: chosen once, followed from frame to frame (OSVOS-S).

Maninis et al., "Video Object Segmentation Without Temporal Information" (2018), leaves open how a choice is scored,
when the search stops, and how wide the filter is: what is said here is this package's reading. NumPy only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np

from osmn_tf.datasets.detections import Instance
from osmn_tf.errors import InputError


def select_instances(instances: Sequence[Instance], given: np.ndarray) -> list[int]:
    """The instances whose union is most like a given mask, by greedy search.

    Each step takes the instance with which the union's IoU with the mask gets highest (of equal ones the first), until
    none makes it higher. Categories play no part: a wrong one does no harm as long as the detector stays with it.

    Args:
        instances: of the frame in which the mask is given.
        given: bool [H, W], the object.

    Returns:
        Their indices, in the order in which they were taken; none where no instance meets the mask.

    Raises:
        InputError: an instance's mask has another size.
    """
    masks = _stacked(instances, given)
    target = given.ravel()
    # What misses the mask can only make the IoU lower.
    candidates = [index for index in range(len(instances)) if (masks[index] & target).any()]
    union, best, chosen = np.zeros_like(target), 0.0, []
    while candidates:
        scores = [_iou(union | masks[index], target) for index in candidates]
        place = int(np.argmax(scores))
        if scores[place] <= best:
            break
        best = scores[place]
        index = candidates.pop(place)
        union |= masks[index]
        chosen.append(index)
    return chosen


def propagate_selection(instances: Sequence[Instance], foreground: np.ndarray, categories: Sequence[int]) -> list[int]:
    """The instances of a later frame that go on from a selection.

    Of each category as many as were selected, or fewer: those whose IoU with the foreground is highest. What does not
    meet the foreground is left out of this frame.

    Args:
        instances: of this frame.
        foreground: bool [H, W], what a classifier that knows the object's look says of this frame.
        categories: the categories of the selected instances, one entry for each of them.

    Returns:
        Their indices, best first; none where no instance fits.

    Raises:
        InputError: an instance's mask has another size.
    """
    masks = _stacked(instances, foreground)
    target = foreground.ravel()
    scores = [_iou(mask, target) for mask in masks]
    places, chosen = Counter(categories), []
    for index in sorted(range(len(instances)), key=lambda i: -scores[i]):
        category = instances[index].category
        if scores[index] > 0 and places[category] > 0:
            places[category] -= 1
            chosen.append(index)
    return chosen


def classifier_weight(masks: Sequence[np.ndarray], size: tuple[int, int], sigma: float = 5.0) -> np.ndarray:
    """w of `ConditionalClassifier`: the union of masks, its border softened by a Gaussian filter.

    Args:
        masks: bool [H, W], of the picked instances; with none, w is 0 everywhere.
        size: (H, W).
        sigma: of the filter, in pixels; 0 leaves the border hard.

    Returns:
        float32 [H, W], 0..1.

    Raises:
        InputError: `sigma` is negative, or a mask has another size.
    """
    if not sigma >= 0:
        raise InputError(f"sigma: expected 0 or more, received {sigma}")
    union = np.zeros(size, bool)
    for mask in masks:
        if mask.shape != union.shape:
            raise InputError(f"masks: expected {list(union.shape)}, received {list(mask.shape)}")
        union |= mask
    weight = union.astype(np.float32)
    if not sigma:
        return weight
    return np.clip(cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), 0.0, 1.0)


def _stacked(instances: Sequence[Instance], mask: np.ndarray) -> np.ndarray:
    """The instances' masks as bool [N, H * W]."""
    for instance in instances:
        if instance.mask.shape != mask.shape:
            raise InputError(
                f"detections: expected masks of the video's size {list(mask.shape)}, received "
                f"{list(instance.mask.shape)}"
            )
    return np.array([instance.mask.ravel() for instance in instances], bool).reshape(len(instances), mask.size)


def _iou(mask: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 0.0
