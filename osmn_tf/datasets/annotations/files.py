"""Annotations from files of any format, and to them."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

from osmn_tf.datasets.annotations import coco, cvat, mots
from osmn_tf.datasets.annotations.archives import Archive, Folder
from osmn_tf.datasets.annotations.content import Annotations, indices_of
from osmn_tf.errors import InputError
from osmn_tf.files import OwnFolder, atomic_path, natural, write_bytes
from osmn_tf.masks.files import read_label_png, write_mask

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
        return mots.read_files(Folder(path)) if (path / "instances").is_dir() else _read_masks(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file or folder of annotations")
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return cvat.read_document(path.read_bytes(), str(path), interpolated)
    if suffix == ".json":
        return coco.read_document(path.read_bytes(), str(path))
    if suffix == ".zip":
        with Archive(path) as archive:
            for name in archive.names():
                if name.endswith(".xml"):
                    return cvat.read_document(archive.read(name), f"{path}/{name}", interpolated)
                if name.endswith(".json"):
                    return coco.read_document(archive.read(name), f"{path}/{name}")
            return mots.read_files(archive)
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
        write_bytes(path, cvat.document_of_video(annotations, path.stem))
    elif kind == "cvat-images":
        write_bytes(path, cvat.document_of_images(annotations, path.stem))
    elif kind == "coco":
        write_bytes(path, json.dumps(coco.document_of(annotations), separators=(",", ":")).encode())
    elif kind == "mots" and path.suffix.lower() == ".zip":
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, content in mots.files_of(annotations):
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
            for name, content in mots.files_of(annotations):
                write_bytes(folder.file(name), content)
    else:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, received {kind!r}")


def _read_masks(path: Path) -> Annotations:
    files = sorted((file for file in path.glob("*.png") if file.name[0] != "."), key=lambda file: natural(file.name))
    if not files:
        raise InputError(f"{path}: expected PNGs of masks, received none")
    masks = {index: read_label_png(file) for index, file in zip(indices_of([file.stem for file in files]), files)}
    size = next(iter(masks.values())).shape
    frame_names = dict(zip(masks, (file.stem for file in files)))
    return Annotations((size[0], size[1]), masks, frame_names)
