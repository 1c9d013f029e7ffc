"""MOTS PNG: 16 bits a pixel, and the names of the classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import cv2
import numpy as np

from osmn_tf.datasets.annotations.archives import Archive, Folder
from osmn_tf.datasets.annotations.content import CLASS_NAME, MOST_PIXELS, Annotations, indices_of
from osmn_tf.errors import InputError
from osmn_tf.files import natural
from osmn_tf.masks.labels import VOID, labels_of

_MOTS_BASE = 1000  # a pixel is (number of the class, from 1) * 1000 + label of the object


def files_of(annotations: Annotations) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files."""
    classes = annotations.classes
    yield "instances/labels.txt", "".join(f"{name}\n" for name in classes).encode()
    for index, mask in sorted(annotations.masks.items()):
        pixels = np.zeros(annotations.size, np.uint16)
        for label in labels_of(mask):
            number = classes.index(annotations.name(label)) + 1
            pixels[mask == label] = number * _MOTS_BASE + label
        yield f"instances/{annotations.frame_name(index)}.png", cv2.imencode(".png", pixels)[1].tobytes()


def read_files(files: Folder | Archive) -> Annotations:
    """The masks in instances/*.png, and the names of their classes in labels.txt.

    Raises:
        InputError: there are none, or one is damaged.
    """
    names = sorted(
        (name for name in files.names() if PurePosixPath(name).parent.name == "instances" and name.endswith(".png")),
        key=natural,
    )
    listing = next((name for name in files.names() if PurePosixPath(name).name == "labels.txt"), None)
    if not names:
        raise InputError(f"{files.path}: expected annotations: an .xml, a .json or instances/*.png, received none")
    text = files.read(listing).decode("utf-8", "replace") if listing is not None else CLASS_NAME
    classes = [line.strip() for line in text.splitlines() if line.strip()] or [CLASS_NAME]
    masks: dict[int, np.ndarray] = {}
    objects: dict[int, str] = {}
    for index, name in zip(indices_of([PurePosixPath(name).stem for name in names]), names):
        try:
            pixels = cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pixels = None
        if pixels is None or pixels.ndim != 2 or pixels.size > MOST_PIXELS:
            raise InputError(f"{files.path}/{name}: expected a 16-bit PNG of one channel")
        numbers, labels = np.divmod(pixels.astype(np.int64), _MOTS_BASE)
        # 10000 marks what is to be ignored, in the data set that the format is of.
        seen = (numbers > 0) & (pixels != 10 * _MOTS_BASE)
        if labels[seen].max(initial=1) >= VOID or labels[seen].min(initial=1) < 1 or numbers.max() > len(classes) + 10:
            raise InputError(f"{files.path}/{name}: expected objects 1..{VOID - 1} of the classes in labels.txt")
        masks[index] = np.where(seen, labels, np.where(pixels == 10 * _MOTS_BASE, VOID, 0)).astype(np.uint8)
        for code in np.unique(pixels[seen]).tolist():
            number, label = divmod(code, _MOTS_BASE)
            objects[label] = classes[number - 1] if number <= len(classes) else CLASS_NAME
    size = next(iter(masks.values())).shape
    frame_names = dict(zip(masks, (PurePosixPath(name).stem for name in names)))
    return Annotations((size[0], size[1]), masks, frame_names, objects)
