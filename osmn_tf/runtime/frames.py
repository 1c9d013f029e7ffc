"""Enlarging as TensorFlow does it: bilinear, half-pixel centres, no antialiasing."""

from __future__ import annotations

import cv2
import numpy as np


def resize_planes(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [N, H, W] -> the same with (h, w) = `size`."""
    if planes.shape[1:] == tuple(size):
        return planes
    result = np.empty((len(planes), *size), np.float32)
    for plane, large in zip(planes, result):
        cv2.resize(plane, (size[1], size[0]), dst=large, interpolation=cv2.INTER_LINEAR)
    return result
