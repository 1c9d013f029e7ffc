"""Files of label masks: what is accepted as one, and the palette PNGs that are written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from osmn_tf.errors import InputError, name_some
from osmn_tf.files import write_bytes
from osmn_tf.masks import png
from osmn_tf.masks.labels import PALETTE, VOID, labels_of

# More objects than this in one frame are taken for shades of grey. The largest label of DAVIS 2017 is 10.
_MAX_PLAUSIBLE_LABEL = 32
_FIX_SOFT_EDGES = "threshold it at half its maximum, or export it without smoothing (anti-aliasing)"


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbour resize of a label mask uint8 [H, W] to `size` = (height, width)."""
    import cv2

    return cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the mask ({error.strerror or error})") from error
    if not data:
        raise InputError(f"{path}: expected a mask image, but the file is empty")
    return data


def read_label_png(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the palette indices or grey values of a PNG file as they are, without interpreting them.

    Returns:
        uint8 [H, W]. 1-, 2- and 4-bit samples keep their value (a 1-bit file gives 0 and 1).

    Raises:
        InputError: the file is absent, damaged, no PNG, in colour without a palette, or has values above 255.
    """
    image = png.decode_png(_read_bytes(path), path)
    if image.pixels.ndim == 3:
        raise InputError(f"{path}: expected a palette or greyscale PNG, but it is in colour without a palette")
    if image.pixels.dtype != np.uint8 and image.pixels.max() > 255:
        raise InputError(f"{path}: expected labels of 0 to 255, but the 16-bit values reach {image.pixels.max()}")
    return image.pixels.astype(np.uint8, copy=False)


def read_mask(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None, resize: bool = False) -> np.ndarray:
    """Reads the mask of one or more objects that a user drew, exported or took from a data set.

    What counts as a mask:

    - a palette PNG: its indices are the labels (DAVIS, PASCAL VOC, YouTube-VOS). A palette of nothing but greys is read
      as a greyscale image;
    - black and white (0/255, 1-bit, bool): one object with label 1;
    - a greyscale image with labels as its values. 255 beside labels of at most 32 is void. Labels above 32 are
      accepted where 255 does not occur and they cover areas rather than the seams between two others;
    - a colour image in which every colour is in the PASCAL palette: the labels of those colours. Fully transparent
      pixels are background.

    Everything else is refused, shades of grey along edges (anti-aliasing, JPEG) above all: the choice of the threshold
    is the user's.

    Args:
        path: PNG, or another image file that OpenCV reads.
        size: (height, width) that the mask must have.
        resize: scale a mask of another size to `size` (nearest neighbour) instead of raising.

    Returns:
        uint8 [H, W], value k is object k in 1..254, 255 is void (only beside other labels).

    Raises:
        InputError: the file is absent, damaged or no mask (the message names the stray values and how many pixels have
            them), it marks no object, or its size is not `size`.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> mask = osmn.read_mask(example_path() / "first_mask.png")
        >>> mask.shape, int(mask.max())
        ((480, 854), 3)
    """
    data = _read_bytes(path)
    if data.startswith(png.SIGNATURE):
        image = png.decode_png(data, path)
    else:
        image = png.PngImage(_decode_other(data, path), None, 8)
    pixels = image.pixels
    if pixels.dtype != np.uint8:
        pixels = _from_16_bits(pixels, path)
    if image.alpha is not None:
        pixels = _opaque(pixels, image.alpha, path)
    if image.palette is not None:
        mask = _labels_from_indices(pixels, image.palette, path)
    elif pixels.ndim == 3:
        mask = _labels_from_colors(pixels, path)
    else:
        mask = _labels_from_greys(pixels, path, white=min(255, 2**image.bit_depth - 1))
    if not labels_of(mask):
        raise InputError(f"{path}: the mask is empty, expected at least one pixel that is not background")
    if size is not None and mask.shape != tuple(size):
        if not resize:
            raise InputError(
                f"{path}: expected a mask of the frame's size, {size[1]}x{size[0]}, but it is {mask.shape[1]}x"
                f"{mask.shape[0]} (width x height); give --resize-mask (resize=True) to scale it"
            )
        mask = resize_mask(mask, size)
        if not labels_of(mask):
            raise InputError(f"{path}: the mask is empty after scaling it to {size[1]}x{size[0]} (width x height)")
    return mask


def _decode_other(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    """An image that is no PNG: [H, W] or RGB(A) [H, W, 3 or 4]."""
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InputError(f"{path}: expected a mask image (PNG), but it cannot be decoded as an image")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: expected a mask image with 8 bits per value, but its values are {pixels.dtype}")
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]])


def _from_16_bits(pixels: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    """16-bit values that fit 8 bits: labels of at most 255, or an 8-bit image scaled up (v -> 257 v)."""
    if pixels.max() <= 255:
        return pixels.astype(np.uint8)
    if not np.any(pixels % 257):
        return (pixels // 257).astype(np.uint8)
    stray = np.unique(pixels[pixels > 255]).tolist()
    raise InputError(f"{path}: expected labels of 0 to 255, but it has 16-bit values: {name_some(stray, 6)}")


def _pixel_count(count: int) -> str:
    return f"{count} pixel" if count == 1 else f"{count} pixels"


def _fills_an_area(pixels: np.ndarray, value: int) -> bool:
    """Whether some 3x3 neighbourhood has this value throughout. The seam that smoothing leaves has none."""
    import cv2

    return bool(cv2.erode((pixels == value).astype(np.uint8), np.ones((3, 3), np.uint8)).any())


def _seam_values(pixels: np.ndarray, values: Sequence[int]) -> list[int]:
    """The values that only occur along edges, if they outnumber those that fill areas: signs of smoothing."""
    if len(values) > _MAX_PLAUSIBLE_LABEL:
        solid = [value for value in values if _fills_an_area(pixels, value)]
        return [value for value in values if value not in solid] or list(values)
    thin = [value for value in values if not _fills_an_area(pixels, value)]
    return thin if len(thin) >= 2 and 2 * len(thin) > len(values) else []


def _labels_from_greys(pixels: np.ndarray, path: str | os.PathLike[str], *, white: int = 255) -> np.ndarray:
    """Labels from grey values, by the rule in `read_mask`. `white`: the largest value that the file can hold."""
    counts = np.bincount(pixels.ravel(), minlength=256)
    values = [int(value) for value in np.flatnonzero(counts) if value != 0]
    if values == [white]:
        return (pixels == white).astype(np.uint8)
    others = [value for value in values if value != VOID]
    # In 2 and 4 bits every value is small, shades of grey included.
    small = white == 255 and all(value <= _MAX_PLAUSIBLE_LABEL for value in others)
    if VOID in values:
        # Void pixels surround objects. Where no label fills an area, the 255 is the object and the rest its soft edge.
        stray = [] if small and any(_fills_an_area(pixels, value) for value in others) else others
    else:
        stray = [] if small else _seam_values(pixels, others)
    if stray:
        number = _pixel_count(int(counts[stray].sum()))
        raise InputError(
            f"{path}: expected 0 and 255, or labels, but it has other grey values ({name_some(stray, 6)}) in {number}; "
            f"{_FIX_SOFT_EDGES}"
        )
    return pixels


def _labels_from_indices(indices: np.ndarray, palette: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    """Labels from palette indices, by the rule in `read_mask`."""
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    if used[-1] >= len(palette):
        raise InputError(f"{path}: index {used[-1]} is not in the file's palette of {len(palette)} colours")
    colors = palette[used]
    if np.array_equal(colors, PALETTE[used]):
        return (indices == VOID).astype(np.uint8) if set(used.tolist()) <= {0, VOID} else indices
    if np.all(colors == colors[:, :1]):
        return _labels_from_greys(palette[:, 0][indices], path)
    stray = _seam_values(indices, [int(value) for value in used if value != 0])
    if stray:
        number = _pixel_count(int(np.isin(indices, stray).sum()))
        raise InputError(
            f"{path}: expected palette indices that are labels, but some ({name_some(stray, 6)}) only occur "
            f"along edges, in {number}; {_FIX_SOFT_EDGES}"
        )
    return (indices == VOID).astype(np.uint8) if set(used.tolist()) <= {0, VOID} else indices


def _opaque(values: np.ndarray, alpha: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    """`values` [H, W, ...] with 0 where `alpha` uint8 [H, W] is 0; anything between 0 and 255 is refused."""
    partial = int(np.count_nonzero((alpha > 0) & (alpha < 255)))
    if partial:
        raise InputError(f"{path}: expected opaque colours, but it is partly transparent in {_pixel_count(partial)}")
    return np.where((alpha == 0).reshape(*alpha.shape, *[1] * (values.ndim - 2)), values.dtype.type(0), values)


def _labels_from_colors(pixels: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    """Labels from RGB(A) [H, W, 3 or 4], by the rule in `read_mask`."""
    colors = pixels[:, :, :3].astype(np.int32)
    if pixels.shape[2] == 4:
        colors = _opaque(colors, pixels[:, :, 3], path)
    codes = (colors[:, :, 0] << 16) | (colors[:, :, 1] << 8) | colors[:, :, 2]
    found, counts = np.unique(codes, return_counts=True)
    white = 0xFFFFFF
    if set(found.tolist()) <= {0, white}:
        return (codes == white).astype(np.uint8)
    table = PALETTE.astype(np.int32)
    order = np.argsort(palette_codes := (table[:, 0] << 16) | (table[:, 1] << 8) | table[:, 2])
    position = np.searchsorted(palette_codes[order], codes).clip(max=255)
    known = np.isin(found, palette_codes)
    if known.all():
        mask = order[position].astype(np.uint8)
        return (mask == VOID).astype(np.uint8) if not labels_of(mask) else mask
    if np.all(colors == colors[:, :, :1]):
        return _labels_from_greys(colors[:, :, 0].astype(np.uint8), path)
    stray, number = found[~known], int(counts[~known].sum())
    named = [f"#{code:06x}" for code in stray[np.argsort(-counts[~known], kind="stable")].tolist()]
    raise InputError(
        f"{path}: expected labels, black and white, or colours of the PASCAL palette, but it has other "
        f"colours ({name_some(named, 6)}) in {_pixel_count(number)}; save the mask as a palette or greyscale PNG, "
        "without smoothing"
    )


def write_mask(path: str | os.PathLike[str], mask: np.ndarray) -> None:
    """Writes a label mask as a palette PNG with the PASCAL palette, as DAVIS does. The file is complete or absent.

    Args:
        path: the file; its folder must exist.
        mask: uint8 or bool [H, W].

    Raises:
        InputError: `mask` has another shape or type.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> osmn.write_mask("mask.png", np.eye(4, dtype=np.uint8))
        >>> int(osmn.read_mask("mask.png").sum())
        4
    """
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_) or mask.size == 0:
        raise InputError(f"mask: expected uint8 or bool [H, W], received {mask.dtype} {list(mask.shape)}")
    write_bytes(path, png.encode_indexed_png(mask.astype(np.uint8, copy=False), PALETTE))
