"""COCO instances in the TFRecord files that TensorFlow Model Garden's `create_coco_tf_record.py` writes.

Each record is a `tf.train.Example` with `image/encoded` (JPEG or PNG), `image/source_id`, and per instance
`image/object/mask` (a PNG, 1 inside; written with `--include_masks`), `image/object/is_crowd` and
`image/object/area`. Plain TensorFlow reads them; Model Garden itself is not needed.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from osmn_tf.datasets.index import DamagedFileError, ImageDataset, ImageItem, check_size
from osmn_tf.errors import InputError, import_extra

_HEADER = struct.Struct("<QI")  # length, checksum of the length
_FOOTER = 4  # checksum of the data


def open_coco_tfrecord(path: str | os.PathLike[str], *, min_area: float = 0.03) -> ImageDataset:
    """Indexes TFRecord files and checks that they are complete.

    Args:
        path: a file, or a folder with `*.tfrecord*` files.
        min_area: instances must cover more than this fraction of their image.

    Returns:
        All images, in the order of the files. In the masks, instances that are no crowds are numbered from the largest
        (1) to the smallest, the smaller on top; a mask is empty where no instance is large enough (what an image holds
        is known only when it is read).

    Raises:
        InputError: there are no such files, or one is truncated; MissingDependencyError: no TensorFlow.
    """
    import_extra("tensorflow", "tensorflow", "tf", "open_coco_tfrecord")
    path = Path(path)
    files = sorted(path.glob("*.tfrecord*")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"COCO TFRecords: no *.tfrecord files at {path}")
    items: list[ImageItem] = []
    for file in files:
        for number, (offset, length) in enumerate(_index(file)):
            items.append(
                _RecordItem(
                    name=f"{file.name}/{number}",
                    image_path=file,
                    read_mask=functools.partial(_read_mask, file, offset, length, min_area),
                    offset=offset,
                    length=length,
                    min_area=min_area,
                )
            )
    return ImageDataset(f"COCO TFRecords ({path})", items)


@dataclasses.dataclass(frozen=True)
class _RecordItem(ImageItem):
    """A record: image and masks are in the same place, and are read at once."""

    offset: int = 0
    length: int = 0
    min_area: float = 0.0

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        return _read(self.image_path, self.offset, self.length, self.min_area)


def _index(file: Path) -> list[tuple[int, int]]:
    """(offset, length) of the data of every record. Only the headers are read."""
    places: list[tuple[int, int]] = []
    position, size = 0, file.stat().st_size
    with file.open("rb") as stream:
        while position < size:
            stream.seek(position)
            header = stream.read(_HEADER.size)
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
            start = position + _HEADER.size
            position = start + length + _FOOTER
            if position > size:
                raise InputError(f"COCO TFRecords: {file} is truncated or no TFRecord file (record {len(places)})")
            places.append((start, length))
    return places


def _read_mask(file: Path, offset: int, length: int, min_area: float) -> np.ndarray:
    return _read(file, offset, length, min_area)[1]


def _read(file: Path, offset: int, length: int, min_area: float) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow as tf

    with file.open("rb") as stream:
        stream.seek(offset)
        content = stream.read(length)
    place = f"{file} at byte {offset}"
    features = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string, ""),
        "image/object/mask": tf.io.VarLenFeature(tf.string),
        "image/object/is_crowd": tf.io.VarLenFeature(tf.int64),
    }
    try:
        record = tf.io.parse_single_example(content, features)
    except tf.errors.InvalidArgumentError as error:
        raise DamagedFileError(f"{place}: expected a tf.train.Example, but the record is damaged") from error
    image = _decode(record["image/encoded"].numpy(), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, place)
    encoded = record["image/object/mask"].values.numpy()
    crowd = record["image/object/is_crowd"].values.numpy()
    if len(crowd) and not len(encoded):
        raise DamagedFileError(f"{place}: objects without masks; write the files with --include_masks")
    instances = []
    for number, png in enumerate(encoded):
        if number < len(crowd) and crowd[number]:
            continue
        instance = _decode(png, cv2.IMREAD_GRAYSCALE, f"{place}, mask {number}") > 0
        check_size(image, instance, place)
        if instance.mean() > min_area:
            instances.append(instance)
    mask = np.zeros(image.shape[:2], np.uint8)
    for label, instance in enumerate(sorted(instances, key=lambda m: -int(m.sum()))[:254], start=1):
        mask[instance] = label
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mask


def _decode(content: bytes, flags: int, place: str) -> Any:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise DamagedFileError(f"{place}: expected a JPEG or PNG image in the record, received {len(content)} bytes")
    return image
