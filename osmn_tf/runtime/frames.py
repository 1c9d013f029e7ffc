"""Enlarging as TensorFlow does it: bilinear, half-pixel centres, no antialiasing."""

from __future__ import annotations

import cv2
import numpy as np


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [H, W] or [H, W, C] -> the same with (h, w) = `size`."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
