"""A first mask from boxes or clicks: GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004), as OpenCV has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from osmn_tf.errors import InputError

Box = tuple[int, int, int, int]
Click = tuple[int, int]

_ITERATIONS = 5
# The surroundings that GrabCut learns the background from, as a share of the box's sides, on each side.
_MARGIN = 0.5
# Larger regions are scaled down to this number of pixels, which takes GrabCut half a second.
_MOST_PIXELS = 120_000
_SMALLEST_SIDE = 4
# A result that covers less of its box than this is noise, not an object.
_SMALLEST_SHARE = 0.02
# Around a click, as shares of the frame's height: what surely is the object, what may be, and what surely is not.
_CLICK_SURE, _CLICK_LIKELY, _CLICK_FAR = 0.04, 0.12, 0.45


def parse_box(text: str) -> Box:
    """Reads 'X,Y,W,H' in pixels: left, top, width and height.

    Raises:
        InputError: these are not four whole numbers, or the width or height is less than 1.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"box: expected X,Y,W,H in whole pixels, like 120,80,200,150, received {text!r}") from error
    if width < 1 or height < 1:
        raise InputError(f"box: expected a width and height of 1 or more, received {text!r}")
    return x, y, width, height


def mask_from_box(frame: np.ndarray, *boxes: Box) -> np.ndarray:
    """Segments the object in each box. The result is the same in every run.

    Each box must hold the whole object and little else, and some of the frame must be outside it. Objects are cut out
    one by one; where they overlap, the one with the smaller box is in front.

    Args:
        frame: uint8 RGB [H, W, 3].
        *boxes: (left, top, width, height) in pixels, 1 to 254 of them.

    Returns:
        uint8 [H, W]: value k is the object in box k, counted from 1.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> frame = np.full((120, 160, 3), (60, 150, 60), np.uint8)
        >>> frame += np.random.default_rng(0).integers(0, 30, frame.shape, np.uint8)
        >>> frame[40:80, 50:110] = (200, 50, 40)
        >>> mask = osmn.mask_from_box(frame, (40, 30, 80, 60))
        >>> mask.shape, int(mask[60, 80]), int(mask[10, 10])
        ((120, 160), 1, 0)

    Raises:
        InputError: a box is not inside the frame, too small or all of it, or nothing was found in it.
    """
    _check_frame(frame)
    if not 1 <= len(boxes) <= 254:
        raise InputError(f"boxes: expected 1 to 254 boxes, received {len(boxes)}")
    for box in boxes:
        _check_box(box, frame.shape[1], frame.shape[0])
    result = np.zeros(frame.shape[:2], np.uint8)
    # Large boxes first, so that smaller ones are painted over them.
    for index in sorted(range(len(boxes)), key=lambda i: (-boxes[i][2] * boxes[i][3], i)):
        result[_cut_out(frame, boxes[index])] = index + 1
    for index, box in enumerate(boxes):
        if not np.any(result == index + 1):
            raise InputError(
                f"box {_name(box)}: the other boxes' objects cover its object entirely; give a mask instead"
            )
    return result


def mask_from_click(frame: np.ndarray, *clicks: Click, background: Sequence[Click] = ()) -> np.ndarray:
    """Segments the object that was clicked. The result is the same in every run.

    A click says less than a box: colours near it are taken for the object's. Where that is not enough, add clicks on
    other parts of the object and on what is not part of it.

    Args:
        frame: uint8 RGB [H, W, 3].
        *clicks: (x, y) in pixels, one or more on the same object.
        background: (x, y) of points that are not part of it.

    Returns:
        uint8 [H, W]: 1 is what is connected to a click, and the object is no farther from one than 0.45 of the frame's
        height.

    Raises:
        InputError: there is no click, one is outside of the frame, or nothing stands out around them.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> frame = np.full((120, 160, 3), (60, 150, 60), np.uint8)
        >>> frame += np.random.default_rng(0).integers(0, 30, frame.shape, np.uint8)
        >>> frame[40:80, 50:110] = (200, 50, 40)
        >>> mask = osmn.mask_from_click(frame, (80, 60))
        >>> int(mask[60, 80]), int(mask[10, 10])
        (1, 0)
    """
    import cv2

    _check_frame(frame)
    height, width = frame.shape[:2]
    if not clicks:
        raise InputError("clicks: expected at least one (x, y) on the object, received none")
    for x, y in (*clicks, *background):
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(f"click {x},{y}: expected a point inside the frame of {width}x{height} pixels")
    scale = min(1.0, (_MOST_PIXELS / (width * height)) ** 0.5)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    region = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else np.ascontiguousarray(frame)

    def distance(points: Sequence[Click]) -> np.ndarray:
        """Of every pixel to the nearest point."""
        free = np.full((size[1], size[0]), 255, np.uint8)
        for x, y in points:
            free[min(size[1] - 1, int(y * scale)), min(size[0] - 1, int(x * scale))] = 0
        return cv2.distanceTransform(free, cv2.DIST_L2, 5)

    away = distance(clicks) / size[1]
    near = max(_CLICK_SURE, 1.5 / size[1])
    states = np.full(away.shape, cv2.GC_PR_BGD, np.uint8)
    states[away < _CLICK_LIKELY] = cv2.GC_PR_FGD
    states[away < near] = cv2.GC_FGD
    edge = np.ones_like(states)
    edge[1:-1, 1:-1] = 0
    states[(away > _CLICK_FAR) | (edge > 0)] = cv2.GC_BGD
    if background:
        states[distance(background) / size[1] < near] = cv2.GC_BGD
    found = _grab(region, states)
    if found is not None:
        _, parts = cv2.connectedComponents(found)
        hit = {int(parts[min(size[1] - 1, int(y * scale)), min(size[0] - 1, int(x * scale))]) for x, y in clicks}
        found = np.isin(parts, list(hit - {0})).astype(np.uint8)
    if found is None or not found.any():
        raise InputError(f"click {clicks[0][0]},{clicks[0][1]}: no object stands out there; draw a box around it")
    return (_scaled_up(found, (width, height)) > 0).astype(np.uint8)


def _check_frame(frame: np.ndarray) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"frame: expected uint8 [H, W, 3], received {frame.dtype} {list(frame.shape)}")


def _grab(region: np.ndarray, states: np.ndarray) -> np.ndarray | None:
    """uint8 [H, W] of 0 and 1: GrabCut from its states, which are changed; None where the colours do not suffice."""
    import cv2

    if not np.any(states == cv2.GC_BGD):
        return None
    cv2.setRNGSeed(0)  # the colour models start from k-means with random centres
    try:
        cv2.grabCut(
            cv2.cvtColor(region, cv2.COLOR_RGB2BGR),
            states,
            (0, 0, 1, 1),  # not used: the states say where the object may be
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            _ITERATIONS,
            cv2.GC_INIT_WITH_MASK,
        )
    except cv2.error:  # too few pixels for its colour models
        return None
    return _without_crumbs(((states == cv2.GC_FGD) | (states == cv2.GC_PR_FGD)).astype(np.uint8))


def _scaled_up(found: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask of 0 and 1 at `size` = (width, height), with a smooth outline."""
    import cv2

    if (found.shape[1], found.shape[0]) == size:
        return found
    return (cv2.resize(found.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.uint8)


def _name(box: Box) -> str:
    return ",".join(str(value) for value in box)


def _check_box(box: Box, frame_width: int, frame_height: int) -> None:
    x, y, width, height = box
    size = f"{frame_width}x{frame_height}"
    if width < 1 or height < 1:
        raise InputError(f"box {_name(box)}: expected a width and height of 1 or more")
    if x < 0 or y < 0 or x + width > frame_width or y + height > frame_height:
        raise InputError(f"box {_name(box)}: expected a box X,Y,W,H inside the frame of {size} pixels")
    if width < _SMALLEST_SIDE or height < _SMALLEST_SIDE:
        raise InputError(f"box {_name(box)}: expected at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE} pixels; give a mask")
    if (width, height) == (frame_width, frame_height):
        raise InputError(f"box {_name(box)}: it is the whole frame of {size} pixels; leave some background outside it")


def _cut_out(frame: np.ndarray, box: Box) -> np.ndarray:
    """bool [H, W]: the object in the box."""
    import cv2

    x, y, width, height = box
    margin_x, margin_y = max(8, round(_MARGIN * width)), max(8, round(_MARGIN * height))
    left, top = max(0, x - margin_x), max(0, y - margin_y)
    right, bottom = min(frame.shape[1], x + width + margin_x), min(frame.shape[0], y + height + margin_y)
    region = np.ascontiguousarray(frame[top:bottom, left:right])
    size = (region.shape[1], region.shape[0])
    scale = min(1.0, (_MOST_PIXELS / (size[0] * size[1])) ** 0.5)
    if scale < 1:
        small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        region = cv2.resize(region, small, interpolation=cv2.INTER_AREA)
    scale_x, scale_y = region.shape[1] / size[0], region.shape[0] / size[1]
    states = np.full(region.shape[:2], cv2.GC_BGD, np.uint8)
    rows = slice(round((y - top) * scale_y), round((y + height - top) * scale_y))
    columns = slice(round((x - left) * scale_x), round((x + width - left) * scale_x))
    # The corners of a box are seldom part of the object: the colour models start from its inscribed ellipse.
    states[rows, columns] = cv2.GC_PR_BGD
    across = np.linspace(-1, 1, columns.stop - columns.start)
    down = np.linspace(-1, 1, rows.stop - rows.start)
    states[rows, columns][down[:, None] ** 2 + across**2 <= 1] = cv2.GC_PR_FGD
    found = _grab(region, states)
    if found is None or np.count_nonzero(found) < _SMALLEST_SHARE * (rows.stop - rows.start) * (
        columns.stop - columns.start
    ):
        raise InputError(
            f"box {_name(box)}: no object stands out from its surroundings; give a mask, or a box that holds all of "
            "the object and a little more"
        )
    found = _scaled_up(found, size)
    result = np.zeros(frame.shape[:2], bool)
    result[top:bottom, left:right] = found > 0
    outside = np.ones_like(result)  # scaling may have moved the edge by a pixel
    outside[y : y + height, x : x + width] = False
    result[outside] = False
    return result


def _without_crumbs(found: np.ndarray) -> np.ndarray:
    """Drops the parts smaller than a twentieth of the largest one, and fills holes smaller than a hundredth of it."""
    import cv2

    for value, share in ((1, 20), (0, 100)):
        count, parts, statistics, _ = cv2.connectedComponentsWithStats(
            (found == value).astype(np.uint8), connectivity=8
        )
        if count < 2:
            continue
        areas = statistics[:, cv2.CC_STAT_AREA]
        largest = areas[1:].max() if value == 1 else np.count_nonzero(found)
        small = areas * share < largest
        small[0] = False
        found = np.where(small[parts], np.uint8(1 - value), found)
    return found
