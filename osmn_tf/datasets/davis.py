"""DAVIS 2016 and 2017, in the layout in which the benchmark is published.

    ROOT/JPEGImages/480p/SEQ/00000.jpg ...
    ROOT/Annotations/480p/SEQ/00000.png ...     0/255 (2016) or palette indices (2017)
    ROOT/ImageSets/2016/train.txt               one sequence name per line
    ROOT/ImageSets/480p/train.txt               DAVIS 2016 as first published: one line per frame instead

Definition: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016)
and Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation".
"""

from __future__ import annotations

import os
from pathlib import Path

from osmn_tf.datasets.index import VideoDataset, VideoSequence, decode_mask, require_folder
from osmn_tf.errors import InputError, name_some
from osmn_tf.masks.labels import labels_of

HELD_OUT = ("dog-agility", "hike", "mallard-water", "motocross-bumps", "rollerblade", "train")
"""The list `dev` of 2016 where there is no such file: what no shipped weights have seen of the training set."""


def open_davis(
    root: str | os.PathLike[str],
    year: int = 2017,
    split: str = "train",
    resolution: str = "480p",
    leave_out: str | None = None,
) -> VideoDataset:
    """Indexes a DAVIS folder and checks that its files are there.

    Args:
        root: the folder that holds `JPEGImages`, `Annotations` and `ImageSets`.
        year: 2016 (every foreground pixel belongs to object 1) or 2017 (several objects).
        split: name of a list (see `read_split`).
        resolution: the folder below `JPEGImages` and `Annotations`.
        leave_out: name of another list, whose sequences are not taken.

    Returns:
        The sequences of the list, in its order. Sequences that publish only their first mask (the test sets of 2017)
        have None for the other masks. Every object starts in frame 0.

    Raises:
        InputError: a folder, list, sequence, frame or mask is missing; the message names it.
    """
    root = Path(root)
    if year not in (2016, 2017):
        raise InputError(f"year: expected 2016 or 2017, received {year!r}")
    require_folder(root, "DAVIS", "a folder with JPEGImages, Annotations and ImageSets")
    images = require_folder(root / "JPEGImages" / resolution, "DAVIS", "frames")
    annotations = require_folder(root / "Annotations" / resolution, "DAVIS", "masks")
    excluded = () if leave_out is None else read_split(root, year, leave_out)
    names = [name for name in read_split(root, year, split) if name not in excluded]
    if not names:
        raise InputError(f"DAVIS: the list '{leave_out}' leaves out all of '{split}'")
    missing = [name for name in names if not (images / name).is_dir() or not (annotations / name).is_dir()]
    if missing:
        raise InputError(
            f"DAVIS: {len(missing)} of {len(names)} sequences of the split '{split}' lack their folder in {images} or "
            f"{annotations}: {name_some(missing)}"
        )
    sequences = [_index_sequence(images / name, annotations / name, binary=year == 2016) for name in names]
    return VideoDataset(f"DAVIS {year} {split} ({root})", sequences)


def read_split(root: str | os.PathLike[str], year: int, split: str) -> list[str]:
    """The sequence names of a list of DAVIS, in its order.

    Args:
        root: the folder of `ImageSets`.
        year: 2016 or 2017: the list is `ImageSets/YEAR/SPLIT.txt`; 2016's may also be `ImageSets/480p/SPLIT.txt`, which
            has a line "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png" for every frame.
        split: name of the list; `dev` of 2016 need not be there (`HELD_OUT`).

    Raises:
        InputError: there is no such list, it is empty, or it names a sequence twice.
    """
    folders = [Path(root) / "ImageSets" / name for name in (str(year), *(["480p"] if year == 2016 else []))]
    path = next((folder / f"{split}.txt" for folder in folders if (folder / f"{split}.txt").is_file()), None)
    if path is None and (year, split) == (2016, "dev"):
        return list(HELD_OUT)
    if path is None:
        known = ", ".join(sorted({other.stem for folder in folders for other in folder.glob("*.txt")})) or "none"
        raise InputError(f"DAVIS: no split {split!r} in {folders[0]}; found: {known}")
    words = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    of_frames = any("/" in word for word in words)
    names = [word.split("/")[-2] if "/" in word else word for word in words]
    if not names:
        raise InputError(f"DAVIS: the list {path} is empty")
    repeated = sorted({name for name in names if names.count(name) > 1}) if not of_frames else []
    if repeated:
        raise InputError(f"DAVIS: the list {path} names sequences twice: {name_some(repeated)}")
    return list(dict.fromkeys(names))


def _index_sequence(frames_folder: Path, masks_folder: Path, *, binary: bool) -> VideoSequence:
    frames = tuple(sorted(frames_folder.glob("*.jpg")))
    masks = {path.stem: path for path in masks_folder.glob("*.png")}
    if not frames:
        raise InputError(f"DAVIS: no *.jpg frames in {frames_folder}")
    stems = [path.stem for path in frames]
    strays = sorted(set(masks) - set(stems))
    if strays:
        raise InputError(f"DAVIS: masks without a frame in {frames_folder}: {name_some([f'{s}.png' for s in strays])}")
    lacking = [stem for stem in stems if stem not in masks]
    only_first = lacking == stems[1:] and len(stems) > 1
    if lacking and not only_first:
        raise InputError(
            f"DAVIS: {len(lacking)} of {len(stems)} frames have no mask in {masks_folder}: "
            f"{name_some([f'{s}.png' for s in lacking])}"
        )
    # In DAVIS every object is in the first mask: the benchmark takes the list of objects from there.
    labels = (1,) if binary else labels_of(decode_mask(masks[stems[0]]))
    if not labels:
        raise InputError(f"DAVIS: no object in the first mask {masks[stems[0]]}")
    return VideoSequence(
        name=frames_folder.name,
        frame_paths=frames,
        mask_paths=tuple(masks.get(stem) for stem in stems),
        first_frames=dict.fromkeys(labels, 0),
        binary=binary,
    )
