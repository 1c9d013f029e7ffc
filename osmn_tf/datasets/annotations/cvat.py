"""CVAT 1.1 (XML), for video and for images."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import PurePosixPath
from xml.etree import ElementTree

import cv2
import numpy as np
from pycocotools import mask as rle_tools

from osmn_tf.datasets.annotations.content import MOST_PIXELS, Annotations
from osmn_tf.datasets.coco import encode_polygons
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.masks.prompts import Box


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
    """The pixels of a polygon as COCO has them: bool of `size`; points float [N, 2] (x, y), pixel 0 is 0..1.

    Raises:
        DamagedFileError: there are fewer than three points, or one is not in or near the picture.
    """
    return rle_tools.decode(encode_polygons([points.ravel().tolist()], *size)).astype(bool)


def document_of_video(annotations: Annotations, name: str) -> bytes:
    """CVAT for video 1.1. CVAT has no tracks of masks: like its own exports, every mask is a track of one frame."""
    root = _root(annotations, name, "interpolation")
    number = 0
    for label in annotations.labels:
        for index, mask in sorted(annotations.masks.items()):
            if not (mask == label).any():
                continue
            kind = {"id": str(number), "label": annotations.name(label), "source": "auto", "group_id": str(label)}
            track = ElementTree.SubElement(root, "track", kind)
            shape = _shape_attributes(mask == label)
            last = index + 1 < annotations.length  # or CVAT would show it to the end
            for place, outside in ((index, "0"), (index + 1, "1"))[: 1 + last]:
                state = {"frame": str(place + annotations.first), "keyframe": "1", "outside": outside, "occluded": "0"}
                ElementTree.SubElement(track, "mask", {**state, **shape})
            number += 1
    return _document(root)


def document_of_images(annotations: Annotations, title: str) -> bytes:
    """CVAT for images 1.1, whose importer keeps groups: the objects."""
    root = _root(annotations, title, "annotation")
    height, width = annotations.size
    for index, mask in sorted(annotations.masks.items()):
        name = f"{annotations.frame_name(index)}.png"
        facts = {"id": str(index + annotations.first), "name": name, "width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", facts)
        for label in labels_of(mask):
            kind = {"label": annotations.name(label), "source": "auto", "occluded": "0", "group_id": str(label)}
            ElementTree.SubElement(image, "mask", {**kind, **_shape_attributes(mask == label)})
    return _document(root)


def _root(annotations: Annotations, name: str, mode: str) -> ElementTree.Element:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    first, last = annotations.first, annotations.first + max(0, annotations.length - 1)
    facts = {"name": name, "size": annotations.length, "mode": mode, "overlap": 0, "start_frame": first}
    for key, value in (*facts.items(), ("stop_frame", last)):
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

    @property
    def is_one_mask(self) -> bool:
        """Whether it is over in the frame behind its only shape: it is how CVAT writes a mask, and says no more."""
        return len(self.shapes) == 1 and min(self.shapes) + 1 in self.hidden


def read_document(content: bytes, source: str, interpolated: bool) -> Annotations:
    """The content of a file of CVAT for video or for images.

    Args:
        content: the XML.
        source: what it is called in errors.
        interpolated: see `read_annotations`.

    Raises:
        InputError: it is damaged, or has shapes other than masks, polygons and upright boxes.
    """
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
        if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
            raise ValueError(f"a size of {size[1]}x{size[0]}")
        first, last = int(_text(task, "start_frame")), int(_text(task, "stop_frame"))
        tracks = _tracks(root, size, first)
        labels = _labels(tracks)
        frame_names = {int(image.attrib["id"]) - first: PurePosixPath(image.attrib["name"]).stem for image in images}
    except (KeyError, OverflowError, ValueError) as error:
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
        if not track.is_one_mask:
            for index in track.hidden:
                masks.setdefault(index, np.zeros(size, np.uint8))
    names = {label: track.name for label, track in zip(labels, tracks)}
    return Annotations(size, masks, frame_names, names, last - first + 1, first, _hidden(tracks, labels), boxes)


def _tracks(root: ElementTree.Element, size: tuple[int, int], first: int) -> list[_Track]:
    found = []
    for element in root.findall("track"):
        track = _Track(int(element.get("group_id") or 0), element.attrib["label"], int(element.attrib["id"]))
        for shape in element:
            index = int(shape.attrib["frame"]) - first
            if shape.get("outside") == "1":
                track.hidden.add(index)
            else:
                track.shapes[index] = int(shape.get("z_order") or 0), _shape(shape, size)
                if shape.get("keyframe") == "0":
                    track.between.add(index)
        found.append(track)
    for image in root.findall("image"):
        index = int(image.attrib["id"]) - first
        for shape in image:
            drawn = {index: (int(shape.get("z_order") or 0), _shape(shape, size))}
            found.append(_Track(int(shape.get("group_id") or 0), shape.attrib["label"], None, drawn))
    return found


def _labels(tracks: list[_Track]) -> list[int]:
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


def _hidden(tracks: list[_Track], labels: list[int]) -> dict[int, list[range]]:
    """Label -> the frames in which it is not seen: from where a track says so to its object's next shape."""
    shown: dict[int, set[int]] = {}
    hidden: dict[int, set[int]] = {}
    for label, track in zip(labels, tracks):
        shown.setdefault(label, set()).update(track.shapes)
        hidden.setdefault(label, set()).update(() if track.is_one_mask else track.hidden)
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


def _shape(shape: ElementTree.Element, size: tuple[int, int]) -> np.ndarray | Box:
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
