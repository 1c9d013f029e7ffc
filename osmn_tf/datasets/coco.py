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

from osmn_tf.datasets.index import DamagedFileError, ImageDataset, ImageItem, require_folder
from osmn_tf.errors import InputError, name_some

_FIELDS: dict[str, dict[str, Any]] = {
    "images": {"id": int | str, "file_name": str, "height": int, "width": int},
    "annotations": {"image_id": int | str, "segmentation": object, "area": int | float},
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
    images = sorted(content["images"], key=lambda image: (isinstance(image["id"], str), image["id"]))
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
            lacking = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if lacking:
                raise InputError(f"COCO: {path}: an entry of '{key}' has no {name_some(lacking)}")
            wrong = [field for field, kind in fields.items() if not isinstance(entry[field], kind)]
            if wrong:
                raise InputError(f"COCO: {path}: an entry of '{key}' has the {wrong[0]} {entry[wrong[0]]!r}")
    return content


def encode_segmentation(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A COCO `segmentation` (polygons, uncompressed or compressed run lengths) as compressed run lengths.

    Returns:
        {"size": [height, width], "counts": ...}, which `pycocotools.mask.decode` takes.

    Raises:
        DamagedFileError: it is none of these, a run-length mask of another size, or one that does not fill its size
            (of which pycocotools would fill the rest with whatever is in the memory).
    """
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if isinstance(polygon, list) and len(polygon) >= 6]
        if not polygons:
            raise DamagedFileError("COCO: a segmentation without a polygon of three points")
        try:
            return encode_polygons(polygons, height, width)
        except (TypeError, ValueError) as error:
            raise DamagedFileError(f"COCO: a polygon with something else than numbers ({error})") from error
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        received = type(segmentation).__name__ if size is None else f"size {size}"
        raise DamagedFileError(
            f"COCO: expected polygons or a run-length mask of size [{height}, {width}], received {received}"
        )
    counts = segmentation.get("counts")
    try:
        runs = np.array(counts) if isinstance(counts, list) else _decompress(counts)
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        raise DamagedFileError(f"COCO: expected run lengths as 'counts', received {type(counts).__name__}") from error
    if runs.dtype.kind not in "iu" or runs.min(initial=0) < 0 or runs.sum() != height * width:
        raise DamagedFileError(f"COCO: the run lengths do not add up to {height} x {width} pixels")
    if isinstance(counts, list):
        return rle_tools.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": counts}


def encode_polygons(polygons: list[list[float]], height: int, width: int) -> dict[str, Any]:
    """What is in any of the polygons, each x, y, x, y, ... in pixels, as compressed run lengths.

    Raises:
        ValueError, TypeError: a coordinate is no number.
        DamagedFileError: there are fewer than three points, or one is farther away from the picture than the picture is
            large. (pycocotools would take any amount of memory for it, or end the process.)
    """
    side = max(height, width)
    for polygon in polygons:
        numbers = np.asarray(polygon, np.float64)
        if numbers.size < 6:
            raise DamagedFileError(f"a polygon of {numbers.size // 2} points")
        if not ((numbers >= -side) & (numbers <= 2 * side)).all():
            raise DamagedFileError(f"a point that is not in or near {width}x{height}")
    return rle_tools.merge(rle_tools.frPyObjects(polygons, height, width))


def _decompress(counts: str | bytes) -> np.ndarray:
    """The run lengths in COCO's compressed form, int64.

    A character holds 5 bits above 48, low ones first, and a bit that says that more follow; from the fourth number on
    what is stored is the difference to the number two places before.
    """
    encoded = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8)
    data = encoded.astype(np.int64) - 48
    if not data.size or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        raise ValueError("no compressed run lengths")
    ends = np.flatnonzero((data & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError("a run length of more than 32 bits")
    shifts = 5 * (np.arange(data.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((data & 31) << shifts, starts)
    values -= ((data[ends] & 16) > 0) * (np.int64(1) << 5 * lengths)  # the sign
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """`encode_segmentation`, decoded: bool [height, width].

    Raises:
        DamagedFileError: see there.
    """
    return rle_tools.decode(encode_segmentation(segmentation, height, width)).astype(bool)


def _draw(segmentations: list[Any], height: int, width: int, name: str) -> np.ndarray:
    label = 1
    try:
        mask = np.zeros((height, width), np.uint8)
        for label, segmentation in enumerate(segmentations, start=1):
            mask[decode_segmentation(segmentation, height, width)] = label
    except (DamagedFileError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{name}: instance {label} cannot be drawn ({error})") from error
    return mask
