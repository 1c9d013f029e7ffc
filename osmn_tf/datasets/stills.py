"""Photographs with object masks, in folders: the layout to bring one's own annotated images in.

ROOT/SET/images/NAME.jpg (or .jpeg, .png)
ROOT/SET/masks/NAME.png     0 background, 1..254 objects, 255 unlabelled border
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from osmn_tf.datasets.index import ImageDataset, ImageItem, decode_mask, require_folder
from osmn_tf.errors import InputError, name_some

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def open_stills(root: str | os.PathLike[str], sets: Sequence[str] | None = None) -> ImageDataset:
    """Indexes folders of images and masks, and checks that they pair up.

    Args:
        root: the folder of the sets, or one set (a folder with `images` and `masks`).
        sets: names of the sets to take; by default all, in alphabetical order.

    Returns:
        The images, by set and name; items are called `SET/NAME`.

    Raises:
        InputError: a folder or set is missing, or images and masks do not pair up; the message names them.
    """
    root = require_folder(Path(root), "stills", "a folder of sets")
    if (root / "images").is_dir() and (root / "masks").is_dir():
        if sets is not None:
            raise InputError(f"sets: expected none, as {root} is a single set, received {', '.join(sets)}")
        folders = [root]
    else:
        known = sorted(path.name for path in root.iterdir() if (path / "images").is_dir())
        if not known:
            raise InputError(f"stills: no SET/images below {root}")
        unknown = sorted(set(sets or ()) - set(known))
        if unknown:
            raise InputError(f"sets: no {name_some(unknown)} in {root}; found: {', '.join(known)}")
        folders = [root / name for name in (known if sets is None else sets)]
    return ImageDataset(f"stills ({root})", [item for folder in folders for item in _index_set(folder)])


def _index_set(folder: Path) -> list[ImageItem]:
    masks_folder = require_folder(folder / "masks", "stills", "masks")
    files = sorted(path for path in (folder / "images").iterdir() if path.suffix.lower() in _SUFFIXES)
    images = {path.stem: path for path in files}
    if len(images) < len(files):
        others = sorted({path.stem for path in files if images[path.stem] != path})
        raise InputError(f"stills: several images in {folder} with one mask: {name_some(others)}")
    masks = {path.stem: path for path in masks_folder.glob("*.png")}
    for names, kind, other in (
        (set(images) - set(masks), "images", "mask"),
        (set(masks) - set(images), "masks", "image"),
    ):
        if names:
            raise InputError(
                f"stills: {len(names)} {kind} in {folder} without their {other}: {name_some(sorted(names))}"
            )
    return [
        ImageItem(f"{folder.name}/{stem}", images[stem], functools.partial(decode_mask, masks[stem]))
        for stem in sorted(images)
    ]
