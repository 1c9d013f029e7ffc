"""A contact sheet: an overview of a whole video with its masks, in one picture."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.masks.drawing import check_frame, draw_overlay

_GIVEN_COLOR = (255, 200, 0)
_LABEL_HEIGHT = 0.085  # of the shorter side of a tile


class ContactSheet:
    """An overview of a video, made while the video passes by: evenly spaced frames with their masks and numbers.

    The length of the video need not be known. Every 2^k-th frame is kept as a small picture, and k grows with the
    video, so that at most about `4 * tiles` pictures are in memory.

    Args:
        tiles: how many frames the sheet shows at most.
        columns: tiles per row.
        tile_width: pixels.
    """

    def __init__(self, tiles: int = 12, columns: int = 4, tile_width: int = 320) -> None:
        for name, value in (("tiles", tiles), ("columns", columns), ("tile_width", tile_width)):
            if value < 1:
                raise InputError(f"{name}: expected 1 or more, received {value}")
        self._tiles = tiles
        self._columns = columns
        self._tile_width = tile_width
        self._stride = 1
        self._count = 0
        self._kept: dict[int, np.ndarray] = {}  # position -> tile, for multiples of the stride
        self._given: tuple[int, np.ndarray] | None = None
        self._last: tuple[int, str, np.ndarray, np.ndarray] | None = None

    def add(self, frame: np.ndarray, mask: np.ndarray, title: str | None = None, *, given: bool = False) -> None:
        """Shows the sheet the next frame. The arrays are not copied: leave them as they are until the next call.

        Args:
            frame: uint8 RGB [H, W, 3].
            mask: uint8 label mask [H, W].
            title: what is written into the tile; by default the frame's number, counted from 0.
            given: the user gave this mask. The first such frame is always on the sheet, framed in yellow.
        """
        check_frame(frame, mask)
        position = self._count
        self._count += 1
        title = str(position) if title is None else title
        self._last = (position, title, frame, mask)
        if given and self._given is None:
            self._given = (position, self._draw(frame, mask, f"{title} given", given=True))
        elif position % self._stride == 0:
            self._kept[position] = self._draw(frame, mask, title)
            if len(self._kept) > 4 * self._tiles:
                self._stride *= 2
                self._kept = {key: tile for key, tile in self._kept.items() if key % self._stride == 0}

    def _draw(self, frame: np.ndarray, mask: np.ndarray, title: str, *, given: bool = False) -> np.ndarray:
        """One tile: the overlay, scaled down, with its title."""
        import cv2

        # OpenCV crashes on what is not UTF-8 in the name of a file.
        title = title.encode(errors="replace").decode()
        width = self._tile_width
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        smaller = frame.shape[1] > width
        tile = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        tile = draw_overlay(tile, cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
        scale = max(0.35, _LABEL_HEIGHT * min(height, width) / 22)  # the letters of this font are 22 pixels high
        (text_width, text_height), baseline = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        pad = max(2, round(text_height / 3))
        box = tile[: text_height + 2 * pad + baseline // 2, : text_width + 2 * pad]
        box[:] = box // 4
        color = _GIVEN_COLOR if given else (255, 255, 255)
        origin = (pad, pad + text_height)
        cv2.putText(tile, title, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
        if given:
            cv2.rectangle(tile, (0, 0), (width - 1, height - 1), color, max(2, width // 100))
        return tile

    def image(self) -> np.ndarray:
        """The sheet so far, uint8 RGB: rows of tiles in the order of the video, the first and the last frame included.

        Raises:
            InputError: no frame was added.
        """
        if self._last is None:
            raise InputError("contact sheet: expected at least one frame, received none")
        available = dict(self._kept)
        position, title, frame, mask = self._last
        if position not in available:
            available[position] = self._draw(frame, mask, title)
        if self._given is not None:
            available[self._given[0]] = self._given[1]
        positions = sorted(available)
        # For each of the evenly spaced positions the nearest frame that was kept.
        spaced = np.linspace(0, self._count - 1, min(self._tiles, self._count))
        chosen = {min(positions, key=lambda kept: abs(kept - wanted)) for wanted in spaced}
        if self._given is not None and self._given[0] not in chosen:
            chosen.remove(min(chosen, key=lambda kept: abs(kept - self._given[0])))  # type: ignore[index]
            chosen.add(self._given[0])
        tiles = [available[key] for key in sorted(chosen)]
        columns = min(self._columns, len(tiles))
        rows = -(-len(tiles) // columns)
        gap = max(2, self._tile_width // 80)
        height, width = tiles[0].shape[:2]
        sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
        for index, tile in enumerate(tiles):
            top = gap + index // columns * (height + gap)
            left = gap + index % columns * (width + gap)
            sheet[top : top + height, left : left + width] = tile
        return sheet


def contact_sheet(
    frames: Iterable[np.ndarray],
    masks: Iterable[np.ndarray],
    *,
    tiles: int = 12,
    columns: int = 4,
    tile_width: int = 320,
    given: int | None = 0,
) -> np.ndarray:
    """A contact sheet (see `ContactSheet`) of frames uint8 RGB [H, W, 3] and masks uint8 [H, W].

    Args:
        frames: the frames.
        masks: as many masks.
        tiles: how many frames the sheet shows at most.
        columns: tiles per row.
        tile_width: pixels.
        given: index of the frame whose mask the user gave, or None.

    Raises:
        InputError: there are no frames, or an argument is not as above.
        ValueError: there are more frames than masks, or fewer.
    """
    sheet = ContactSheet(tiles, columns, tile_width)
    for index, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        sheet.add(frame, mask, given=index == given)
    return sheet.image()
