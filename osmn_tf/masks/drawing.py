"""Pictures of results: masks drawn over frames."""

from __future__ import annotations

import os

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import write_bytes
from osmn_tf.masks.labels import PALETTE, VOID

# The palette's colours are dark, half of full brightness for the first labels. Brightened over a frame, they stay
# distinct and keep their hue: 0 -> 0, 64 -> 107, 128 -> 179, 192 -> 243.
_COLORS = np.minimum(255, np.round(255 * (PALETTE / 205.0) ** 0.75)).astype(np.uint8)
_COLORS[0] = 0

OPACITY = 0.45
"""Of the colours of an overlay, unless it is told otherwise."""


def check_frame(frame: np.ndarray, mask: np.ndarray) -> None:
    """Raises `InputError` unless these are a frame uint8 [H, W, 3] and its label mask uint8 [H, W]."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"frame: expected uint8 [H, W, 3], received {frame.dtype} {list(frame.shape)}")
    if mask.dtype != np.uint8 or mask.shape != frame.shape[:2]:
        raise InputError(
            f"mask: expected uint8 {list(frame.shape[:2])} like the frame, received {mask.dtype} {list(mask.shape)}"
        )


def draw_overlay(frame: np.ndarray, mask: np.ndarray, *, opacity: float = OPACITY, contour: bool = True) -> np.ndarray:
    """Lays translucent colours over the objects and draws a line around them.

    Args:
        frame: uint8 RGB [H, W, 3].
        mask: uint8 label mask [H, W]. The colours are those of the PASCAL palette, brightened. Void (255) is left as
            it is.
        opacity: of the colours, 0..1.
        contour: draw the line: light inside the object, dark around it, so that it shows on any ground. Its width
            grows with the frame: two pixels at 480 lines.

    Returns:
        uint8 RGB [H, W, 3], a new array.

    Raises:
        InputError: the arrays are not as above.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> frame = osmn.read_video(example_path() / "meadow.mp4")[0]
        >>> overlay = osmn.draw_overlay(frame, osmn.read_mask(example_path() / "first_mask.png"), opacity=0.6)
        >>> overlay.shape, overlay.dtype
        ((480, 854, 3), dtype('uint8'))
    """
    import cv2

    check_frame(frame, mask)
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity: expected 0..1, received {opacity}")
    result = frame.copy()
    if VOID in (objects := mask):
        objects = np.where(mask == VOID, 0, mask).astype(np.uint8)
    width = max(1, round(min(mask.shape) / 300))
    left, top, columns, rows = cv2.boundingRect(objects)
    if not rows:
        return result
    # Only the rectangle around the objects is worked on, with room for the line.
    margin = 2 * width + 1
    window = (
        slice(max(0, top - margin), top + rows + margin),
        slice(max(0, left - margin), left + columns + margin),
    )
    labels = np.ascontiguousarray(objects[window])
    part = frame[window].copy()
    colors = cv2.LUT(cv2.merge([labels] * 3), _COLORS[:, None, :])
    inside = cv2.threshold(labels, 0, 255, cv2.THRESH_BINARY)[1]
    cv2.copyTo(cv2.addWeighted(part, 1 - opacity, colors, opacity, 0), inside, part)
    if contour:
        brush = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
        # A pixel of an object is on its edge where a neighbour has another label, lower or higher.
        edge = cv2.threshold(cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, brush), 0, 255, cv2.THRESH_BINARY)[1]
        outside = cv2.bitwise_and(edge, cv2.bitwise_not(inside))
        cv2.copyTo(cv2.convertScaleAbs(part, alpha=0.4), outside, part)
        light = cv2.addWeighted(colors, 0.75, np.full_like(colors, 255), 0.25, 0)
        cv2.copyTo(light, cv2.bitwise_and(edge, inside), part)
    result[window] = part
    return result


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes uint8 grey [H, W], RGB [H, W, 3] or RGBA [H, W, 4] as PNG or JPEG, by the suffix, complete or not at all.

    Raises:
        InputError: OpenCV cannot write such an array in a file with this suffix.
    """
    import cv2

    suffix = os.path.splitext(os.fspath(path))[1].lower()
    try:
        if image.dtype != np.uint8 or (image.ndim != 2 and (image.ndim != 3 or image.shape[2] not in (3, 4))):
            received = f"{image.dtype} {list(image.shape)}"
            raise InputError(f"image: expected uint8 [H, W] or [H, W, 3 or 4], received {received}")
        if image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
        done, content = cv2.imencode(suffix, image)
    except cv2.error as error:
        raise InputError(f"{path}: expected a file name that ends in .png or .jpg") from error
    if not done:
        raise InputError(f"{path}: the image of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded")
    write_bytes(path, content.tobytes())
