"""How pictures and masks change their size on the way into a network: one rule, in training, use, export and runtime.

Frames become smaller by averaging over areas, which neither moves nor aliases them, and larger by bilinear
interpolation. A mask's pixel is set where the object covers at least half of it. (OpenCV's INTER_NEAREST is not
centre-aligned: from 854 x 480 to 448 x 256 it moves masks by about a pixel.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

_STRIDE = 16  # of the coarsest features that all networks have
_LEAST_SHAPE = 0.8  # of the network's width to height: narrower frames are seen as a square


def resize_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture at network size.

    Args:
        frame: uint8 [H, W, 3].
        size: (h, w).

    Returns:
        uint8 [h, w, 3]; `frame` itself if it has the size.
    """
    if frame.shape[:2] == tuple(size):
        return frame
    if size[0] <= frame.shape[0] and size[1] <= frame.shape[1]:
        return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    # OpenCV interpolates uint8 with weights of eleven bits.
    large = cv2.resize(frame.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.rint(large).astype(np.uint8)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """A network size (h, w), `scale` times as high and as wide, in whole cells of 16 pixels."""
    height, width = (max(2, round(side * scale / _STRIDE)) * _STRIDE for side in size)
    return height, width


def square_size(size: tuple[int, int]) -> tuple[int, int]:
    """The square network size of about as many pixels as (h, w)."""
    side = math.sqrt(size[0] * size[1])
    return scaled_size((1, 1), side)


def fitted_size(size: tuple[int, int], frame_size: tuple[int, int]) -> tuple[int, int]:
    """At which size a network that may run at several sees a video, so that it does not squeeze it too much.

    Args:
        size: (h, w), the network's own.
        frame_size: (H, W) of the video's frames.

    Returns:
        `size`, or the square of about as many pixels where that is nearer to the frames: where these are narrower than
        the network's own shape by more than a fifth, and that is wide. 4:3 and upright videos are, of a network for
        16:9.
    """
    return square_size(size) if frame_size[1] / frame_size[0] < narrowest(size) else size


def narrowest(size: tuple[int, int]) -> float:
    """Width to height of the narrowest video that a network of size (h, w) sees at that size (`fitted_size`)."""
    return _LEAST_SHAPE * size[1] / size[0] if size[1] > size[0] else 0.0


def name_sizes(sizes: Iterable[tuple[int, int]]) -> str:
    """Network sizes as messages name them, like "352 x 608 and 464 x 464"."""
    *others, last = (f"{height} x {width}" for height, width in sizes)
    return f"{', '.join(others)} and {last}" if others else last


def coverage(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How much of each pixel an object covers.

    Args:
        mask: [H, W], any dtype; non-zero is the object.
        size: (h, w).

    Returns:
        float32 [h, w] in 0..1.
    """
    occupied = (mask != 0).astype(np.float32)
    if mask.shape == tuple(size):
        return occupied
    smaller = size[0] <= mask.shape[0] and size[1] <= mask.shape[1]
    return cv2.resize(occupied, (size[1], size[0]), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An object's mask at network size; what covers no pixel by half keeps the pixels that it touches.

    Args:
        mask: [H, W], any dtype; non-zero is the object.
        size: (h, w).

    Returns:
        uint8 [h, w] of 0 and 1; empty only where `mask` is.
    """
    share = coverage(mask, size)
    small = share >= 0.5
    if not small.any():
        small = share > 0
    return small.astype(np.uint8)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label mask at network size: a pixel gets the label that covers at least half of it.

    Args:
        labels: uint8 [H, W], any values; 0 is the background.
        size: (h, w).

    Returns:
        uint8 [h, w].
    """
    if labels.shape == tuple(size):
        return labels
    result = np.zeros(size, np.uint8)
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)):
        if label:
            result[coverage(labels == label, size) >= 0.5] = label
    return result
