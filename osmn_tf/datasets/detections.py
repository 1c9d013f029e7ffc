"""Instances in the frames of a video, found by any detector: from files, or from a function.

Two kinds of file are read. COCO results are a list of instances, and need the list of the images beside them:

    [{"image_id": 1, "category_id": 18, "segmentation": {"size": [480, 854], "counts": "..."}, "score": 0.97}, ...]
    {"images": [{"id": 1, "file_name": "bear/00000.jpg", "height": 480, "width": 854}, ...]}

YouTube-VIS has tracks, with one segmentation a frame (null where the object is not seen):

    {"videos": [{"id": 1, "file_names": ["bear/00000.jpg", ...], "height": 480, "width": 854}],
     "annotations": [{"video_id": 1, "category_id": 18, "segmentations": [{...}, null, ...], "score": 0.97}, ...]}

Both lists may be in one file or in two. Where there is a list `categories`, it must hold every category that occurs.
A segmentation is a list of polygons or a run-length encoding, compressed or not, as pycocotools reads them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from pycocotools import mask as rle_tools

from osmn_tf.datasets.coco import encode_segmentation
from osmn_tf.datasets.index import DamagedFileError
from osmn_tf.errors import InputError, name_some


@dataclasses.dataclass(frozen=True, eq=False)
class Instance:
    """One object that a detector found in a frame.

    Attributes:
        category: the detector's number for its kind; only compared with others.
        score: the detector's confidence, 0..1.
        mask: bool [H, W], at the size of the video.
    """

    category: int
    score: float
    mask: np.ndarray


Detections: TypeAlias = Callable[[int, np.ndarray], Sequence[Instance]]
"""What gives the instances of a frame, given its number (from 0) and its pixels (uint8 RGB [H, W, 3])."""


class FileDetections:
    """The instances of one video, read by `read_detections`. A `Detections`.

    Attributes:
        size: (height, width) of all masks.
        categories: the names of the categories, by number, where the file has them.
    """

    def __init__(
        self, path: str, size: tuple[int, int], found: Sequence[Sequence[_Encoded]], categories: Mapping[int, str]
    ) -> None:
        self._path = path
        self._found = found
        self.size = size
        self.categories = categories

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._found)

    def __call__(self, index: int, frame: np.ndarray | None = None) -> list[Instance]:
        """The instances of frame `index`, best scores first.

        Args:
            index: the frame's number, from 0.
            frame: is not needed here.

        Raises:
            InputError: the video has no such frame.
        """
        if not 0 <= index < len(self):
            raise InputError(f"detections: {self._path} has {len(self)} frames, frame {index} was asked for")
        return [
            Instance(one.category, one.score, rle_tools.decode(one.runs).astype(bool)) for one in self._found[index]
        ]


class FunctionDetections:
    """A detector as a function of a frame, its results checked. A `Detections`.

    Args:
        function: uint8 RGB [H, W, 3] -> instances.
        min_score: instances with a lower score are left out.
    """

    def __init__(self, function: Callable[[np.ndarray], Iterable[Instance]], min_score: float = 0.0) -> None:
        self._function = function
        self._min_score = _score(min_score, "min_score")

    def __call__(self, index: int, frame: np.ndarray) -> list[Instance]:
        """The instances of a frame, best scores first.

        Args:
            index: the frame's number, for messages.
            frame: uint8 RGB [H, W, 3].

        Raises:
            InputError: the function gave something else than instances with bool masks of the frame's size.
        """
        found = []
        for instance in self._function(frame):
            mask = getattr(instance, "mask", None)
            where = f"detections: frame {index}"
            if not isinstance(mask, np.ndarray) or not isinstance(instance, Instance):
                raise InputError(f"{where}: expected Instance objects, received {type(instance).__name__}")
            if mask.dtype != bool or mask.shape != frame.shape[:2]:
                raise InputError(
                    f"{where}: expected masks bool {list(frame.shape[:2])}, received {mask.dtype} {list(mask.shape)}"
                )
            if _score(instance.score, where) >= self._min_score:
                found.append(instance)
        return sorted(found, key=lambda instance: -instance.score)


@dataclasses.dataclass(frozen=True)
class _Encoded:
    """An instance with its mask as compressed run lengths, which take a thousandth of the memory."""

    category: int
    score: float
    runs: dict[str, Any]


def read_detections(
    path: str | os.PathLike[str],
    frames: Sequence[str] | int,
    size: tuple[int, int],
    *,
    images: str | os.PathLike[str] | None = None,
    video: str | None = None,
    min_score: float = 0.0,
) -> FileDetections:
    """Reads the instances of a video from a file, and checks that all of them can be decoded and belong to it.

    Args:
        path: COCO results or YouTube-VIS, JSON.
        frames: the names of the video's frames, with or without a suffix ("00000.jpg"), which the file's list must
            have; or their number where they have no names, as in a video file: the list is then taken in its order,
            and must be as long.
        size: (height, width) of the video.
        images: the file with the list of images or videos, where it is not in `path`.
        video: the video's name. Where the file has several, it is chosen by it: the name of the video, or of the
            folder in its images' names.
        min_score: instances with a lower score are left out.

    Raises:
        InputError: a file cannot be read, is in neither format, is of another video or another size, or has no
            instances; or an instance lacks its score, has an unknown category or a damaged mask. One line.
    """
    _score(min_score, "min_score")
    instances = _read(path)
    listing = instances if images is None else _read(images)
    source = str(path if images is None else images)
    if isinstance(instances, dict):
        instances = instances.get("annotations")
    if not isinstance(instances, list) or not all(isinstance(entry, dict) for entry in instances):
        raise InputError(f"detections: {path}: expected a list of instances, or one under 'annotations'")
    if not instances:
        raise InputError(f"detections: {path} has no instances")
    tracks = "segmentations" in instances[0]
    key = "videos" if tracks else "images"
    entries = listing.get(key) if isinstance(listing, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(
            f"detections: {source} has no list '{key}': give the file that lists the {key} the detector was run on"
        )
    categories = _categories(listing, source)
    names = frames if isinstance(frames, int) else [Path(name).stem for name in frames]
    reader = _Reader(str(path), size, categories, min_score)
    if tracks:
        entry, order = _match_video(entries, names, video, source)
        _check_size(entry, size, source)
        where = f"detections: {source}"
        known = {_identity(each, "id", where) for each in entries}
        placed = reader.tracks(instances, entry["id"], known, len(entry["file_names"]))
        found = [placed[position] for position in order]
    else:
        matched = _match_images(entries, names, video, source)
        for entry in matched:
            _check_size(entry, size, source)
        of_image = reader.images(instances, {_identity(entry, "id", f"detections: {source}") for entry in entries})
        found = [of_image.get(entry["id"], []) for entry in matched]
    return FileDetections(
        str(path), (int(size[0]), int(size[1])), [sorted(f, key=lambda one: -one.score) for f in found], categories
    )


class _Reader:
    """Checks and encodes the instances of one file."""

    def __init__(self, path: str, size: tuple[int, int], categories: Mapping[int, str], min_score: float) -> None:
        self._path = path
        self._size = (int(size[0]), int(size[1]))
        self._categories = categories
        self._min_score = min_score

    def images(self, instances: list[dict[str, Any]], known: set[Any]) -> dict[Any, list[_Encoded]]:
        """Instances by image."""
        found: dict[Any, list[_Encoded]] = {}
        for number, entry in enumerate(instances):
            where = f"detections: {self._path}: instance {number}"
            image, segmentation = _identity(entry, "image_id", where), _field(entry, "segmentation", where)
            if image not in known:
                raise InputError(f"{where}: image_id {image!r} is not in the list of images")
            category, score = self._facts(entry, where)
            if score >= self._min_score:
                found.setdefault(image, []).append(_Encoded(category, score, self._runs(segmentation, where)))
        return found

    def tracks(self, instances: list[dict[str, Any]], video: Any, known: set[Any], length: int) -> list[list[_Encoded]]:
        """Instances of one video by frame."""
        found: list[list[_Encoded]] = [[] for _ in range(length)]
        for number, entry in enumerate(instances):
            where = f"detections: {self._path}: instance {number}"
            owner, segmentations = _identity(entry, "video_id", where), _field(entry, "segmentations", where)
            if owner not in known:
                raise InputError(f"{where}: video_id {owner!r} is not in the list of videos")
            category, score = self._facts(entry, where)
            if owner != video or score < self._min_score:
                continue
            if not isinstance(segmentations, list) or len(segmentations) != length:
                received = len(segmentations) if isinstance(segmentations, list) else type(segmentations).__name__
                raise InputError(f"{where}: expected {length} segmentations, one a frame, received {received}")
            for frame, segmentation in enumerate(segmentations):
                if segmentation is not None:
                    runs = self._runs(segmentation, f"{where}, frame {frame}")
                    found[frame].append(_Encoded(category, score, runs))
        return found

    def _facts(self, entry: dict[str, Any], where: str) -> tuple[int, float]:
        category = _field(entry, "category_id", where)
        if isinstance(category, bool) or not isinstance(category, int):
            raise InputError(f"{where}: category_id: expected a whole number, received {category!r}")
        if self._categories and category not in self._categories:
            raise InputError(f"{where}: category_id {category} is not in the list of categories")
        return category, _score(_field(entry, "score", where), where)

    def _runs(self, segmentation: Any, where: str) -> dict[str, Any]:
        try:
            return encode_segmentation(segmentation, *self._size)
        except DamagedFileError as error:
            raise InputError(f"{where}: damaged segmentation ({error})") from error


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"detections: cannot read {path} ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"detections: {path} is no complete JSON file ({error})") from error


def _field(entry: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in entry:
        raise InputError(f"{where}: expected '{key}', received only {', '.join(entry) or 'nothing'}")
    return entry[key]


def _identity(entry: Mapping[str, Any], key: str, where: str) -> int | float | str:
    value = _field(entry, key, where)
    if not isinstance(value, int | float | str):
        raise InputError(f"{where}: {key}: expected a number or a text, received {value!r}")
    return value


def _score(score: Any, where: str) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float | np.floating) or not 0 <= score <= 1:
        raise InputError(f"{where}: expected a score from 0 to 1, received {score!r}")
    return float(score)


def _categories(listing: Any, source: str) -> dict[int, str]:
    entries = listing.get("categories") or []
    try:
        return {entry["id"]: str(entry.get("name", entry["id"])) for entry in entries}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"detections: {source}: 'categories' has an entry without an 'id'") from error


def _check_size(entry: Mapping[str, Any], size: tuple[int, int], source: str) -> None:
    height, width = (_field(entry, side, f"detections: {source}") for side in ("height", "width"))
    if (height, width) != tuple(size):
        raise InputError(
            f"detections: {source} is of another size: expected {size[1]}x{size[0]}, received {width}x{height}"
        )


def _file_name(entry: Mapping[str, Any], source: str) -> Path:
    return Path(str(_field(entry, "file_name", f"detections: {source}")))


def _match_images(
    entries: list[dict[str, Any]], frames: Sequence[str] | int, video: str | None, source: str
) -> list[dict[str, Any]]:
    """The entry of every frame."""
    in_folder = [entry for entry in entries if video and _file_name(entry, source).parent.name == video]
    entries = in_folder or entries
    if isinstance(frames, int):
        if len(entries) != frames:
            raise InputError(
                f"detections: {source} is of another video: expected {frames} images, received {len(entries)}"
            )
        return entries
    by_name: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name = _file_name(entry, source).stem
        if by_name.setdefault(name, entry) is not entry:
            raise InputError(f"detections: {source} has several images named {name!r}: which video is meant?")
    _check_names(frames, by_name, source)
    return [by_name[name] for name in frames]


def _match_video(
    entries: list[dict[str, Any]], frames: Sequence[str] | int, video: str | None, source: str
) -> tuple[dict[str, Any], list[int]]:
    """The entry of the video, and for every frame its place there."""

    def files(entry: dict[str, Any]) -> list[Path]:
        names = _field(entry, "file_names", f"detections: {source}")
        if not isinstance(names, list) or not names:
            raise InputError(f"detections: {source}: expected 'file_names' as a list of names, received {names!r}")
        return [Path(str(name)) for name in names]

    named = [entry for entry in entries if video and video in (entry.get("name"), files(entry)[0].parent.name)]
    candidates = named or entries
    if len(candidates) > 1:
        raise InputError(f"detections: {source} has {len(entries)} videos, and none of them alone is named {video!r}")
    places = {path.stem: place for place, path in enumerate(files(candidates[0]))}
    if isinstance(frames, int):
        if len(places) != frames:
            raise InputError(
                f"detections: {source} is of another video: expected {frames} frames, received {len(places)}"
            )
        return candidates[0], list(range(frames))
    _check_names(frames, places, source)
    return candidates[0], [places[name] for name in frames]


def _check_names(frames: Sequence[str], found: Mapping[str, Any], source: str) -> None:
    missing = [name for name in frames if name not in found]
    if missing:
        raise InputError(
            f"detections: {source} is of another video: it has no {name_some(missing)} among its {len(found)} images"
        )
