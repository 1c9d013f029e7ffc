"""Label masks as the detections of `supervision`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from osmn_tf.errors import InputError, import_extra
from osmn_tf.masks.labels import VOID, labels_of

if TYPE_CHECKING:
    import supervision


def to_detections(mask: np.ndarray, scores: Mapping[int, Any] | None = None) -> supervision.Detections:
    """The objects of a label mask as `supervision.Detections`.

    Args:
        mask: uint8 [H, W]; void (255) is left out.
        scores: label -> how sure the network is, as `VideoSegmenter.scores` gives it (float [H, W] in 0..1, of which
            the mean within the object's mask counts), or as a number 0..1.

    Returns:
        One detection an object, by ascending label: `mask` bool [N, H, W], `xyxy` [N, 4] in pixels, `tracker_id` the
        label, `class_id` 0, `confidence` only with `scores`.

    Raises:
        InputError: the mask is not as above, or an object in it has no score.
        MissingDependencyError: supervision is not installed.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> mask = np.zeros((40, 60), np.uint8)
        >>> mask[10:20, 5:25], mask[30:35, 40:50] = 1, 7
        >>> detections = osmn.to_detections(mask, {1: 0.9, 7: 0.5})
        >>> detections.tracker_id.tolist(), detections.confidence.tolist(), detections.area.tolist()
        ([1, 7], [0.9, 0.5], [200, 50])
    """
    sv = import_extra("supervision", "supervision", "supervision", "this")
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise InputError(f"mask: expected uint8 [H, W], received {mask.dtype} {list(mask.shape)}")
    labels = labels_of(mask)
    if not labels:
        return sv.Detections.empty()
    masks = np.stack([mask == label for label in labels])
    confidence = None
    if scores is not None:
        missing = [label for label in labels if label not in scores]
        if missing:
            raise InputError(f"scores: expected one of every object of the mask, received none of {missing[0]}")
        values = [np.asarray(scores[label], np.float64) for label in labels]
        confidence = np.array(
            [value[inside].mean() if value.ndim else value for value, inside in zip(values, masks)], np.float64
        )
    return sv.Detections(
        xyxy=sv.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        confidence=confidence,
        class_id=np.zeros(len(labels), int),
        tracker_id=np.array(labels),
    )


def from_detections(detections: supervision.Detections, size: tuple[int, int] | None = None) -> np.ndarray:
    """The label mask of `supervision.Detections` with masks, of any model: a first mask for `VideoSegmenter`, too.

    Args:
        detections: the labels are its `tracker_id`, or 1, 2, ... without one. Where two overlap, the more confident one
            is in front; without `confidence`, the later one.
        size: (height, width), needed only where there may be no detection at all.

    Returns:
        uint8 [H, W].

    Raises:
        InputError: there are no masks, their size is another, or a label is not in 1..254 or occurs twice.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> mask = np.zeros((40, 60), np.uint8)
        >>> mask[10:20, 5:25] = 7
        >>> bool((osmn.from_detections(osmn.to_detections(mask)) == mask).all())
        True
    """
    if len(detections) == 0:
        if size is None:
            raise InputError("size: expected (height, width) where there are no detections, received None")
        return np.zeros(size, np.uint8)
    if detections.mask is None:
        raise InputError("detections: expected masks, received boxes alone; osmn_tf.mask_from_box makes a mask of one")
    masks = np.asarray(detections.mask).astype(bool)
    if size is not None and masks.shape[1:] != tuple(size):
        raise InputError(f"detections: expected masks of {list(size)}, received {list(masks.shape[1:])}")
    count = len(masks)
    labels = np.arange(1, count + 1) if detections.tracker_id is None else np.asarray(detections.tracker_id)
    if labels.min() < 1 or labels.max() >= VOID or len(set(labels.tolist())) < count:
        raise InputError(f"detections: expected different tracker_id in 1..{VOID - 1}, received {labels.tolist()}")
    order = range(count) if detections.confidence is None else np.argsort(detections.confidence, kind="stable")
    result = np.zeros(masks.shape[1:], np.uint8)
    for index in order:
        result[masks[index]] = labels[index]
    return result
