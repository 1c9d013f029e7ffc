"""COCO, with CVAT's keys for tracks, and YouTube-VIS, whose tracks are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from osmn_tf.datasets.annotations.content import CLASS_NAME, MOST_PIXELS, Annotations
from osmn_tf.datasets.coco import decode_segmentation
from osmn_tf.datasets.index import DamagedFileError
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import VOID, labels_of


def document_of(annotations: Annotations) -> dict[str, Any]:
    """As COCO has it, ready for JSON."""
    height, width = annotations.size
    images = [
        {"id": index + 1, "width": width, "height": height, "file_name": f"{annotations.frame_name(index)}.png"}
        for index in range(annotations.length)
    ]
    classes = annotations.classes
    entries: list[dict[str, Any]] = []
    for index, mask in sorted(annotations.masks.items()):
        for label in labels_of(mask):
            runs = rle_tools.encode(np.asfortranarray(mask == label).view(np.uint8))
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": index + 1,
                    "category_id": classes.index(annotations.name(label)) + 1,
                    "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")},
                    "area": int(rle_tools.area(runs)),
                    "bbox": [float(value) for value in rle_tools.toBbox(runs)],
                    "iscrowd": 0,
                    # CVAT's own keys, which make one track of them.
                    "attributes": {"occluded": False, "track_id": label, "keyframe": True},
                }
            )
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(classes, start=1)]
    return {"info": {}, "licenses": [], "images": images, "annotations": entries, "categories": categories}


def read_document(content: bytes, source: str) -> Annotations:
    """The content of a file of COCO or YouTube-VIS; `source` is what it is called in errors.

    Raises:
        InputError: it is damaged, or does not say which annotations are the same object.
    """
    try:
        document = json.loads(content)
        categories = {entry["id"]: str(entry["name"]) for entry in document.get("categories", [])}
        if document.get("videos"):
            return _read_tracks(document, categories)
        images = sorted(document["images"], key=lambda image: image["id"])
        size = (int(images[0]["height"]), int(images[0]["width"]))
        if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
            raise ValueError(f"a size of {size[1]}x{size[0]}")
        places = {image["id"]: index for index, image in enumerate(images)}
        tracks = [entry.get("attributes", {}).get("track_id") for entry in document["annotations"]]
        if any(track is None for track in tracks):
            raise ValueError("annotations without attributes.track_id: which of them are the same object?")
        shift = 1 if min(tracks, default=1) == 0 else 0
        masks: dict[int, np.ndarray] = {}
        names: dict[int, str] = {}
        for track, entry in zip(tracks, document["annotations"]):
            label = _label(track + shift)
            mask = masks.setdefault(places[entry["image_id"]], np.zeros(size, np.uint8))
            mask[decode_segmentation(entry["segmentation"], *size)] = label
            names[label] = categories.get(entry["category_id"], CLASS_NAME)
        frame_names = {index: PurePosixPath(str(image["file_name"])).stem for index, image in enumerate(images)}
    except DamagedFileError as error:
        raise InputError(f"{source}: {error}") from error
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{source}: damaged, or no COCO file of one video ({reason})") from error
    return Annotations(size, masks, frame_names, names, len(images))


def _read_tracks(document: Mapping[str, Any], categories: Mapping[int, str]) -> Annotations:
    """YouTube-VIS, as `osmn segment --coco` writes it."""
    (video,) = document["videos"]
    size, length = (int(video["height"]), int(video["width"])), int(video["length"])
    masks: dict[int, np.ndarray] = {}
    names: dict[int, str] = {}
    for number, track in enumerate(document["annotations"], start=1):
        label = _label(track.get("label", number))
        names[label] = categories.get(track["category_id"], CLASS_NAME)
        for index, segmentation in enumerate(track["segmentations"]):
            mask = masks.setdefault(index, np.zeros(size, np.uint8))
            if segmentation is not None:
                mask[decode_segmentation(segmentation, *size)] = label
    frame_names = {index: PurePosixPath(str(name)).stem for index, name in enumerate(video["file_names"])}
    return Annotations(size, masks, frame_names, names, length)


def _label(value: Any) -> int:
    if not isinstance(value, int) or not 0 < value < VOID:
        raise ValueError(f"the object {value!r}, expected 1..{VOID - 1}")
    return value
