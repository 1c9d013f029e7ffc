"""`osmn_tf.guides` in NumPy, for one object at a time: the same numbers, without Keras.

The medians are not in the exported graphs because they do not convert to built-in LiteRT operators.
"""

from __future__ import annotations

import cv2
import numpy as np

GUIDE_MARGIN = np.float32(0.03)  # of the box's side, on each side
MAD_TO_SIGMA = np.float32(1.4826)  # the standard deviation of a normal distribution, per median absolute deviation
MIN_SIGMA = np.float32(5.0)  # pixels
SEARCH_SHARE = 2  # on each side of the box, one part in so many of its own side
SEARCH_MARGIN = 0.08  # of the frame's longer side, on each side, in addition
FAR_LOGIT = np.float32(-8.0)  # at most, outside of the search window


def _median(values: np.ndarray, counts: np.ndarray) -> np.float32:
    """Median of integers that occur so often; ascending values. Even numbers average the two middle ones."""
    cumulative = np.cumsum(counts)
    total = cumulative[-1]
    lower, upper = np.searchsorted(cumulative, [(total - 1) // 2, total // 2], side="right")
    return np.float32(int(values[lower]) + int(values[upper])) / np.float32(2)


def _centre_and_sigma(counts: np.ndarray) -> tuple[np.float32, np.float32]:
    """Median and robust deviation of coordinates 0..L-1 with these counts (not all 0)."""
    positions = np.arange(len(counts))
    centre = _median(positions, counts)
    # Twice the distances are integers.
    distances = np.abs(2 * positions - int(2 * centre))
    mad = _median(np.arange(distances.max() + 1), np.bincount(distances, counts)) / np.float32(2)
    return centre, np.maximum(MAD_TO_SIGMA * mad, MIN_SIGMA)


def _profiles(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [h] and columns [w] whose products are the Gaussian of a mask; zeros for an empty one."""
    occupied = (mask != 0).view(np.uint8)
    profiles = []
    for axis in (1, 0):
        counts = cv2.reduce(occupied, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
        if not counts.any():
            return np.zeros(mask.shape[0], np.float32), np.zeros(mask.shape[1], np.float32)
        centre, sigma = _centre_and_sigma(counts)
        offset = np.arange(len(counts), dtype=np.float32) - centre
        profiles.append(np.exp(-np.square(offset) / (2 * np.square(sigma))))
    return profiles[0], profiles[1]


def spatial_guide(mask: np.ndarray) -> np.ndarray:
    """Gaussian that says where the object was (see `osmn_tf.guides.spatial_guide`).

    Args:
        mask: [h, w], any dtype, at network resolution; non-zero is the object.

    Returns:
        float32 [h, w] in 0..1; all zeros for an empty mask.
    """
    return np.outer(*_profiles(mask))


def write_full_guide(mask: np.ndarray, guide: np.ndarray) -> None:
    """Sets the spatial guide that a network takes (see `osmn_tf.guides.full_guide`), without a copy on the way.

    Args:
        mask: [h, w], any dtype, at network resolution; non-zero is the object.
        guide: float32 [h, w, channels], what is set. One channel, or two with the mask as the second one.
    """
    rows, columns = _profiles(mask)
    # All channels in one pass over the memory: twice as fast as one after the other.
    first = np.zeros(guide.shape[1:], np.float32)
    first[:, 0] = columns
    np.multiply(rows[:, None, None], first, out=guide)
    if guide.shape[-1] == 2:
        guide[..., 1] = mask != 0


def search_window(mask: np.ndarray) -> tuple[slice, slice]:
    """Where an object is looked for that was last seen in this mask (see `osmn_tf.guides.search_window`).

    Args:
        mask: [h, w], any dtype, at network resolution; non-zero is the object.

    Returns:
        Its rows and its columns; none for an empty mask.
    """
    margin = round(SEARCH_MARGIN * max(mask.shape))
    window = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis=axis))
        if not len(places):
            return slice(0), slice(0)
        first, final = int(places[0]), int(places[-1])
        grown = (final - first + 1) // SEARCH_SHARE + margin
        window.append(slice(max(first - grown, 0), final + grown + 1))
    return window[0], window[1]


def search_near(logits: np.ndarray, mask: np.ndarray) -> None:
    """Takes out, in place, what was found far from where an object was last (see `osmn_tf.guides.search_near`).

    Args:
        logits: float32 [h, w].
        mask: [h, w], see `search_window`.
    """
    rows, columns = search_window(mask)
    if (logits[rows, columns] > 0).any():
        beyond = slice(0, rows.start), slice(rows.stop, None)
        beside = slice(0, columns.start), slice(columns.stop, None)
        for far in (*(logits[part] for part in beyond), *(logits[rows, part] for part in beside)):
            np.minimum(far, FAR_LOGIT, out=far)


def _crop(occupied: np.ndarray) -> tuple[np.float32, np.float32]:
    """First coordinate and length of the padded crop along one axis; bool [L], whether any pixel is there."""
    first = int(np.argmax(occupied))
    final = len(occupied) - 1 - int(np.argmax(occupied[::-1]))
    # The release crops [first, final): the last row and column of the box are lost.
    side = np.float32(max(final - first, 1))
    margin = np.floor(GUIDE_MARGIN * side)
    return np.float32(first) - margin, side + 2 * margin


def _taps(
    start: np.float32, side: np.float32, size: int, length: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """The two (coordinates, weights) of bilinear sampling, and the nearest coordinate or -1 beyond the frame."""
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * side / np.float32(size)
    source = np.clip(position - np.float32(0.5), 0, side - 1) + start
    taps = []
    for pixel in (np.floor(source), np.floor(source) + 1):
        inside = (pixel >= 0) & (pixel < length)
        weight = np.where(inside, 1 - np.abs(source - pixel), 0).astype(np.float32)
        taps.append((np.clip(pixel, 0, length - 1).astype(np.intp), weight))
    nearest = np.floor(position + start).astype(np.intp)
    return taps, np.where((nearest >= 0) & (nearest < length), nearest, -1)


def visual_guide(frame: np.ndarray, mask: np.ndarray, size: int, background: tuple[float, float, float]) -> np.ndarray:
    """The object cut out of its frame (see `osmn_tf.guides.visual_guide`).

    Args:
        frame: uint8 [H, W, 3], RGB.
        mask: [H, W], any dtype; non-zero is the object.
        size: side of the guide in pixels.
        background: RGB colour of everything that is not the object.

    Returns:
        float32 [size, size, 3], RGB 0..255.
    """
    occupied = mask != 0
    row_taps, rows = _taps(*_crop(occupied.any(axis=1)), size, mask.shape[0])
    column_taps, columns = _taps(*_crop(occupied.any(axis=0)), size, mask.shape[1])
    lines = sum(frame[index].astype(np.float32) * weight[:, None, None] for index, weight in row_taps)
    image = sum(np.take(lines, index, axis=1) * weight[None, :, None] for index, weight in column_taps)
    is_object = occupied[np.ix_(rows, columns)] & (rows >= 0)[:, None] & (columns >= 0)[None]
    return np.where(is_object[..., None], image, np.array(background, np.float32))
