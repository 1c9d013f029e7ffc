"""YouTube-VOS: several objects per video, each with its own first frame, every fifth frame annotated.

    ROOT/train/meta.json
    ROOT/train/JPEGImages/VIDEO/00000.jpg ...
    ROOT/train/Annotations/VIDEO/00000.png ...      palette indices

`meta.json`: {"videos": {VIDEO: {"objects": {"1": {"category": "dog", "frames": ["00000", "00005", ...]}}}}}; an object
that is annotated in no frame has an empty list there, and is none. In `train` the frames folder holds the annotated
frames only, or all of them ("all frames" download). In `valid`, `Annotations` holds the first mask of each object only.
Definition: Xu et al., "YouTube-VOS" (ECCV 2018).
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from osmn_tf.datasets.index import VideoDataset, VideoSequence, require_folder
from osmn_tf.errors import InputError, name_some

META_FILE = "meta.json"


def open_youtube_vos(root: str | os.PathLike[str], split: str = "train") -> VideoDataset:
    """Indexes a split of YouTube-VOS and checks that its files are there.

    Args:
        root: the folder that holds the split's folder.
        split: `train`, `valid` or `test`.

    Returns:
        The videos of `meta.json`, by name. Frames without annotation have None for a mask.

    Raises:
        InputError: a folder, frame or mask is missing, or `meta.json` is not in this format; the message names it.
    """
    folder = require_folder(Path(root) / split, "YouTube-VOS", "the split's folder")
    images = require_folder(folder / "JPEGImages", "YouTube-VOS", "frames")
    annotations = require_folder(folder / "Annotations", "YouTube-VOS", "masks")
    first_names = {
        name: {label: facts.first for label, facts in objects.items()} for name, objects in read_objects(folder).items()
    }
    if not first_names:
        raise InputError(f"YouTube-VOS: {folder / META_FILE} lists no video with an annotated object")
    missing = [name for name in first_names if not (images / name).is_dir() or not (annotations / name).is_dir()]
    if missing:
        raise InputError(
            f"YouTube-VOS: {len(missing)} of {len(first_names)} videos lack their folder in {images} or "
            f"{annotations}: {name_some(missing)}"
        )
    sequences = [_index_video(images / name, annotations / name, firsts) for name, firsts in first_names.items()]
    return VideoDataset(f"YouTube-VOS {split} ({root})", sequences)


@dataclasses.dataclass(frozen=True)
class ObjectFacts:
    """What `meta.json` says of an object.

    Attributes:
        category: "dog".
        first: name of the first frame in which it is annotated, "00000".
    """

    category: str
    first: str


def read_objects(folder: str | os.PathLike[str]) -> dict[str, dict[int, ObjectFacts]]:
    """The annotated objects of the videos of a split: video -> label -> facts, both sorted.

    Videos without one are left out.

    Args:
        folder: of the split; it holds `meta.json`.

    Raises:
        InputError: there is no such file, or it is not in this format.
    """
    path = Path(folder) / META_FILE
    found: dict[str, dict[int, ObjectFacts]] = {}
    try:
        for name, video in sorted(json.loads(path.read_bytes())["videos"].items()):
            objects = {
                int(label): ObjectFacts(str(entry.get("category", "")), str(min(entry["frames"])))
                for label, entry in video["objects"].items()
                if entry["frames"]
            }
            outside = [label for label in objects if not 1 <= label <= 254]
            if outside:
                raise ValueError(f"object label {outside[0]} is not in 1..254")
            if objects:
                found[name] = dict(sorted(objects.items()))
    except OSError as error:
        raise InputError(f"YouTube-VOS: cannot read {path} ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'YouTube-VOS: {path}: expected {{"videos": {{NAME: {{"objects": {{LABEL: {{"category": ..., "frames": '
            f"[...]}}}}}}}}}} as it is published ({error!r})"
        ) from error
    return found


def _index_video(frames_folder: Path, masks_folder: Path, first_names: dict[int, str]) -> VideoSequence:
    frames = tuple(sorted(frames_folder.glob("*.jpg")))
    masks = {path.stem: path for path in masks_folder.glob("*.png")}
    if not frames:
        raise InputError(f"YouTube-VOS: no *.jpg frames in {frames_folder}")
    index = {path.stem: i for i, path in enumerate(frames)}
    strays = sorted(set(masks) - set(index))
    if strays:
        raise InputError(
            f"YouTube-VOS: masks without a frame in {frames_folder}: {name_some([f'{s}.png' for s in strays])}"
        )
    lacking = sorted({stem for stem in first_names.values() if stem not in masks})
    if lacking:
        raise InputError(
            f"YouTube-VOS: first masks of objects missing in {masks_folder}: {name_some([f'{s}.png' for s in lacking])}"
        )
    return VideoSequence(
        name=frames_folder.name,
        frame_paths=frames,
        mask_paths=tuple(masks.get(path.stem) for path in frames),
        first_frames={label: index[stem] for label, stem in first_names.items()},
    )
