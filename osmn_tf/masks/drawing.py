"""Pictures of results: masks drawn over frames, contact sheets of a whole video, cut-out objects."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import write_bytes
from osmn_tf.masks.files import PALETTE, VOID

# The palette's colours are dark, half of full brightness for the first labels. Brightened over a frame, they stay
# distinct and keep their hue: 0 -> 0, 64 -> 107, 128 -> 179, 192 -> 243.
_COLORS = np.minimum(255, np.round(255 * (PALETTE / 205.0) ** 0.75)).astype(np.uint8)
_COLORS[0] = 0
_GIVEN_COLOR = (255, 200, 0)
_LABEL_HEIGHT = 0.085  # of the height of a tile


def _check_frame(frame: np.ndarray, mask: np.ndarray) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"frame: expected uint8 [H, W, 3], received {frame.dtype} {list(frame.shape)}")
    if mask.dtype != np.uint8 or mask.shape != frame.shape[:2]:
        raise InputError(
            f"mask: expected uint8 {list(frame.shape[:2])} like the frame, received {mask.dtype} {list(mask.shape)}"
        )


def draw_overlay(frame: np.ndarray, mask: np.ndarray, *, opacity: float = 0.45, contour: bool = True) -> np.ndarray:
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
    """
    import cv2

    _check_frame(frame, mask)
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


def cutout(frame: np.ndarray, mask: np.ndarray, label: int) -> np.ndarray:
    """One object on a transparent ground.

    Args:
        frame: uint8 RGB [H, W, 3].
        mask: uint8 label mask [H, W].
        label: the object, 1..254.

    Returns:
        uint8 RGBA [H, W, 4]: alpha is 255 on the object. Everything else is 0, so that nothing of it is in the file.

    Raises:
        InputError: the arrays are not as above.
    """
    import cv2

    _check_frame(frame, mask)
    alpha = cv2.inRange(mask, label, label)
    return cv2.bitwise_and(cv2.merge([*cv2.split(frame), alpha]), cv2.merge([alpha] * 4))


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes uint8 RGB [H, W, 3] or RGBA [H, W, 4] as PNG or JPEG, by the suffix. The file is complete or absent.

    Raises:
        InputError: OpenCV cannot write such an array in a file with this suffix.
    """
    import cv2

    suffix = os.path.splitext(os.fspath(path))[1].lower()
    try:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise InputError(f"image: expected uint8 [H, W, 3 or 4], received {image.dtype} {list(image.shape)}")
        code = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        done, content = cv2.imencode(suffix, cv2.cvtColor(image, code))
    except cv2.error as error:
        raise InputError(f"{path}: expected a file name that ends in .png or .jpg") from error
    if not done:
        raise InputError(f"{path}: the image of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded")
    write_bytes(path, content.tobytes())


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
        _check_frame(frame, mask)
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

        width = self._tile_width
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        smaller = frame.shape[1] > width
        tile = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        tile = draw_overlay(tile, cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
        scale = max(0.35, _LABEL_HEIGHT * height / 22)  # the letters of this font are 22 pixels high
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
