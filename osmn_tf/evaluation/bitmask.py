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
        # Inside the image all masks are empty beyond the window, and in its first row and column, as the bits of the
        # gap are. At the image's borders they may not be, and there nothing beyond to compare with.
        self._at_border = not (rows[0] and columns[0] and columns[1] < shape[1] and rows[1] < shape[0])
        if self._at_border:
            inside = self._repeat(self.width)
            self._has_east = self._repeat(self.width - 1) if columns[1] == shape[1] else inside
            self._has_south = inside >> self.stride << self.stride if rows[1] == shape[0] else inside

    @classmethod
    def around(cls, masks: Sequence[Array], gap: int) -> tuple[BitWindow, list[int]] | None:
        """The window that holds all `masks` (bool [H, W]) and all their boundaries, and their bits in it; None if all
        are empty."""
        shape = (masks[0].shape[0], masks[0].shape[1])
        packed = [np.packbits(mask, axis=1) for mask in masks]
        union = packed[0]
        for other in packed[1:]:
            union = union | other
        first_byte, top, byte_count, height = cv2.boundingRect(union)
        if byte_count == 0:
            return None
        # One pixel more above and to the left: a boundary pixel is the one whose eastern or southern neighbour differs.
        top, bottom = max(top - 1, 0), top + height
        last_byte = first_byte + byte_count
        if first_byte and (union[top:bottom, first_byte] & 0x80).any():
            first_byte -= 1
        window = cls(shape, (top, bottom), (8 * first_byte, min(8 * last_byte, shape[1])), gap)
        return window, [window._to_integer(rows[top:bottom, first_byte:last_byte]) for rows in packed]

    def _repeat(self, ones: int) -> int:
        """The first `ones` pixels of every row."""
        row = ((1 << ones) - 1) << (self.stride - ones)
        return int.from_bytes(row.to_bytes(self._row_bytes, "big") * self.height, "big")

    def pack(self, mask: Array) -> int:
        """The bits of `mask` (bool or uint8 [H, W], non-zero is set) inside the window."""
        return self._to_integer(np.packbits(mask[self.rows, self.columns], axis=1))

    def _to_integer(self, packed: Array) -> int:
        rows = np.zeros((self.height, self._row_bytes), np.uint8)
        rows[:, : packed.shape[1]] = packed
        return int.from_bytes(rows.tobytes(), "big")

    def boundary(self, bits: int) -> int:
        """The pixels that differ from their eastern, southern or south-eastern neighbour, where there is one."""
        east, south, south_east = bits ^ (bits << 1), bits ^ (bits << self.stride), bits ^ (bits << (self.stride + 1))
        if self._at_border:
            return (east & self._has_east) | (south & self._has_south) | (south_east & self._has_east & self._has_south)
        return east | south | south_east

    def dilate(self, bits: int, radius: int) -> int:
        """All pixels with x^2 + y^2 <= radius^2 around a set bit. Bits outside the window may be set as well: combine
        the result with bits that lie inside."""
        if radius > self.gap:
            raise ValueError(f"radius: expected at most the window's gap of {self.gap}, received {radius}")
        # A disk is a stack of horizontal runs. They are built from the shortest (the disk's top and bottom) to the
        # longest, and moved up and down by one row each time a longer one is added. A run of 2w + 1 pixels grows to the
        # left only; that its middle is w pixels to the left is made up for when the rows are moved.
        run, length, half_width = bits, 1, 0
        up = down = 0
        for offset in range(radius, -1, -1):
            target = math.isqrt(radius * radius - offset * offset)
            while length < 2 * target + 1:
                # Moved by at most its own length, a run leaves no hole.
                step = min(2 * target + 1 - length, length)
                run |= run << step
                length += step
            grown = target - half_width
            up = (up << (self.stride + grown)) | run
            down = (down >> (self.stride - grown)) | run
            half_width = target
        return (up | down) >> half_width
