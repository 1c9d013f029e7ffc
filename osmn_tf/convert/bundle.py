"""Reads the index of a TensorFlow checkpoint (`PREFIX.index`) by itself.

`tf.train.load_checkpoint` reads the values, but it neither says which file of a damaged checkpoint is at fault nor
where a tensor lies. Format: a table of sorted keys (LevelDB's layout, uncompressed); the empty key holds a
BundleHeaderProto, each other key a BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from osmn_tf.errors import InputError

_FOOTER_SIZE = 48
_MAGIC = 0xDB4775248B80FB57
_FLOAT32 = 1  # DataType.DT_FLOAT
_BIG_ENDIAN = 1  # BundleHeaderProto.Endianness.BIG


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `size` bytes from `offset` of the data file number `shard`."""

    is_float32: bool
    shard: int
    offset: int
    size: int


@dataclass(frozen=True)
class Index:
    """Content of an index file."""

    shards: int
    big_endian: bool
    entries: dict[str, Entry]


def shard_path(prefix: str | Path, shard: int, shards: int) -> Path:
    """The data file number `shard` (from 0) of `shards`."""
    return Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def read_index(path: Path) -> Index:
    """Reads an index file.

    Raises:
        InputError: it is not an index file or it is damaged.
    """
    content = path.read_bytes()
    try:
        if len(content) < _FOOTER_SIZE or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
            raise ValueError("the mark at its end is missing")
        footer = content[-_FOOTER_SIZE:]
        _, position = _handle(footer, 0)  # of the metadata, which checkpoints do not use
        index_handle, _ = _handle(footer, position)
        header: dict[int, int] = {}
        entries: dict[str, Entry] = {}
        for _, value in _block(content, *index_handle):
            for key, message in _block(content, *_handle(value, 0)[0]):
                fields = _integers(message)
                if not key:
                    header = fields
                else:
                    entries[key.decode()] = Entry(
                        fields.get(1) == _FLOAT32, fields.get(3, 0), fields.get(4, 0), fields.get(5, 0)
                    )
        if 1 not in header:
            raise ValueError("it has no header")
    except (ValueError, IndexError, struct.error) as error:
        raise InputError(f"{path}: not the index of a TensorFlow checkpoint, or damaged ({error})") from error
    return Index(header[1], header.get(2, 0) == _BIG_ENDIAN, entries)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = content[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """A block handle ((offset, size)) and the position behind it."""
    offset, position = _varint(content, position)
    size, position = _varint(content, position)
    return (offset, size), position


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every entry of a block."""
    block = content[offset : offset + size]
    if len(block) < size:
        raise ValueError("it ends too early")
    if content[offset + size] != 0:
        raise ValueError("it is compressed")
    (restarts,) = struct.unpack("<I", block[-4:])
    end = size - 4 * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _integers(message: bytes) -> dict[int, int]:
    """The varint fields of a protocol buffer; other fields are passed over."""
    fields: dict[int, int] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            fields[number], position = _varint(message, position)
        elif kind == 2:
            length, position = _varint(message, position)
            position += length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown field type {kind}")
    return fields
