"""The masks of one video in the files of annotation tools, both ways: CVAT 1.1 for video and for images (XML), COCO,
MOTS PNG, and the palette PNGs of DAVIS.

Every format is read into `Annotations` and written from it. Archives (.zip, as CVAT exports them) are read without
being unpacked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from pycocotools import mask as rle_tools

from osmn_tf.datasets.coco import decode_segmentation
from osmn_tf.datasets.index import DamagedFileError, name_some
from osmn_tf.errors import InputError
from osmn_tf.files import OwnFolder, atomic_path, write_bytes
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.masks.prompts import Box

CLASS_NAME = "object"
"""What objects are called that have no name of their own."""

_MOTS_BASE = 1000  # a pixel is (number of the class, from 1) * 1000 + label of the object
_MOST_BYTES = 1 << 30  # of an entry of an archive
_MOST_PIXELS = 1 << 28


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The masks of a video.

    Attributes:
        size: (height, width).
        masks: index of a frame -> uint8 label mask [H, W], of annotated frames only.
        frame_names: index -> name of a frame without suffix; '00042' by default.
        names: label -> what the object is; `CLASS_NAME` by default.
        length: how many frames the video has, annotated or not.
        first: number of the video's frame that index 0 is: what was annotated may begin behind its first frame.
        hidden: label -> indexes of the frames in which it is said that the object is not seen (CVAT's 'outside').
        boxes: index of a frame -> label -> box of an object that has no mask there (CVAT's rectangles).

    Raises:
        InputError: a mask is of another size, or a frame is before the video.
    """

    size: tuple[int, int]
    masks: Mapping[int, np.ndarray]
    frame_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    length: int = 0
    first: int = 0
    hidden: Mapping[int, Sequence[range]] = dataclasses.field(default_factory=dict)
    boxes: Mapping[int, Mapping[int, Box]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, mask in self.masks.items():
            if mask.dtype != np.uint8 or mask.shape != tuple(self.size):
                raise InputError(
                    f"frame {index}: expected a mask uint8 {list(self.size)}, received {mask.dtype} {list(mask.shape)}"
                )
        if min(self.masks, default=0) < 0:
            raise InputError(f"masks: frames count from 0, received {min(self.masks)}")
        object.__setattr__(self, "length", max(self.length, max(self.masks, default=-1) + 1))

    @property
    def labels(self) -> tuple[int, ...]:
        """Of all objects, ascending."""
        return tuple(sorted({label for mask in self.masks.values() for label in labels_of(mask)}))

    def frame_name(self, index: int) -> str:
        return self.frame_names.get(index, f"{index:05d}")

    def name(self, label: int) -> str:
        return self.names.get(label, CLASS_NAME)

    @property
    def classes(self) -> list[str]:
        """The names of the objects, each once, in the order of the labels."""
        return list(dict.fromkeys(self.name(label) for label in self.labels)) or [CLASS_NAME]

    def numbers(self, names: Sequence[str] | None = None) -> dict[int, int]:
        """Index -> number of the frame of a video that it is, of the frames in which there is an object.

        The frames of a folder are known by their names, where the file has names. Those of a video are known by the
        numbers in their names where all are numbers, as '00042', or 'frame_000042', which is CVAT's name for a frame
        of a video; else by their places in the file.

        Args:
            names: of the folder's images without suffix, in their order; None: it is a video.

        Raises:
            InputError: the folder has no image of such a name.
        """
        masks = {index for index, mask in self.masks.items() if labels_of(mask)}
        seen = sorted(masks | {index for index, boxes in self.boxes.items() if boxes})
        numbers = {index: index + self.first for index in seen}
        if all(index in self.frame_names for index in seen):
            places = {name: place for place, name in enumerate(names or ())}
            found = {index: self.frame_names[index] for index in seen}
            unknown = [name for name in found.values() if name not in places]
            pattern = r"frame_(\d+)" if names else r"(?:frame_)?(\d+)"
            matches = {index: re.fullmatch(pattern, name) for index, name in found.items()}
            if not unknown:
                numbers = {index: places[name] for index, name in found.items()}
            elif all(matches.values()) and not any(re.fullmatch(pattern, name) for name in places):
                numbers = {index: int(match[1]) for index, match in matches.items() if match}
            elif names:
                raise InputError(f"of another video: it has no {name_some(unknown)} among its {len(places)} images")
        return numbers


FORMATS = ("cvat", "cvat-images", "coco", "mots", "masks")
"""What `write_annotations` writes; "cvat" is CVAT for video."""


SUFFIXES = (".xml", ".json", ".zip")
"""Of the files that `read_annotations` reads."""


def is_annotation_file(path: str | os.PathLike[str]) -> bool:
    """Whether this is the name of a file of annotations, rather than of an image."""
    return Path(path).suffix.lower() in SUFFIXES


def read_annotations(path: str | os.PathLike[str], interpolated: bool = True) -> Annotations:
    """Reads any of the formats: .xml, .json, a folder or .zip of MOTS, a .zip of one of them, or a folder of PNGs.

    Args:
        path: the file or folder.
        interpolated: also the shapes that CVAT has put between the key frames of a track, which nobody has drawn.

    Raises:
        InputError: it is none of them, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _read_mots(_Folder(path)) if (path / "instances").is_dir() else _read_masks(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file or folder of annotations")
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return _read_cvat(path.read_bytes(), str(path), interpolated)
    if suffix == ".json":
        return _read_coco(path.read_bytes(), str(path))
    if suffix == ".zip":
        with _Archive(path) as archive:
            for name in archive.names():
                if name.endswith(".xml"):
                    return _read_cvat(archive.read(name), f"{path}/{name}", interpolated)
                if name.endswith(".json"):
                    return _read_coco(archive.read(name), f"{path}/{name}")
            return _read_mots(archive)
    raise InputError(f"{path}: expected .xml (CVAT), .json (COCO), .zip, or a folder of PNGs")


def write_annotations(annotations: Annotations, path: str | os.PathLike[str], kind: str | None = None) -> None:
    """Writes one of the formats.

    Args:
        annotations: what is written.
        path: the file, or for "masks" and for "mots" without .zip the folder, in which only files that were written
            here are replaced.
        kind: one of `FORMATS`; default: by the suffix .xml, .json or .zip, else "masks".

    Raises:
        InputError: there is no such kind, a file is in the way, or there are boxes, which are no masks.
    """
    path = Path(path)
    if annotations.boxes:
        raise InputError(
            f"frame {min(annotations.boxes)}: it has a box, which is no mask; 'osmn segment --mask' makes masks of them"
        )
    kind = kind or {".xml": "cvat", ".json": "coco", ".zip": "mots"}.get(path.suffix.lower(), "masks")
    if kind == "cvat":
        write_bytes(path, _cvat(annotations, path.stem))
    elif kind == "cvat-images":
        write_bytes(path, _cvat_images(annotations, path.stem))
    elif kind == "coco":
        write_bytes(path, json.dumps(_coco(annotations), separators=(",", ":")).encode())
    elif kind == "mots" and path.suffix.lower() == ".zip":
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, content in _mots(annotations):
                archive.writestr(name, content)
    elif kind in ("mots", "masks"):
        folder = OwnFolder(path)
        if (foreign := folder.foreign()) is not None:
            raise InputError(f"{foreign} is in the way: it was not written here, and is left alone")
        folder.remove()
        folder.claim()
        if kind == "masks":
            for index, mask in sorted(annotations.masks.items()):
                write_mask(folder.file(f"{annotations.frame_name(index)}.png"), mask)
        else:
            for name, content in _mots(annotations):
                write_bytes(folder.file(name), content)
    else:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, received {kind!r}")


# CVAT 1.1 ---------------------------------------------------------------------------------------------------------


def runs_of(inside: np.ndarray) -> tuple[list[int], tuple[int, int, int, int]]:
    """A mask as CVAT writes it: lengths of runs along the rows of its bounding box, ground first, and the box.

    Args:
        inside: bool [H, W], not empty.

    Returns:
        The lengths, and (left, top, width, height).
    """
    left, top, width, height = cv2.boundingRect(inside.astype(np.uint8))
    flat = inside[top : top + height, left : left + width].ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], ends, [flat.size]]))
    return [0, *lengths.tolist()] if flat[0] else lengths.tolist(), (left, top, width, height)


def fill_runs(lengths: list[int], box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The reverse of `runs_of`: bool of `size` = (height, width).

    Raises:
        ValueError: the lengths do not fill the box, or it is not inside the frame.
    """
    left, top, width, height = box
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a box of {width}x{height} at {left},{top} is not inside {size[1]}x{size[0]}")
    if min(lengths, default=0) < 0 or sum(lengths) != width * height:
        raise ValueError(f"run lengths that do not add up to {width} x {height}")
    values = np.arange(len(lengths)) % 2 == 1
    inside = np.zeros(size, bool)
    inside[top : top + height, left : left + width] = np.repeat(values, lengths).reshape(height, width)
    return inside


def polygon_mask(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a polygon as COCO has them: bool of `size`; points float [N, 2] (x, y), pixel 0 is 0..1."""
    runs = rle_tools.frPyObjects([points.ravel().tolist()], *size)
    return rle_tools.decode(rle_tools.merge(runs)).astype(bool)


def _cvat(annotations: Annotations, name: str) -> bytes:
    """CVAT for video 1.1. CVAT has no tracks of masks: like its own exports, every mask is a track of one frame."""
    root = _cvat_root(annotations, name, "interpolation")
    number = 0
    for label in annotations.labels:
        for index, mask in sorted(annotations.masks.items()):
            if not (mask == label).any():
                continue
            kind = {"id": str(number), "label": annotations.name(label), "source": "auto", "group_id": str(label)}
            track = ElementTree.SubElement(root, "track", kind)
            shape = _shape_attributes(mask == label)
            last = index + 1 < annotations.length  # or CVAT would show it to the end
            for frame, outside in ((index, "0"), (index + 1, "1"))[: 1 + last]:
                state = {"frame": str(frame), "keyframe": "1", "outside": outside, "occluded": "0"}
                ElementTree.SubElement(track, "mask", {**state, **shape})
            number += 1
    return _document(root)


def _cvat_images(annotations: Annotations, title: str) -> bytes:
    """CVAT for images 1.1, whose importer keeps groups: the objects."""
    root = _cvat_root(annotations, title, "annotation")
    height, width = annotations.size
    for index, mask in sorted(annotations.masks.items()):
        name = f"{annotations.frame_name(index)}.png"
        facts = {"id": str(index), "name": name, "width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", facts)
        for label in labels_of(mask):
            kind = {"label": annotations.name(label), "source": "auto", "occluded": "0", "group_id": str(label)}
            ElementTree.SubElement(image, "mask", {**kind, **_shape_attributes(mask == label)})
    return _document(root)


def _cvat_root(annotations: Annotations, name: str, mode: str) -> ElementTree.Element:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    facts = {"name": name, "size": annotations.length, "mode": mode, "overlap": 0, "start_frame": 0}
    for key, value in (*facts.items(), ("stop_frame", max(0, annotations.length - 1))):
        ElementTree.SubElement(task, key).text = str(value)
    classes = ElementTree.SubElement(task, "labels")
    for each in annotations.classes:
        entry = ElementTree.SubElement(classes, "label")
        ElementTree.SubElement(entry, "name").text = each
        ElementTree.SubElement(entry, "type").text = "mask"
        ElementTree.SubElement(entry, "attributes")
    original = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(original, "width").text = str(annotations.size[1])
    ElementTree.SubElement(original, "height").text = str(annotations.size[0])
    return root


def _document(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _shape_attributes(inside: np.ndarray) -> dict[str, str]:
    lengths, (left, top, width, height) = runs_of(inside)
    values = {"rle": ", ".join(map(str, lengths)), "left": left, "top": top, "width": width, "height": height}
    return {**{key: str(value) for key, value in values.items()}, "z_order": "0"}


@dataclasses.dataclass
class _Track:
    """A track of CVAT, or a shape of an image: what is one object for sure."""

    group: int
    name: str
    number: int | None
    # Frame -> (z_order, its pixels as bool [H, W], or its box).
    shapes: dict[int, tuple[int, np.ndarray | Box]] = dataclasses.field(default_factory=dict)
    hidden: set[int] = dataclasses.field(default_factory=set)  # frames in which it says that it is not seen
    between: set[int] = dataclasses.field(default_factory=set)  # frames whose shape CVAT has put between two others


def _read_cvat(content: bytes, source: str, interpolated: bool) -> Annotations:
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(f"{source}: no XML ({error})") from error
    if root.tag != "annotations":
        raise InputError(f"{source}: expected CVAT 1.1, received <{root.tag}>")
    try:
        task = root.find("meta/task")
        task = root.find("meta/job") if task is None else task
        images = root.findall("image")
        if images:
            size = int(images[0].attrib["height"]), int(images[0].attrib["width"])
        else:
            size = int(_text(task, "original_size/height")), int(_text(task, "original_size/width"))
        if min(size) < 1 or size[0] * size[1] > _MOST_PIXELS:
            raise ValueError(f"a size of {size[1]}x{size[0]}")
        first, last = int(_text(task, "start_frame")), int(_text(task, "stop_frame"))
        tracks = _cvat_tracks(root, size, first)
        labels = _cvat_labels(tracks)
    except (KeyError, ValueError) as error:
        raise InputError(f"{source}: damaged, or no CVAT 1.1 with masks, polygons or boxes ({error})") from error
    masks = {int(image.attrib["id"]) - first: np.zeros(size, np.uint8) for image in images}
    drawn = [
        (z, label, index, shape)
        for label, track in zip(labels, tracks)
        for index, (z, shape) in track.shapes.items()
        if interpolated or index not in track.between
    ]
    boxes: dict[int, dict[int, Box]] = {}
    for _, label, index, shape in sorted(drawn, key=lambda each: each[:3]):
        if isinstance(shape, np.ndarray):
            masks.setdefault(index, np.zeros(size, np.uint8))[shape] = label
        else:
            boxes.setdefault(index, {})[label] = shape
    for track in tracks:
        if len(track.shapes) > 1:
            for index in track.hidden:
                masks.setdefault(index, np.zeros(size, np.uint8))
    frame_names = {int(image.attrib["id"]) - first: PurePosixPath(image.attrib["name"]).stem for image in images}
    names = {label: track.name for label, track in zip(labels, tracks)}
    return Annotations(size, masks, frame_names, names, last - first + 1, first, _cvat_hidden(tracks, labels), boxes)


def _cvat_tracks(root: ElementTree.Element, size: tuple[int, int], first: int) -> list[_Track]:
    found = []
    for element in root.findall("track"):
        track = _Track(int(element.get("group_id") or 0), element.attrib["label"], int(element.attrib["id"]))
        for shape in element:
            index = int(shape.attrib["frame"]) - first
            if shape.get("outside") == "1":
                track.hidden.add(index)
            else:
                track.shapes[index] = int(shape.get("z_order") or 0), _cvat_shape(shape, size)
                if shape.get("keyframe") == "0":
                    track.between.add(index)
        found.append(track)
    for image in root.findall("image"):
        index = int(image.attrib["id"]) - first
        for shape in image:
            drawn = {index: (int(shape.get("z_order") or 0), _cvat_shape(shape, size))}
            found.append(_Track(int(shape.get("group_id") or 0), shape.attrib["label"], None, drawn))
    return found


def _cvat_labels(tracks: list[_Track]) -> list[int]:
    """The label of each: its group; or where they have none, that of its class, or its number in the file."""
    groups = [track.group for track in tracks]
    if all(0 < group < VOID for group in groups):
        return groups
    places = [(index, track.name) for track in tracks for index in track.shapes]
    if all(len(track.shapes) <= 1 for track in tracks) and len(set(places)) == len(places):
        order = list(dict.fromkeys(track.name for track in tracks))
        if len(order) < VOID:
            return [order.index(track.name) + 1 for track in tracks]
    labels = [-1 if track.number is None else track.number + 1 for track in tracks]
    if not all(0 < label < VOID for label in labels) or len(set(labels)) < len(labels):
        raise ValueError("which shapes are the same object? give those of an object a group, or a class of its own")
    return labels


def _cvat_hidden(tracks: list[_Track], labels: list[int]) -> dict[int, list[range]]:
    """Label -> the frames in which it is not seen: from where a track says so to its object's next shape.

    A track that is over in the next frame says nothing: it is how CVAT writes a mask, and behind it nobody has looked.
    """
    shown: dict[int, set[int]] = {}
    hidden: dict[int, set[int]] = {}
    for label, track in zip(labels, tracks):
        shown.setdefault(label, set()).update(track.shapes)
        of_one_frame = len(track.shapes) == 1 and min(track.shapes) + 1 in track.hidden
        hidden.setdefault(label, set()).update(() if of_one_frame else track.hidden)
    found: dict[int, list[range]] = {}
    for label, frames in hidden.items():
        spans: list[range] = []
        for index in sorted(frames - shown[label]):
            if not spans or index >= spans[-1].stop:
                spans.append(range(index, min((other for other in shown[label] if other > index), default=sys.maxsize)))
        if spans:
            found[label] = spans
    return found


def _text(parent: ElementTree.Element | None, path: str) -> str:
    element = None if parent is None else parent.find(path)
    if element is None or not element.text:
        raise KeyError(f"no {path}")
    return element.text


def _cvat_shape(shape: ElementTree.Element, size: tuple[int, int]) -> np.ndarray | Box:
    if shape.tag == "mask":
        lengths = [int(part) for part in shape.attrib["rle"].split(",")]
        left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
        return fill_runs(lengths, (left, top, width, height), size)
    if shape.tag == "polygon":
        points = [[float(value) for value in point.split(",")] for point in shape.attrib["points"].split(";")]
        return polygon_mask(np.array(points).reshape(-1, 2), size)
    if shape.tag == "box" and not float(shape.get("rotation") or 0):
        left, top, right, bottom = (
            min(max(round(float(shape.attrib[key])), 0), most)
            for key, most in (("xtl", size[1]), ("ytl", size[0]), ("xbr", size[1]), ("ybr", size[0]))
        )
        if right <= left or bottom <= top:
            raise ValueError(f"a <box> of {right - left}x{bottom - top} pixels")
        return left, top, right - left, bottom - top
    raise ValueError(f"a <{shape.tag}>" if shape.tag != "box" else "a <box> that is turned")


# COCO -------------------------------------------------------------------------------------------------------------


def _coco(annotations: Annotations) -> dict[str, Any]:
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


def _read_coco(content: bytes, source: str) -> Annotations:
    try:
        document = json.loads(content)
        categories = {entry["id"]: str(entry["name"]) for entry in document.get("categories", [])}
        if document.get("videos"):
            return _read_tracks(document, categories)
        images = sorted(document["images"], key=lambda image: image["id"])
        size = (int(images[0]["height"]), int(images[0]["width"]))
        if min(size) < 1 or size[0] * size[1] > _MOST_PIXELS:
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
    except DamagedFileError as error:
        raise InputError(f"{source}: {error}") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{source}: damaged, or no COCO file of one video ({reason})") from error
    frame_names = {index: PurePosixPath(str(image["file_name"])).stem for index, image in enumerate(images)}
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


# MOTS PNG ---------------------------------------------------------------------------------------------------------


def _mots(annotations: Annotations) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files."""
    classes = annotations.classes
    yield "instances/labels.txt", "".join(f"{name}\n" for name in classes).encode()
    for index, mask in sorted(annotations.masks.items()):
        pixels = np.zeros(annotations.size, np.uint16)
        for label in labels_of(mask):
            number = classes.index(annotations.name(label)) + 1
            pixels[mask == label] = number * _MOTS_BASE + label
        yield f"instances/{annotations.frame_name(index)}.png", cv2.imencode(".png", pixels)[1].tobytes()


def _read_mots(files: _Folder | _Archive) -> Annotations:
    names = sorted(
        (name for name in files.names() if PurePosixPath(name).parent.name == "instances" and name.endswith(".png")),
        key=_natural,
    )
    listing = next((name for name in files.names() if PurePosixPath(name).name == "labels.txt"), None)
    if not names:
        raise InputError(f"{files.path}: expected annotations: an .xml, a .json or instances/*.png, received none")
    text = files.read(listing).decode("utf-8", "replace") if listing is not None else CLASS_NAME
    classes = [line.strip() for line in text.splitlines() if line.strip()] or [CLASS_NAME]
    masks: dict[int, np.ndarray] = {}
    objects: dict[int, str] = {}
    for index, name in zip(_indices([PurePosixPath(name).stem for name in names]), names):
        try:
            pixels = cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pixels = None
        if pixels is None or pixels.ndim != 2 or pixels.size > _MOST_PIXELS:
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


# Folders and archives ---------------------------------------------------------------------------------------------


def _read_masks(path: Path) -> Annotations:
    files = sorted((file for file in path.glob("*.png") if file.name[0] != "."), key=lambda file: _natural(file.name))
    if not files:
        raise InputError(f"{path}: expected PNGs of masks, received none")
    masks = {index: read_label_png(file) for index, file in zip(_indices([file.stem for file in files]), files)}
    size = next(iter(masks.values())).shape
    frame_names = dict(zip(masks, (file.stem for file in files)))
    return Annotations((size[0], size[1]), masks, frame_names)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _indices(stems: list[str]) -> list[int]:
    """Of frames by their names: the numbers themselves, or their order where they are none."""
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    return numbers if len(numbers) == len(stems) == len(set(numbers)) else list(range(len(stems)))


class _Folder:
    """Files below a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Archive(contextlib.AbstractContextManager["_Archive"]):
    """Files in a .zip; nothing of it is unpacked to the disk.

    Raises:
        InputError: it is none, or damaged; from `read`, an entry is larger than anything that this package reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: no .zip file, or a damaged one ({error})") from error

    def names(self) -> list[str]:
        return sorted(name for name in self._file.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        with contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(self._file.open(name))
                content = io.BytesIO()
                while block := stream.read(1 << 20):
                    content.write(block)
                    if content.tell() > _MOST_BYTES:
                        raise InputError(f"{self.path}: {name} is larger than {_MOST_BYTES >> 20} MiB")
            except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{self.path}: {name} is damaged or encrypted ({error})") from error
        return content.getvalue()

    def __exit__(self, *exception: object) -> None:
        self._file.close()
