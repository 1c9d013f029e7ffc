"""Which frames and objects of which files a benchmark scores: the rules, and the folders they are applied to.

Every rule that differs between the benchmarks is a field of `Protocol`; `find_sequences` turns a data set on disk into
`Sequence`s, which say everything that scoring has to know.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from osmn_tf.datasets.davis import read_split
from osmn_tf.datasets.youtube_vos import META_FILE, read_objects
from osmn_tf.errors import InputError
from osmn_tf.evaluation.facts import has_stability
from osmn_tf.files import natural
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.masks.png import decode_png

Array = NDArray[Any]

MAX_PROPOSALS = 20
"""Objects per sequence that an unsupervised method may propose (DAVIS 2017)."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rules of one benchmark.

    Attributes:
        name: as the command line knows it.
        title: for people.
        merge_objects: all labels are one foreground (DAVIS 2016).
        skip: frames that are not scored and whose result files are never opened. "first-and-last" of the sequence,
            "first": of every object, with all that come before, "none".
        void: annotated pixels of value 255 are "background", or "ignored" in both masks.
        gives_masks: a method is given the mask of each object's first frame (semi-supervised), or nothing.
        match_proposals: labels of the results are free; proposals are matched to objects.
        temporal_stability: T is measured.
        annotations: folder of the data set that holds the masks.
    """

    name: str
    title: str
    merge_objects: bool = False
    skip: Literal["first-and-last", "first", "none"] = "first-and-last"
    void: Literal["background", "ignored"] = "background"
    gives_masks: bool = True
    match_proposals: bool = False
    temporal_stability: bool = False
    annotations: str = "Annotations"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("davis-2016", "DAVIS 2016", merge_objects=True, temporal_stability=True),
        Protocol(
            "davis-2016-unsupervised",
            "DAVIS 2016 unsupervised",
            merge_objects=True,
            gives_masks=False,
            temporal_stability=True,
        ),
        Protocol("davis-2017", "DAVIS 2017 semi-supervised"),
        Protocol(
            "davis-2017-unsupervised",
            "DAVIS 2017 unsupervised",
            skip="none",
            void="ignored",
            gives_masks=False,
            match_proposals=True,
            annotations="Annotations_unsupervised",
        ),
        Protocol("youtube-vos", "YouTube-VOS", skip="first"),
        Protocol("folders", "plain folders", skip="none", void="ignored"),
        Protocol("folders-skip-first", "plain folders without the given masks", skip="first", void="ignored"),
    )
}


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One video to be scored.

    Attributes:
        name: of its folder, in the annotations and in the results.
        annotations: folder of its masks, `<frame>.png`.
        frames: names of the scored frames, in order.
        labels: values of the objects in the annotations; (1,) if objects are merged.
        starts: for every label the index of the first of `frames` that counts for it; len(frames) if none does.
        binary: the annotations are black and white: 255 is the object, not void.
        first_frames: for every label the frame whose annotation is given to a semi-supervised method.
        stability: T is measured.
        images: folder of the video's frames, for overlays; None if there is none.
        categories: for every label its category, or "" (YouTube-VOS).
    """

    name: str
    annotations: Path
    frames: tuple[str, ...]
    labels: tuple[int, ...]
    starts: tuple[int, ...]
    binary: bool
    first_frames: tuple[str, ...]
    stability: bool = False
    images: Path | None = None
    categories: tuple[str, ...] = ()

    def object_name(self, index: int) -> str:
        """`<sequence>_<n>`, n from 1, as in the official tables."""
        return f"{self.name}_{index + 1}"


def read_content(path: Path) -> bytes:
    """The content of a mask file. Raises `InputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the mask ({error.strerror or error})") from error


def decode_labels(content: bytes, path: Path) -> Array:
    """The values of a mask file, uint8 [H, W]; 0 and 255 where it is black and white, whatever the number of bits.

    Raises:
        InputError: it is damaged, or in colours or 16 bits.
    """
    image = decode_png(content, path)
    if image.pixels.ndim != 2 or image.pixels.dtype != np.uint8:
        kind = "colours without a palette" if image.pixels.ndim == 3 else "16-bit values"
        raise InputError(f"{path}: expected a palette or greyscale PNG of 8 bits, received {kind}")
    if image.bit_depth == 1 and image.palette is None:
        return image.pixels * np.uint8(VOID)
    return image.pixels


def png_names(folder: Path) -> list[str]:
    """Names without suffix of the PNG files in `folder`, 9 before 10; [] if it does not exist."""
    try:
        names = (entry[:-4] for entry in os.listdir(folder) if entry.endswith(".png") and not entry.startswith("."))
        return sorted(names, key=natural)
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_sequences(
    root: str | os.PathLike[str],
    protocol: Protocol,
    *,
    split: str = "val",
    sequences: Iterable[str] | None = None,
    resolution: str = "480p",
) -> list[Sequence]:
    """The sequences of a data set, with the frames and objects that `protocol` scores.

    Args:
        root: the data set. DAVIS: the folder of `Annotations`, `ImageSets` and `JPEGImages`. YouTube-VOS: of
            `Annotations`, `JPEGImages` and `meta.json`. Folders: `<root>/<sequence>/*.png`, or one sequence
            `<root>/*.png`; where `Annotations` is a part of the path, the frames are those below `JPEGImages`.
        protocol: one of `PROTOCOLS`.
        split: DAVIS only: the list in `ImageSets/<year>`.
        sequences: score these only.
        resolution: DAVIS only: the folder below `Annotations`.

    Raises:
        InputError: something that should be there is not, or does not fit the protocol.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: expected the folder of a data set, but there is no such folder")
    if protocol.name.startswith("davis"):
        found = _find_davis(root, protocol, split, resolution)
    elif protocol.name == "youtube-vos":
        found = _find_youtube_vos(root / split if (root / split).is_dir() else root)
    else:
        found = _find_folders(root)
    if sequences is not None:
        wanted = list(dict.fromkeys(sequences))
        unknown = [name for name in wanted if name not in found]
        if unknown:
            raise InputError(f"--sequences: {', '.join(unknown)} not among the sequences {', '.join(found)} of {root}")
        found = {name: found[name] for name in wanted}
    return [_describe(name, *found[name], protocol) for name in found]


Found = dict[str, tuple[Path, Path | None, "dict[int, tuple[str, str]] | None"]]
"""name -> annotation folder, image folder, and per label (category, first frame), None where only the masks know."""


def _find_davis(root: Path, protocol: Protocol, split: str, resolution: str) -> Found:
    year = 2016 if protocol.name.startswith("davis-2016") else 2017
    names = read_split(root, year, split)
    folder = root / protocol.annotations / resolution
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the annotations of {protocol.title}, but there is no such folder")
    missing = [name for name in names if not png_names(folder / name)]
    if missing:
        raise InputError(
            f"{folder}: no annotations of {len(missing)} of the {len(names)} sequences of the split {split!r},"
            f" first {missing[0]}"
        )
    images = root / "JPEGImages" / resolution
    return {name: (folder / name, images / name if (images / name).is_dir() else None, None) for name in names}


def _find_youtube_vos(root: Path) -> Found:
    objects = read_objects(root)
    found: Found = {}
    for name, facts in objects.items():
        images = root / "JPEGImages" / name
        firsts = {label: (entry.category, entry.first) for label, entry in facts.items()}
        found[name] = (root / "Annotations" / name, images if images.is_dir() else None, firsts)
    if not found:
        raise InputError(f"{root / META_FILE}: expected at least one video with an annotated object, received none")
    return found


def _find_folders(root: Path) -> Found:
    if png_names(root):
        return {root.resolve().name: (root, _images_beside(root), None)}
    found: Found = {
        folder.name: (folder, _images_beside(folder), None)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and png_names(folder)
    }
    if not found:
        raise InputError(f"{root}: expected PNG masks, or folders of PNG masks, found none")
    return found


def _images_beside(annotations: Path) -> Path | None:
    """The folder of a video's frames, where masks and frames are kept as DAVIS and YouTube-VOS keep them."""
    parts = annotations.resolve().parts
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "Annotations":
            images = Path(*parts[:index], "JPEGImages", *parts[index + 1 :])
            return images if images.is_dir() else None
    return None


def _describe(
    name: str,
    annotations: Path,
    images: Path | None,
    objects: dict[int, tuple[str, str]] | None,
    protocol: Protocol,
) -> Sequence:
    frames = png_names(annotations)
    if not frames:
        raise InputError(f"{annotations}: expected PNG masks, found none")
    if objects is not None:
        firsts = {label: first for label, (_, first) in sorted(objects.items())}
        binary = False
    elif protocol.name.startswith("folders"):
        firsts, binary = _scan_objects(annotations, frames)
    else:
        firsts, binary = _objects_of_first_frame(annotations, frames, protocol)
    scored = frames[1:-1] if protocol.skip == "first-and-last" else frames
    starts = [0] * len(firsts)
    if protocol.skip == "first":
        # The frame in which an object is given is not scored for it, nor is any before.
        starts = [sum(natural(frame) <= natural(first) for frame in frames) for first in firsts.values()]
        earliest = min(starts, default=0)
        scored, starts = frames[earliest:], [start - earliest for start in starts]
    if not scored or not firsts or min(starts) >= len(scored):
        raise InputError(
            f"{annotations}: {len(frames)} annotated frames with {len(firsts)} objects leave nothing to score"
            f" ({protocol.title}: frames left out: {protocol.skip})"
        )
    return Sequence(
        name=name,
        annotations=annotations,
        frames=tuple(scored),
        labels=tuple(firsts),
        starts=tuple(starts),
        binary=binary,
        first_frames=tuple(firsts.values()),
        stability=protocol.temporal_stability and has_stability(name),
        images=images,
        categories=tuple(objects[label][0] if objects else "" for label in firsts),
    )


def _objects_of_first_frame(annotations: Path, frames: list[str], protocol: Protocol) -> tuple[dict[int, str], bool]:
    """The DAVIS rule: the objects of a sequence are 1 to the largest label of its first annotated frame."""
    first = frames[0]
    path = annotations / f"{first}.png"
    mask = decode_labels(read_content(path), path)
    if protocol.merge_objects:
        # An empty mask does not say what 255 is: the first one with anything in it does.
        paths = (annotations / f"{frame}.png" for frame in frames[1:])
        later = (decode_labels(read_content(other), other) for other in paths)
        shown = mask if mask.any() else next((other for other in later if other.any()), mask)
        return {1: first}, not labels_of(shown)
    labels = labels_of(mask)
    binary = not labels and bool(np.any(mask == VOID))
    if not labels:
        hint = "; it is black and white, as in DAVIS 2016: score it with --year 2016" if binary else ""
        raise InputError(f"{path}: expected the objects 1, 2, ... in the first annotated frame, found none{hint}")
    return dict.fromkeys(range(1, max(labels) + 1), first), False


def _scan_objects(annotations: Path, frames: list[str]) -> tuple[dict[int, str], bool]:
    """Every label that occurs, with its first frame; black and white masks have the one object 1."""
    firsts: dict[int, str] = {}
    first_void = None
    for frame in frames:
        path = annotations / f"{frame}.png"
        mask = decode_labels(read_content(path), path)
        for label in labels_of(mask):
            firsts.setdefault(label, frame)
        if first_void is None and np.any(mask == VOID):
            first_void = frame
    if not firsts and first_void is not None:
        return {1: first_void}, True
    return dict(sorted(firsts.items())), False
