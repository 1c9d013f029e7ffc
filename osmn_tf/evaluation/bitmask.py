"""Masks as long integers, one bit per pixel: the exact and fast ground under J, F and the error split.

Python's integers shift, combine and count some 30 pixels per machine step. A disk dilation, which costs one pass over
the image per pixel of the disk when it is done byte by byte, becomes a few dozen shifts of a short number, with no
rounding anywhere. Only a window around the masks is packed: outside of it there is nothing to count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class BitWindow:
    """A rectangle of an image, and the way from a mask of the whole image to an integer and back to numbers.

    The first pixel is the most significant bit. Every row is followed by at least `gap` zero bits, so that whatever is
    moved sideways by up to `gap` pixels never reaches the pixels of another row.

    Args:
        shape: (height, width) of the image.
        rows, columns: (start, stop) of the rectangle.
        gap: the largest radius that `dilate` will be asked for.
    """

    def __init__(self, shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], gap: int) -> None:
        self.rows, self.columns, self.gap = slice(*rows), slice(*columns), gap
        self.height, self.width = rows[1] - rows[0], columns[1] - columns[0]
        self._row_bytes = -(-(self.width + max(gap, 1)) // 8)
        self.stride = 8 * self._row_bytes
        at_right, at_bottom = columns[1] == shape[1], rows[1] == shape[0]
        # Where a pixel has an eastern (southern) neighbour to be compared with. Beyond the window, but inside the
        # image, every mask is empty, as the bits of the gap are; beyond the image there is nothing to compare with.
        inside = self._repeat(self.width, self.height)
        self._has_east = self._repeat(self.width - 1, self.height) if at_right else inside
        south_rows = self.height - 1 if at_bottom else self.height
        self._has_south = (
            inside >> (self.stride * (self.height - south_rows)) << (self.stride * (self.height - south_rows))
        )

    @classmethod
    def around(cls, masks: Sequence[Array], gap: int) -> BitWindow | None:
        """The smallest window that holds all `masks` (uint8 or bool [H, W]) and all their boundaries; None if all are
        empty."""
        union: Array = masks[0].view(np.uint8)
        for mask in masks[1:]:
            union = cv2.bitwise_or(union, mask.view(np.uint8))
        x, y, width, height = cv2.boundingRect(union)
        if width == 0:
            return None
        shape = (union.shape[0], union.shape[1])
        # One pixel more above and to the left: a boundary pixel is the one whose eastern or southern neighbour differs.
        return cls(shape, (max(y - 1, 0), y + height), (max(x - 1, 0), x + width), gap)

    def _repeat(self, ones: int, rows: int) -> int:
        row = ((1 << ones) - 1) << (self.stride - ones)
        return int.from_bytes(row.to_bytes(self._row_bytes, "big") * rows, "big")

    def pack(self, mask: Array) -> int:
        """The bits of `mask` (bool or uint8 [H, W], non-zero is set) inside the window."""
        packed = np.packbits(mask[self.rows, self.columns], axis=1)
        rows = np.zeros((self.height, self._row_bytes), np.uint8)
        rows[:, : packed.shape[1]] = packed
        return int.from_bytes(rows.tobytes(), "big")

    def boundary(self, bits: int) -> int:
        """The pixels that differ from their eastern, southern or south-eastern neighbour, where there is one."""
        east = (bits ^ (bits << 1)) & self._has_east
        south = (bits ^ (bits << self.stride)) & self._has_south
        south_east = (bits ^ (bits << (self.stride + 1))) & self._has_east & self._has_south
        return east | south | south_east

    def dilate(self, bits: int, radius: int) -> int:
        """All pixels with x^2 + y^2 <= radius^2 around a set bit. Bits outside the window may be set as well: combine
        the result with bits that lie inside."""
        if radius > self.gap:
            raise ValueError(f"radius: expected at most the window's gap of {self.gap}, received {radius}")
        # A disk is a stack of horizontal runs. They are built from the shortest (the disk's top and bottom) to the
        # longest, and moved up and down by one row each time a longer one is added.
        run, half_width = bits, 0
        up = down = 0
        for offset in range(radius, -1, -1):
            target = math.isqrt(radius * radius - offset * offset)
            while half_width < target:
                # A run of 2w + 1 pixels may be moved by at most its own length without leaving a hole.
                step = min(target - half_width, 2 * half_width + 1)
                run |= (run << step) | (run >> step)
                half_width += step
            up = (up << self.stride) | run
            down = (down >> self.stride) | run
        return up | down
