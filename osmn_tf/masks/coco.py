"""Masks of a video as COCO run-length encodings in one JSON file, as YouTube-VIS has them: one track per object."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import write_text
from osmn_tf.masks.labels import labels_of


class TrackWriter:
    """Collects label masks frame by frame and writes them as tracks.

    The file has the lists `videos`, `categories` and `annotations` of YouTube-VIS. An annotation is one object:
    `segmentations` holds a run-length encoding (`size`, `counts`, as pycocotools reads it) for every frame, `bboxes`
    and `areas` hold x, y, width, height in pixels and the number of pixels; all three have null where the object is
    not visible. `score` is the track's confidence: the mean, over the frames in which the object was found, of what
    `add` is told; 1.0 where nothing was told. Beside the keys of YouTube-VIS there are `label`, the object's value in
    the masks, and `frame_scores`, the confidence in every frame (null where it is not known).

    Memory grows with what is encoded, about the size of the file: 0.5 to 2 KB per object and frame at 480p.

    Args:
        name: the name of the video.
        size: (height, width) of the masks.
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self._name = name
        self._size = (int(size[0]), int(size[1]))
        self._names: dict[int, str] = {}
        # label -> frame -> (counts, box, area)
        self._tracks: dict[int, dict[int, tuple[str, list[float], int]]] = {}
        self._scores: dict[int, dict[int, float]] = {}

    def add(
        self,
        index: int,
        mask: np.ndarray,
        frame_name: str | None = None,
        confidence: Mapping[int, float] | None = None,
    ) -> None:
        """Adds the mask of a frame. Frames may come in any order; one that is added again is replaced.

        Args:
            index: the frame's position in the lists of the file, from 0.
            mask: uint8 label mask [H, W]; void (255) is left out.
            frame_name: for the list `file_names`; by default the index as '00042'.
            confidence: label -> 0..1, of the objects of which it is known.

        Raises:
            InputError: the index is negative, or the mask has another size or type.
        """
        from pycocotools import mask as coco

        if index < 0:
            raise InputError(f"index: expected 0 or more, received {index}")
        if mask.dtype != np.uint8 or mask.shape != self._size:
            raise InputError(f"mask: expected uint8 {list(self._size)}, received {mask.dtype} {list(mask.shape)}")
        for track in self._tracks.values():
            track.pop(index, None)
        self._names[index] = f"{index:05d}" if frame_name is None else frame_name
        self._scores[index] = dict(confidence or {})
        columns = mask.T  # the encoding runs down the columns
        for label in labels_of(mask):
            encoded = coco.encode(np.ascontiguousarray(columns == label).view(np.uint8).T)
            box = [float(value) for value in coco.toBbox(encoded)]
            entry = (encoded["counts"].decode("ascii"), box, int(coco.area(encoded)))
            self._tracks.setdefault(label, {})[index] = entry

    def content(self) -> dict[str, Any]:
        """What `save` writes, as a dictionary."""
        length = max(self._names, default=-1) + 1
        height, width = self._size
        annotations = []
        visible = {label: track for label, track in sorted(self._tracks.items()) if track}
        for number, (label, track) in enumerate(visible.items(), start=1):
            entries = [track.get(index) for index in range(length)]
            told = [self._scores.get(index, {}).get(label) if entry else None for index, entry in enumerate(entries)]
            known = [value for value in told if value is not None]
            annotations.append(
                {
                    "id": number,
                    "video_id": 1,
                    "category_id": 1,
                    "label": label,
                    "score": sum(known) / len(known) if known else 1.0,
                    "frame_scores": told,
                    "iscrowd": 0,
                    "height": height,
                    "width": width,
                    "length": length,
                    "segmentations": [entry and {"size": [height, width], "counts": entry[0]} for entry in entries],
                    "bboxes": [entry and entry[1] for entry in entries],
                    "areas": [entry and entry[2] for entry in entries],
                }
            )
        video = {
            "id": 1,
            "name": self._name,
            "width": width,
            "height": height,
            "length": length,
            "file_names": [self._names.get(index, f"{index:05d}") for index in range(length)],
        }
        return {
            "info": {"description": f"masks of the objects in {self._name}"},
            "videos": [video],
            "categories": [{"id": 1, "name": "object", "supercategory": "object"}],
            "annotations": annotations,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file; it is complete or absent."""
        write_text(path, json.dumps(self.content(), separators=(",", ":")))
