"""Where the contours of a frame come from, for boundary snapping (`osmn_tf.inference.snapping`)."""

from __future__ import annotations

import abc

import cv2
import numpy as np

Array = np.ndarray


class Contours(abc.ABC):
    """Gives the contours of a frame.

    Attributes:
        strength: where boundaries begin to count, unless `SnapOptions` say otherwise: what is strong differs between
            sources.
        needs_backend: whether it runs Keras.
    """

    strength: float
    needs_backend = False

    @abc.abstractmethod
    def __call__(self, frame: Array) -> Array:
        """The contours of a frame.

        Args:
            frame: uint8 [H, W, 3], RGB.

        Returns:
            float32 [H, W] in 0..1: how strong the contour is that runs through a pixel.
        """


class GradientContours(Contours):
    """Gradients of the colour in CIELAB: no network, and no knowledge of what an object is.

    Args:
        sigma: of the Gaussian that takes noise and fine texture away first, in pixels.

    Example:
        >>> import numpy as np
        >>> frame = np.zeros((8, 8, 3), np.uint8)
        >>> frame[:, 4:] = 255
        >>> contours = GradientContours()(frame)
        >>> int(contours[4].argmax()), float(contours[4, 0]) < 0.1 < float(contours[4, 4])
        (3, True)
    """

    strength = 0.15

    def __init__(self, sigma: float = 1.0) -> None:
        self.sigma = sigma

    def __call__(self, frame: Array) -> Array:
        # L from 0 to 100, a and b of the same unit: equal distances look equally large.
        colours = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        colours = cv2.GaussianBlur(colours, (0, 0), self.sigma)
        across, down = (cv2.Scharr(colours, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1)))
        steep = np.sqrt(np.square(across).sum(axis=-1) + np.square(down).sum(axis=-1))
        return np.minimum(steep / _STEEPEST, 1).astype(np.float32)


_STEEPEST = np.float32(40)
"""Change of colour a pixel that counts as 1; black beside white has 100 over some pixels of the Gaussian."""
