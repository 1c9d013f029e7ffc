"""PNG files read and written exactly: palette indices stay indices, and a damaged file is an error.

OpenCV expands a palette to colours, which loses the indices. A palette PNG and a greyscale PNG differ only in their
header, so the header is rewritten to greyscale and the same decoder (libpng, through OpenCV) then gives the indices,
whatever the filters, the interlacing or the bit depth. The checksum of every chunk is verified on the way.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np

from osmn_tf.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3  # colour types of the PNG standard, section 11.2.2
# zlib's level 3 takes a third of the time of the usual 6 on label masks, for files of about 4 instead of 2 KB.
_COMPRESSION_LEVEL = 3


@dataclasses.dataclass(frozen=True)
class PngImage:
    """A decoded PNG.

    Attributes:
        pixels: [H, W] raw samples of a greyscale or palette file (1-, 2- and 4-bit samples are not scaled up), or
            [H, W, 3 or 4] RGB(A). uint8, or uint16 in a file of 16 bits per sample.
        palette: uint8 [up to 256, 3] RGB, or None in a file without indices.
        bit_depth: bits per sample, 1, 2, 4, 8 or 16.
    """

    pixels: np.ndarray
    palette: np.ndarray | None
    bit_depth: int


def _chunks(data: bytes, name: object) -> list[tuple[bytes, bytes]]:
    """The (type, content) of every chunk up to the end marker; any damage is an `InputError`."""
    if not data.startswith(SIGNATURE):
        raise InputError(f"{name}: expected a PNG file, but it does not start with the PNG signature")
    found = []
    position = len(SIGNATURE)
    while True:
        header = data[position : position + 8]
        if len(header) < 8:
            raise InputError(f"{name}: the PNG file is truncated after {len(data)} bytes")
        length, kind = struct.unpack(">I4s", header)
        end = position + 8 + length
        if end + 4 > len(data):
            raise InputError(f"{name}: the PNG file is truncated after {len(data)} bytes")
        if zlib.crc32(data[position + 4 : end]) != struct.unpack(">I", data[end : end + 4])[0]:
            raise InputError(f"{name}: the PNG file is corrupt (wrong checksum at byte {position})")
        found.append((kind, data[position + 8 : end]))
        if kind == b"IEND":
            break
        position = end + 4
    if found[0][0] != b"IHDR" or len(found[0][1]) != 13:
        raise InputError(f"{name}: the PNG file is corrupt (it does not start with a header)")
    return found


def check_png(data: bytes, name: object) -> None:
    """Raises `InputError` if the PNG file with content `data` is truncated or a checksum is wrong."""
    _chunks(data, name)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def decode_png(data: bytes, name: object) -> PngImage:
    """Decodes the content of a PNG file.

    Args:
        data: the file's content.
        name: the file's name, for error messages.

    Raises:
        InputError: it is no PNG, truncated or corrupt.
    """
    import cv2

    chunks = _chunks(data, name)
    width, height, bit_depth, color_type, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    palette = None
    if color_type == _PALETTE:
        colors = next((content for kind, content in chunks if kind == b"PLTE"), b"")
        if not colors or len(colors) % 3 or len(colors) > 768 or bit_depth > 8:
            raise InputError(f"{name}: the PNG file is corrupt (its palette has {len(colors)} bytes)")
        palette = np.frombuffer(colors, np.uint8).reshape(-1, 3)
    # Everything beside the pixels (transparency, gamma, animation) could change what the decoder returns: left out.
    header = struct.pack(">IIBBBBB", width, height, bit_depth, _GREY if color_type == _PALETTE else color_type, *rest)
    plain = (
        SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", b"".join(content for kind, content in chunks if kind == b"IDAT"))
        + _chunk(b"IEND", b"")
    )
    try:
        pixels = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"{name}: the PNG file of {height}x{width} pixels cannot be decoded") from error
    if pixels is None:
        raise InputError(f"{name}: the PNG file is corrupt (its pixels cannot be decoded)")
    if pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]])
    elif bit_depth < 8:
        pixels = pixels // (255 // (2**bit_depth - 1))  # the decoder scales 0..2**depth-1 to 0..255
    return PngImage(pixels, palette, bit_depth)


def encode_indexed_png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """The content of an 8-bit palette PNG.

    Args:
        indices: uint8 [H, W].
        palette: uint8 [256, 3] RGB.
    """
    height, width = indices.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter type, 0: none
    rows[:, 1:] = indices
    return (
        SIGNATURE
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0))
        + _chunk(b"PLTE", palette.tobytes())
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), _COMPRESSION_LEVEL))
        + _chunk(b"IEND", b"")
    )
