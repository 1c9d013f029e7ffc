"""PNG files read and written exactly, through Pillow: palette indices stay indices, and a damaged file is an error."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.errors import InputError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"  # the last chunk, which is always the same
# zlib's level 3 takes a third of the time of the usual 6 on label masks, for files of about 4 instead of 2 KB.
_COMPRESSION_LEVEL = 3


@dataclasses.dataclass(frozen=True)
class PngImage:
    """A decoded PNG.

    Attributes:
        pixels: [H, W] raw samples of a greyscale or palette file (1-, 2- and 4-bit samples are not scaled up), or
            [H, W, 3 or 4] RGB(A). uint8, or uint16 in a greyscale file of 16 bits per sample.
        palette: uint8 [up to 256, 3] RGB, or None in a file without indices.
        bit_depth: bits per sample, 1, 2, 4, 8 or 16.
        alpha: uint8 [H, W] beside grey values (a mask of DAVIS 2016 has it), else None.
    """

    pixels: np.ndarray
    palette: np.ndarray | None
    bit_depth: int
    alpha: np.ndarray | None = None


def _open(data: bytes, name: object) -> Image:
    """The file, every chunk's checksum verified and not yet decoded."""
    from PIL import Image

    if not data.startswith(SIGNATURE):
        raise InputError(f"{name}: expected a PNG file, but it does not start with the PNG signature")
    if _END not in data:  # Pillow lets the last checksum be missing
        raise InputError(f"{name}: the PNG file is truncated after {len(data)} bytes, or corrupt at its end")
    try:
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        return Image.open(io.BytesIO(data), formats=("PNG",))
    except Exception as error:  # a decoder has no list of what damage makes it raise
        raise InputError(f"{name}: the PNG file is truncated or corrupt ({one_line(error)})") from error


def check_png(data: bytes, name: object) -> None:
    """Raises `InputError` if the PNG file with content `data` is truncated or a checksum is wrong."""
    _open(data, name)


def decode_png(data: bytes, name: object) -> PngImage:
    """Decodes the content of a PNG file.

    Args:
        data: the file's content.
        name: the file's name, for error messages.

    Raises:
        InputError: it is no PNG, truncated or corrupt, or in colour with 16 bits per value.
    """
    image = _open(data, name)
    bit_depth = data[24]  # of the header, which Pillow keeps to itself
    if bit_depth == 16 and not image.mode.startswith("I"):
        raise InputError(f"{name}: expected a PNG file with 8 bits per value, but it is in colour with 16")
    try:
        pixels = np.array(image)
    except Exception as error:
        raise InputError(f"{name}: the PNG file is corrupt ({one_line(error)})") from error
    if image.mode == "P":
        palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        return PngImage(pixels, palette, bit_depth)
    if image.mode == "LA":
        return PngImage(np.ascontiguousarray(pixels[..., 0]), None, bit_depth, pixels[..., 1])
    if image.mode == "1":
        pixels = pixels.astype(np.uint8)
    elif image.mode == "L" and bit_depth < 8:
        pixels = pixels // (255 // (2**bit_depth - 1))  # the decoder scales 0..2**depth-1 to 0..255
    return PngImage(pixels, None, bit_depth)


def encode_indexed_png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """The content of an 8-bit palette PNG.

    Args:
        indices: uint8 [H, W].
        palette: uint8 [256, 3] RGB.
    """
    from PIL import Image

    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=_COMPRESSION_LEVEL)
    return content.getvalue()
