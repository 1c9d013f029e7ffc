"""What the values of a label mask mean.

A label mask is uint8 [H, W]: 0 is background, k in 1..254 is object k, and 255 is void (unlabelled pixels, which only
annotations of data sets have).
"""

from __future__ import annotations

import numpy as np

VOID = 255
"""Label of pixels that the annotators left open: neither object nor background."""


def _pascal_palette() -> np.ndarray:
    """The colours of PASCAL VOC's label images: the bits of the index, dealt in turn to red, green and blue."""
    indices = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            position = 3 * bit + channel
            if position < 8:
                palette[:, channel] |= (((indices >> position) & 1) << (7 - bit)).astype(np.uint8)
    return palette


PALETTE = _pascal_palette()
"""uint8 [256, 3] RGB: the palette of PASCAL VOC and of DAVIS. 0 is black, 1 is (128, 0, 0), 255 is (224, 224, 192)."""
PALETTE.setflags(write=False)


def labels_of(mask: np.ndarray) -> tuple[int, ...]:
    """The labels of the objects in a uint8 array of any shape, ascending, without background (0) and void (255)."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return tuple(int(label) for label in np.flatnonzero(counts[:VOID]) if label)
