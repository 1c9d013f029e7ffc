"""Where the contours of a frame come from, for boundary snapping (`osmn_tf.inference.snapping`)."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from osmn_tf.errors import InputError, check_backend
from osmn_tf.resampling import resize_frame

if TYPE_CHECKING:
    from osmn_tf.models.hed import HED

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

    strength = 0.03

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


class NetworkContours(Contours):
    """What a network of contours says of a frame (`osmn_tf.models.hed`), at the network's size.

    Args:
        network: a `HED`.
    """

    strength = 0.1
    needs_backend = True

    def __init__(self, network: HED) -> None:
        from osmn_tf.inference.compilation import compile_function

        def contours(frame: Any) -> Any:
            return network({"frame": frame}, training=False)["contours"]

        self.network = network
        self._contours = compile_function(contours, [network])

    def __call__(self, frame: Array) -> Array:
        import keras

        small = resize_frame(frame, self.network.network_size)
        found = keras.ops.convert_to_numpy(self._contours(small[None]))[0, ..., 0]
        height, width = frame.shape[:2]
        enlarged: Array = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return enlarged


def find_contours(preset: str | os.PathLike[str] | None) -> Path | None:
    """Where the preset of a network of contours is; None for the gradients, which need none.

    Raises:
        InputError: there is no such preset, or it finds no contours.
        MissingDependencyError: Keras or its backend is not installed.
    """
    if preset is None:
        return None
    import json

    from osmn_tf.models.presets import CONFIG_FILE, find_preset

    try:
        path = find_preset(preset)
        kind = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8")).get("class") if path.is_dir() else None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"--contours: {error}") from error
    if kind != "HED":
        raise InputError(
            f"--contours: expected a preset that finds contours ('osmn import-hed' makes one), received {preset}"
        )
    check_backend("--contours")
    return path


def open_contours(preset: str | os.PathLike[str] | None = None) -> Contours:
    """What gives the contours of frames.

    Args:
        preset: of a network of contours; None: the gradients of the frame.

    Raises:
        InputError: there is no such preset, it is damaged, or it finds no contours.
        MissingDependencyError: Keras or its backend is not installed.
    """
    path = find_contours(preset)
    if path is None:
        return GradientContours()
    from osmn_tf.models.presets import load

    return NetworkContours(load(path))
