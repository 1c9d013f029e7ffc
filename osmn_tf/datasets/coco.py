"""COCO instances: images with polygons or run-length masks of their objects.

    ROOT/train2017/*.jpg
    ROOT/annotations/instances_train2017.json

Definition of the format: Lin et al., "Microsoft COCO: Common Objects in Context" (2014). OSMN trains on instances that
cover more than 3% of their image and are no crowds (Yang et al., CVPR 2018).
"""

from __future__ import annotations

import functools
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from osmn_tf.datasets.index import DamagedFileError, ImageDataset, ImageItem, name_some, require_folder
from osmn_tf.errors import InputError

_FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "segmentation", "area"),
}


def open_coco(
    root: str | os.PathLike[str],
    split: str = "train2017",
    *,
    min_area: float = 0.03,
    annotations: str | os.PathLike[str] | None = None,
) -> ImageDataset:
    """Indexes COCO instances and checks that the images are there.

    Args:
        root: the folder that holds the images' folder `split` and `annotations`.
        split: name of the images' folder.
        min_area: instances must cover more than this fraction of their image.
        annotations: the JSON file, where it is not `annotations/instances_SPLIT.json`.

    Returns:
        The images that have at least one such instance, by id. In the masks, instances are numbered from the largest
        (1) to the smallest; where they overlap, the smaller is on top. Everything else, crowds too, is background. At
        most 254 instances per image are kept.

    Raises:
        InputError: a folder or image is missing, or the JSON is not in COCO's format.
    """
    root = require_folder(Path(root), "COCO", "a folder with images and annotations")
    folder = require_folder(root / split, "COCO", "images")
    path = Path(annotations) if annotations is not None else root / "annotations" / f"instances_{split}.json"
    content = _read_json(path)
    instances = defaultdict(list)
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd", 0):
            instances[annotation["image_id"]].append(annotation)
    images = sorted(content["images"], key=lambda image: image["id"])
    unknown = sorted(set(instances) - {image["id"] for image in images})
    if unknown:
        raise InputError(f"COCO: {path} annotates images that it does not list: {name_some(unknown)}")
    present = {entry.name for entry in os.scandir(folder)}
    items, missing = [], []
    for image in images:
        threshold = min_area * image["height"] * image["width"]
        kept = sorted((a for a in instances[image["id"]] if a["area"] > threshold), key=lambda a: -a["area"])[:254]
        if not kept:
            continue
        if image["file_name"] not in present:
            missing.append(image["file_name"])
        items.append(
            ImageItem(
                name=f"{split}/{Path(image['file_name']).stem}",
                image_path=folder / image["file_name"],
                read_mask=functools.partial(
                    _draw, [a["segmentation"] for a in kept], image["height"], image["width"], image["file_name"]
                ),
                labels=tuple(range(1, len(kept) + 1)),
            )
        )
    if missing:
        raise InputError(f"COCO: {len(missing)} of {len(items)} images are not in {folder}: {name_some(missing)}")
    return ImageDataset(f"COCO {split} ({root})", items)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"COCO: cannot read the annotations {path} ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"COCO: {path} is no complete JSON file ({error})") from error
    for key, fields in _FIELDS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise InputError(f"COCO: {path} has no list '{key}'; expected an instances_*.json file")
        for entry in entries:
            lacking = [field for field in fields if field not in entry]
            if lacking:
                raise InputError(f"COCO: {path}: an entry of '{key}' has no {name_some(lacking)}")
    return content


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A COCO `segmentation` (polygons, uncompressed or compressed run lengths) as bool [height, width].

    Raises:
        DamagedFileError: it is none of these, or a run-length mask of another size.
    """
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if isinstance(polygon, list) and len(polygon) >= 6]
        if not polygons:
            raise DamagedFileError("COCO: a segmentation without a polygon of three points")
        return rle_tools.decode(rle_tools.merge(rle_tools.frPyObjects(polygons, height, width))) > 0
    if not isinstance(segmentation, dict) or list(segmentation.get("size", ())) != [height, width]:
        raise DamagedFileError(f"COCO: expected polygons or a run-length mask of size [{height}, {width}]")
    if isinstance(segmentation["counts"], list):
        segmentation = rle_tools.frPyObjects(segmentation, height, width)
    return rle_tools.decode(segmentation) > 0


def _draw(segmentations: list[Any], height: int, width: int, name: str) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    for label, segmentation in enumerate(segmentations, start=1):
        try:
            mask[decode_segmentation(segmentation, height, width)] = label
        except (DamagedFileError, KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{name}: instance {label} cannot be drawn ({error})") from error
    return mask
