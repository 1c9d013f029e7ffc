"""Image files: how every frame that is stored as one is read, and how large it is by its header."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.masks import png

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """The (height, width) that an image file's header states, before any orientation; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # a decoder has no list of what damage makes it raise; `read_image` says what is wrong
        return None


def read_image(path: str | os.PathLike[str], *, oriented: bool = True) -> np.ndarray:
    """Decodes an image file to uint8 RGB [H, W, 3].

    Args:
        path: the file.
        oriented: apply the EXIF orientation, as viewers do; False: as stored, as the masks of data sets are.

    Raises:
        InputError: it is missing, truncated or no image.
    """
    import cv2

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the image ({error.strerror or error})") from error
    # OpenCV fills what is missing of a JPEG with grey and returns it as if nothing had happened. Pillow raises, and
    # gives the same pixels otherwise, but takes a sixth longer.
    if data.startswith(b"\xff\xd8") and _jpeg_is_cut(data):
        raise InputError(f"{path}: the JPEG file is truncated")
    if data.startswith(png.SIGNATURE):
        png.check_png(data, path)
    elif data.startswith(b"BM") and len(data) >= 6 and struct.unpack("<I", data[2:6])[0] > len(data):
        raise InputError(f"{path}: the BMP file is truncated")
    flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path}: expected an image, but the file of {len(data)} bytes cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _jpeg_is_cut(data: bytes) -> bool:
    """Whether the end marker is missing. Compressed pixels cannot contain it, but a thumbnail in the header does, and
    cameras append data behind it."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xDA:  # start of the pixels
            return data.find(b"\xff\xd9", position) < 0
        # 0xFF before a marker is padding; a segment says its length.
        position += 1 if data[position + 1] == 0xFF else 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return True
