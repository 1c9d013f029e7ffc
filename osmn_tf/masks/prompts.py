"""Boxes and clicks: how they are written, and the rough shapes that a network is shown in their place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from osmn_tf.errors import InputError

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""
Click = tuple[int, int]
"""Column and row of a pixel."""

CLICK_RADIUS = 0.04
"""Of the picture's height: what surely belongs to the object that was clicked."""
_SMALLEST_SIDE = 4
_NEARLY_ALL = 0.95  # of a frame's area


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


def parse_clicks(text: str) -> tuple[Click, ...]:
    """Reads 'X,Y' or 'X,Y+X,Y+...' in pixels: one or more clicks on one object.

    Raises:
        InputError: these are not pairs of whole numbers.
    """
    try:
        return tuple((int(x), int(y)) for x, y in (part.split(",") for part in text.split("+")))
    except ValueError as error:
        raise InputError(f"click: expected X,Y or X,Y+X,Y in whole pixels, like 220,155, received {text!r}") from error


def check_box(box: Box, frame_size: tuple[int, int]) -> None:
    """Refuses a box that a frame of (H, W) pixels cannot have.

    Raises:
        InputError: the box is not inside the frame, or too small.
    """
    x, y, width, height = box
    name = ",".join(str(value) for value in box)
    size = f"{frame_size[1]}x{frame_size[0]}"
    if width < 1 or height < 1:
        raise InputError(f"box {name}: expected a width and height of 1 or more")
    if x < 0 or y < 0 or x + width > frame_size[1] or y + height > frame_size[0]:
        raise InputError(f"box {name}: expected a box X,Y,W,H inside the frame of {size} pixels")
    if width < _SMALLEST_SIDE or height < _SMALLEST_SIDE:
        raise InputError(f"box {name}: expected at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE} pixels; give a mask")


def box_remark(box: Box, frame_size: tuple[int, int]) -> str | None:
    """What to say, in a line, of a box that is as good as all of a frame of (H, W) pixels; None of any other."""
    share = box[2] * box[3] / (frame_size[0] * frame_size[1])
    if share < _NEARLY_ALL:
        return None
    return (
        f"box {','.join(str(value) for value in box)}: it is {math.floor(100 * share)} % of the frame, so nothing"
        " outside of it says what the background is, and all that stands out becomes one object; a box around one"
        " object is better"
    )


def check_clicks(clicks: Sequence[Click], frame_size: tuple[int, int]) -> None:
    """Refuses clicks that a frame of (H, W) pixels cannot have.

    Raises:
        InputError: there is none, or one is outside of the frame.
    """
    if not clicks:
        raise InputError("clicks: expected at least one (x, y) on the object, received none")
    for x, y in clicks:
        if not (0 <= x < frame_size[1] and 0 <= y < frame_size[0]):
            size = f"{frame_size[1]}x{frame_size[0]}"
            raise InputError(f"click {x},{y}: expected a point inside the frame of {size} pixels")


def ellipse(box: Box, size: tuple[int, int]) -> np.ndarray:
    """The ellipse inside a box, which seldom holds an object to its corners: bool [H, W]."""
    left, top, width, height = box
    y = (np.arange(size[0])[:, None] + 0.5 - top) / (height / 2) - 1
    x = (np.arange(size[1])[None, :] + 0.5 - left) / (width / 2) - 1
    return np.asarray(y**2 + x**2 <= 1)


def discs(clicks: Sequence[Click], size: tuple[int, int]) -> np.ndarray:
    """Discs around clicks: bool [H, W]."""
    y, x = np.arange(size[0])[:, None], np.arange(size[1])[None, :]
    radius = max(2.0, CLICK_RADIUS * size[0])
    found = np.zeros(size, bool)
    for column, row in clicks:
        found |= (x - column) ** 2 + (y - row) ** 2 <= radius**2
    return found
