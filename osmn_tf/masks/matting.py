"""From the hard mask of an object to a soft one (alpha): feathered, or fitted to the frame's own edges.

The fitted one is the colour guided filter of He, Sun and Tang, "Guided Image Filtering" (TPAMI 2013, section 3): around
every pixel alpha is a linear function of the colours, alpha = a I + b, fitted to the mask. Box filters are all it
takes. The object's own colours behind a soft edge are estimated as in Forte, "Approximate Fast Foreground Colour
Estimation" (ICIP 2021), one pass of it.
"""

from __future__ import annotations

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.masks.drawing import check_frame

MATTE_RADIUS = 1 / 90
"""Of the filter's window, as a share of the frame's shorter side."""

# The fit's regularisation, in units of squared colours of 0..1: what varies less is smoothed.
_EPSILON = 1e-3
# What is below and above is 0 and 1: the fit leaves a haze of a few hundredths on even ground.
_LOW, _HIGH = 0.02, 0.98


def feather(inside: np.ndarray, radius: float) -> np.ndarray:
    """Alpha that rises evenly across the outline.

    Args:
        inside: bool or uint8 [H, W], the object.
        radius: pixels from the outline to alpha 0 on the one side and to 1 on the other; 0: none.

    Returns:
        float32 [H, W] in 0..1.

    Raises:
        InputError: the radius is negative.
    """
    import cv2

    if not radius >= 0:  # NaN is not
        raise InputError(f"feather: expected 0 or more pixels, received {radius}")
    hard = np.ascontiguousarray(inside).astype(np.uint8)
    if radius == 0 or not hard.any():
        return hard.astype(np.float32)
    # Half a pixel lies between the centres of the outermost pixels and the outline.
    within = cv2.distanceTransform(hard, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 0.5
    without = cv2.distanceTransform(1 - hard, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 0.5
    return np.clip(0.5 + np.where(hard > 0, within, -without) / (2 * radius), 0, 1).astype(np.float32)


def guided_matte(frame: np.ndarray, inside: np.ndarray, radius: int | None = None) -> np.ndarray:
    """Alpha that follows the edges of the frame near the outline.

    Args:
        frame: uint8 RGB [H, W, 3].
        inside: bool or uint8 [H, W], the object.
        radius: of the windows, in pixels; farther than twice from the outline alpha is 0 or 1. Default: `MATTE_RADIUS`.

    Returns:
        float32 [H, W] in 0..1.

    Raises:
        InputError: the arrays are not as above.
    """
    import cv2

    hard = np.ascontiguousarray(inside).astype(np.uint8)
    check_frame(frame, hard)
    if radius is None:
        radius = max(2, round(MATTE_RADIUS * min(hard.shape)))
    if radius < 1:
        raise InputError(f"radius: expected 1 or more pixels, received {radius}")
    left, top, columns, rows = cv2.boundingRect(hard)
    alpha = hard.astype(np.float32)
    if not rows:
        return alpha
    # Only the rectangle around the object is worked on, with room for the windows.
    margin = 4 * radius
    window = (slice(max(0, top - margin), top + rows + margin), slice(max(0, left - margin), left + columns + margin))
    part = alpha[window]
    fitted = _filter(frame[window].astype(np.float32) / 255, part, radius)
    fitted = np.clip((fitted - _LOW) / (_HIGH - _LOW), 0, 1)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * radius + 1, 4 * radius + 1))
    near = cv2.morphologyEx(hard[window], cv2.MORPH_GRADIENT, reach) > 0
    alpha[window] = np.where(near, fitted, part)
    return alpha


def foreground(frame: np.ndarray, alpha: np.ndarray, radius: int | None = None, bleed: bool = False) -> np.ndarray:
    """The colours of the object by itself, without what shines through where it is translucent.

    Args:
        frame: uint8 RGB [H, W, 3], the object over its ground.
        alpha: float32 [H, W] in 0..1.
        radius: of the windows in which colours of object and ground are averaged, pixels. Default: `MATTE_RADIUS`.
        bleed: let the object's colours go on for so far where alpha is 0, so that a codec, or a player that scales,
            mixes no black into the edges.

    Returns:
        uint8 RGB [H, W, 3]: the frame where alpha is 1, black where it is 0 (with `bleed` farther off).
    """
    import cv2

    if radius is None:
        radius = max(2, round(MATTE_RADIUS * min(alpha.shape)))
    mixed = (alpha > 0) & (alpha < 1)
    if bleed:
        brush = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        mixed |= (cv2.dilate((alpha > 0).astype(np.uint8), brush) > 0) & (alpha == 0)
    result = np.where((alpha > 0)[..., None], frame, 0).astype(np.uint8)
    left, top, columns, rows = cv2.boundingRect(mixed.astype(np.uint8))
    if not rows:
        return result
    margin = radius + 1
    window = (slice(max(0, top - margin), top + rows + margin), slice(max(0, left - margin), left + columns + margin))
    part, share = frame[window].astype(np.float32), alpha[window].astype(np.float32)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    share3 = share[..., None]
    front = mean(part * share3) / np.maximum(mean(share), 1e-4)[..., None]
    ground = mean(part * (1 - share3)) / np.maximum(mean(1 - share), 1e-4)[..., None]
    refined = front + share3 * (part - share3 * front - (1 - share3) * ground)
    refined = np.clip(np.round(refined), 0, 255).astype(np.uint8)
    cv2.copyTo(refined, mixed[window].astype(np.uint8), result[window])
    return result


def cutout(frame: np.ndarray, alpha: np.ndarray, premultiplied: bool = False, bleed: bool = False) -> np.ndarray:
    """An object on a transparent ground.

    Args:
        frame: uint8 RGB [H, W, 3].
        alpha: bool, or float32 in 0..1, [H, W].
        premultiplied: multiply the colours with alpha; otherwise (straight, as PNG means it) they are the object's own.
        bleed: as `foreground` takes it, for straight colours.

    Returns:
        uint8 RGBA [H, W, 4]. Where alpha is 0 everything is 0 (but for `bleed`): nothing of the ground is in the file.

    Raises:
        InputError: the arrays are not as above.
    """
    share = np.round(255 * alpha.astype(np.float32)).astype(np.uint8)
    check_frame(frame, share)
    bleed = bleed and not premultiplied
    colours = foreground(frame, alpha.astype(np.float32), bleed=bleed)
    if premultiplied:
        colours = np.round(colours * (share[..., None] / np.float32(255))).astype(np.uint8)
    if not bleed:
        colours[share == 0] = 0
    return np.dstack([colours, share])


def _filter(guide: np.ndarray, target: np.ndarray, radius: int) -> np.ndarray:
    """The guided filter of float32 [H, W] by a float32 picture [H, W, 3] of 0..1."""
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_target = mean(guide), mean(target)
    covariance = mean(guide * target[..., None]) - mean_guide * mean_target[..., None]
    r, g, b = cv2.split(guide)
    mr, mg, mb = cv2.split(mean_guide)
    rr, gg, bb = (mean(x * x) - m * m + np.float32(_EPSILON) for x, m in ((r, mr), (g, mg), (b, mb)))
    rg, rb, gb = (mean(x * y) - m * n for x, y, m, n in ((r, g, mr, mg), (r, b, mr, mb), (g, b, mg, mb)))
    # The symmetric 3x3 system of every pixel by its cofactors.
    c00, c01, c02 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c11, c12, c22 = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * c00 + rg * c01 + rb * c02
    v0, v1, v2 = cv2.split(covariance)
    slope = np.stack(
        [c00 * v0 + c01 * v1 + c02 * v2, c01 * v0 + c11 * v1 + c12 * v2, c02 * v0 + c12 * v1 + c22 * v2], axis=-1
    ) / np.maximum(determinant, np.float32(1e-12))[..., None]  # fmt: skip
    offset = mean_target - (slope * mean_guide).sum(axis=-1)
    return (mean(slope) * guide).sum(axis=-1) + mean(offset)
