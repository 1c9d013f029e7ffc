"""TensorBoard's event files, for scalars and pictures, without TensorFlow and TensorBoard.

A file is a sequence of TFRecords, each an `Event` protocol buffer (tensorflow/core/util/event.proto): few enough fields
to be written by hand.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from osmn_tf.errors import InputError


@functools.cache
def _table() -> tuple[int, ...]:
    """CRC-32C of every byte (polynomial 0x1EDC6F41, reflected)."""
    entries = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


def masked_crc32c(content: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated right by 15 bits, plus a constant."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited field: text, bytes or a nested message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


class EventWriter:
    """Appends to a new event file in a folder.

    Args:
        folder: created if needed.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{time.time_ns():x}"
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._path = Path(folder) / name
            self._path.touch(exist_ok=False)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error
        self._write(_message(3, b"brain.Event:2"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes one number for each tag."""
        summary = b"".join(
            _message(1, _message(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
        )
        self._write(b"\x10" + _varint(step) + _message(5, summary))

    def image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Writes a picture, uint8 RGB [H, W, 3]."""
        encoded = cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()
        height, width = picture.shape[:2]
        content = b"\x08" + _varint(height) + b"\x10" + _varint(width) + b"\x18\x03" + _message(4, encoded)
        summary = _message(1, _message(1, tag.encode()) + _message(4, content))
        self._write(b"\x10" + _varint(step) + _message(5, summary))

    def _write(self, event: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(event))
        checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, event))
        with open(self._path, "ab") as file:  # not held open: a run may end in an error
            file.write(length + next(checks) + event + next(checks))
